//! Against real repositories.

use super::push::judge_push;
use super::*;

mod history;
mod tag;
#[allow(clippy::duplicate_mod, reason = "the unit tests of another module need it too")]
#[path = "../../tests/tools/mod.rs"]
mod tools;

/// A bare repository with one commit on `main`, and a clone of it.
fn repositories() -> (tempfile::TempDir, Git) {
    let dir = tempfile::tempdir().unwrap();
    let sh = shell(dir.path()).unwrap();
    let run = |line: &[&str]| succeed(git(&sh).args(line)).unwrap();
    run(&["init", "--quiet", "--bare", "--initial-branch=main", "remote.git"]);
    run(&["init", "--quiet", "--initial-branch=main", "work"]);
    let work = Git::at(dir.path().join("work"));
    for (key, value) in [
        ("user.name", "A Person"),
        ("user.email", "person@example.com"),
        ("commit.gpgSign", "false"),
        ("tag.gpgSign", "false"),
        ("tag.forceSignAnnotated", "false"),
    ] {
        work.run(["config", key, value]).unwrap();
    }
    std::fs::write(dir.path().join("work/a.txt"), "one\n").unwrap();
    work.run(["add", "."]).unwrap();
    work.run(["commit", "--quiet", "-m", "first"]).unwrap();
    work.run(["remote", "add", "origin", "../remote.git"]).unwrap();
    work.run(["push", "--quiet", "origin", "main"]).unwrap();
    (dir, work)
}

#[test]
fn a_commit_is_made_without_touching_the_work_tree() {
    let (dir, work) = repositories();
    let parent = work.commit("HEAD").unwrap().unwrap();
    let commit = work
        .commit_files(&parent, &[("a.txt", "two\n"), ("new/b.txt", "b\n")], "second\n\nKey: value\n")
        .unwrap();
    assert_eq!(work.show(&commit, "a.txt").unwrap().as_deref(), Some("two\n"));
    assert_eq!(work.show(&commit, "new/b.txt").unwrap().as_deref(), Some("b\n"));
    assert_eq!(std::fs::read_to_string(dir.path().join("work/a.txt")).unwrap(), "one\n");
    assert_eq!(work.dirty().unwrap(), Vec::<String>::new());
    assert_eq!(work.push("origin", &commit, "refs/heads/main", Some(&parent)).unwrap(), Push::Done);
    assert_eq!(work.remote_ref("origin", "refs/heads/main").unwrap(), Some(commit.clone()));
    work.fast_forward(&commit).unwrap();
    assert_eq!(std::fs::read_to_string(dir.path().join("work/a.txt")).unwrap(), "two\n");
    let log = work.log("HEAD", &["a.txt"]).unwrap();
    assert_eq!(log.iter().map(|c| c.message.as_str()).collect::<Vec<_>>(), ["second\n\nKey: value", "first"]);
}

#[test]
fn a_files_text_is_exactly_what_was_committed() {
    let (dir, work) = repositories();
    let parent = work.commit("HEAD").unwrap().unwrap();
    for text in ["", "\n", "one", "one\r\n\n", "a.txt missing\n", "\u{fc}\0"] {
        let commit = work.commit_files(&parent, &[("dir/a b.txt", text)], "text").unwrap();
        assert_eq!(work.show(&commit, "dir/a b.txt").unwrap().as_deref(), Some(text), "{text:?}");
        assert_eq!(work.show(&commit, "b.txt").unwrap(), None);
        assert_eq!(work.show("nowhere", "a.txt").unwrap(), None);
        let error = work.show(&commit, "dir").unwrap_err();
        assert_eq!((exit_code(&error), error.to_string()), (3, format!("dir at {commit} is no file")));
    }
    std::fs::write(dir.path().join("work/a.txt"), b"\xff").unwrap();
    work.run(["commit", "--quiet", "--all", "-m", "bytes"]).unwrap();
    let error = work.show("HEAD", "a.txt").unwrap_err().to_string();
    assert_eq!(error, "a.txt at HEAD is not UTF-8");
}

#[test]
fn a_push_onto_a_moved_branch_is_a_race_and_a_hooks_no_is_not() {
    let (dir, work) = repositories();
    let parent = work.commit("HEAD").unwrap().unwrap();
    let mine = work.commit_files(&parent, &[("a.txt", "mine\n")], "mine").unwrap();
    let theirs = work.commit_files(&parent, &[("a.txt", "theirs\n")], "theirs").unwrap();
    assert_eq!(work.push("origin", &theirs, "refs/heads/main", Some(&parent)).unwrap(), Push::Done);
    assert!(matches!(work.push("origin", &mine, "refs/heads/main", Some(&parent)).unwrap(), Push::Raced(_)));

    let hook = dir.path().join("remote.git/hooks/pre-receive");
    std::fs::write(&hook, "#!/bin/sh\necho 'error: GH006: protected branch' >&2\nexit 1\n").unwrap();
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let next = work.commit_files(&theirs, &[("a.txt", "next\n")], "next").unwrap();
    let error = work.push("origin", &next, "refs/heads/main", Some(&theirs)).unwrap_err();
    assert_eq!(exit_code(&error), 3);
    assert!(error.to_string().contains("GH006"), "{error}");
    assert_eq!(work.remote_ref("origin", "refs/heads/main").unwrap(), Some(theirs));
}

#[test]
fn a_branch_that_was_taken_back_is_not_brought_back() {
    let (_dir, work) = repositories();
    let first = work.commit("HEAD").unwrap().unwrap();
    let taken_back = work.commit_files(&first, &[("a.txt", "taken back\n")], "taken back").unwrap();
    work.push("origin", &taken_back, "refs/heads/main", Some(&first)).unwrap();
    let mine = work.commit_files(&taken_back, &[("a.txt", "mine\n")], "mine").unwrap();
    work.run(["push", "--quiet", "--force", "origin", &format!("{first}:refs/heads/main")]).unwrap();
    assert!(matches!(
        work.push("origin", &mine, "refs/heads/main", Some(&taken_back)).unwrap(),
        Push::Raced(_)
    ));
    assert_eq!(work.remote_ref("origin", "refs/heads/main").unwrap(), Some(first));
}

#[test]
fn a_ref_that_cannot_be_locked_though_nobody_moved_it_is_no_race() {
    let (dir, work) = repositories();
    let parent = work.commit("HEAD").unwrap().unwrap();
    let mine = work.commit_files(&parent, &[("a.txt", "mine\n")], "mine").unwrap();
    std::fs::write(dir.path().join("remote.git/refs/heads/main.lock"), "").unwrap();
    let error = work.push("origin", &mine, "refs/heads/main", Some(&parent)).unwrap_err();
    assert_eq!(exit_code(&error), 1);
    assert!(error.to_string().contains("nobody moved it"), "{error}");
}

#[test]
fn a_folder_that_is_no_repository_is_an_error_and_not_an_empty_one() {
    let folder = tempfile::tempdir().unwrap();
    let error = Git::at(folder.path()).commit("HEAD").unwrap_err().to_string();
    assert!(error.contains("not a git repository"), "{error}");
}

#[test]
fn an_unreachable_remote_is_an_error_and_no_url_leaks_its_password() {
    let (_dir, work) = repositories();
    let error = work.remote_ref("http://user:hunter2@127.0.0.1:1/x.git", "refs/heads/main").unwrap_err();
    assert_eq!(exit_code(&error), 1);
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    // A long one is not cut in two before it is struck out.
    let long = format!("http://user:{}@127.0.0.1:1/x.git", "s3cret".repeat(60));
    let error = work.remote_ref(&long, "refs/heads/main").unwrap_err();
    assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
    assert_eq!(
        without_credentials("fatal: 'https://a:b@h/x' and ssh://git@h/y"),
        "fatal: 'https://***@h/x' and ssh://***@h/y"
    );
}

#[test]
fn the_three_wordings_of_a_lost_race() {
    for line in [
        "!\tabc:refs/heads/main\t[rejected] (fetch first)",
        "!\tabc:refs/heads/main\t[rejected] (stale info)",
        "!\tabc:refs/heads/main\t[remote rejected] (failed to update ref)",
    ] {
        assert!(matches!(judge_push(line, "", "origin", "refs/heads/main"), Ok(Push::Raced(_))), "{line}");
    }
}
