//! A made-up project with a long history: what a release looks at, and what the two tools edit.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::project;

pub const COMMITS: usize = 20_000;
pub const TAGS: usize = 50;
/// So many commits go into a release, the last of which is half a round back.
const EACH: usize = COMMITS / TAGS;
/// The version that comes after the last tag.
pub const NEXT: &str = "v0.51.0";
/// Source files; each commit changes one of them.
const SOURCES: usize = 400;
/// Of so many commits two are a side branch, which the third merges.
const MERGES: usize = 25;
/// So many commits write one line of CHANGELOG.md.
const NOTES: usize = 20;
const MEMBERS: [&str; 2] = ["dojo", "xtask"];

/// What release-plz is told: versions are those of the tags, nobody's registry is asked, and no crate is compiled.
const RELEASE_PLZ: &str = "[workspace]
git_only = true
git_tag_name = 'v{{ version }}'
changelog_path = 'CHANGELOG.md'
semver_check = false
publish = false
";

/// A bare repository, and a clone of it for each tool.
pub struct Project {
    pub xtask: PathBuf,
    pub release_plz: PathBuf,
}

impl Project {
    pub fn make(folder: &Path) -> Self {
        git(folder, &["init", "--quiet", "--bare", "--initial-branch=master", "made.git"], "");
        git(&folder.join("made.git"), &["fast-import", "--quiet"], &stream());
        // As a server hands it out: one pack, and nothing that git makes for itself to be faster.
        git(folder, &["clone", "--quiet", "--bare", "--no-local", "made.git", "remote.git"], "");
        let clones = ["xtask", "release-plz"].map(|name| {
            git(folder, &["clone", "--quiet", "--no-local", "remote.git", name], "");
            folder.join(name)
        });
        let [xtask, release_plz] = clones;
        Self { xtask, release_plz }
    }

    /// Takes back what release-plz edited.
    pub fn restore(&self) {
        git(&self.release_plz, &["reset", "--quiet", "--hard"], "");
        git(&self.release_plz, &["clean", "--quiet", "--force", "-d"], "");
    }
}

/// Git with nobody's settings.
pub fn settings(command: &mut Command) {
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "A Person");
        command.env(format!("GIT_{who}_EMAIL"), "person@example.com");
    }
}

fn git(folder: &Path, args: &[&str], stdin: &str) {
    let mut command = Command::new("git");
    command.args(args).current_dir(folder).stdin(Stdio::piped());
    settings(&mut command);
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "git {args:?} in {}", folder.display());
}

/// The whole history, for `git fast-import`.
fn stream() -> String {
    let mut stream = String::new();
    let (mut released, mut notes) = (String::new(), String::new());
    for number in 0..COMMITS {
        let release = number % EACH == EACH / 2;
        let version = if number == 0 { "0.0.0".to_owned() } else { format!("0.{}.0", number / EACH + 1) };
        let merge = number > MERGES && number % MERGES == 10;
        let who = format!("A Person <person@example.com> {} +0000", 1_500_000_000 + number * 600);
        // Marks count from 1: the mark of the commit before is this one's number.
        _ = writeln!(stream, "commit refs/heads/master\nmark :{}\ncommitter {who}", number + 1);
        let subject = match number % 3 {
            _ if release => format!("release: v{version}"),
            _ if merge => format!("Merge branch 'topic-{number}'"),
            0 => format!("feat(ledger): reconcile statement {number}"),
            1 => format!("fix(http): answer request {number} in time"),
            _ => format!("chore: tidy up {number}"),
        };
        data(&mut stream, &subject);
        _ = match number {
            0 => Ok(()),
            _ if merge => writeln!(stream, "from :{}\nmerge :{number}", number - 2),
            _ => writeln!(stream, "from :{number}"),
        };
        // fast-import starts from the first parent's files; the side branch's come with the merge.
        for number in if merge { number - 2..=number } else { number..=number } {
            let path = format!("{}/src/part_{:03}.rs", MEMBERS[number % 2], number % SOURCES);
            file(&mut stream, &path, &format!("pub const CHANGED_BY: usize = {number};\n"));
        }
        if number == 0 {
            fixed(&mut stream);
        }
        if number.is_multiple_of(NOTES) {
            notes += &format!("- Statement {number} is reconciled.\n");
        }
        if release {
            released = format!("## [{version}] - 2026-01-02\n\n{notes}\n{released}");
            notes.clear();
        }
        if release || number.is_multiple_of(NOTES) {
            let text = format!("# Changelog\n\n## [Unreleased]\n\n{notes}\n{released}");
            file(&mut stream, "CHANGELOG.md", &text);
        }
        if release || number == 0 {
            versioned(&mut stream, &version);
        }
        if release {
            _ = writeln!(stream, "tag v{version}\nfrom :{}\ntagger {who}", number + 1);
            data(&mut stream, &format!("Release v{version}\n"));
        }
    }
    stream
}

/// The files that no release changes.
fn fixed(stream: &mut String) {
    file(stream, "deploy/pipeline.yaml", project::PIPELINE);
    file(stream, "release-plz.toml", RELEASE_PLZ);
    file(stream, ".gitignore", "/target\n");
    for member in MEMBERS {
        let manifest = format!(
            "[package]\nname = '{member}'\ndescription = 'made up'\nversion.workspace = true\nedition = '2024'\nlicense = 'MIT'\npublish = false\n"
        );
        file(stream, &format!("{member}/Cargo.toml"), &manifest);
        file(stream, &format!("{member}/src/lib.rs"), "//! Made up.\n");
    }
}

/// The files with the version in them.
fn versioned(stream: &mut String, version: &str) {
    let members = MEMBERS.map(|member| format!("'{member}'")).join(", ");
    let manifest = format!(
        "[workspace]\nmembers = [{members}]\nresolver = '3'\n\n[workspace.package]\nversion = '{version}'\n"
    );
    file(stream, "Cargo.toml", &manifest);
    let locked = MEMBERS.map(|name| format!("\n[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n"));
    file(stream, "Cargo.lock", &format!("version = 4\n{}", locked.concat()));
    let overlay = format!(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n  - ../../base\nimages:\n  - name: ghcr.io/blogle/dojo\n    newTag: v{version}\n"
    );
    file(stream, "deploy/k8s/overlays/production/kustomization.yaml", &overlay);
}

fn file(stream: &mut String, path: &str, text: &str) {
    _ = writeln!(stream, "M 100644 inline {path}");
    data(stream, text);
}

fn data(stream: &mut String, text: &str) {
    _ = writeln!(stream, "data {}\n{text}", text.len());
}
