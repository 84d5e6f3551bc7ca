//! The rules on what runs: the Deployment, the Job, and their containers.

use serde_json::{Value, json};

use super::super::manifest::{
    Finding, Manifest, POD, Role, containers, finding, list, named, text, wants, wants_some,
};
use crate::pipeline::Accepts;
use crate::version::Version;

pub fn one_writer(m: &Manifest) -> Vec<Finding> {
    let fix = "a second process cannot open the ledger: set it to 1";
    m.of_kind("Deployment").filter_map(|d| wants(d, "/spec/replicas", &json!(1), fix)).collect()
}

pub fn recreate(m: &Manifest) -> Vec<Finding> {
    let fix = "a rolling update starts the new pod while the old one holds the ledger";
    m.of_kind("Deployment")
        .filter_map(|d| wants(d, "/spec/strategy", &json!({"type": "Recreate"}), fix))
        .collect()
}

/// Where an environment is deployed, `data` is the claim; elsewhere it may be gone with the pod.
pub fn volume(m: &Manifest) -> Vec<Finding> {
    let fix = "mount the claim, or the ledger is gone with the pod";
    let mut found = Vec::new();
    for workload in m.workloads() {
        let volumes = format!("{POD}/volumes");
        if m.is_guard(workload) {
            let claims = list(workload, &volumes).iter().any(|v| v.get("persistentVolumeClaim").is_some());
            let fix = "the old pod has the volume: a guard must not wait for it";
            found.extend(claims.then(|| finding(workload, &volumes, "has a claim", fix)));
            continue;
        }
        let data = named(workload, &volumes, "data");
        if !matches!(m.role, Role::Local) || workload.pointer(&format!("{data}/emptyDir")).is_none() {
            let claim = format!("{data}/persistentVolumeClaim/claimName");
            found.extend(wants(workload, &claim, &json!("dojo-data"), fix));
        }
    }
    found
}

pub fn probes(m: &Manifest) -> Vec<Finding> {
    let fix = "the service listens on 8000, is ready by /readyz and alive by /healthz";
    let wanted = [("startupProbe", "/healthz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")];
    let mut found = Vec::new();
    for deployment in m.of_kind("Deployment") {
        let container = format!("{POD}/containers/0");
        for (probe, path) in wanted {
            let get = format!("{container}/{probe}/httpGet");
            found.extend(wants(deployment, &get, &json!({"path": path, "port": 8000}), fix));
        }
        found.extend(wants(deployment, &format!("{container}/ports/0/containerPort"), &json!(8000), fix));
    }
    found
}

pub fn grace_period(m: &Manifest) -> Vec<Finding> {
    let path = format!("{POD}/terminationGracePeriodSeconds");
    let fix = "10 s to finish requests and a checkpoint must fit: 30 or more";
    m.of_kind("Deployment")
        .filter(|deployment| {
            deployment.pointer(&path).and_then(Value::as_u64).is_none_or(|seconds| seconds < 30)
        })
        .map(|deployment| finding(deployment, &path, "is missing or too short", fix))
        .collect()
}

pub fn resources(m: &Manifest) -> Vec<Finding> {
    let fix = "give it one, or one pod can starve its node";
    let wanted = ["requests/cpu", "requests/memory", "limits/cpu", "limits/memory"];
    each_container(m, |workload, container| {
        wanted
            .iter()
            .filter_map(|key| wants_some(workload, &format!("{container}/resources/{key}"), fix))
            .collect()
    })
}

pub fn pod_security(m: &Manifest) -> Vec<Finding> {
    let fix = "see deploy/k8s/base/deployment.yaml";
    let wanted = [
        ("securityContext/runAsNonRoot", json!(true)),
        ("securityContext/runAsUser", json!(1000)),
        ("securityContext/runAsGroup", json!(1000)),
        ("securityContext/fsGroup", json!(1000)),
        ("securityContext/fsGroupChangePolicy", json!("OnRootMismatch")),
        ("securityContext/seccompProfile", json!({"type": "RuntimeDefault"})),
        ("automountServiceAccountToken", json!(false)),
        ("enableServiceLinks", json!(false)),
    ];
    m.workloads()
        .flat_map(|pod| {
            wanted.iter().filter_map(move |(key, value)| wants(pod, &format!("{POD}/{key}"), value, fix))
        })
        .collect()
}

/// Whole objects are compared: a container must not take back what its pod's context gives.
pub fn container_security(m: &Manifest) -> Vec<Finding> {
    let fix = "see deploy/k8s/base/deployment.yaml";
    let confined = json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
    });
    each_container(m, |workload, container| {
        wants(workload, &format!("{container}/securityContext"), &confined, fix).into_iter().collect()
    })
}

pub fn mounts(m: &Manifest) -> Vec<Finding> {
    each_container(m, |workload, container| {
        let path = format!("{container}/volumeMounts");
        let mounted = |name: &str, at: &str| {
            list(workload, &path).iter().any(|mount| {
                mount["name"] == name
                    && mount["mountPath"] == at
                    && mount.get("readOnly") != Some(&json!(true))
            })
        };
        [("data", "/data"), ("tmp", "/tmp")]
            .iter()
            .filter(|(name, _)| *name != "data" || !m.is_guard(workload))
            .filter(|(name, at)| !mounted(name, at))
            .map(|(name, at)| {
                let problem = format!("has no writable {name} at {at}");
                finding(workload, &path, problem, "the root file system is read-only: mount it")
            })
            .collect()
    })
}

/// The same image, volume and settings as the service, so that what migrates is what then serves.
pub fn migrate_first(m: &Manifest) -> Vec<Finding> {
    let (init, main) = (format!("{POD}/initContainers/0"), format!("{POD}/containers/0"));
    let fix = "the init container migrates with the service's own image and settings";
    let mut found = Vec::new();
    for deployment in m.of_kind("Deployment") {
        found.extend(wants(deployment, &format!("{init}/args"), &json!(["migrate", "--backup"]), fix));
        for key in ["image", "env", "envFrom", "volumeMounts"] {
            let wanted = deployment.pointer(&format!("{main}/{key}")).unwrap_or(&Value::Null);
            found.extend(wants(deployment, &format!("{init}/{key}"), wanted, fix));
        }
    }
    for job in m.of_kind("Job") {
        if m.is_guard(job) {
            found.extend(guard(m, job));
            continue;
        }
        found.extend(wants(job, &format!("{main}/args"), &json!(["init"]), "the Job makes the ledger"));
        found.extend(wants(job, &format!("{POD}/restartPolicy"), &json!("Never"), "a person looks first"));
    }
    found
}

/// What it checks is what is then started; and it ends, whatever it meets.
fn guard(m: &Manifest, job: &Value) -> Vec<Finding> {
    let main = format!("{POD}/containers/0");
    let fix = "see deploy/k8s/components/presync";
    let mut found = vec![
        wants(job, &format!("{main}/args"), &json!(["check", "--config"]), fix),
        wants(job, &format!("{POD}/restartPolicy"), &json!("Never"), fix),
        wants_some(job, "/spec/activeDeadlineSeconds", "a pod that cannot start never fails by itself"),
    ];
    for deployment in m.of_kind("Deployment") {
        for key in ["image", "env", "envFrom"] {
            let wanted = deployment.pointer(&format!("{main}/{key}")).unwrap_or(&Value::Null);
            found.push(wants(job, &format!("{main}/{key}"), wanted, "it checks what the service gets"));
        }
    }
    found.into_iter().flatten().collect()
}

/// Why a container ended is read from its pod's status.
pub fn last_words(m: &Manifest) -> Vec<Finding> {
    let fix = "the end of the log is then in the pod's status, where `cargo xtask status` reads it";
    each_container(m, |workload, container| {
        let path = format!("{container}/terminationMessagePolicy");
        wants(workload, &path, &json!("FallbackToLogsOnError"), fix).into_iter().collect()
    })
}

/// Every container runs the pipeline's image, and where only releases are accepted, a release.
pub fn image(m: &Manifest) -> Vec<Finding> {
    let pinned = match m.role {
        Role::Deployed(environment) => environment.accepts == [Accepts::Release],
        Role::Init => true,
        Role::Local => false,
    };
    each_container(m, |workload, container| {
        let path = format!("{container}/image");
        let image = text(workload, &path);
        let tag = image.strip_prefix(m.image).and_then(|rest| rest.strip_prefix(':'));
        let tag = tag.and_then(|tag| tag.split('@').next());
        let fix = match tag {
            None => format!("the image is {}:TAG", m.image),
            Some(tag) if pinned && Version::from_tag(tag).is_none() => {
                "it takes releases only: vX.Y.Z".into()
            }
            Some("latest") => "a tag that moves with each release pins nothing".into(),
            Some(_) => return Vec::new(),
        };
        vec![finding(workload, &path, format!("is {image}"), &fix)]
    })
}

pub fn each_container(m: &Manifest, find: impl Fn(&Value, &str) -> Vec<Finding>) -> Vec<Finding> {
    m.workloads()
        .flat_map(|workload| {
            containers(workload).into_iter().flat_map(|path| find(workload, &path)).collect::<Vec<_>>()
        })
        .collect()
}
