//! Why an environment is not up: from what was applied down to the newest pod's containers, the deepest that is told.

use serde::Serialize;
use serde_json::Value;

use super::{
    LastWords, NAME, State, available, condition, controller, image, plain, plain_long, pod, replicas, text,
    time,
};

/// Why, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cause {
    pub kind: Kind,
    /// One line.
    pub what: String,
    /// One command, or one action.
    pub next: String,
    /// Of the container that failed.
    pub words: Option<LastWords>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Another image than the pinned one is applied.
    Unsynced,
    SyncFailed,
    NoDeployment,
    ScaledToZero,
    /// No pod may be made: a quota, or an admission rule.
    PodRefused,
    /// The old pod is still there; a new one waits for its end.
    Terminating,
    Unschedulable,
    ClaimPending,
    /// Another node has the volume.
    VolumeAttached,
    /// A volume cannot be mounted, for another reason.
    Volume,
    MissingSecret,
    MissingConfigMap,
    ImagePull,
    /// The container cannot be made, for another reason.
    Container,
    Evicted,
    OomKilled,
    DiskFull,
    WrongVolume,
    SchemaAhead,
    LockHeld,
    Damaged,
    BadConfig,
    InitFailed,
    ServiceFailed,
    Migrating,
    Starting,
    NotReady,
}

impl Kind {
    /// It is on its way, and nothing is known to be wrong.
    pub const fn is_progress(self) -> bool {
        matches!(self, Self::Migrating | Self::Starting | Self::Terminating)
    }
}

impl Cause {
    pub fn new(kind: Kind, what: impl AsRef<str>, next: String) -> Self {
        Self { kind, what: plain(what), next: plain_long(next), words: None }
    }
}

impl<'a> State<'a> {
    pub fn cause(self) -> Option<Cause> {
        let Some(deployment) = self.deployment() else {
            return if self.sees("deployments") { Some(self.no_deployment()) } else { self.pod_cause() };
        };
        let (applied, pinned) = (image(deployment), self.expected.image);
        if let Some((applied, pinned)) = applied.zip(pinned).filter(|(a, b)| !same_image(a, b)) {
            return Some(controller::not_applied(
                self,
                &format!("{} is applied, not {}", tag(applied), tag(pinned)),
            ));
        }
        if replicas(deployment) == Some(0) {
            let next = self.kubectl("scale deployment dojo --replicas=1");
            return Some(Cause::new(Kind::ScaledToZero, "the Deployment is scaled to 0", next));
        }
        if deployment.pointer("/status/observedGeneration") != deployment.pointer("/metadata/generation") {
            let next = self.kubectl("rollout status deployment/dojo --timeout=120s");
            return Some(Cause::new(
                Kind::Starting,
                "the Deployment was changed, and nothing was done about it yet",
                next,
            ));
        }
        if available(deployment) == Some(true) {
            return controller::failed(self);
        }
        self.pod_cause().or_else(|| controller::failed(self))
    }

    fn no_deployment(self) -> Cause {
        let what = format!("there is no Deployment {NAME} in {}", self.expected.place.namespace);
        let cause = controller::not_applied(self, &what);
        // Nobody failed; it is not there at all.
        if cause.kind == Kind::Unsynced { Cause { kind: Kind::NoDeployment, ..cause } } else { cause }
    }

    fn pod_cause(self) -> Option<Cause> {
        match self.pod() {
            Some(found) => pod::cause(self, found),
            None => self.sees("pods").then(|| self.no_pod()),
        }
    }

    /// Why there is none of the new one.
    fn no_pod(self) -> Cause {
        let (live, terminating) = self.pods();
        if let Some(old) = terminating.first() {
            return self.terminating(old);
        }
        let set = self.replica_set();
        let refused = [self.deployment(), set].into_iter().flatten().find_map(|object| {
            condition(object, "ReplicaFailure")
                .filter(|c| c["status"] == "True")
                .and_then(|c| text(c, "/message"))
        });
        let event = || {
            let events = set.map(|set| self.events(set)).unwrap_or_default();
            events
                .into_iter()
                .find(|event| event["reason"] == "FailedCreate")
                .and_then(|e| text(e, "/message"))
        };
        if let Some(words) = refused.or_else(event) {
            let words = words.strip_prefix("Error creating: ").unwrap_or(words);
            let quota = words.contains("exceeded quota");
            let next = if quota { "describe resourcequotas" } else { "describe replicasets -l app=dojo" };
            return Cause::new(Kind::PodRefused, format!("no pod may be made: {words}"), self.kubectl(next));
        }
        let what = if live.is_empty() { "no pod was made yet" } else { "the old pod is still there" };
        Cause::new(Kind::Starting, what, self.kubectl("rollout status deployment/dojo --timeout=120s"))
    }

    fn terminating(self, pod: &Value) -> Cause {
        let name = text(pod, "/metadata/name").unwrap_or("?");
        // The time at which it is to be gone; it was asked to go its grace period before.
        let until = time(pod, "/metadata/deletionTimestamp");
        let grace = pod.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0);
        let asked = until.map(|until| until - jiff::SignedDuration::from_secs(grace));
        let since = asked.map_or_else(String::new, |asked| format!(" for {}", self.since(asked)));
        let what = format!("the old pod {name} is terminating{since}, of {grace}s that it has");
        let overdue = until.is_some_and(|until| until < self.now);
        let next = match text(pod, "/spec/nodeName").filter(|_| overdue) {
            // A node that is lost keeps its pods for ever, and may still have the ledger open.
            Some(node) => format!(
                "kubectl --context {} describe node {node}",
                super::quoted(&self.expected.place.context)
            ),
            None => self.kubectl(&format!("wait --for=delete pod/{name} --timeout=120s")),
        };
        Cause::new(Kind::Terminating, what, next)
    }
}

/// By digest where both have one, since a tag before it says nothing.
fn same_image(a: &str, b: &str) -> bool {
    match (a.split_once('@'), b.split_once('@')) {
        (Some((_, a)), Some((_, b))) => a == b,
        _ => a == b,
    }
}

/// `v0.2.0` of `HOST/OWNER/NAME:v0.2.0@sha256:…`; the short digest where there is no tag.
pub fn tag(image: &str) -> &str {
    let (name, digest) = image.split_once('@').unwrap_or((image, ""));
    let tag = name.rsplit('/').next().and_then(|last| last.split_once(':')).map(|(_, tag)| tag);
    tag.unwrap_or_else(|| digest.get(..19).unwrap_or(image))
}
