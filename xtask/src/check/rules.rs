//! The rules, each a pure function from a rendered folder to what is wrong with it.
//!
//! A rule says nothing of objects that are not there: `objects` alone does.

mod pod;

use serde_json::{Value, json};

use super::manifest::{Finding, Manifest, POD, Role, Violation, finding, list, named, text, wants};
use crate::pipeline::Environment;

type Rule = fn(&Manifest) -> Vec<Finding>;

const RULES: [(&str, Rule); 19] = [
    ("objects", objects),
    ("one-writer", pod::one_writer),
    ("recreate", pod::recreate),
    ("volume", pod::volume),
    ("volume-kept", volume_kept),
    ("probes", pod::probes),
    ("grace-period", pod::grace_period),
    ("resources", pod::resources),
    ("pod-security", pod::pod_security),
    ("container-security", pod::container_security),
    ("mounts", pod::mounts),
    ("migrate-first", pod::migrate_first),
    ("last-words", pod::last_words),
    ("service", service),
    ("ingress", ingress),
    ("namespace", namespace),
    ("references", references),
    ("settings", settings),
    ("image", pod::image),
];

/// Every violation in this folder, rule by rule.
pub fn check(manifest: &Manifest) -> Vec<Violation> {
    let of_rule = |(rule, find): &(&'static str, Rule)| {
        let rule = *rule;
        find(manifest).into_iter().map(move |Finding { object, path, problem, fix }| Violation {
            folder: manifest.folder.to_owned(),
            rule,
            object,
            path,
            problem,
            fix,
        })
    };
    RULES.iter().flat_map(of_rule).collect()
}

fn objects(m: &Manifest) -> Vec<Finding> {
    let counts: &[(&str, usize)] = match m.role {
        Role::Deployed(_) => {
            &[("Deployment", 1), ("Service", 1), ("Ingress", 1), ("PersistentVolumeClaim", 1)]
        }
        Role::Local => &[("Deployment", 1), ("Service", 1)],
        Role::Init => &[("Deployment", 0), ("Job", 1)],
    };
    let forbidden = [
        ("Namespace", "deleting the app would delete it and the volume"),
        ("Secret", "make it in the cluster"),
    ];
    let wrong_count =
        counts.iter().filter(|(kind, count)| m.of_kind(kind).count() != *count).map(|(kind, count)| {
            let problem = format!("stands {} times, not {count}", m.of_kind(kind).count());
            Finding {
                object: (*kind).into(),
                path: "/".into(),
                problem,
                fix: "see the overlay's resources".into(),
            }
        });
    let unwanted = forbidden.iter().flat_map(|(kind, fix)| {
        m.of_kind(kind).map(|object| finding(object, "/", "is in the repository", fix))
    });
    wrong_count.chain(unwanted).collect()
}

fn volume_kept(m: &Manifest) -> Vec<Finding> {
    let fix = "the ledger must outlive the app: see deploy/k8s/base/pvc.yaml";
    let wanted = [
        ("/metadata/annotations/argocd.argoproj.io~1sync-options", json!("Prune=false,Delete=false")),
        ("/metadata/annotations/kustomize.toolkit.fluxcd.io~1prune", json!("disabled")),
        ("/spec/accessModes", json!(["ReadWriteOnce"])),
    ];
    m.of_kind("PersistentVolumeClaim")
        .flat_map(|claim| wanted.iter().filter_map(|(path, value)| wants(claim, path, value, fix)))
        .collect()
}

/// Also that nothing else than the Deployment's pods is behind the Service.
fn service(m: &Manifest) -> Vec<Finding> {
    let labels = json!({"app": "dojo"});
    let mut found = Vec::new();
    for deployment in m.of_kind("Deployment") {
        let fix = "selector and pod labels are app: dojo, here and in the Service";
        found.extend(wants(deployment, "/spec/selector/matchLabels", &labels, fix));
        found.extend(wants(deployment, "/spec/template/metadata/labels/app", &labels["app"], fix));
    }
    for service in m.of_kind("Service") {
        found.extend(wants(service, "/spec/selector", &labels, "it finds the pods by app: dojo"));
        found.extend(wants(service, "/spec/type", &json!("ClusterIP"), "the Ingress is the only way in"));
        found.extend(wants(service, "/spec/ports/0/port", &json!(80), "the Service maps 80 to 8000"));
        found.extend(wants(service, "/spec/ports/0/targetPort", &json!(8000), "the Service maps 80 to 8000"));
    }
    for job in m.of_kind("Job").filter(|job| text(job, "/spec/template/metadata/labels/app") == "dojo") {
        found.push(finding(
            job,
            "/spec/template/metadata/labels/app",
            "is dojo",
            "the Service would send it requests",
        ));
    }
    found
}

fn ingress(m: &Manifest) -> Vec<Finding> {
    let Role::Deployed(environment) = m.role else { return Vec::new() };
    let backend = "/spec/rules/0/http/paths/0/backend/service/name";
    let mut found = Vec::new();
    for ingress in m.of_kind("Ingress") {
        let fix = "the host is that of the environment's url in deploy/pipeline.yaml";
        found.extend(wants(ingress, "/spec/rules/0/host", &json!(host(environment)), fix));
        if !m.has("Service", text(ingress, backend)) {
            found.push(finding(ingress, backend, "names no Service of this overlay", "it is dojo"));
        }
    }
    found
}

/// The host of `https://HOST[:PORT][/…]`.
fn host(environment: &Environment) -> &str {
    let url = environment.url.split_once("://").map_or(environment.url.as_str(), |(_, rest)| rest);
    url.split(['/', ':']).next().unwrap_or(url)
}

fn namespace(m: &Manifest) -> Vec<Finding> {
    let wanted = match m.role {
        // Applied with `kubectl -n`, since it serves each of them.
        Role::Init => Value::Null,
        _ if m.name() == "production" => json!("dojo-prod"),
        _ => json!(format!("dojo-{}", m.name())),
    };
    let fix = "set it in the overlay's kustomization.yaml";
    m.objects
        .iter()
        .filter(|object| object.pointer("/metadata/namespace").unwrap_or(&Value::Null) != &wanted)
        .map(|object| {
            let found = text(object, "/metadata/namespace");
            finding(object, "/metadata/namespace", format!("is {found:?}, not {wanted}"), fix)
        })
        .collect()
}

/// What the pods name is in the overlay, or is the Secret and the claim that are known to be made elsewhere.
fn references(m: &Manifest) -> Vec<Finding> {
    let volumes = format!("{POD}/volumes");
    let mut found = Vec::new();
    for workload in m.workloads() {
        for volume in list(workload, &volumes) {
            let secret = text(volume, "/secret/secretName");
            if !secret.is_empty() && secret != "dojo" {
                let problem = format!("names the unknown Secret {secret}");
                found.push(finding(workload, &volumes, problem, "the one Secret is dojo"));
            }
            let claim = text(volume, "/persistentVolumeClaim/claimName");
            if !claim.is_empty() && !matches!(m.role, Role::Init) && !m.has("PersistentVolumeClaim", claim) {
                let problem = format!("names the claim {claim}, which is not here");
                found.push(finding(workload, &volumes, problem, "add it to the overlay's resources"));
            }
        }
    }
    found.extend(pod::each_container(m, |workload, container| {
        let maps = format!("{container}/envFrom");
        let absent = list(workload, &maps)
            .iter()
            .map(|source| text(source, "/configMapRef/name"))
            .filter(|name| !m.has("ConfigMap", name));
        let fix = "generate it in the overlay";
        absent
            .map(|name| finding(workload, &maps, format!("names {name:?}, which is not here"), fix))
            .collect()
    }));
    found
}

/// `DOJO_ENV` is the overlay's own, where it counts the credentials are a mounted file, and no version restores a backup.
fn settings(m: &Manifest) -> Vec<Finding> {
    let fix = "see deploy/k8s/base/deployment.yaml";
    let deployed = matches!(m.role, Role::Deployed(_));
    let mut found = pod::each_container(m, |workload, container| {
        let value = |name: &str, value: &str| {
            let path = format!("{}/value", named(workload, &format!("{container}/env"), name));
            wants(workload, &path, &json!(value), fix)
        };
        let token = deployed.then(|| value("DOJO_TOKEN_FILE", "/run/secrets/dojo/tokens"));
        value("DOJO_DB_PATH", "/data/ledger.duckdb").into_iter().chain(token.flatten()).collect()
    });
    for map in m.of_kind("ConfigMap") {
        found.extend(wants(map, "/data/DOJO_ENV", &json!(m.name()), "set it in the overlay"));
        if deployed && map.pointer("/data/DOJO_AUTH").is_some() {
            found.push(finding(map, "/data/DOJO_AUTH", "is set", "leave it to its default, token"));
        }
        if map.pointer("/data/DOJO_RESTORE").is_some() {
            let fix = "an environment's restore.env in the infra repository says it";
            found.push(finding(map, "/data/DOJO_RESTORE", "is set", fix));
        }
    }
    found
}
