//! A rendered folder as the rules see it, and how they say what is wrong with it.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::pipeline::Environment;

/// What a folder of manifests is for.
#[derive(Clone, Copy, Debug)]
pub enum Role<'a> {
    /// An environment that the pipeline promotes to: durable, reached from outside, with credentials.
    Deployed(&'a Environment),
    /// Any other overlay: for trying things, nothing kept.
    Local,
    /// The Job that makes a ledger, applied by hand beside an environment.
    Init,
}

/// One rendered folder.
#[derive(Debug)]
pub struct Manifest<'a> {
    pub folder: &'a str,
    pub role: Role<'a>,
    /// The image's name, without a tag.
    pub image: &'a str,
    pub objects: &'a [Value],
}

/// One rule broken at one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    pub folder: String,
    pub rule: &'static str,
    pub object: String,
    /// A JSON pointer into the object.
    pub path: String,
    pub problem: String,
    pub fix: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { folder, rule, object, path, problem, fix } = self;
        write!(f, "  {folder}: {object}: {path} {problem}; {fix} ({rule})")
    }
}

/// A violation before it is known which folder and rule it belongs to.
#[derive(Debug)]
pub struct Finding {
    pub object: String,
    pub path: String,
    pub problem: String,
    pub fix: String,
}

pub fn finding(object: &Value, path: &str, problem: impl Into<String>, fix: &str) -> Finding {
    Finding { object: title(object), path: path.into(), problem: problem.into(), fix: fix.into() }
}

/// Nothing, if `wanted` stands at `path`.
pub fn wants(object: &Value, path: &str, wanted: &Value, fix: &str) -> Option<Finding> {
    let found = object.pointer(path);
    (found != Some(wanted)).then(|| finding(object, path, format!("is {}, not {wanted}", show(found)), fix))
}

/// Nothing, if anything stands at `path`.
pub fn wants_some(object: &Value, path: &str, fix: &str) -> Option<Finding> {
    object.pointer(path).is_none().then(|| finding(object, path, "is missing", fix))
}

fn show(value: Option<&Value>) -> String {
    value.map_or_else(|| "missing".into(), ToString::to_string)
}

pub fn title(object: &Value) -> String {
    format!("{}/{}", text(object, "/kind"), text(object, "/metadata/name"))
}

/// The string at `path`, or nothing.
pub fn text<'v>(object: &'v Value, path: &str) -> &'v str {
    object.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// The items at `path`, or none.
pub fn list<'v>(object: &'v Value, path: &str) -> &'v [Value] {
    object.pointer(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The path of the list's item that is called `name`; one that leads nowhere, if there is none.
pub fn named(object: &Value, path: &str, name: &str) -> String {
    let index = list(object, path).iter().position(|item| item["name"] == name);
    index.map_or_else(|| format!("{path}/{name}"), |index| format!("{path}/{index}"))
}

/// Where a Deployment and a Job keep their pod.
pub const POD: &str = "/spec/template/spec";

/// The paths of a workload's containers, those that run before it included.
pub fn containers(workload: &Value) -> Vec<String> {
    ["initContainers", "containers"]
        .iter()
        .flat_map(|kind| {
            let path = format!("{POD}/{kind}");
            (0..list(workload, &path).len()).map(move |index| format!("{path}/{index}"))
        })
        .collect()
}

impl<'a> Manifest<'a> {
    pub fn of_kind(&self, kind: &str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |object| text(object, "/kind") == kind)
    }

    /// Whatever runs a pod.
    pub fn workloads(&self) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(|object| object.pointer(POD).is_some())
    }

    /// Whether this runs beside the Deployment, to look whether a new pod of it could start: a Job, where it is not the one
    /// that makes a ledger.
    pub fn is_guard(&self, workload: &Value) -> bool {
        text(workload, "/kind") == "Job" && !matches!(self.role, Role::Init)
    }

    pub fn has(&self, kind: &str, name: &str) -> bool {
        self.of_kind(kind).any(|object| text(object, "/metadata/name") == name)
    }

    /// The environment's name, as `DOJO_ENV` and the namespace carry it.
    pub fn name(&self) -> &str {
        self.folder.rsplit('/').next().unwrap_or(self.folder)
    }
}
