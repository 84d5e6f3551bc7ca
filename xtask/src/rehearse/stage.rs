//! The stage: bare repositories, a developer's checkout, an empty registry, and an infra repository from the template.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal};

use crate::changelog;
use crate::fault::Fault;
use crate::manifest;
use crate::pipeline::{self, Pipeline};
use crate::version::Version;

/// Its presence tells that a folder is a rehearsal's, and may be emptied.
const MARKER: &str = ".rehearsal";

#[derive(Debug)]
pub struct Stage {
    pub dir: PathBuf,
    /// The marker, locked: another rehearsal must not empty this folder meanwhile.
    _marker: fs::File,
}

impl Stage {
    /// Takes an absent or empty folder, or empties one that an earlier rehearsal left.
    pub fn open(dir: &Path) -> Result<Self> {
        let empty = !dir.exists() || fs::read_dir(dir)?.next().is_none();
        if !empty && !dir.join(MARKER).exists() {
            return Err(Fault::usage(format!("{} is not empty, and not from a rehearsal", dir.display()))
                .help("give --dir an empty folder")
                .into());
        }
        fs::create_dir_all(dir)?;
        let dir = &dir.canonicalize()?;
        let marker = fs::File::options().create(true).append(true).open(dir.join(MARKER))?;
        if marker.try_lock().is_err() {
            return Err(Fault::usage(format!("another rehearsal plays in {}", dir.display())).into());
        }
        if !empty {
            end_leftovers(dir)?;
            // The marker goes last, so that a kill in between leaves a folder that is still known.
            for entry in fs::read_dir(dir)? {
                let path = entry?.path();
                match path.file_name().is_some_and(|name| name == MARKER) {
                    true => {}
                    false if path.is_dir() => fs::remove_dir_all(&path)?,
                    false => fs::remove_file(&path)?,
                }
            }
        }
        fs::write(dir.join(MARKER), "made by cargo xtask rehearse; emptied by the next one\n")?;
        Ok(Self { dir: dir.clone(), _marker: marker })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub fn checkout(&self) -> PathBuf {
        self.path("checkout")
    }

    pub fn environment(&self, name: &str) -> PathBuf {
        self.path("environments").join(name)
    }

    /// Starts the checkout at version 0.0.0, with a pipeline that stays inside this folder.
    pub fn prepare_checkout(&self) -> Result<()> {
        let checkout = self.checkout();
        let real = Pipeline::load(&checkout)?;
        fs::write(checkout.join(pipeline::PATH), pipeline_text(&real)?)?;
        let zero: Version = "v0.0.0".parse()?;
        self.edit("Cargo.toml", |text| Ok(manifest::set_workspace_version(text, &zero)?))?;
        self.edit("Cargo.lock", |text| Ok(manifest::set_lock_versions(text, &["dojo", "xtask"], &zero)?))?;
        self.edit("CHANGELOG.md", |text| {
            let body = changelog::unreleased(text)?;
            let body = if body.is_empty() {
                "### Added\n\n- What this project has so far.".to_owned()
            } else {
                body
            };
            Ok(format!("# Changelog\n\n## [Unreleased]\n\n{body}\n"))
        })
    }

    /// Adds a migration, after which a file is of no use to earlier binaries unless `compatible`. Returns the file's name.
    pub fn add_migration(&self, compatible: bool) -> Result<String> {
        let schema = fs::read_to_string(self.checkout().join("dojo/migrations/schema.toml"))?;
        let mut schema: toml_edit::DocumentMut = schema.parse()?;
        let current = schema["current"].as_integer().context("dojo/migrations/schema.toml has no current")?;
        let next = current + 1;
        let oldest = schema["oldest_binary"].as_integer().filter(|_| compatible).unwrap_or(next);
        schema["current"] = toml_edit::value(next);
        schema["oldest_binary"] = toml_edit::value(oldest);
        fs::write(self.checkout().join("dojo/migrations/schema.toml"), schema.to_string())?;
        let name = format!("{next:04}_rehearsal.sql");
        let sql = format!(
            "-- oldest_binary: {oldest}\nCREATE TABLE rehearsal_{next} (note VARCHAR);\nINSERT INTO rehearsal_{next} VALUES ('was here');\n"
        );
        fs::write(self.checkout().join("dojo/migrations").join(&name), sql)?;
        Ok(name)
    }

    /// Adds a line to the changelog's Unreleased section.
    pub fn note_change(&self, kind: &str, line: &str) -> Result<()> {
        self.edit("CHANGELOG.md", |text| Ok(changelog::fill(text, &format!("### {kind}\n\n- {line}"))?))
    }

    /// Settings of git by which this program's next push waits until it has done this first, as if somebody else had.
    pub fn let_another_go_first(&self, program: &Path, args: &[&str]) -> Result<PathBuf> {
        let (hooks, settings) = (self.path("tmp/hooks"), self.path("tmp/gitconfig"));
        fs::create_dir_all(&hooks)?;
        let hook = hooks.join("pre-push");
        let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', "'\\''"));
        let text = format!(
            "#!/bin/sh\nunset $(git rev-parse --local-env-vars)\ncd {} && GIT_CONFIG_GLOBAL=/dev/null {} {} --yes >&2\n",
            quoted(&self.checkout()),
            quoted(program),
            args.join(" ")
        );
        fs::write(&hook, text)?;
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755))?;
        fs::write(&settings, format!("[core]\n\thooksPath = \"{}\"\n", hooks.display()))?;
        Ok(settings)
    }

    fn edit(&self, name: &str, change: impl FnOnce(&str) -> Result<String>) -> Result<()> {
        let path = self.checkout().join(name);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        fs::write(&path, change(&text)?).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Ends what a rehearsal that was killed outright left running: the processes that work in this folder.
fn end_leftovers(dir: &Path) -> Result<()> {
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        let works_here = fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
        if let Some(pid) = pid.filter(|pid| works_here && *pid != rustix::process::getpid()) {
            rustix::process::kill_process(pid, Signal::KILL)?;
        }
    }
    Ok(())
}

/// The rehearsal's `deploy/pipeline.yaml`: the project's names, this folder's places.
fn pipeline_text(real: &Pipeline) -> Result<String> {
    let Pipeline { image, repository, .. } = real;
    let [staging, production] = free_ports()?;
    Ok(format!(
        "# Written by `cargo xtask rehearse`: everything lies in this rehearsal's folder.
image: {image}
registry: oci:../registry
github: none
repository: {repository}
branch: master
infra: {{url: ../infra.git, branch: main}}
environments:
  - name: staging
    kustomization: dojo/staging/kustomization.yaml
    accepts: [edge, sha, release]
    url: http://127.0.0.1:{staging}
  - name: production
    kustomization: dojo/production/kustomization.yaml
    accepts: [release]
    after: staging
    url: http://127.0.0.1:{production}
"
    ))
}

/// Two ports nobody listens on; both are held until both are known, so that they differ.
fn free_ports() -> Result<[u16; 2]> {
    let held = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    Ok([held[0].local_addr()?.port(), held[1].local_addr()?.port()])
}

/// Copies a folder's files and folders.
pub fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
