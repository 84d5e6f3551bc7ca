//! What a cluster tells of an environment's Deployment: what was applied, and why it is not up. From objects as
//! `kubectl get -o json` prints them. Nothing is guessed: what is not told stays unknown, and every cause is in words that
//! Kubernetes, the GitOps controller or dojo itself wrote.

mod cause;
mod container;
mod controller;
mod pod;
#[cfg(test)]
mod tests;
mod words;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::fault::without_credentials;
use crate::image::Digest;
use crate::pipeline::Place;
use crate::span::{since, span};

pub use cause::{Cause, Kind};
pub use words::LastWords;

/// What everything of the service is called in its namespace: the Deployment, its container, the label `app`.
const NAME: &str = "dojo";

/// What was read.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Deployments, ReplicaSets, Pods, Events, PersistentVolumeClaims, and the controller's object.
    pub objects: Vec<Value>,
    /// What could not be read, and why: `events: forbidden`, or `cluster: …` if nothing could.
    pub unseen: Vec<String>,
}

/// What should be there.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    pub environment: &'a str,
    pub place: &'a Place,
    /// The pin, `NAME:TAG@DIGEST`.
    pub image: Option<&'a str>,
    /// The commit of the infra repository that has it.
    pub commit: Option<&'a str>,
    /// The head of its branch, which has that pin too.
    pub head: Option<&'a str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Workload {
    /// Of the Deployment's container, as applied.
    pub image: Option<String>,
    /// Of the image that the pod runs, if the node tells one.
    pub digest: Option<Digest>,
    pub available: Option<bool>,
    /// When the Deployment ceased to be available.
    pub down_since: Option<Timestamp>,
    /// Why it is not up, or not what is pinned; `None` if all is well, or if nobody tells.
    pub cause: Option<Cause>,
    /// The commit of the infra repository that the controller applied last, by its own account.
    pub synced: Option<String>,
    pub unseen: Vec<String>,
}

/// Reads what was found; `now` is what durations in the cause are told against.
pub fn read(found: &Found, expected: &Expected<'_>, now: Timestamp) -> Workload {
    let state = State { found, expected, now };
    let deployment = state.deployment();
    let down_since = deployment.and_then(|deployment| {
        let available = condition(deployment, "Available").filter(|c| c["status"] == "False");
        available.and_then(|condition| time(condition, "/lastTransitionTime"))
    });
    Workload {
        image: deployment.and_then(image).map(plain),
        digest: state.pod().and_then(pod::digest),
        available: deployment.and_then(available),
        down_since,
        cause: state.cause(),
        synced: controller::synced(&state),
        unseen: found.unseen.clone(),
    }
}

/// What was found, with what is asked of it.
#[derive(Clone, Copy, Debug)]
struct State<'a> {
    found: &'a Found,
    expected: &'a Expected<'a>,
    now: Timestamp,
}

impl<'a> State<'a> {
    fn of_kind(self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.found.objects.iter().filter(move |object| object["kind"] == kind)
    }

    fn deployment(self) -> Option<&'a Value> {
        self.of_kind("Deployment").find(|object| text(object, "/metadata/name") == Some(NAME))
    }

    /// Whether objects of this kind would have been found.
    fn sees(self, kind: &str) -> bool {
        !self.found.unseen.iter().any(|line| line.starts_with(kind) || line.starts_with("cluster:"))
    }

    /// The ReplicaSet of what is applied now, of which the Deployment's controller may not have made one yet.
    fn replica_set(self) -> Option<&'a Value> {
        let revision = |set: &Value| {
            let revision = set.pointer("/metadata/annotations/deployment.kubernetes.io~1revision");
            revision.and_then(Value::as_str).and_then(|text| text.parse::<u64>().ok())
        };
        let sets = self.of_kind("ReplicaSet").filter(|set| owner(set) == Some(NAME));
        let newest = sets.max_by_key(|set| revision(set))?;
        let wanted = self.deployment().and_then(image);
        (wanted.is_none() || image(newest) == wanted).then_some(newest)
    }

    /// The pods of the service, newest first, those that are being deleted apart.
    fn pods(self) -> (Vec<&'a Value>, Vec<&'a Value>) {
        let ours = |pod: &&Value| text(pod, "/metadata/labels/app") == Some(NAME);
        let mut pods: Vec<_> = self.of_kind("Pod").filter(ours).collect();
        pods.sort_by_key(|pod| std::cmp::Reverse(time(pod, "/metadata/creationTimestamp")));
        pods.into_iter().partition(|pod| pod.pointer("/metadata/deletionTimestamp").is_none())
    }

    /// What is wrong with the pod of `deploy/k8s/components/presync`, if anything is.
    fn guard(self) -> Option<Cause> {
        let ours = |pod: &&Value| text(pod, "/metadata/labels/app") == Some("dojo-presync");
        let pods = self.of_kind("Pod").filter(ours);
        let newest = pods.max_by_key(|pod| time(pod, "/metadata/creationTimestamp"))?;
        let ended = text(newest, "/status/phase") == Some("Succeeded");
        pod::cause(self, newest).filter(|cause| !ended && !cause.kind.is_progress())
    }

    /// The newest live pod of what is applied.
    fn pod(self) -> Option<&'a Value> {
        let (live, _) = self.pods();
        if !self.sees("replicasets") {
            return live.into_iter().next();
        }
        let set = text(self.replica_set()?, "/metadata/name");
        live.into_iter().find(|pod| owner(pod) == set)
    }

    /// The events of an object, newest first.
    fn events(self, object: &'a Value) -> Vec<&'a Value> {
        let of = |event: &&Value| {
            ["kind", "name"].iter().all(|key| {
                let named = if *key == "kind" { &object["kind"] } else { &object["metadata"]["name"] };
                event["involvedObject"][*key] == *named
            })
        };
        let mut events: Vec<_> = self.of_kind("Event").filter(of).collect();
        events.sort_by_key(|event| std::cmp::Reverse(seen_at(event)));
        events
    }

    /// `3m12s` since then.
    fn since(self, then: Timestamp) -> String {
        span(since(then, self.now))
    }

    /// A kubectl command on the environment's namespace.
    fn kubectl(self, rest: &str) -> String {
        self.kubectl_in(&self.expected.place.namespace, rest)
    }

    fn kubectl_in(self, namespace: &str, rest: &str) -> String {
        format!("kubectl --context {} -n {namespace} {rest}", quoted(&self.expected.place.context))
    }
}

/// When an event was last seen: the kubelet writes lastTimestamp, the scheduler eventTime and a series.
fn seen_at(event: &Value) -> Option<Timestamp> {
    let paths = ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/firstTimestamp"];
    paths.iter().find_map(|path| time(event, path))
}

fn available(deployment: &Value) -> Option<bool> {
    // At no replicas Kubernetes calls a Deployment available.
    if replicas(deployment) == Some(0) {
        return Some(false);
    }
    match condition(deployment, "Available")?["status"].as_str()? {
        "True" => Some(true),
        "False" => Some(false),
        _ => None,
    }
}

fn replicas(deployment: &Value) -> Option<u64> {
    deployment.pointer("/spec/replicas").and_then(Value::as_u64)
}

/// The image of the service's container in a pod's template.
fn image(workload: &Value) -> Option<&str> {
    let containers = workload.pointer("/spec/template/spec/containers")?.as_array()?;
    containers.iter().find(|container| container["name"] == NAME)?["image"].as_str()
}

fn condition<'v>(object: &'v Value, kind: &str) -> Option<&'v Value> {
    object.pointer("/status/conditions")?.as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// The name of the object that made this one.
fn owner(object: &Value) -> Option<&str> {
    let owners = object.pointer("/metadata/ownerReferences")?.as_array()?;
    owners.iter().find(|owner| owner["controller"] == true)?["name"].as_str()
}

fn text<'v>(object: &'v Value, path: &str) -> Option<&'v str> {
    object.pointer(path)?.as_str()
}

fn time(object: &Value, path: &str) -> Option<Timestamp> {
    text(object, path)?.parse().ok()
}

/// One line for a terminal, of words that anybody may have written.
pub fn plain(words: impl AsRef<str>) -> String {
    line(words.as_ref(), 200)
}

/// The same, with room for a whole error.
fn plain_long(words: impl AsRef<str>) -> String {
    line(words.as_ref(), 1000)
}

/// Of a longer one the middle is left out: what was done stands at the start, and why it failed at the end.
fn line(words: &str, most: usize) -> String {
    let flat = without_credentials(words).replace(char::is_control, " ");
    let line = flat.split_whitespace().collect::<Vec<_>>().join(" ");
    let count = line.chars().count();
    if count <= most {
        return line;
    }
    let end = most / 3;
    let head: String = line.chars().take(most - end).collect();
    let tail: String = line.chars().skip(count - end).collect();
    format!("{head} … {tail}")
}

/// A word of a command line.
fn quoted(word: &str) -> String {
    if word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:@=".contains(c)) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
