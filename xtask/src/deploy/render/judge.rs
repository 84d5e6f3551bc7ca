//! Whether what an environment renders to is right: exactly the pinned image must come out of it. Values in, a judgement
//! out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;
use similar::TextDiff;

use crate::fault::{Fault, Kind};

/// How many lines of the difference are shown unasked.
const SHORT: usize = 40;

#[derive(Clone, Debug, Default, Serialize)]
pub struct Rendering {
    /// What the containers are to run, `NAME:TAG@DIGEST`.
    pub image: String,
    /// How many run it; `None` if it could not be rendered.
    pub containers: Option<usize>,
    /// Why it could not.
    pub why: Option<String>,
    /// By object, with what Secrets hold left out; empty where the environment did not render before.
    pub diff: String,
    /// Whether all that changes is what the containers run.
    pub image_alone: bool,
    #[serde(skip)]
    pub objects: Vec<Value>,
    /// Without the change; `None` if it did not render, or was not to.
    #[serde(skip)]
    pub before: Option<Vec<Value>>,
}

/// What is to come out.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    pub environment: &'a str,
    /// The image's name without a tag.
    pub name: &'a str,
    /// `NAME:TAG@DIGEST`.
    pub image: &'a str,
    /// Whether the manifests stay those of the same ref.
    pub same_ref: bool,
    /// The backup that the environment is to start from.
    pub restore: Option<&'a str>,
}

/// Objects, or why there are none.
pub type Rendered = Result<Vec<Value>, Fault>;

/// Holds what an environment renders to against what is expected. `before` is `None` where nothing was to be compared.
pub fn judge(expected: Expected<'_>, before: Option<Rendered>, after: Rendered) -> Result<Rendering, Fault> {
    let Expected { environment, image, .. } = expected;
    let after = match (after, &before) {
        (Ok(objects), _) => objects,
        (Err(fault), Some(Ok(_))) => {
            let message =
                format!("{environment} does not render with this pin, and does without: {}", fault.message());
            return Err(match fault.kind {
                Kind::Refused => Fault::refused(message)
                    .help("nothing was changed; a controller would stop at it too: see that the ref has the overlay"),
                _ => Fault::remote(message).help("nothing was changed; run the same command again"),
            });
        }
        (Err(fault), _) => {
            return Ok(Rendering {
                image: image.to_owned(),
                why: Some(fault.message().to_owned()),
                before: before.and_then(Result::ok),
                ..Rendering::default()
            });
        }
    };
    let before = before.and_then(Result::ok);
    let runs = containers(&after);
    let ours: Vec<_> = runs.iter().filter(|(_, run)| name_of(run) == expected.name).collect();
    let help = "nothing was changed; a patch, a component or another entry under images says otherwise: mend it in the infra repository";
    if ours.is_empty() {
        let others: BTreeSet<_> = runs.iter().map(|(_, run)| run.as_str()).collect();
        let others: Vec<_> = others.into_iter().collect();
        let others = if others.is_empty() { "no image at all".to_owned() } else { others.join(", ") };
        return Err(Fault::refused(format!(
            "{environment} would not run {}: it renders to {others}",
            expected.name
        ))
        .help(help));
    }
    let wrong: Vec<_> = ours.iter().filter(|(_, run)| *run != image).collect();
    if !wrong.is_empty() {
        let wrong: Vec<_> = wrong.iter().map(|(place, run)| format!("{run} ({place})")).collect();
        return Err(Fault::refused(format!(
            "{environment} would run {} and not {image}, which is pinned",
            wrong.join(", ")
        ))
        .help(help));
    }
    restores(expected, &after)?;
    if let (true, Some(before)) = (expected.same_ref, &before) {
        others_stay(expected, &containers(before), &runs)?;
    }
    let diff = before.as_ref().map(|before| difference(before, &after)).unwrap_or_default();
    let without =
        |objects: &[Value]| objects.iter().map(|object| without_image(object, expected.name)).collect();
    let same = |before: &Vec<Value>| -> bool {
        let (before, after): (Vec<_>, Vec<_>) = (without(before), without(&after));
        before == after
    };
    Ok(Rendering {
        image: image.to_owned(),
        containers: Some(ours.len()),
        image_alone: !diff.is_empty() && before.as_ref().is_some_and(same),
        diff,
        objects: after,
        before,
        ..Rendering::default()
    })
}

/// The same, but for which image of this name it runs.
fn without_image(value: &Value, name: &str) -> Value {
    match value {
        Value::Object(fields) => {
            let field = |(key, value): (&String, &Value)| match value.as_str() {
                Some(image) if key == "image" && name_of(image) == name => (key.clone(), name.into()),
                _ => (key.clone(), without_image(value, name)),
            };
            Value::Object(fields.iter().map(field).collect())
        }
        Value::Array(items) => items.iter().map(|item| without_image(item, name)).collect(),
        other => other.clone(),
    }
}

/// The pod must hear of the restore that is asked for, and of no other.
fn restores(expected: Expected<'_>, objects: &[Value]) -> Result<(), Fault> {
    let maps = objects.iter().filter(|object| object["kind"] == "ConfigMap");
    let told: BTreeSet<_> = maps.filter_map(|map| map["data"]["DOJO_RESTORE"].as_str()).collect();
    let told: Vec<_> = told.into_iter().filter(|id| !id.is_empty()).collect();
    if told == expected.restore.as_slice() {
        return Ok(());
    }
    let show = |ids: &[&str]| if ids.is_empty() { "no restore".to_owned() } else { ids.join(", ") };
    let (told, asked) = (show(&told), show(expected.restore.as_slice()));
    Err(Fault::refused(format!(
        "{} would be told {told} by its ConfigMap's DOJO_RESTORE, and not {asked}",
        expected.environment
    ))
    .help("nothing was changed; something else than restore.env sets it: mend that in the infra repository"))
}

/// With the same manifests, no image changes but ours.
fn others_stay(expected: Expected<'_>, before: &Containers, after: &Containers) -> Result<(), Fault> {
    let other = |place: &&(String, String)| name_of(&place.1) != expected.name;
    let gone: Vec<_> = before.difference(after).filter(other).collect();
    let new: Vec<_> = after.difference(before).filter(other).collect();
    if gone.is_empty() && new.is_empty() {
        return Ok(());
    }
    let show = |all: Vec<&(String, String)>| -> String {
        let all: Vec<_> = all.into_iter().map(|(place, run)| format!("{run} ({place})")).collect();
        if all.is_empty() { "nothing".to_owned() } else { all.join(", ") }
    };
    let (environment, gone, new) = (expected.environment, show(gone), show(new));
    Err(Fault::refused(format!(
        "{environment}'s new pin would change an image that is not pinned: {gone} -> {new}"
    ))
    .help("nothing was changed; see why in the infra repository"))
}

/// Where each container and init container stands, and its image.
type Containers = BTreeSet<(String, String)>;

fn containers(objects: &[Value]) -> Containers {
    let mut found = BTreeSet::new();
    objects.iter().for_each(|object| collect(object, "", &mut found));
    found
}

/// As kustomize looks for them: at any depth, since other kinds than Deployments have pods too.
fn collect(value: &Value, place: &str, found: &mut Containers) {
    match value {
        Value::Object(fields) => {
            let own = (fields.contains_key("kind") && fields.contains_key("metadata")).then(|| title(value));
            let place = own.as_deref().unwrap_or(place);
            for (key, value) in fields {
                if let ("containers" | "initContainers", Some(list)) = (key.as_str(), value.as_array()) {
                    let images = list
                        .iter()
                        .filter_map(|container| Some((&container["name"], container["image"].as_str()?)));
                    found.extend(images.map(|(name, image)| {
                        (format!("{place}, {key} {}", name.as_str().unwrap_or_default()), image.to_owned())
                    }));
                }
                collect(value, place, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, place, found)),
        _ => {}
    }
}

/// `NAME` of `NAME[:TAG][@DIGEST]`; a colon before the last slash is a port's.
fn name_of(image: &str) -> &str {
    let named = image.split('@').next().unwrap_or(image);
    let last = named.rfind('/').map_or(0, |slash| slash + 1);
    named[last..].find(':').map_or(named, |colon| &named[..last + colon])
}

/// `KIND NAMESPACE/NAME`, without the hash of a generated name, which changes with the content.
fn title(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (kind, mut name) = (text(&object["kind"]), text(&object["metadata"]["name"]));
    if ["ConfigMap", "Secret"].contains(&kind.as_str()) {
        name = stem(&name).to_owned();
    }
    let namespace = text(&object["metadata"]["namespace"]);
    if namespace.is_empty() { format!("{kind} {name}") } else { format!("{kind} {namespace}/{name}") }
}

/// The name of a ConfigMap or Secret without the hash that kustomize gives to those that it generates.
pub fn stem(name: &str) -> &str {
    let hash = |end: &str| end.len() == 10 && end.chars().all(|c| "2456789bcdfghkmt".contains(c));
    name.rsplit_once('-').filter(|(_, end)| hash(end)).map_or(name, |(stem, _)| stem)
}

/// A unified difference for each object that is not the same.
fn difference(before: &[Value], after: &[Value]) -> String {
    let texts = |objects: &[Value]| -> BTreeMap<String, String> {
        let text = |object: &Value| serde_yaml::to_string(&without_secrets(object)).unwrap_or_default();
        objects.iter().map(|object| (title(object), text(object))).collect()
    };
    let (before, after) = (texts(before), texts(after));
    let mut titles: Vec<_> = before.keys().chain(after.keys()).collect();
    titles.sort();
    titles.dedup();
    let mut all = String::new();
    for title in titles {
        let text = |texts: &BTreeMap<String, String>| texts.get(title).cloned().unwrap_or_default();
        let (old, new) = (text(&before), text(&after));
        if old != new {
            let diff = TextDiff::from_lines(&old, &new);
            let _ = write!(all, "{title}\n{}", diff.unified_diff().context_radius(1));
        }
    }
    all
}

/// What a Secret holds is nobody's to read in a log.
fn without_secrets(object: &Value) -> Value {
    let mut shown = object.clone();
    match &mut shown {
        Value::Object(fields) if fields.get("kind").is_some_and(|kind| kind == "Secret") => {
            for key in ["data", "stringData"] {
                let Some(Value::Object(values)) = fields.get_mut(key) else { continue };
                values.values_mut().for_each(|value| *value = "not shown".into());
            }
        }
        Value::Object(fields) => fields.values_mut().for_each(|value| *value = without_secrets(value)),
        Value::Array(items) => items.iter_mut().for_each(|item| *item = without_secrets(item)),
        _ => {}
    }
    shown
}

impl Rendering {
    /// For who is asked to agree: a short difference, or `whole`.
    pub fn shown(&self, whole: bool) -> String {
        let lines: Vec<_> = self.diff.lines().collect();
        let cut = if whole { lines.len() } else { lines.len().min(SHORT) };
        let mut text = lines[..cut].iter().fold(String::new(), |text, line| text + "    " + line + "\n");
        if cut < lines.len() {
            let _ = writeln!(text, "    … {} more lines: --diff shows them", lines.len() - cut);
        }
        text.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests;
