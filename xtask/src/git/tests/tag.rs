//! Tags, and who signs.

use std::path::Path;
use std::process::Command;

use super::*;

const MESSAGE: &str = "Release v0.1.0\n\n### Added\n\n- A thing, and\n  more of it.\n";

#[test]
fn an_annotated_tag_is_peeled_to_its_commit() {
    let (_dir, work) = repositories();
    let head = work.commit("HEAD").unwrap().unwrap();
    work.tag("v0.1.0", &head, MESSAGE).unwrap();
    work.run(["tag", "light", &head]).unwrap();
    work.run(["push", "--quiet", "origin", "light", "v0.1.0"]).unwrap();
    assert!(work.is_annotated("v0.1.0").unwrap() && !work.is_annotated("light").unwrap());
    assert_eq!(work.remote_ref("origin", "refs/tags/v0.1.0").unwrap(), Some(head.clone()));
    let tags = ["light", "v0.1.0"].map(|name| (name.to_owned(), head.clone()));
    assert_eq!(work.remote_tags("origin").unwrap(), tags);

    let refs = work.remote_refs("origin").unwrap();
    assert_eq!(refs.keys().collect::<Vec<_>>(), ["refs/heads/main", "refs/tags/light", "refs/tags/v0.1.0"]);
    assert!(refs.values().all(|commit| *commit == head));
}

#[test]
fn a_tag_says_its_message_and_when_it_was_made() {
    let (_dir, work) = repositories();
    let head = work.commit("HEAD").unwrap().unwrap();
    work.tag("v0.1.0", &head, MESSAGE).unwrap();
    assert_eq!(work.tag_message("v0.1.0").unwrap(), MESSAGE.trim_end());
    let made = |tag: &str| {
        work.run(["push", "--quiet", "origin", tag]).unwrap();
        work.remote_tag_time("origin", tag).unwrap()
    };
    let age = jiff::Timestamp::now().as_second() - made("v0.1.0").unwrap();
    assert!((0..600).contains(&age), "{age}");

    // A commit's message is no tag's, and a tag in a folder is another tag.
    work.run(["tag", "light"]).unwrap();
    work.tag("v1/a", &head, MESSAGE).unwrap();
    for name in ["light", "v1", "v9.9.9"] {
        assert_eq!(work.tag_message(name).unwrap(), "", "{name}");
    }
    assert_eq!(made("light"), None);
}

#[test]
fn a_branch_is_told_from_a_tag_of_its_name() {
    let (_dir, work) = repositories();
    work.run(["tag", "main"]).unwrap();
    assert_eq!(work.branch().unwrap().as_deref(), Some("main"));
}

#[test]
fn the_remotes_tag_replaces_the_one_here() {
    let (_dir, work) = repositories();
    let head = work.commit("HEAD").unwrap().unwrap();
    work.tag("v0.1.0", &head, "theirs").unwrap();
    work.run(["push", "--quiet", "origin", "v0.1.0"]).unwrap();
    let theirs = work.run(["rev-parse", "refs/tags/v0.1.0"]).unwrap();
    work.run(["tag", "--delete", "v0.1.0"]).unwrap();
    work.tag("v0.1.0", &head, "mine").unwrap();
    work.replace_tag_from("origin", "v0.1.0").unwrap();
    assert_eq!(work.run(["rev-parse", "refs/tags/v0.1.0"]).unwrap(), theirs);
    assert_eq!(work.tag_message("v0.1.0").unwrap(), "theirs");

    let error = work.replace_tag_from("origin", "v9.9.9").unwrap_err();
    assert_eq!(exit_code(&error), 1);
    assert!(error.to_string().starts_with("cannot fetch the tag v9.9.9 from origin"), "{error}");
}

/// Sets git to sign with a key of its own; `None` without ssh-keygen.
fn with_key(dir: &Path, work: &Git) -> Option<()> {
    if !tools::need("ssh-keygen", "openssh-client") {
        return None;
    }
    let key = dir.join("key");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status();
    assert!(made.unwrap().success());
    let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
    let signers = dir.join("signers");
    std::fs::write(&signers, format!("person@example.com {public}")).unwrap();
    let [key, signers] = [key, signers].map(|path| path.display().to_string());
    let settings =
        [("gpg.format", "ssh"), ("user.signingKey", &key), ("gpg.ssh.allowedSignersFile", &signers)];
    for (name, value) in settings {
        work.run(["config", name, value]).unwrap();
    }
    Some(())
}

#[test]
fn a_tag_is_signed_exactly_when_git_is_set_to() {
    let (dir, work) = repositories();
    let Some(()) = with_key(dir.path(), &work) else { return };
    let head = work.commit("HEAD").unwrap().unwrap();
    let signed = |settings: &[(&str, &str)]| {
        for name in ["tag.gpgSign", "tag.forceSignAnnotated", "commit.gpgSign"] {
            work.run(["config", name, "false"]).unwrap();
        }
        for (name, value) in settings {
            work.run(["config", name, value]).unwrap();
        }
        _ = work.run(["tag", "--delete", "v0.1.0"]);
        work.tag("v0.1.0", &head, MESSAGE).unwrap();
        assert!(work.is_annotated("v0.1.0").unwrap());
        assert_eq!(work.tag_message("v0.1.0").unwrap(), MESSAGE.trim_end(), "{settings:?}");
        work.run(["verify-tag", "v0.1.0"]).is_ok()
    };
    assert!(!signed(&[]));
    assert!(signed(&[("tag.gpgSign", "true")]));
    assert!(signed(&[("tag.forceSignAnnotated", "true")]));
    assert!(!signed(&[("commit.gpgSign", "true")]));
}

#[test]
fn a_commit_is_signed_exactly_when_git_is_set_to() {
    let (dir, work) = repositories();
    let Some(()) = with_key(dir.path(), &work) else { return };
    let parent = work.commit("HEAD").unwrap().unwrap();
    let signed = |setting: &str| {
        work.run(["config", "commit.gpgSign", setting]).unwrap();
        let commit = work.commit_files(&parent, &[("a.txt", "two\n")], "second\n").unwrap();
        assert_eq!(work.show(&commit, "a.txt").unwrap().as_deref(), Some("two\n"));
        work.run(["verify-commit", &commit]).is_ok()
    };
    assert!(!signed("false"));
    assert!(signed("true"));
    assert!(signed("yes"));

    // What git then says of the signature is no part of a log.
    work.run(["config", "log.showSignature", "true"]).unwrap();
    let commit = work.commit_files(&parent, &[("a.txt", "signed\n")], "a subject\n").unwrap();
    assert_eq!(work.subjects(Some(&parent), &commit).unwrap(), ["a subject"]);
    assert_eq!(work.log(&commit, &[]).unwrap()[0].message, "a subject");

    work.run(["config", "--unset", "commit.gpgSign"]).unwrap();
    work.run(["config", "tag.gpgSign", "true"]).unwrap();
    let commit = work.commit_files(&parent, &[("a.txt", "three\n")], "third\n").unwrap();
    assert!(work.run(["verify-commit", &commit]).is_err());
}
