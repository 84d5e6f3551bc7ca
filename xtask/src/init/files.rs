//! The files of a checkout that name its owner: found by what git tracks, and each replaced in one step.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::plan::Renaming;
use crate::fault::Fault;
use crate::git::Git;
use crate::kustomization::{self, Target};
use crate::pipeline::{PATH, Pipeline};

/// Programs, whose tests and examples may name anybody.
const PROGRAMS: [&str; 2] = ["xtask/", "dojo/"];
/// What an infra repository starts with.
const TEMPLATE: &str = "deploy/infra-template/";

/// A file that is to be written.
#[derive(Debug, Serialize)]
pub struct File {
    /// From the checkout; where it is to lie outside, as it was told.
    #[serde(rename = "file")]
    pub name: String,
    #[serde(skip)]
    path: PathBuf,
    #[serde(skip)]
    before: Option<String>,
    #[serde(skip)]
    after: String,
    /// Whose mode it gets.
    #[serde(skip)]
    like: PathBuf,
    changes: Vec<Line>,
}

/// A line that changes.
#[derive(Debug, Serialize)]
struct Line {
    line: usize,
    before: String,
    after: String,
}

impl File {
    /// The temporary file has a name that a second run writes over, so a kill leaves nothing for good.
    pub fn write(&self) -> Result<()> {
        let write = || -> std::io::Result<()> {
            if let Some(folder) = self.path.parent() {
                fs::create_dir_all(folder)?;
            }
            let mut new = self.path.clone().into_os_string();
            new.push(".init~");
            fs::write(&new, &self.after)?;
            fs::set_permissions(&new, fs::metadata(&self.like)?.permissions())?;
            fs::rename(&new, &self.path)
        };
        write().with_context(|| Fault::usage(format!("cannot write {}", self.path.display())))
    }
}

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        for Line { line, before, after } in &self.changes {
            write!(f, "\n{line:5} - {}\n      + {}", before.trim(), after.trim())?;
        }
        Ok(())
    }
}

/// The files that change, deploy/pipeline.yaml last. One of them with changes that are not committed is refused.
pub fn gather(git: &Git, root: &Path, renaming: &Renaming) -> Result<Vec<File>> {
    let mut files = Vec::new();
    let names = git.tracked()?.into_iter();
    for name in names.filter(|name| !PROGRAMS.iter().any(|folder| name.starts_with(folder))) {
        let path = root.join(&name);
        let Some(before) = text(&path)? else { continue };
        let after = renaming.rewrite(&name, &before)?;
        if after != before {
            let changes = changes(&before, &after);
            files.push(File { name, like: path.clone(), path, before: Some(before), after, changes });
        }
    }
    let edited = git.edited()?;
    let dirty: Vec<_> =
        files.iter().map(|file| &file.name).filter(|name| edited.contains(name)).cloned().collect();
    if !dirty.is_empty() {
        return Err(Fault::refused(format!("changes that are not committed: {}", dirty.join(", ")))
            .help("git commit them, or git restore the files; then run the same command again")
            .into());
    }
    files.sort_by_key(|file| file.name == PATH);
    Ok(files)
}

/// The text of a regular file; `None` of anything else.
fn text(path: &Path) -> Result<Option<String>> {
    if !path.symlink_metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Ok(None);
    }
    let bytes = fs::read(path).with_context(|| Fault::usage(format!("cannot read {}", path.display())))?;
    Ok(String::from_utf8(bytes).ok())
}

fn changes(before: &str, after: &str) -> Vec<Line> {
    let lines = before.lines().zip(after.lines()).enumerate();
    let line = |(index, (before, after)): (usize, (&str, &str))| {
        let (before, after) = (before.to_owned(), after.to_owned());
        (before != after).then_some(Line { line: index + 1, before, after })
    };
    lines.filter_map(line).collect()
}

/// Reads what would be written, as all other commands will: deploy/pipeline.yaml has the new names, and each kustomization
/// pins by them what it pinned by the old ones.
pub fn check(files: &[File], now: &Pipeline, renaming: &Renaming) -> Result<(), Fault> {
    let written = files.iter().find(|file| file.name == PATH);
    let new = written.map_or_else(|| Ok(now.clone()), |file| Pipeline::parse(&file.after))?;
    let has = (&new.image, &new.repository, &new.infra.url, &new.tag_prefix);
    if has != (&renaming.image, &renaming.repository, &renaming.infra, &renaming.tag_prefix) {
        return Err(Fault::refused(format!("{PATH} does not say all of it where it is looked for")).help(
            "write image, repository and infra's url each as one plain or quoted text, and tag_prefix: \"\" in double quotes",
        ));
    }
    for File { name, before, after, .. } in files {
        if !name.ends_with("/kustomization.yaml") {
            continue;
        }
        let pin = |text: &str, image: &str, source: &str| {
            kustomization::read(text, &Target { path: name, image, source: Some(source), comment: false })
        };
        if let Ok(was) = pin(before.as_deref().unwrap_or_default(), &now.image, &now.repository)
            && pin(after, &renaming.image, &renaming.repository)? != was
        {
            return Err(Fault::refused(format!("{name} would no longer pin what it does now"))
                .help("write the image's name and the resource's address each as one plain or quoted text"));
        }
    }
    Ok(())
}

/// The infra repository's first files that `folder` does not have yet. One that is there with another text is refused.
pub fn infra(git: &Git, root: &Path, renaming: &Renaming, folder: &Path) -> Result<Vec<File>> {
    let mut files = Vec::new();
    for name in git.tracked()? {
        let Some(inner) = name.strip_prefix(TEMPLATE) else { continue };
        let (like, path) = (root.join(&name), folder.join(inner));
        let Some(template) = text(&like)? else { continue };
        let after = renaming.rewrite(&name, &template)?;
        if path.symlink_metadata().is_err() {
            let name = path.display().to_string();
            files.push(File { name, path, before: None, after, like, changes: Vec::new() });
        } else if text(&path)?.as_ref() != Some(&after) {
            return Err(Fault::refused(format!("{} is there with another text", path.display()))
                .help("give --infra-out a folder that is new or empty")
                .into());
        }
    }
    Ok(files)
}
