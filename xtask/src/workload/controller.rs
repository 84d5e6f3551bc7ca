//! What Argo CD or Flux says of the commit that it is to apply.

use serde_json::Value;

use super::cause::{Cause, Kind, tag};
use super::{State, condition, quoted, text, time};
use crate::pipeline::Controller;

/// The commit that was applied last, 40 hex digits as the controller tells it.
pub fn synced(state: &State<'_>) -> Option<String> {
    let object = object(*state)?;
    let revision = match state.expected.place.controller.as_ref()? {
        Controller::Argocd(_) => {
            let compared = (text(object, "/status/sync/status") == Some("Synced"))
                .then(|| text(object, "/status/sync/revision"))
                .flatten();
            let history = object.pointer("/status/history").and_then(Value::as_array);
            compared.or_else(|| text(history?.last()?, "/revision"))
        }
        Controller::Flux(_) => text(object, "/status/lastAppliedRevision").map(commit),
    };
    revision.map(super::plain)
}

/// Why what is pinned was not applied; `what` says what is there.
pub fn not_applied(state: State<'_>, what: &str) -> Cause {
    let unsynced = |more: String, next: String| Cause::new(Kind::Unsynced, format!("{what}{more}"), next);
    let place = state.expected.place;
    let Some(controller) = &place.controller else {
        return unsynced(String::new(), apply(state));
    };
    let Some(object) = object(state) else {
        return unsynced(String::new(), look(state, controller, "get"));
    };
    let reached = revision(controller, object);
    // A branch goes on after the pin: its head has the pin too.
    let unreached = reached.zip(state.expected.commit);
    let unreached =
        unreached.filter(|(reached, wanted)| reached != wanted && Some(*reached) != state.expected.head);
    if is_suspended(controller, object) {
        return unsynced(": Flux is suspended here".to_owned(), flux(state, controller, "resume", ""));
    }
    if let Some((reached, wanted)) = unreached {
        let failed = failure(controller, object)
            .map_or_else(String::new, |words| format!(", where it failed: {words}"));
        let more = format!(": {} is at {}, not {}{failed}", title(controller), short(reached), short(wanted));
        return unsynced(more, again(state, controller));
    }
    // The guard's pod tells more than that its Job is not done.
    let guard = || {
        state
            .guard()
            .map(|guard| Cause::new(guard.kind, format!("{what}: the guard: {}", guard.what), guard.next))
    };
    if let Some(words) = failure(controller, object) {
        let failed = unsynced(format!(": sync failed: {words}"), look(state, controller, "describe"));
        return guard().unwrap_or(Cause { kind: Kind::SyncFailed, ..failed });
    }
    if text(object, "/status/operationState/phase") == Some("Running") {
        let since = time(object, "/status/operationState/startedAt");
        let since = since.map_or_else(String::new, |at| format!(" for {}", state.since(at)));
        let doing =
            text(object, "/status/operationState/message").map_or_else(String::new, |m| format!(": {m}"));
        let running =
            unsynced(format!(": Argo CD is syncing{since}{doing}"), look(state, controller, "describe"));
        return guard().unwrap_or(running);
    }
    let (says, done) = account(controller, object);
    if done {
        return unsynced(format!(": {says}"), look(state, controller, "describe"));
    }
    if matches!(controller, Controller::Argocd(_)) && object.pointer("/spec/syncPolicy/automated").is_none() {
        return unsynced(format!(": {says}, and is synced by hand"), sync_by_hand(controller));
    }
    unsynced(format!(": {says}"), again(state, controller))
}

/// The controller's own word, and whether it thinks that it is done: then it applies something else than is pinned.
fn account(controller: &Controller, object: &Value) -> (String, bool) {
    match controller {
        Controller::Argocd(_) => {
            let status = text(object, "/status/sync/status").unwrap_or("nothing");
            (format!("Argo CD says {status}"), status == "Synced")
        }
        Controller::Flux(_) => {
            let ready = condition(object, "Ready");
            let words = ready.and_then(|ready| text(ready, "/message")).unwrap_or("nothing");
            (format!("Flux says {words}"), ready.is_some_and(|ready| ready["status"] == "True"))
        }
    }
}

/// What the controller could not do, though the pinned image is applied.
pub fn failed(state: State<'_>) -> Option<Cause> {
    let controller = state.expected.place.controller.as_ref()?;
    let words = failure(controller, object(state)?)?;
    Some(Cause::new(Kind::SyncFailed, format!("sync failed: {words}"), look(state, controller, "describe")))
}

/// Has all that belongs to the Deployment applied once more.
pub fn apply_again(state: State<'_>) -> String {
    match &state.expected.place.controller {
        Some(controller @ Controller::Argocd(_)) => sync_by_hand(controller),
        Some(controller @ Controller::Flux(_)) => again(state, controller),
        None => apply(state),
    }
}

/// Where no controller does it.
fn apply(state: State<'_>) -> String {
    let version = state.expected.image.map_or("VERSION", tag);
    let (environment, context) = (state.expected.environment, quoted(&state.expected.place.context));
    format!("cargo xtask promote {environment} {version} --apply --context {context}")
}

fn object(state: State<'_>) -> Option<&Value> {
    let (kind, wanted) = match state.expected.place.controller.as_ref()? {
        Controller::Argocd(object) => ("Application", object),
        Controller::Flux(object) => ("Kustomization", object),
    };
    state.of_kind(kind).find(|object| text(object, "/metadata/name") == Some(&wanted.name))
}

const fn title(controller: &Controller) -> &'static str {
    match controller {
        Controller::Argocd(_) => "Argo CD",
        Controller::Flux(_) => "Flux",
    }
}

/// The commit that it looked at last.
fn revision<'v>(controller: &Controller, object: &'v Value) -> Option<&'v str> {
    match controller {
        Controller::Argocd(_) => text(object, "/status/sync/revision"),
        Controller::Flux(_) => text(object, "/status/lastAttemptedRevision").map(commit),
    }
}

/// Its own words for what went wrong.
fn failure(controller: &Controller, object: &Value) -> Option<String> {
    match controller {
        // What is told beside that is of an earlier commit.
        Controller::Argocd(_) if text(object, "/status/sync/status") == Some("Synced") => None,
        Controller::Argocd(_) => operation(object).or_else(|| comparison(object)),
        Controller::Flux(_) => {
            let ready = condition(object, "Ready").filter(|condition| condition["status"] == "False")?;
            let words = text(ready, "/message")?;
            Some(format!("{}: {words}", text(ready, "/reason").unwrap_or("not ready")))
        }
    }
}

/// Of Argo CD's last sync. Its message tells only that some object failed; which one, and why, is in the result.
fn operation(object: &Value) -> Option<String> {
    let operation = object.pointer("/status/operationState")?;
    let of = text(operation, "/syncResult/revision");
    let earlier = of.is_some() && of != text(object, "/status/sync/revision");
    if earlier || !["Failed", "Error"].contains(&text(operation, "/phase")?) {
        return None;
    }
    let resources = operation.pointer("/syncResult/resources").and_then(Value::as_array);
    let failed = resources.into_iter().flatten().find(|resource| {
        resource["status"] == "SyncFailed"
            || resource["hookPhase"] == "Failed"
            || resource["hookPhase"] == "Error"
    });
    let of = |resource: &Value| {
        let part = |key: &str| text(resource, key).unwrap_or("?").to_owned();
        format!("{}/{}: {}", part("/kind"), part("/name"), part("/message"))
    };
    Some(failed.map_or_else(|| text(operation, "/message").unwrap_or("no reason is given").to_owned(), of))
}

/// What Argo CD could not render or compare.
fn comparison(object: &Value) -> Option<String> {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array)?;
    let is_error = |condition: &&Value| text(condition, "/type").is_some_and(|kind| kind.ends_with("Error"));
    let error = conditions.iter().find(is_error)?;
    Some(format!("{}: {}", text(error, "/type")?, text(error, "/message")?))
}

fn is_suspended(controller: &Controller, object: &Value) -> bool {
    matches!(controller, Controller::Flux(_)) && object.pointer("/spec/suspend") == Some(&Value::Bool(true))
}

/// Has the controller look at the repository now.
fn again(state: State<'_>, controller: &Controller) -> String {
    match controller {
        Controller::Argocd(object) => state.kubectl_in(
            &object.namespace,
            &format!(
                "annotate applications.argoproj.io {} argocd.argoproj.io/refresh=normal --overwrite",
                object.name
            ),
        ),
        Controller::Flux(_) => flux(state, controller, "reconcile", " --with-source"),
    }
}

fn sync_by_hand(controller: &Controller) -> String {
    let object = controller.object();
    format!("argocd app sync {} --app-namespace {}", object.name, object.namespace)
}

fn flux(state: State<'_>, controller: &Controller, verb: &str, option: &str) -> String {
    let (object, context) = (controller.object(), quoted(&state.expected.place.context));
    format!("flux --context {context} -n {} {verb} kustomization {}{option}", object.namespace, object.name)
}

fn look(state: State<'_>, controller: &Controller, verb: &str) -> String {
    let (kind, object) = (kind(controller), controller.object());
    state.kubectl_in(&object.namespace, &format!("{verb} {kind} {}", object.name))
}

/// As kubectl takes it; other kinds share the short name.
pub const fn kind(controller: &Controller) -> &'static str {
    match controller {
        Controller::Argocd(_) => "applications.argoproj.io",
        Controller::Flux(_) => "kustomizations.kustomize.toolkit.fluxcd.io",
    }
}

/// `COMMIT` of Flux's `main@sha1:COMMIT`.
fn commit(revision: &str) -> &str {
    revision.rsplit(':').next().unwrap_or(revision)
}

fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}
