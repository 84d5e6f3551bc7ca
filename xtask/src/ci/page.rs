//! The release on GitHub: a draft until all its files are there and were read back, published last. Whatever an
//! earlier run left is taken up: each step first looks at what is there. Drafts that people made are left alone.

use anyhow::{Context as _, Result};

use crate::fault::Fault;
use crate::github::{Github, Page};
use crate::version::Version;

/// What tells a draft of this tool's from one that somebody writes by hand; people do not see it.
const MARK: &str = "<!-- by cargo xtask ci publish -->";
/// GitHub takes 125,000 characters.
const LONGEST: usize = 100_000;

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
    tag: &str,
    version: &Version,
    notes: &str,
    files: &[File],
    latest: bool,
) -> Result<String> {
    let page = draft(github, tag, version, notes)?;
    for file in files {
        attach(github, tag, &page, file)?;
    }
    if page.draft {
        github
            .publish(page.id, version, latest)
            .or_else(|error| if_undone(published(github, tag)?.is_some(), error))?;
    }
    let shown = published(github, tag)?
        .filter(|shown| shown.id == page.id && shown.prerelease == version.is_prerelease());
    let shown = shown.with_context(|| {
        Fault::remote(format!("GitHub does not show the release {tag} that was published"))
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
fn draft(github: &Github, tag: &str, version: &Version, notes: &str) -> Result<Page> {
    let of_ours = || -> Result<Vec<Page>> {
        let mut pages = github.pages(tag)?;
        pages.retain(|page| !page.draft || page.body.as_ref().is_some_and(|body| body.contains(MARK)));
        // The published one first; it is the only one of its tag.
        pages.sort_by_key(|page| (page.draft, page.id));
        Ok(pages)
    };
    let mut pages = of_ours()?;
    if pages.is_empty() {
        match (github.draft(tag, version, &body(notes)), of_ours()?) {
            (Err(error), found) if found.is_empty() => return Err(error),
            // GitHub may take a moment to list it.
            (Ok(made), found) if found.is_empty() => pages = vec![made],
            (_, found) => pages = found,
        }
    }
    let mut pages = pages.into_iter();
    let kept = pages.next().context("there is no draft")?;
    // A published one was seen by people, whoever made it.
    for other in pages.filter(|page| page.draft) {
        github.remove(other.id)?;
    }
    Ok(kept)
}

/// The notes as GitHub takes them, with the mark.
fn body(notes: &str) -> String {
    let Some((end, _)) = notes.char_indices().nth(LONGEST) else { return format!("{notes}\n\n{MARK}") };
    let whole = notes[..end].rfind('\n').unwrap_or(end);
    format!("{}\n\n… the rest is in CHANGELOG.md.\n\n{MARK}", notes[..whole].trim_end())
}

/// Sees to it that the release has exactly these bytes under this name.
fn attach(github: &Github, tag: &str, page: &Page, file: &File) -> Result<()> {
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
    let now = github.pages(tag)?.into_iter().find(|now| now.id == page.id);
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

fn published(github: &Github, tag: &str) -> Result<Option<Page>> {
    Ok(github.published(tag)?.filter(|page| !page.draft))
}

/// An answer that was lost on its way is no failure: what counts is what GitHub has.
fn if_undone(done: bool, error: anyhow::Error) -> Result<()> {
    if done { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_notes_are_cut_at_a_line() {
        assert_eq!(body("- One."), format!("- One.\n\n{MARK}"));
        let long = body(&"- ä change\n".repeat(LONGEST / 10));
        assert!(long.chars().count() < LONGEST + 100);
        assert!(
            long.ends_with(&format!("- ä change\n\n… the rest is in CHANGELOG.md.\n\n{MARK}")),
            "{}",
            &long[long.len() - 200..]
        );
    }
}
