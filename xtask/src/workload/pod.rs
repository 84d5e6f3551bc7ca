//! Why a pod is not ready: where it is to run, what it mounts, then its containers in the order in which they run.

use serde_json::Value;

use super::cause::{Cause, Kind};
use super::container::{self, Role};
use super::controller;
use super::{NAME, State, condition, quoted, seen_at, text, time};
use crate::image::Digest;

/// What the pod waits for, or died of; `None` if it is ready, or if nobody tells.
pub fn cause(state: State<'_>, pod: &Value) -> Option<Cause> {
    if condition(pod, "Ready").is_some_and(|condition| condition["status"] == "True") {
        return None;
    }
    if text(pod, "/status/phase") == Some("Failed") && text(pod, "/status/reason") == Some("Evicted") {
        let words = text(pod, "/status/message").unwrap_or("no reason is given");
        return Some(Cause::new(
            Kind::Evicted,
            format!("the pod was evicted: {words}"),
            describe(state, pod),
        ));
    }
    if let Some(scheduled) = condition(pod, "PodScheduled").filter(|condition| condition["status"] == "False")
    {
        return Some(unscheduled(state, pod, scheduled));
    }
    let statuses = statuses(pod);
    let causes = statuses.iter().map(|(role, status)| container::cause(state, pod, *role, status));
    if let Some(cause) = causes.flatten().next() {
        return Some(cause);
    }
    if statuses.iter().any(|(_, status)| status.pointer("/state/running").is_none()) {
        return Some(volumes(state, pod).unwrap_or_else(|| waiting(state, pod)));
    }
    None
}

/// Of the image that the service's container runs; the node knows it by the registry's digest, or by none.
pub fn digest(pod: &Value) -> Option<Digest> {
    let statuses = pod.pointer("/status/containerStatuses")?.as_array()?;
    let id = text(statuses.iter().find(|status| status["name"] == NAME)?, "/imageID")?;
    id.split_once('@')?.1.parse().ok()
}

pub fn describe(state: State<'_>, pod: &Value) -> String {
    state.kubectl(&format!("describe pod {}", name(pod)))
}

pub fn name(pod: &Value) -> &str {
    text(pod, "/metadata/name").unwrap_or("?")
}

/// Init containers first, as they run.
fn statuses(pod: &Value) -> Vec<(Role, &Value)> {
    let of = |path: &str| pod.pointer(path).and_then(Value::as_array).into_iter().flatten();
    let init = of("/status/initContainerStatuses").map(|status| (Role::Init, status));
    init.chain(of("/status/containerStatuses").map(|status| (Role::Main, status))).collect()
}

fn unscheduled(state: State<'_>, pod: &Value, condition: &Value) -> Cause {
    let words = text(condition, "/message").unwrap_or("no reason is given");
    // The rest tells that no other pod is to make room either.
    let words = words.split(" preemption:").next().unwrap_or(words);
    if let Some(cause) = claim(state, pod)
        .filter(|_| words.contains("persistentvolumeclaim") || words.contains("PersistentVolumeClaim"))
    {
        return cause;
    }
    Cause::new(Kind::Unschedulable, format!("no node takes the pod: {words}"), describe(state, pod))
}

/// The name of the claim that it mounts.
pub fn claim_of(pod: &Value) -> Option<&str> {
    let volumes = pod.pointer("/spec/volumes")?.as_array()?;
    volumes.iter().find_map(|volume| text(volume, "/persistentVolumeClaim/claimName"))
}

/// The pod's claim, if it is not bound.
fn claim(state: State<'_>, pod: &Value) -> Option<Cause> {
    let name = claim_of(pod)?;
    let next = state.kubectl(&format!("describe persistentvolumeclaims {name}"));
    let Some(claim) = state.of_kind("PersistentVolumeClaim").find(|claim| claim["metadata"]["name"] == name)
    else {
        let missing = || Cause::new(Kind::ClaimPending, format!("there is no claim {name}"), next);
        return state.sees("persistentvolumeclaims").then(missing);
    };
    let phase = text(claim, "/status/phase").filter(|phase| *phase != "Bound")?;
    let events = state.events(claim);
    let warning = events
        .iter()
        .find(|event| ["ProvisioningFailed", "FailedBinding"].iter().any(|r| event["reason"] == *r));
    let words = warning.or(events.first()).and_then(|event| text(event, "/message"));
    let words = words.map_or_else(String::new, |words| format!(": {words}"));
    Some(Cause::new(Kind::ClaimPending, format!("the claim {name} is {phase}{words}"), next))
}

/// What keeps its volumes from it, by events: the pod's own status does not tell.
fn volumes(state: State<'_>, pod: &Value) -> Option<Cause> {
    let events = state.events(pod);
    let newest = |reason: &str| events.iter().find(|event| event["reason"] == reason).copied();
    let attached = newest("SuccessfulAttachVolume").and_then(seen_at);
    let attach = newest("FailedAttachVolume").filter(|event| seen_at(event) > attached);
    if let Some(words) = attach.and_then(|event| text(event, "/message")) {
        let kind = if words.contains("Multi-Attach") { Kind::VolumeAttached } else { Kind::Volume };
        let next = match kind {
            Kind::VolumeAttached => state.kubectl("get pods -o wide"),
            _ => describe(state, pod),
        };
        return Some(Cause::new(kind, words, next));
    }
    // The image is pulled once all is mounted.
    let mounted = ["Pulling", "Pulled"].iter().filter_map(|reason| newest(reason)).filter_map(seen_at).max();
    let failed = ["FailedMount", "FailedCreatePodSandBox"].iter().find_map(|reason| newest(reason));
    let mount = failed.filter(|event| seen_at(event) > mounted)?;
    let words = text(mount, "/message")?;
    Some(missing(state, pod, words).unwrap_or_else(|| Cause::new(Kind::Volume, words, describe(state, pod))))
}

/// A Secret, a ConfigMap or a key of one that is not there, in the kubelet's words:
/// `MountVolume.SetUp failed for volume "tokens" : references non-existent secret key: tokens`,
/// `secret "dojo" not found`, `couldn't find key tokens in Secret dojo-prod/dojo`.
pub fn missing(state: State<'_>, pod: &Value, words: &str) -> Option<Cause> {
    let quoted_after = |word: &str| words.split_once(word)?.1.split('"').next();
    let is_secret =
        words.contains("secret key") || words.contains("secret \"") || words.contains(" in Secret ");
    let is_map =
        words.contains("config key") || words.contains("configmap \"") || words.contains(" in ConfigMap ");
    let gone = ["not found", "non-existent", "couldn't find key"].iter().any(|sign| words.contains(sign));
    if !gone || !(is_secret || is_map) {
        return None;
    }
    if is_map {
        let next = controller::apply_again(state);
        let what = match quoted_after("configmap \"") {
            Some(name) => format!("there is no ConfigMap {name}"),
            None => words.to_owned(),
        };
        return Some(Cause::new(Kind::MissingConfigMap, what, next));
    }
    if let Some(name) = quoted_after("secret \"") {
        let keys = keys(pod, name);
        let next = state.kubectl(&format!("create secret generic {}{keys}", quoted(name)));
        return Some(Cause::new(Kind::MissingSecret, format!("there is no Secret {name}"), next));
    }
    let mut names = volumes_of(pod).filter(|(volume, _)| words.contains(&format!("volume \"{volume}\"")));
    let name = names.next().map(|(_, name)| name).or_else(|| words.rsplit('/').next()).unwrap_or(NAME);
    let key = words.rsplit_once("secret key: ").map(|(_, key)| key);
    let key = key.or_else(|| words.split_once("find key ")?.1.split(' ').next()).unwrap_or("?");
    let option = quoted(&format!("--from-file={key}=FILE"));
    let make =
        state.kubectl(&format!("create secret generic {} {option} --dry-run=client -o yaml", quoted(name)));
    let next = format!("{make} | {}", state.kubectl("apply -f -"));
    Some(Cause::new(Kind::MissingSecret, format!("the Secret {name} has no key {key}"), next))
}

/// The pod's volumes that are Secrets: their names in the pod, and those of the Secrets.
fn volumes_of(pod: &Value) -> impl Iterator<Item = (&str, &str)> {
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array).into_iter().flatten();
    volumes.filter_map(|volume| Some((text(volume, "/name")?, text(volume, "/secret/secretName")?)))
}

/// The keys that the pod takes of a Secret, as options of `create secret`.
fn keys(pod: &Value, secret: &str) -> String {
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array).into_iter().flatten();
    let of = |volume: &&Value| text(volume, "/secret/secretName") == Some(secret);
    let items = volumes.filter(of).filter_map(|volume| volume.pointer("/secret/items")?.as_array());
    let option =
        |item: &Value| Some(format!(" {}", quoted(&format!("--from-file={}=FILE", text(item, "/key")?))));
    items.flatten().filter_map(option).collect()
}

fn waiting(state: State<'_>, pod: &Value) -> Cause {
    let events = state.events(pod);
    let statuses = statuses(pod);
    let reason = || statuses.iter().find_map(|(_, status)| text(status, "/state/waiting/reason"));
    let doing = events.first().and_then(|event| text(event, "/message")).or_else(reason).unwrap_or("Pending");
    let since = time(pod, "/metadata/creationTimestamp");
    let since = since.map_or_else(String::new, |at| format!(" for {}", state.since(at)));
    Cause::new(Kind::Starting, format!("starting{since}: {doing}"), describe(state, pod))
}
