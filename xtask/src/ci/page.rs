//! The release on GitHub: a draft until all its files are there and were read back, published last. Whatever an
//! earlier run left is taken up: each step first looks at what is there.

use anyhow::{Context as _, Result};

use crate::fault::Fault;
use crate::github::{Github, Page};
use crate::version::Version;

/// A file that a release carries.
#[derive(Debug)]
pub struct File {
    pub name: String,
    pub media_type: &'static str,
    pub bytes: Vec<u8>,
}

/// Publishes the release with its files and gives its URL; `latest` puts it on the repository's front page.
pub fn publish(
    github: &Github,
    version: &Version,
    notes: &str,
    files: &[File],
    latest: bool,
) -> Result<String> {
    let page = draft(github, version, notes)?;
    for file in files {
        attach(github, version, &page, file)?;
    }
    if page.draft {
        github
            .publish(page.id, latest)
            .or_else(|error| if_undone(published(github, version)?.is_some(), error))?;
    }
    let shown = published(github, version)?.filter(|shown| shown.id == page.id);
    let shown = shown.with_context(|| {
        Fault::remote(format!("GitHub does not show the release {version} that was published"))
            .help("run the same command again")
    })?;
    match files.iter().find(|file| !shown.assets.iter().any(|asset| asset.name == file.name)) {
        None => Ok(shown.html_url),
        Some(file) => Err(Fault::remote(format!("{} lacks {}", shown.html_url, file.name))
            .help("run the same command again")
            .into()),
    }
}

/// The release that there is, or a new draft. Of several drafts, as two runs at once leave them, the oldest stays.
fn draft(github: &Github, version: &Version, notes: &str) -> Result<Page> {
    let mut pages = github.pages(version)?;
    if pages.is_empty() {
        let made = github.draft(version, notes);
        pages = github.pages(version)?;
        if let Err(error) = made {
            if_undone(!pages.is_empty(), error)?;
        }
    }
    let at = pages.iter().position(|page| !page.draft).unwrap_or(0);
    if pages.is_empty() {
        return Err(Fault::remote(format!("GitHub does not list the draft {version} that was made"))
            .help("run the same command again")
            .into());
    }
    let kept = pages.swap_remove(at);
    for other in pages.iter().filter(|other| other.draft) {
        github.remove(other.id)?;
    }
    Ok(kept)
}

/// Sees to it that the release has exactly these bytes under this name.
fn attach(github: &Github, version: &Version, page: &Page, file: &File) -> Result<()> {
    let name = &file.name;
    let found = page.assets.iter().find(|asset| asset.name == *name);
    if let Some(asset) = found {
        if asset.state == "uploaded" && github.download(asset)? == file.bytes {
            return Ok(());
        }
        // What everybody may have seen is not swapped under their hands.
        if !page.draft {
            return Err(Fault::refused(format!("{}: {name} is not what this version's is", page.html_url))
                .help("look at who changed it; delete that file there to have it made again")
                .into());
        }
        github.remove_asset(asset.id)?;
    }
    let sent = github.upload(page.id, name, file.media_type, &file.bytes);
    let now = github.pages(version)?.into_iter().find(|now| now.id == page.id);
    let there = now.and_then(|now| now.assets.into_iter().find(|asset| asset.name == *name));
    let same = match there.filter(|asset| asset.state == "uploaded") {
        Some(asset) => github.download(&asset)? == file.bytes,
        None => false,
    };
    if same {
        return Ok(());
    }
    sent?;
    Err(Fault::remote(format!("{}: {name} does not read back as it was sent", page.html_url))
        .help("run the same command again")
        .into())
}

fn published(github: &Github, version: &Version) -> Result<Option<Page>> {
    Ok(github.published(version)?.filter(|page| !page.draft))
}

/// An answer that was lost on its way is no failure: what counts is what GitHub has.
fn if_undone(done: bool, error: anyhow::Error) -> Result<()> {
    if done { Ok(()) } else { Err(error) }
}
