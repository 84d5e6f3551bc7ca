//! A look at an environment's namespace and at its controller, with the right to read alone. Never at Secrets. What does not
//! answer, or may not be read, is told as unseen: a look never fails its caller.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::bounded;
use crate::pipeline::{Controller, Place};
use crate::workload::{Found, plain};

const KINDS: &str = "deployments,replicasets,pods,events,persistentvolumeclaims";
/// For one answer of the API server.
const ANSWER: &str = "--request-timeout=4s";
/// For all of a kubectl: it asks an API server that is silent again and again, and a login may hang.
const LIMIT: Duration = Duration::from_secs(6);

/// Asks for the objects of the namespace and for the controller's, side by side.
pub fn look(place: &Place) -> Found {
    let ask = |(what, mut command): (&str, Command)| asked(what, bounded::output(&mut command, LIMIT));
    let (objects, controller) = std::thread::scope(|scope| {
        let controller = place.controller.as_ref().map(|it| scope.spawn(|| ask(of_controller(place, it))));
        let objects = ask(of_namespace(place));
        (objects, controller.and_then(|thread| thread.join().ok()).unwrap_or_default())
    });
    together(objects, controller)
}

fn of_namespace(place: &Place) -> (&'static str, Command) {
    ("cluster", kubectl(place, &place.namespace, &[KINDS]))
}

fn of_controller(place: &Place, controller: &Controller) -> (&'static str, Command) {
    let (kind, short) = match controller {
        Controller::Argocd(_) => ("applications.argoproj.io", "applications"),
        Controller::Flux(_) => ("kustomizations.kustomize.toolkit.fluxcd.io", "kustomizations"),
    };
    let object = controller.object();
    (short, kubectl(place, &object.namespace, &[kind, &object.name]))
}

fn kubectl(place: &Place, namespace: &str, what: &[&str]) -> Command {
    let mut command = Command::new("kubectl");
    command.args(["--context", &place.context, "--namespace", namespace, "get"]).args(what);
    command.args(["--output=json", ANSWER]).stdin(Stdio::null());
    command
}

/// A cluster that is silent is told once.
fn together(mut objects: Found, controller: Found) -> Found {
    let silent = objects.objects.is_empty() && objects.unseen.iter().any(|line| line.starts_with("cluster:"));
    objects.objects.extend(controller.objects);
    if !silent {
        objects.unseen.extend(controller.unseen);
    }
    objects
}

/// What a kubectl printed: of several kinds it prints those that it may read, and complains of the others.
fn asked(what: &str, output: std::io::Result<Option<Output>>) -> Found {
    let unseen = |why: String| Found { objects: Vec::new(), unseen: vec![format!("{what}: {why}")] };
    let Output { status, stdout, stderr } = match output {
        Err(error) => return unseen(format!("kubectl cannot be run: {error}")),
        Ok(None) => return unseen(format!("no answer within {} s", LIMIT.as_secs())),
        Ok(Some(output)) => output,
    };
    let objects = match serde_json::from_slice(&stdout) {
        Ok(Value::Object(mut list)) if list.get("items").is_some_and(Value::is_array) => {
            list.remove("items").and_then(|items| items.as_array().cloned()).unwrap_or_default()
        }
        Ok(object @ Value::Object(_)) if object["kind"] != "List" && object["kind"].is_string() => {
            vec![object]
        }
        // Nothing that was found is not the same as nothing that could be read.
        _ if status.success() => return unseen("kubectl printed what is no list of objects".to_owned()),
        _ => Vec::new(),
    };
    if status.success() {
        return Found { objects, unseen: Vec::new() };
    }
    let stderr = String::from_utf8_lossy(&stderr);
    let mut told: Vec<_> = stderr.lines().filter_map(|line| complaint(what, line)).collect();
    told.dedup();
    if told.is_empty() {
        told.push(format!("{what}: kubectl ended with {status}"));
    }
    Found { objects, unseen: told }
}

/// `events: forbidden` of a line on stderr; nothing of a warning, or of the client's own log.
fn complaint(what: &str, line: &str) -> Option<String> {
    let is_log = |line: &str| line.get(1..5).is_some_and(|day| day.bytes().all(|b| b.is_ascii_digit()));
    if line.trim().is_empty() || line.starts_with("Warning:") || is_log(line) {
        return None;
    }
    // `Error from server (Forbidden): deployments.apps is forbidden: User … cannot list resource …`
    let of_server = line.strip_prefix("Error from server (").and_then(|rest| rest.split_once("): "));
    let (kind, why) = match of_server {
        Some(("Forbidden", words)) => {
            (words.split([' ', '.']).next().unwrap_or(what).trim_matches('"'), "forbidden".to_owned())
        }
        Some(("NotFound", words)) if what != "cluster" => (what, plain(words)),
        Some((_, words)) => (what, plain(words)),
        None => (what, plain(line.trim_start_matches("error: "))),
    };
    Some(format!("{kind}: {why}"))
}

#[cfg(test)]
mod tests;
