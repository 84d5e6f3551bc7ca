//! Finds the one place in a kustomization where an image is pinned, and refuses every form in which a change there
//! could reach further than it looks, or kustomize would silently read something else.

use std::ops::Range;

use crate::fault::Fault;
use crate::kustomization::Target;
use crate::kustomization::remote::{self, Remote};
use crate::kustomization::tree::{Kind, Node, Style};

pub const TAG: &str = "newTag";
pub const DIGEST: &str = "digest";
/// The lists whose entries may be remote folders.
pub const REMOTES: [&str; 6] =
    ["resources", "components", "bases", "generators", "transformers", "validators"];
const ENTRY: [&str; 5] = ["name", "newName", TAG, DIGEST, "tagSuffix"];

pub type Field = (Node, Node);
type Address<'t> = (&'t str, Option<Range<usize>>);

/// The image's entry, and the remote resources of its source.
#[derive(Debug)]
pub struct Site<'t> {
    pub entry: &'t Node,
    pub fields: &'t [Field],
    pub flow: bool,
    pub remotes: Vec<Pinned<'t>>,
}

/// A remote resource of the source.
#[derive(Debug)]
pub struct Pinned<'t> {
    pub node: &'t Node,
    pub url: &'t str,
    /// Where the ref stands in the file; `None` if the URL names none.
    pub git_ref: Option<Range<usize>>,
    /// It stands in a list in brackets.
    pub flow: bool,
}

impl Pinned<'_> {
    /// It is written in brackets without quotes, where YAML 1.1, which kustomize reads, allows no question mark.
    pub fn bare(&self) -> bool {
        self.flow && matches!(self.node.kind, Kind::Scalar { style: Style::Plain, .. })
    }
}

impl Site<'_> {
    pub fn field(&self, name: &str) -> Option<&Field> {
        field(self.fields, name)
    }
}

pub fn refused(path: &str, line: usize, message: impl std::fmt::Display) -> Fault {
    Fault::refused(format!("{path}:{line}: {message}"))
}

/// Finds the place, or says why it is not safe to touch.
pub fn locate<'t>(text: &str, root: Option<&'t Node>, target: &Target<'_>) -> Result<Site<'t>, Fault> {
    let finder = Finder { text, target };
    let root = root.ok_or_else(|| finder.refused(1, "there is nothing here but comments"))?;
    let (known, _) = finder.mapping(root, "the file", &[&["images"], &REMOTES[..]].concat())?;
    let (entry, fields, flow) = finder.image(known, root.line)?;
    Ok(Site { entry, fields, flow, remotes: finder.remotes(known)? })
}

struct Finder<'a> {
    text: &'a str,
    target: &'a Target<'a>,
}

impl Finder<'_> {
    fn refused(&self, line: usize, message: impl std::fmt::Display) -> Fault {
        refused(self.target.path, line, message)
    }

    /// Refuses a node that something else may share, or whose type is not what it looks like.
    fn settled(&self, node: &Node, what: &str) -> Result<(), Fault> {
        let why = if matches!(node.kind, Kind::Alias) {
            "is an alias: its value stands elsewhere"
        } else if node.anchored {
            "has an anchor: a change here would change every place that refers to it"
        } else if node.tagged {
            "has a YAML tag"
        } else {
            return Ok(());
        };
        Err(self.refused(node.line, format!("{what} {why}")).help("write the value out where it is used"))
    }

    /// The fields of a mapping in which each of the `known` ones can be trusted to be what kustomize reads.
    fn mapping<'t>(&self, node: &'t Node, what: &str, known: &[&str]) -> Result<(&'t [Field], bool), Fault> {
        self.settled(node, what)?;
        let Kind::Mapping { entries, flow } = &node.kind else {
            return Err(self.refused(node.line, format!("{what} is not a mapping")));
        };
        for (index, (key, _)) in entries.iter().enumerate() {
            let Some(name) = key.text() else {
                return Err(self.refused(key.line, format!("{what} has a key that is not a word")));
            };
            if name == "<<" {
                return Err(self
                    .refused(key.line, format!("{what} has a merge key (<<)"))
                    .help("write its keys out"));
            }
            if let Some(first) = field(&entries[..index], name) {
                let message =
                    format!("{name} stands twice, first in line {}: the last one wins", first.0.line);
                return Err(self.refused(key.line, message).help("keep one"));
            }
            let Some(meant) = known.iter().find(|known| fold(known) == fold(name)) else { continue };
            if name != *meant {
                let message = format!("kustomize reads {name} as {meant}");
                return Err(self.refused(key.line, message).help(format!("write it as {meant}")));
            }
            self.settled(key, meant)?;
        }
        Ok((entries, *flow))
    }

    fn image<'t>(&self, root: &'t [Field], line: usize) -> Result<(&'t Node, &'t [Field], bool), Fault> {
        let image = self.target.image;
        let Some((key, list)) = field(root, "images") else {
            return Err(self.absent(line, "it has no images"));
        };
        self.settled(list, "images")?;
        let items = match &list.kind {
            Kind::Sequence(items) if !items.is_empty() => items,
            _ if list.is_null() => return Err(self.absent(key.line, "images is empty")),
            Kind::Sequence(_) => return Err(self.absent(key.line, "images is empty")),
            _ => return Err(self.refused(key.line, "images is not a list")),
        };
        let (mut found, mut names) = (None::<(&Node, &[Field], bool)>, Vec::new());
        for item in items {
            let (fields, flow) = self.mapping(item, "an entry of images", &ENTRY)?;
            let name = field(fields, "name").and_then(|(_, value)| value.text()).unwrap_or_default();
            names.push(name);
            if name == image {
                if let Some((first, ..)) = found {
                    let message =
                        format!("{image} stands twice, first in line {}: the last one wins", first.line);
                    return Err(self.refused(item.line, message).help("keep one"));
                }
                found = Some((item, fields, flow));
            } else {
                self.unrelated(item, name, fields)?;
            }
        }
        let found = found.ok_or_else(|| self.missing(key.line, &names))?;
        self.entry(found.1)?;
        Ok(found)
    }

    fn absent(&self, line: usize, why: &str) -> Fault {
        let image = self.target.image;
        self.refused(line, format!("{image} is not pinned: {why}"))
            .help(format!("add it by hand once: images: [{{name: {image}, newTag: …}}]"))
    }

    fn missing(&self, line: usize, names: &[&str]) -> Fault {
        let image = self.target.image;
        let fault = self.refused(line, format!("no entry of images is named {image}"));
        let near = names.iter().find(|name| fold(name.trim()) == fold(image.trim()));
        match near {
            Some(near) => {
                fault.help(format!("{near:?} differs in letter case or spaces; kustomize compares exactly"))
            }
            None => fault.help(format!("the names there are: {}", names.join(", "))),
        }
    }

    /// Refuses another entry that would pin the same image as well.
    fn unrelated(&self, item: &Node, name: &str, fields: &[Field]) -> Result<(), Fault> {
        let image = self.target.image;
        if may_match(name, image) {
            let message =
                format!("the entry {name:?} matches {image} too: kustomize takes names as patterns");
            return Err(self.refused(item.line, message).help("name images in full, without a tag"));
        }
        match field(fields, "newName") {
            Some((_, value)) if value.text() == Some(image) => Err(self
                .refused(
                    value.line,
                    format!("the entry {name:?} becomes {image} by newName: it is pinned twice"),
                )
                .help(format!("use {image} in the manifests, and pin it in one entry"))),
            _ => Ok(()),
        }
    }

    /// Refuses an entry whose parts are not plain words, or that makes another image of this one.
    fn entry(&self, fields: &[Field]) -> Result<(), Fault> {
        for (key, value) in fields {
            let Some(name) = key.text().filter(|name| ENTRY.contains(name)) else { continue };
            self.settled(value, name)?;
            match &value.kind {
                Kind::Scalar { style: Style::Block, .. } => {
                    let message = format!("{name} is a block scalar, which ends in a line break");
                    return Err(self.refused(key.line, message).help("write it on the key's own line"));
                }
                Kind::Scalar { .. } => {}
                _ => return Err(self.refused(key.line, format!("{name} is not a single value"))),
            }
            let text = value.text().unwrap_or_default();
            if name == "newName" && !value.is_null() && !text.is_empty() && text != self.target.image {
                let message = format!("newName makes {text} of {}", self.target.image);
                return Err(self
                    .refused(key.line, message)
                    .help("the digest pinned here would be another image's"));
            }
            if name == "tagSuffix" && !value.is_null() {
                return Err(self
                    .refused(key.line, "tagSuffix changes the tag")
                    .help("put the whole tag into newTag"));
            }
        }
        Ok(())
    }

    fn remotes<'t>(&self, root: &'t [Field]) -> Result<Vec<Pinned<'t>>, Fault> {
        let Some(source) = self.target.source else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for (key, list) in REMOTES.iter().filter_map(|name| field(root, name)) {
            let name = key.text().unwrap_or_default();
            if matches!(list.kind, Kind::Alias) {
                self.settled(list, name)?;
            }
            let Kind::Sequence(items) = &list.kind else { continue };
            let flow = self.text[list.span.start..].starts_with('[');
            for item in items {
                if matches!(item.kind, Kind::Alias) {
                    self.settled(item, &format!("an entry of {name}"))?;
                }
                if let Some((url, git_ref)) = self.remote(item, source)? {
                    self.settled(list, name)?;
                    found.push(Pinned { node: item, url, git_ref, flow });
                }
            }
        }
        if found.is_empty() {
            let message = format!("no resource comes from {source}");
            return Err(self.refused(1, message).help(format!("add one: {source}//FOLDER?ref=…")));
        }
        found.sort_by_key(|pinned| pinned.node.span.start);
        Ok(found)
    }

    /// The address and where its ref stands, if it is one of the source.
    fn remote<'t>(&self, node: &'t Node, source: &str) -> Result<Option<Address<'t>>, Fault> {
        let Kind::Scalar { text: url, style } = &node.kind else { return Ok(None) };
        let range = match remote::classify(url, source) {
            Remote::Other => return Ok(None),
            // The address itself stays out of the message: it may carry a password.
            Remote::Unclear(why) => {
                let message = format!("a resource of {source} cannot be pinned: {why}");
                return Err(self
                    .refused(node.line, message)
                    .help(format!("write it as {source}//FOLDER?ref=REF")));
            }
            Remote::Pinned(range) => range,
        };
        self.settled(node, "the resource")?;
        let quotes = usize::from(matches!(style, Style::Single | Style::Double));
        let start = node.span.start + quotes;
        if *style == Style::Block || self.text.get(start..node.span.end.saturating_sub(quotes)) != Some(url) {
            let message = format!("the resource of {source} is written with escapes or over several lines");
            return Err(self.refused(node.line, message).help("write it on one line"));
        }
        let git_ref = range.map(|range| range.start + start..range.end + start);
        Ok(Some((url, git_ref)))
    }
}

fn field<'t>(fields: &'t [Field], name: &str) -> Option<&'t Field> {
    fields.iter().find(|(key, _)| key.text() == Some(name))
}

/// Go's JSON decoder matches keys without regard to case, and takes these two letters for their ASCII kin.
fn fold(text: &str) -> String {
    text.replace('ſ', "s").replace('\u{212a}', "k").to_lowercase()
}

/// Whether kustomize, which compiles an entry's name as a regular expression, might apply it to the image;
/// a name that is more than letters and dots is not evaluated but taken to match.
fn may_match(name: &str, image: &str) -> bool {
    name.contains(['*', '+', '?', '(', ')', '[', ']', '{', '}', '|', '^', '$', '\\'])
        || name.strip_prefix(image).is_some_and(|rest| rest.starts_with([':', '@']))
        || name.chars().count() == image.chars().count()
            && name.chars().zip(image.chars()).all(|(n, i)| n == '.' || n == i)
}
