//! What one environment's kustomization pins: the image's tag and digest, and the `?ref=` of its manifests.
//!
//! Text in, text out. A change replaces the bytes of the values and leaves every other byte, comments and
//! spacing included; it is then read again by another parser and compared with what was meant. Where the file
//! could mean something else than it seems to, the change is refused and says why. Rendering is the caller's.

#[cfg(test)]
mod generated;
#[cfg(test)]
mod mutated;
mod note;
mod remote;
#[cfg(test)]
mod rendered;
mod scalar;
mod site;
mod splice;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod traps;
mod tree;

use std::ops::Range;

use serde_yaml::Value;

use crate::fault::Fault;
use crate::image::Digest;
use crate::version::Version;
use remote::Remote;
use site::{DIGEST, REMOTES, Site, TAG, refused};
use splice::Edit;
use tree::Tree;

/// What one environment's kustomization pins of one image and its manifests.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Pin {
    /// The `?ref=` of the manifests' remote resources.
    pub git_ref: Option<String>,
    /// `newTag`.
    pub tag: Option<String>,
    /// `digest`.
    pub digest: Option<Digest>,
}

impl Pin {
    /// Nothing is pinned, or the infra template's `v0.0.0`.
    pub fn is_nothing(&self) -> bool {
        let zero = |tag: &str| Version::from_tag(tag).is_some_and(|version| version.is_zero());
        self.digest.is_none() && self.tag.as_deref().is_none_or(zero)
    }

    /// How it is called: its tag, else its digest.
    pub fn name(&self) -> &str {
        if self.is_nothing() {
            return "nothing";
        }
        self.tag.as_deref().or(self.digest.as_ref().map(Digest::as_str)).unwrap_or("nothing")
    }
}

/// Whether a ref is a commit's whole name, which cannot move.
pub fn is_commit(git_ref: &str) -> bool {
    git_ref.len() == 40 && git_ref.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Which pin is meant.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The file's path, for messages.
    pub path: &'a str,
    /// The image's name without a tag, as the entry's `name` has it.
    pub image: &'a str,
    /// The repository whose remote resources carry the ref, as `github.com/OWNER/NAME`; `None` if there are none.
    pub source: Option<&'a str>,
    /// Whether `write` keeps the version as a comment behind a ref that is a commit: `?ref=<40 hex> # v0.2.0`.
    pub comment: bool,
}

/// Reads the pin. Resources of the source that disagree on the ref are refused.
pub fn read(text: &str, target: &Target<'_>) -> Result<Pin, Fault> {
    let tree = parse(text, target)?;
    let site = site::locate(text, tree.root.as_ref(), target)?;
    let digest = value(&site, DIGEST, target)?
        .map(|(line, digest)| digest.parse().map_err(|fault: Fault| refused(target.path, line, fault)));
    Ok(Pin {
        git_ref: git_ref(text, &site, target)?,
        tag: value(&site, TAG, target)?.map(|(_, tag)| tag.to_owned()),
        digest: digest.transpose()?,
    })
}

/// Writes the pin: `git_ref` and `tag` are set if given and else left as they are; `digest` is set if given and
/// else taken away, since a digest left beside another tag would decide what runs.
pub fn write(text: &str, target: &Target<'_>, pin: &Pin) -> Result<String, Fault> {
    check(pin, target)?;
    let mut result = text.to_owned();
    if let Some(tag) = &pin.tag {
        result = step(&result, target, |text, site| entry_edit(text, site, TAG, Some(tag)))?;
    }
    let digest = pin.digest.as_ref().map(Digest::as_str);
    result = step(&result, target, |text, site| entry_edit(text, site, DIGEST, digest))?;
    if let Some(git_ref) = &pin.git_ref {
        result = step(&result, target, |text, site| Ok(ref_edits(text, site, git_ref)))?;
        if target.comment {
            result = note::write(&result, target, note::version(git_ref, pin.tag.as_deref()))?;
        }
    }
    verify(text, &result, target, pin)?;
    Ok(result)
}

/// Refuses a kustomization whose `resources` lack this file.
pub fn lists_resource(text: &str, path: &str, file: &str) -> Result<(), Fault> {
    let root: Value = serde_yaml::from_str(text).unwrap_or_default();
    let resources = root.get("resources").and_then(Value::as_sequence).into_iter().flatten();
    if resources.into_iter().filter_map(Value::as_str).any(|name| name.trim_start_matches("./") == file) {
        return Ok(());
    }
    Err(Fault::refused(format!("{path} does not list {file}, where its rendered manifests would lie"))
        .help(format!("write `resources: [{file}]` in it in place of the remote resource, and commit that")))
}

fn check(pin: &Pin, target: &Target<'_>) -> Result<(), Fault> {
    if let Some(tag) = pin.tag.as_deref().filter(|tag| !scalar::is_tag(tag)) {
        return Err(Fault::refused(format!("not an image tag: {tag:?}"))
            .help("a tag has up to 128 letters, digits, _ . and -, and begins with neither . nor -"));
    }
    if let Some(git_ref) = pin.git_ref.as_deref().filter(|git_ref| !scalar::is_ref(git_ref)) {
        return Err(Fault::refused(format!("not a git ref that a URL can carry: {git_ref:?}"))
            .help("use a tag's or a branch's name, or all 40 hex digits of a commit"));
    }
    if pin.git_ref.is_some() && target.source.is_none() {
        return Err(Fault::usage(format!("{}: a ref is given, but not whose", target.path))
            .help("name the repository of the remote resources, as github.com/OWNER/NAME"));
    }
    Ok(())
}

fn parse(text: &str, target: &Target<'_>) -> Result<Tree, Fault> {
    tree::parse(text).map_err(|trouble| refused(target.path, trouble.line, trouble.message))
}

/// A field's line and text; `None` if it is missing or empty.
fn value<'t>(site: &Site<'t>, name: &str, target: &Target<'_>) -> Result<Option<(usize, &'t str)>, Fault> {
    let Some((key, node)) = site.fields.iter().find(|(key, _)| key.text() == Some(name)) else {
        return Ok(None);
    };
    let text = node.text().unwrap_or_default();
    if node.is_null() || text.is_empty() {
        return Ok(None);
    }
    let plain = matches!(node.kind, tree::Kind::Scalar { style: tree::Style::Plain, .. });
    if plain && !scalar::is_text_unquoted(text) {
        let message = format!("{name}: {text} is not text to YAML, and kustomize fails on it");
        return Err(refused(target.path, key.line, message).help(format!("quote it: {name}: \"{text}\"")));
    }
    if name == TAG && !scalar::is_tag(text) {
        return Err(refused(target.path, key.line, format!("{name} is no image tag: {text:?}"))
            .help("a digest has a key of its own: digest"));
    }
    Ok(Some((key.line, text)))
}

fn git_ref(text: &str, site: &Site<'_>, target: &Target<'_>) -> Result<Option<String>, Fault> {
    let of = |range: &Option<Range<usize>>| {
        range.clone().and_then(|range| text.get(range)).filter(|r| !r.is_empty())
    };
    if let Some(remote) = site.remotes.iter().find(|remote| remote.bare() && remote.url.contains('?')) {
        let message = "kustomize fails on a question mark in brackets without quotes";
        return Err(refused(target.path, remote.node.line, message).help("put the address in quotes"));
    }
    let Some((first, others)) = site.remotes.split_first() else { return Ok(None) };
    let git_ref = of(&first.git_ref);
    if let Some(other) = others.iter().find(|other| of(&other.git_ref) != git_ref) {
        let show =
            |git_ref: Option<&str>| git_ref.map_or("no ref".to_owned(), |git_ref| format!("ref {git_ref}"));
        let message =
            format!("{} here, but {} in line {}", show(of(&other.git_ref)), show(git_ref), first.node.line);
        return Err(refused(target.path, other.node.line, message)
            .help("the manifests of one environment come from one ref: make them the same"));
    }
    Ok(git_ref.map(str::to_owned))
}

/// The edits of one field of the entry; `None` takes it away.
fn entry_edit(
    text: &str,
    site: &Site<'_>,
    name: &str,
    value: Option<&str>,
) -> Result<Vec<Edit>, &'static str> {
    let field = site.field(name);
    let edit = match (field, value) {
        (Some(field), Some(value)) => splice::set(text, field, value)?,
        (None, Some(value)) => {
            let neighbours =
                if name == DIGEST { &[TAG, "newName", "name"][..] } else { &["newName", "name"] };
            Some(splice::add(text, site, neighbours, name, value).ok_or("there is no key to put it beside")?)
        }
        // An empty one pins nothing and may stay.
        (Some((_, node)), None) if !node.is_null() && node.text() != Some("") => {
            Some(splice::remove(text, site, name).ok_or("there is no safe way to take it away")?)
        }
        (_, None) => None,
    };
    Ok(edit.into_iter().collect())
}

fn ref_edits(text: &str, site: &Site<'_>, git_ref: &str) -> Vec<Edit> {
    site.remotes
        .iter()
        .map(|remote| {
            let span = &remote.node.span;
            // Before the closing quote, if there is one.
            let end = span.end - (span.len() - remote.url.len()) / 2;
            let (at, with) = match &remote.git_ref {
                Some(at) => (at.clone(), git_ref.to_owned()),
                None => (end..end, remote::addition(remote.url, git_ref)),
            };
            if remote.bare() {
                let url = format!("{}{with}{}", &text[span.start..at.start], &text[at.end..span.end]);
                return Edit { at: span.clone(), with: scalar::render(&url, tree::Style::Double) };
            }
            Edit { at, with }
        })
        .collect()
}

/// Locates the pin, edits it, and holds the bytes of the result against those of the text.
fn step(
    text: &str,
    target: &Target<'_>,
    edits: impl Fn(&str, &Site<'_>) -> Result<Vec<Edit>, &'static str>,
) -> Result<String, Fault> {
    let tree = parse(text, target)?;
    let site = site::locate(text, tree.root.as_ref(), target)?;
    let unsafe_edit = |why: &str| {
        refused(
            target.path,
            site.entry.line,
            format!("the entry is written in a form that is not edited: {why}"),
        )
        .help("write it as a block: name, newTag and digest each on a line")
    };
    let edits = edits(text, &site).map_err(unsafe_edit)?;
    let result = splice::apply(text, &edits);
    let allowed = allowed(text, &site);
    let inside =
        |edit: &Edit| allowed.iter().any(|span| span.start <= edit.at.start && edit.at.end <= span.end);
    let spans: Vec<_> = edits.iter().map(|edit| edit.at.clone()).collect();
    if !edits.iter().all(inside) || !splice::confined(text, &result, &spans) {
        return Err(unsafe_edit("the change would reach beyond it"));
    }
    match tree::parse(&result) {
        Ok(after) if after.comments().eq(tree.comments()) => Ok(result),
        _ => Err(unsafe_edit("the result would not be the same YAML")),
    }
}

/// The only bytes that may change: the lines of the image's entry, and the URLs of its resources.
fn allowed(text: &str, site: &Site<'_>) -> Vec<Range<usize>> {
    let entry = if site.flow {
        site.entry.span.clone()
    } else {
        let end =
            site.fields.iter().map(|field| splice::end(text, field)).max().unwrap_or(site.entry.span.start);
        splice::line_start(text, site.entry.span.start)..splice::line_end(text, end).1
    };
    site.remotes.iter().map(|remote| remote.node.span.clone()).chain([entry]).collect()
}

/// Reads the result with another parser, and compares it with the original in which the values were replaced.
fn verify(before: &str, after: &str, target: &Target<'_>, pin: &Pin) -> Result<(), Fault> {
    let load = |text: &str| {
        // A byte order mark is a document of its own to this parser.
        serde_yaml::from_str::<Value>(text.trim_start_matches('\u{feff}')).map_err(|error| {
            let line = error.location().map_or(1, |location| location.line());
            refused(target.path, line, error)
        })
    };
    let (mut meant, found) = (load(before)?, load(after)?);
    intend(&mut meant, target, pin);
    let reread = read(after, target)?;
    let same = |meant: &Option<String>, found: &Option<String>| meant.is_none() || meant == found;
    if meant == found
        && reread.digest == pin.digest
        && same(&pin.tag, &reread.tag)
        && same(&pin.git_ref, &reread.git_ref)
    {
        return Ok(());
    }
    Err(refused(target.path, 1, "two YAML parsers read the changed file differently; it was left as it is")
        .help("write the images entry as a block: name, newTag and digest each on a line"))
}

/// The change on values instead of text.
fn intend(root: &mut Value, target: &Target<'_>, pin: &Pin) {
    let images = root.get_mut("images").and_then(Value::as_sequence_mut).into_iter().flatten();
    for entry in images.filter_map(Value::as_mapping_mut) {
        if entry.get("name").and_then(Value::as_str) != Some(target.image) {
            continue;
        }
        if let Some(tag) = &pin.tag {
            entry.insert(TAG.into(), tag.as_str().into());
        }
        if let Some(digest) = &pin.digest {
            entry.insert(DIGEST.into(), digest.as_str().into());
        } else if entry.get(DIGEST).is_some_and(|digest| !digest.is_null() && digest.as_str() != Some("")) {
            entry.remove(DIGEST);
        }
    }
    let (Some(source), Some(git_ref)) = (target.source, &pin.git_ref) else { return };
    for name in REMOTES {
        for item in root.get_mut(name).and_then(Value::as_sequence_mut).into_iter().flatten() {
            let Some(url) = item.as_str() else { continue };
            let changed = match remote::classify(url, source) {
                Remote::Pinned(Some(at)) => format!("{}{git_ref}{}", &url[..at.start], &url[at.end..]),
                Remote::Pinned(None) => format!("{url}{}", remote::addition(url, git_ref)),
                Remote::Other | Remote::Unclear(_) => continue,
            };
            *item = changed.into();
        }
    }
}
