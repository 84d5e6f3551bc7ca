//! Each recorded state of a cluster, and what is told of it.

use std::path::Path;

use jiff::SignedDuration;

use super::*;
use crate::pipeline::Pipeline;

const PINNED: &str = "ghcr.io/blogle/dojo:v0.2.0@sha256:DIGEST";
const COMMIT: &str = "9b2e4d6f81a3c5e7092b4d6f81a3c5e7092b4d6f";

fn now() -> Timestamp {
    "2026-11-23T03:15:00Z".parse().unwrap()
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster")
}

/// The objects of a recorded state, with its times, `@-192s`, told from now.
fn objects(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(folder().join(format!("{name}.json"))).unwrap();
    let mut parts = text.split("\"@");
    let mut real = parts.next().unwrap().to_owned();
    for part in parts {
        let (seconds, rest) = part.split_once("s\"").unwrap();
        let at = now() + SignedDuration::from_secs(seconds.parse().unwrap());
        real.push_str(&format!("\"{at}\"{rest}"));
    }
    let list: Value = serde_json::from_str(&real).unwrap();
    assert_eq!(list["kind"], "List");
    list["items"].as_array().unwrap().clone()
}

fn place(controller: &str) -> Place {
    let text = include_str!("../../../deploy/pipeline.yaml");
    let at = format!("cluster: {{context: prod, namespace: dojo-prod{controller}}}, after: staging, url:");
    let pipeline = Pipeline::parse(&text.replacen("after: staging, url:", &at, 1)).unwrap();
    pipeline.environment("production").unwrap().cluster.clone().unwrap()
}

fn workload(found: &Found) -> Workload {
    let controller =
        match found.objects.iter().find_map(|object| {
            object["kind"].as_str().filter(|k| ["Application", "Kustomization"].contains(k))
        }) {
            Some("Application") => ", argocd: argocd/dojo-production",
            Some(_) => ", flux: flux-system/dojo-production",
            None => "",
        };
    let place = place(controller);
    let image = PINNED.replace("DIGEST", Digest::of(b"v0.2.0").hex());
    let expected = Expected {
        environment: "production",
        place: &place,
        image: Some(&image),
        commit: Some(COMMIT),
        head: None,
    };
    read(found, &expected, now())
}

fn of(name: &str) -> Workload {
    workload(&Found { objects: objects(name), unseen: Vec::new() })
}

const POD: &str = "dojo-6d4b9c7f58-x2x9k";
const OLD_POD: &str = "dojo-7c9f8b6d44-q8v5n";

/// Name of the file, kind, what, next; `@` is kubectl in the environment's namespace, `POD` the newest pod's name.
const STATES: &[(&str, &str, &str, &str)] = &[
    (
        "unsynced_argocd",
        "unsynced",
        "v0.1.0 is applied, not v0.2.0: Argo CD is at 3f1c9a7be2d4, not 9b2e4d6f81a3",
        "kubectl --context prod -n argocd annotate applications.argoproj.io dojo-production argocd.argoproj.io/refresh=normal --overwrite",
    ),
    (
        "unsynced_argocd_by_hand",
        "unsynced",
        "v0.1.0 is applied, not v0.2.0: Argo CD says OutOfSync, and is synced by hand",
        "argocd app sync dojo-production --app-namespace argocd",
    ),
    (
        "unsynced_flux",
        "unsynced",
        "v0.1.0 is applied, not v0.2.0: Flux is at 3f1c9a7be2d4, not 9b2e4d6f81a3",
        "flux --context prod -n flux-system reconcile kustomization dojo-production --with-source",
    ),
    (
        "suspended_flux",
        "unsynced",
        "v0.1.0 is applied, not v0.2.0: Flux is suspended here",
        "flux --context prod -n flux-system resume kustomization dojo-production",
    ),
    (
        "build_failed_flux",
        "sync_failed",
        "v0.1.0 is applied, not v0.2.0: sync failed: BuildFailed: kustomize build failed: accumulating resources: accumulation err='accumulatin … t 27s timeout running '/usr/bin/git fetch --depth=1 origin v0.2.0'",
        "kubectl --context prod -n flux-system describe kustomizations.kustomize.toolkit.fluxcd.io dojo-production",
    ),
    (
        "sync_failed_argocd",
        "sync_failed",
        r#"v0.1.0 is applied, not v0.2.0: sync failed: Deployment/dojo: Deployment.apps "dojo" is invalid: spec.selector: Invalid value: v1.Label … MatchLabels:map[string]string{"app":"ledger"}}: field is immutable"#,
        "kubectl --context prod -n argocd describe applications.argoproj.io dojo-production",
    ),
    (
        "presync_failed_argocd",
        "sync_failed",
        "v0.1.0 is applied, not v0.2.0: sync failed: Job/dojo-presync: Job was active longer than specified deadline",
        "kubectl --context prod -n argocd describe applications.argoproj.io dojo-production",
    ),
    (
        "guard_missing_secret",
        "missing_secret",
        "v0.1.0 is applied, not v0.2.0: the guard: there is no Secret dojo",
        "@ create secret generic dojo --from-file=tokens=FILE",
    ),
    (
        "not_there",
        "no_deployment",
        "there is no Deployment dojo in dojo-prod: Argo CD says OutOfSync",
        "kubectl --context prod -n argocd annotate applications.argoproj.io dojo-production argocd.argoproj.io/refresh=normal --overwrite",
    ),
    (
        "scaled_to_zero",
        "scaled_to_zero",
        "the Deployment is scaled to 0",
        "@ scale deployment dojo --replicas=1",
    ),
    (
        "quota",
        "pod_refused",
        r#"no pod may be made: pods "POD" is forbidden: exceeded quota: compute, requested: limits.memory=1Gi, used: limits.memory=4Gi, limited: limits.memory=4Gi"#,
        "@ describe resourcequotas",
    ),
    (
        "terminating",
        "terminating",
        "the old pod OLDPOD is terminating for 25s, of 60s that it has",
        "@ wait --for=delete pod/OLDPOD --timeout=120s",
    ),
    (
        "terminating_node_lost",
        "terminating",
        "the old pod OLDPOD is terminating for 6m, of 60s that it has",
        "kubectl --context prod describe node node-a",
    ),
    (
        "unschedulable",
        "unschedulable",
        "no node takes the pod: 0/3 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/unreachable: }, 2 Insufficient memory.",
        "@ describe pod POD",
    ),
    (
        "claim_pending",
        "claim_pending",
        r#"the claim dojo-data is Pending: storageclass.storage.k8s.io "standard" not found"#,
        "@ describe persistentvolumeclaims dojo-data",
    ),
    (
        "multi_attach",
        "volume_attached",
        r#"Multi-Attach error for volume "pvc-2f6a1d0e-7b1c-4c5e-9a3d-1b2c3d4e5f60" Volume is already used by pod(s) OLDPOD"#,
        "@ get pods -o wide",
    ),
    (
        "missing_secret",
        "missing_secret",
        "there is no Secret dojo",
        "@ create secret generic dojo --from-file=tokens=FILE",
    ),
    (
        "missing_secret_key",
        "missing_secret",
        "the Secret dojo has no key tokens",
        "@ create secret generic dojo --from-file=tokens=FILE --dry-run=client -o yaml | @ apply -f -",
    ),
    (
        "missing_config_map",
        "missing_config_map",
        "there is no ConfigMap dojo-5gk2h9b7mf",
        "cargo xtask promote production v0.2.0 --apply --context prod",
    ),
    ("image_pull", "image_pull", "image pull failed: v0.2.0: not found", "@ describe pod POD"),
    (
        "image_pull_unauthorized",
        "image_pull",
        "image pull failed: v0.2.0: failed to authorize: failed to fetch anonymous token: unexpected status from GET request to https://ghcr.io … epository%3Ablogle%2Fdojo%3Apull&service=ghcr.io: 401 Unauthorized",
        "@ describe pod POD",
    ),
    (
        "init_disk_full",
        "disk_full",
        "init failed, migration 0007, disk full",
        "enlarge the claim dojo-data (5Gi) in the infra repository, by a patch of its spec.resources.requests.storage",
    ),
    (
        "init_migration_failed",
        "init_failed",
        "init failed, migration 0007: Constraint Error: NOT NULL constraint failed: attachment.sha256",
        "@ logs POD -c migrate --previous --tail=20",
    ),
    (
        "init_wrong_volume",
        "wrong_volume",
        "init failed, wrong volume: there is no ledger at /data/ledger.duckdb",
        "@ describe persistentvolumeclaims dojo-data",
    ),
    (
        "init_schema_ahead",
        "schema_ahead",
        "init failed, schema ahead: refused /data/ledger.duckdb: the file is at schema 8 (written by dojo 0.3.0) and this dojo 0.2.0 knows schema 7",
        "@ logs POD -c migrate --previous --tail=20",
    ),
    (
        "init_lock_held",
        "lock_held",
        "init failed, lock held: /data/ledger.duckdb is held by host OLDPOD, pid 1, since 2026-11-13T03:12:07Z",
        "@ get pods -o wide",
    ),
    ("init_again_after_failure", "migrating", "migrating for 1m 35s", "@ logs POD -c migrate --tail=20"),
    ("migrating", "migrating", "migrating for 1m 35s", "@ logs POD -c migrate --tail=20"),
    ("starting", "starting", "starting for 42s", "@ logs POD -c dojo --tail=20"),
    (
        "not_ready",
        "not_ready",
        "runs for 2m 48s, and is not ready: Readiness probe failed: HTTP probe failed with statuscode: 503",
        "@ logs POD -c dojo --tail=20",
    ),
    (
        "service_crash",
        "service_failed",
        "service failed: cannot listen on 0.0.0.0:8000: Address already in use (os error 98)",
        "@ logs POD -c dojo --previous --tail=20",
    ),
    (
        "service_config",
        "bad_config",
        "service failed, configuration: DOJO_TOKEN_FILE=/run/secrets/dojo/tokens has no token",
        "@ logs POD -c dojo --previous --tail=20",
    ),
    (
        "oom_killed",
        "oom_killed",
        "service was killed at its memory limit (1Gi)",
        "raise the memory limit (1Gi) in the infra repository, by a patch of the Deployment",
    ),
    (
        "evicted",
        "evicted",
        "the pod was evicted: The node was low on resource: ephemeral-storage. Threshold quantity: 4294967296, available: 1Gi.",
        "@ describe pod POD",
    ),
    ("forbidden_events", "starting", "starting for 3m 5s: PodInitializing", "@ describe pod POD"),
];

#[test]
fn each_recorded_state_is_told_with_what_to_do() {
    for (name, kind, what, next) in STATES {
        let real = |text: &str| {
            let text = text.replace("OLDPOD", OLD_POD).replace("POD", POD);
            text.replace('@', "kubectl --context prod -n dojo-prod")
        };
        let cause = of(name).cause.unwrap_or_else(|| panic!("{name}: nothing is told"));
        assert_eq!((&cause.what, &cause.next), (&real(what), &real(next)), "{name}");
        assert_eq!(serde_json::to_value(cause.kind).unwrap(), *kind, "{name}");
    }
    let mut names: Vec<_> = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| STATES.iter().all(|(name, ..)| *path != folder().join(format!("{name}.json"))));
    assert_eq!(names, [folder().join("well.json")]);
}

#[test]
fn what_is_well_has_no_cause() {
    let well = of("well");
    assert_eq!((well.available, well.down_since, &well.cause), (Some(true), None, &None));
    assert_eq!((well.digest, well.synced.as_deref()), (Some(Digest::of(b"v0.2.0")), Some(COMMIT)));
    assert!(well.image.unwrap().starts_with("ghcr.io/blogle/dojo:v0.2.0@sha256:"));
    // A digest decides what runs, whatever the tag before it says.
    let mut renamed = objects("well");
    let image = &mut renamed[0]["spec"]["template"]["spec"]["containers"][0]["image"];
    *image = image.as_str().unwrap().replace("v0.2.0", "edge").into();
    assert_eq!(
        workload(&Found { objects: renamed, unseen: vec!["replicasets: forbidden".into()] }).cause,
        None
    );
    let old = of("unsynced_flux");
    assert_eq!((old.available, old.digest), (Some(true), Some(Digest::of(b"v0.1.0"))));
}

#[test]
fn since_when_it_is_down_is_the_deployments_word() {
    let down = |name: &str| of(name).down_since.map(|at| span(now().duration_since(at)));
    assert_eq!(down("init_disk_full").as_deref(), Some("3m 12s"));
    assert_eq!(down("terminating").as_deref(), Some("20s"));
    assert_eq!((down("scaled_to_zero"), of("scaled_to_zero").available), (None, Some(false)));
    assert_eq!(down("unsynced_argocd"), None);
}

#[test]
fn what_was_not_seen_is_unknown() {
    let forbidden = |kind: &str, unseen: &str| {
        let mut objects = objects("missing_secret");
        objects.retain(|object| object["kind"] != kind);
        workload(&Found { objects, unseen: vec![unseen.to_owned()] })
    };
    let blind = forbidden("Event", "events: forbidden");
    assert_eq!(blind.unseen, ["events: forbidden"]);
    assert_eq!(blind.cause.unwrap().what, "starting for 3m 5s: PodInitializing");
    let cause = forbidden("Deployment", "deployments: forbidden");
    assert_eq!((cause.image, cause.available, cause.down_since), (None, None, None));
    assert_eq!(cause.cause.unwrap().what, "there is no Secret dojo");
    assert_eq!(
        forbidden("ReplicaSet", "replicasets: forbidden").cause.unwrap().what,
        "there is no Secret dojo"
    );
    assert_eq!(forbidden("Pod", "pods: forbidden").cause, None);
    let silent = workload(&Found { objects: Vec::new(), unseen: vec!["cluster: no context prod".into()] });
    assert_eq!((silent.image, silent.available, silent.cause, silent.synced), (None, None, None, None));
}

#[test]
fn nothing_is_told_of_what_is_over() {
    // The volume came, the Secret was made; the pod has not said so yet.
    for (name, reason) in [("multi_attach", "SuccessfulAttachVolume"), ("missing_secret", "Pulling")] {
        let mut objects = objects(name);
        objects
            .retain(|object| object["message"].as_str().is_none_or(|m| !m.starts_with("Unable to attach")));
        let at = (now() - SignedDuration::from_secs(1)).to_string();
        let pod = serde_json::json!({"kind": "Pod", "name": POD});
        objects.push(
            serde_json::json!({"kind": "Event", "involvedObject": pod, "reason": reason, "lastTimestamp": at,
            "message": "it goes on"}),
        );
        let cause = workload(&Found { objects, unseen: Vec::new() }).cause.unwrap();
        assert_eq!(cause.what, "starting for 3m 5s: it goes on", "{name}");
        assert!(cause.kind.is_progress());
    }
    // Argo CD keeps the failure of an earlier sync.
    let failed = objects("sync_failed_argocd").pop().unwrap()["status"]["operationState"].take();
    let told = |sync: Value| {
        let mut objects = objects("well");
        let status = &mut objects.last_mut().unwrap()["status"];
        (status["operationState"], status["sync"]) = (failed.clone(), sync);
        workload(&Found { objects, unseen: Vec::new() }).cause.map(|cause| cause.kind)
    };
    assert_eq!(told(serde_json::json!({"status": "Synced", "revision": COMMIT})), None);
    assert_eq!(told(serde_json::json!({"status": "OutOfSync", "revision": "0"})), None);
    assert_eq!(told(serde_json::json!({"status": "OutOfSync", "revision": COMMIT})), Some(Kind::SyncFailed));
    // The Deployment still tells of the pod before the change.
    let mut objects = objects("well");
    objects[0]["metadata"]["generation"] = 8.into();
    let cause = workload(&Found { objects, unseen: Vec::new() }).cause.unwrap();
    assert_eq!((cause.kind, cause.what.contains("nothing was done")), (Kind::Starting, true));
}

#[test]
fn a_sidecar_is_not_the_service() {
    let mut objects = objects("not_ready");
    let pod = objects.iter_mut().find(|object| object["kind"] == "Pod").unwrap();
    let status = serde_json::json!({"name": "proxy", "state": {"running": {}}, "ready": true});
    pod["status"]["initContainerStatuses"].as_array_mut().unwrap().insert(0, status);
    let spec = serde_json::json!({"name": "proxy", "restartPolicy": "Always"});
    pod["spec"]["initContainers"].as_array_mut().unwrap().insert(0, spec);
    assert_eq!(workload(&Found { objects, unseen: Vec::new() }).cause.unwrap().kind, Kind::NotReady);
}

#[test]
fn last_words_are_read_as_dojo_writes_them() {
    let words = of("init_disk_full").cause.unwrap().words.unwrap();
    assert!(
        words.error.starts_with("migrating /data/ledger.duckdb: 0007_attachments.sql failed"),
        "{words:?}"
    );
    let data = words.data.unwrap();
    assert_eq!((data.schema.current, data.schema.oldest_binary, data.sequence), (6, 5, 4211));
    assert_eq!(words.backups[0], "ledger-schema6-seq4211");
    let read = |text: &str| LastWords::parse(text).unwrap();
    assert_eq!(read("x\nerror: a\n  b\nhelp: c\n").error, "a b");
    assert_eq!(read("ror: cut off\nhelp: c\n").help.as_deref(), Some("c"));
    assert_eq!(read("{\"level\":\"ERROR\",\"message\":\"panicked\"}\n").error, "panicked");
    assert_eq!(read("error: a\ndata: schema one\n").data, None);
    assert_eq!(LastWords::parse("\n"), None);
    let hostile = read("error: \u{1b}[2J https://me:secret@example.com/x\n");
    assert_eq!(hostile.error, "[2J https://***@example.com/x");
}
