//! The version behind a ref that is a commit, for people: `- github.com/OWNER/NAME//PATH?ref=<40 hex> # v0.2.0`.
//!
//! A comment that is one version and nothing else is taken for ours. Every other one is a person's and stays, and
//! nothing is put beside it; nor is anything put into a list in brackets, where a comment could swallow what follows.

use std::ops::Range;

use crate::fault::Fault;
use crate::kustomization::site::{self, Pinned, refused};
use crate::kustomization::splice::{self, Edit};
use crate::kustomization::tree::{self, Comment};
use crate::kustomization::{Target, is_commit, parse};
use crate::version::Version;

/// The version to note: the tag, if it is one and the ref is a commit.
pub fn version<'a>(git_ref: &str, tag: Option<&'a str>) -> Option<&'a str> {
    tag.filter(|tag| is_commit(git_ref) && Version::from_tag(tag).is_some())
}

/// Lets exactly this version, or none, stand behind each remote resource of the source.
pub fn write(text: &str, target: &Target<'_>, version: Option<&str>) -> Result<String, Fault> {
    let tree = parse(text, target)?;
    let site = site::locate(text, tree.root.as_ref(), target)?;
    let mut meant: Vec<_> = tree.comments().map(str::to_owned).map(Some).collect();
    let mut edits = Vec::new();
    // From the last to the first, so that what is put in moves nothing that is still to come.
    for remote in site.remotes.iter().rev() {
        let place = remote.node.span.end..splice::line_end(text, remote.node.span.end).0;
        let index = tree.comments.partition_point(|comment| comment.start < place.start);
        let comment = tree.comments.get(index).filter(|comment| place.contains(&comment.start));
        let Some(edit) = edit(text, remote, place.clone(), comment, version) else { continue };
        match (comment, version) {
            // Blanks at the line's end are the comment's from now on.
            (None, Some(version)) => meant.insert(index, Some(format!(" {version}{}", &text[place]))),
            (Some(comment), Some(version)) => {
                meant[index] = Some(comment.text.replacen(comment.text.trim(), version, 1));
            }
            (_, None) => meant[index] = None,
        }
        edits.insert(0, edit);
    }
    let result = splice::apply(text, &edits);
    let spans: Vec<_> = edits.iter().map(|edit| edit.at.clone()).collect();
    let same = tree::parse(&result).is_ok_and(|after| after.comments().eq(meant.iter().flatten()));
    if same && splice::confined(text, &result, &spans) {
        return Ok(result);
    }
    Err(refused(target.path, site.entry.line, "the version cannot be noted as a comment behind its ref"))
}

/// The change between the URL's end and its line's.
fn edit(
    text: &str,
    remote: &Pinned<'_>,
    place: Range<usize>,
    comment: Option<&Comment>,
    version: Option<&str>,
) -> Option<Edit> {
    let Some(comment) = comment else {
        let version = version.filter(|_| !remote.flow && text[place.clone()].trim().is_empty())?;
        return Some(Edit { at: place.start..place.start, with: format!(" # {version}") });
    };
    let between = text.get(place.start..comment.start)?;
    let noted = comment.text.trim();
    Version::from_tag(noted).filter(|_| between.trim().trim_start_matches(',').is_empty())?;
    Some(match version {
        Some(version) => {
            let start = comment.start + 1 + comment.text.find(noted)?;
            Edit { at: start..start + noted.len(), with: version.to_owned() }
        }
        None => Edit { at: place.start + between.trim_end().len()..place.end, with: String::new() },
    })
}
