//! Why a container does not run, or runs and is not ready: by its status, and by what it said when it ended.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::cause::{Cause, Kind};
use super::words::{self, LastWords};
use super::{NAME, State, pod, text, time};

/// When it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Init,
    Main,
}

/// What is wrong with it, or what it is doing; `None` if it has done its part, or was not its turn yet.
pub fn cause(state: State<'_>, pod: &Value, role: Role, status: &Value) -> Option<Cause> {
    let ended = |path: &str| status.pointer(path).filter(|end| end["exitCode"] != 0);
    if let Some(waiting) = status.pointer("/state/waiting") {
        return waits(state, pod, role, status, waiting);
    }
    if let Some(end) = ended("/state/terminated") {
        return Some(crash(state, pod, role, status, end));
    }
    let running = status.pointer("/state/running")?;
    let since = time(running, "/startedAt");
    // One that runs for longer than the one that failed has come further; until then the failure is the news.
    let failed = ended("/lastState/terminated")
        .filter(|end| since.map(|at| state.now.duration_since(at)) < lifetime(end));
    if let Some(end) = failed {
        return (status["ready"] != true).then(|| crash(state, pod, role, status, end));
    }
    runs(state, pod, role, status, since)
}

fn runs(
    state: State<'_>,
    pod: &Value,
    role: Role,
    status: &Value,
    since: Option<Timestamp>,
) -> Option<Cause> {
    let (name, container) = (pod::name(pod), name(status));
    let for_ = since.map_or_else(String::new, |at| format!(" for {}", state.since(at)));
    let logs = state.kubectl(&format!("logs {name} -c {container} --tail=20"));
    if role == Role::Init {
        let doing = if container == "migrate" { "migrating" } else { container };
        let is_sidecar = spec(pod, container).is_some_and(|spec| spec["restartPolicy"] == "Always");
        return (!is_sidecar).then(|| Cause::new(Kind::Migrating, format!("{doing}{for_}"), logs));
    }
    if status["ready"] == true || container != NAME {
        return None;
    }
    if status["started"] != true {
        return Some(Cause::new(Kind::Starting, format!("starting{for_}"), logs));
    }
    let events = state.events(pod);
    let probe = events
        .iter()
        .filter(|event| event["reason"] == "Unhealthy")
        .find_map(|event| text(event, "/message"));
    let probe = probe.map_or_else(String::new, |words| format!(": {words}"));
    Some(Cause::new(Kind::NotReady, format!("runs{for_}, and is not ready{probe}"), logs))
}

fn waits(state: State<'_>, pod: &Value, role: Role, status: &Value, waiting: &Value) -> Option<Cause> {
    let message = text(waiting, "/message").unwrap_or_default();
    match text(waiting, "/reason")? {
        // Its turn has not come; what it waits for is seen elsewhere.
        "PodInitializing" | "ContainerCreating" => None,
        "CrashLoopBackOff" => match status.pointer("/lastState/terminated") {
            Some(end) => Some(crash(state, pod, role, status, end)),
            None => Some(other(state, pod, status, message)),
        },
        "ErrImagePull"
        | "ImagePullBackOff"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "RegistryUnavailable"
        | "ImageInspectError" => Some(pull(state, pod, status, message)),
        reason => {
            let words = if message.is_empty() { reason } else { message };
            Some(pod::missing(state, pod, words).unwrap_or_else(|| other(state, pod, status, words)))
        }
    }
}

fn other(state: State<'_>, pod: &Value, status: &Value, words: &str) -> Cause {
    let what = format!("the container {} cannot run: {words}", name(status));
    Cause::new(Kind::Container, what, pod::describe(state, pod))
}

/// The status of a back-off has had the registry's words since Kubernetes 1.32; before, an event has them.
fn pull(state: State<'_>, pod: &Value, status: &Value, message: &str) -> Cause {
    let image = text(status, "/image").unwrap_or("?");
    let events = state.events(pod);
    let mut failed = events.iter().filter_map(|event| text(event, "/message"));
    let of_event = failed.find(|words| words.starts_with("Failed to pull image"));
    let bare = message.starts_with("Back-off pulling image") && !message.contains("ErrImagePull");
    let words = if bare { of_event.unwrap_or(message) } else { message };
    let what = format!("image pull failed: {}: {}", super::cause::tag(image), registry(words, image));
    Cause::new(Kind::ImagePull, what, pod::describe(state, pod))
}

/// What the registry said, without the image's name and the runtime's layers around it.
fn registry(words: &str, image: &str) -> String {
    let mut words = words.rsplit_once(" desc = ").map_or(words, |(_, words)| words);
    words = words.rsplit_once("ErrImagePull: ").map_or(words, |(_, words)| words);
    for layer in ["failed to pull and unpack image", "failed to resolve reference"] {
        if let Some((_, rest)) = words.split_once(layer).and_then(|(_, rest)| rest.split_once("\": ")) {
            words = rest;
        }
    }
    words.trim_start_matches(image).trim_start_matches(": ").to_owned()
}

fn crash(state: State<'_>, pod: &Value, role: Role, status: &Value, end: &Value) -> Cause {
    let container = name(status);
    let (who, other) = match role {
        Role::Init => ("init", Kind::InitFailed),
        Role::Main if container == NAME => ("service", Kind::ServiceFailed),
        Role::Main => (container, Kind::Container),
    };
    let words = text(end, "/message").and_then(LastWords::parse);
    let code = end["exitCode"].as_i64().unwrap_or_default();
    let logs = || state.kubectl(&format!("logs {} -c {container} --previous --tail=20", pod::name(pod)));
    if text(end, "/reason") == Some("OOMKilled") {
        let limit = spec(pod, container).and_then(|spec| text(spec, "/resources/limits/memory"));
        let limit = limit.unwrap_or("unknown");
        let what = format!("{who} was killed at its memory limit ({limit})");
        let next =
            format!("raise the memory limit ({limit}) in the infra repository, by a patch of the Deployment");
        return Cause { words, ..Cause::new(Kind::OomKilled, what, next) };
    }
    let Some(words) = words else {
        let reason = text(end, "/reason").unwrap_or("Error");
        return Cause::new(other, format!("{who} failed: {reason}, exit code {code}"), logs());
    };
    let told = words::tell(&words, code, other);
    let next = match told.kind {
        Kind::DiskFull => enlarge(state, pod),
        Kind::WrongVolume => state.kubectl(&format!("describe persistentvolumeclaims {}", claim(pod))),
        Kind::LockHeld => state.kubectl("get pods -o wide"),
        // Whether what ran before would do better is for who knows the pins.
        _ => logs(),
    };
    Cause { words: Some(words), ..Cause::new(told.kind, format!("{who} failed{}", told.what), next) }
}

fn claim(pod: &Value) -> &str {
    pod::claim_of(pod).unwrap_or("dojo-data")
}

fn enlarge(state: State<'_>, pod: &Value) -> String {
    let name = claim(pod);
    let claim = state.of_kind("PersistentVolumeClaim").find(|claim| claim["metadata"]["name"] == name);
    let size = claim.and_then(|claim| text(claim, "/status/capacity/storage"));
    let size = size.map_or_else(String::new, |size| format!(" ({size})"));
    format!(
        "enlarge the claim {name}{size} in the infra repository, by a patch of its spec.resources.requests.storage"
    )
}

fn name(status: &Value) -> &str {
    text(status, "/name").unwrap_or("?")
}

fn spec<'v>(pod: &'v Value, container: &str) -> Option<&'v Value> {
    let of = |path: &str| pod.pointer(path).and_then(Value::as_array).into_iter().flatten();
    of("/spec/initContainers").chain(of("/spec/containers")).find(|one| one["name"] == container)
}

fn lifetime(end: &Value) -> Option<SignedDuration> {
    Some(time(end, "/finishedAt")?.duration_since(time(end, "/startedAt")?))
}
