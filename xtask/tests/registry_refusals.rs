//! `image push|retag|inspect` with what is plainly wrong: passwords, scopes, hosts, certificates, archives, registries
//! that lie, a full disk. Nothing is tagged, and one clear line says why.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy knows only functions with #[test] as tests")]

#[path = "tools/docker_archive.rs"]
mod docker_archive;
#[path = "tools/docker_registry.rs"]
mod docker_registry;
#[path = "tools/project.rs"]
mod project;
#[path = "tools/proxy.rs"]
mod proxy;
#[path = "tools/pushed.rs"]
mod pushed;
#[path = "tools/server.rs"]
mod server;
mod tools;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use docker_registry::{PASSWORD, Registry, Tokens, USER};
use project::{Project, failed, run, succeeded};
use proxy::{Harm, Proxy};
use pushed::Made;
use server::Answer;

const NAME: &str = "team/dojo";

fn tools() -> bool {
    tools::need("docker-registry", "docker-registry")
}

fn push(project: &Project, archive: &Path, repository: &str, tag: &str) -> Command {
    let archive = archive.to_str().unwrap();
    project.xtask(&[
        "image",
        "push",
        "--archive",
        archive,
        "--repository",
        repository,
        "--tag",
        tag,
        "--json",
    ])
}

/// It must end with `code` and one line, and perhaps one that helps; before that, what it waited for.
fn refused(code: i32, output: &Output) -> String {
    let said = failed(code, &["image"], output);
    let lines: Vec<_> = said.lines().skip_while(|line| line.starts_with("note: trying again in ")).collect();
    assert!(lines[0].starts_with("error: ") && lines.len() <= 2, "{said}");
    assert!(lines.iter().skip(1).all(|line| line.starts_with("help: ")), "{said}");
    said
}

#[test]
fn a_password_comes_by_stdin_and_goes_nowhere_else() {
    if !tools() {
        return;
    }
    let (registry, project) = (Registry::with_password(), Project::new());
    let made = Made::new(&project, 1);
    let run = |password: &str| {
        let mut command = push(&project, &made.path, &registry.repository(NAME), "edge");
        command.args(["--username", USER, "--password-stdin"]).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let arguments = fs::read_to_string(format!("/proc/{}/cmdline", child.id())).unwrap();
        let environment = fs::read_to_string(format!("/proc/{}/environ", child.id())).unwrap();
        writeln!(child.stdin.take().unwrap(), "{password}").unwrap();
        let output = child.wait_with_output().unwrap();
        let shown = format!("{arguments}{environment}{output:?}");
        assert!(!shown.contains(password), "{shown}");
        output
    };
    let said = refused(2, &run("wr0ng-password"));
    assert!(said.contains("401") && said.contains(USER), "{said}");
    assert_eq!(registry.tag(NAME, "edge"), None);
    succeeded(&["image", "push"], &run(PASSWORD));
    assert!(registry.tag(NAME, "edge").is_some());

    let repository = registry.repository(NAME);
    for alone in [&["--username", USER][..], &["--password-stdin"]] {
        let mut command = push(&project, &made.path, &repository, "edge");
        failed(2, alone, &command.args(alone).stdin(Stdio::null()).output().unwrap());
    }
}

#[test]
fn credentials_of_podman_are_found() {
    if !tools() {
        return;
    }
    let (registry, project) = (Registry::with_password(), Project::new());
    let made = Made::small(&project, 1);
    project.log_in(&registry.host, USER, PASSWORD);
    let pair = serde_json::json!({ "auths": { &registry.host: { "auth": "dGVzdGVyOnMzY3JldC1wYXNzLXBocmFzZQ==" } } });
    fs::remove_file(project.path("docker-config/config.json")).unwrap();
    fs::create_dir_all(project.path("run/containers")).unwrap();
    let file = project.path("run/containers/auth.json");
    fs::write(&file, pair.to_string()).unwrap();
    for (name, value) in [("REGISTRY_AUTH_FILE", file.clone()), ("XDG_RUNTIME_DIR", project.path("run"))] {
        let output = push(&project, &made.path, &registry.repository(NAME), "edge").env(name, value).output();
        succeeded(&[name], &output.unwrap());
    }
    refused(2, &push(&project, &made.path, &registry.repository(NAME), "edge").output().unwrap());
}

#[test]
fn a_token_without_the_right_to_push_is_said_once() {
    if !tools() || !tools::need("openssl", "openssl") {
        return;
    }
    let registry = Registry::with_tokens_of(Tokens { lifetime: 300, push: false, stumbles: 0 });
    let project = Project::new();
    let made = Made::new(&project, 1);
    project.log_in(&registry.host, USER, PASSWORD);
    let said = refused(2, &push(&project, &made.path, &registry.repository(NAME), "edge").output().unwrap());
    assert!(said.contains(USER) && !said.contains(PASSWORD), "{said}");
    assert_eq!(registry.tag(NAME, "edge"), None);
}

#[test]
fn a_host_that_is_not_there_is_named() {
    let project = Project::new();
    let made = Made::small(&project, 1);
    let said =
        refused(1, &push(&project, &made.path, "registry.invalid/team/dojo", "edge").output().unwrap());
    assert!(said.contains("registry.invalid"), "{said}");
}

#[test]
fn a_tag_that_is_not_there_is_not_renamed() {
    if !tools() {
        return;
    }
    let (registry, project) = (Registry::open(), Project::new());
    let made = Made::small(&project, 1);
    let repository = registry.repository(NAME);
    let retag = |tags: &[&str]| {
        let args = [&["image", "retag", "--repository", &repository], tags].concat();
        project.xtask(&args).output().unwrap()
    };
    let said = refused(3, &retag(&["edge", "v0.1.0"]));
    assert!(said.contains("edge"), "{said}");
    succeeded(&["push"], &push(&project, &made.path, &repository, "edge").output().unwrap());
    succeeded(&["retag"], &retag(&["edge", "v0.1.0", "latest"]));
    let edge = registry.tag(NAME, "edge");
    assert!(edge.is_some());
    assert_eq!([registry.tag(NAME, "v0.1.0"), registry.tag(NAME, "latest")], [edge.clone(), edge.clone()]);

    let other = Made::small(&project, 2);
    succeeded(&["push"], &push(&project, &other.path, &repository, "edge").output().unwrap());
    assert!(refused(3, &retag(&["edge", "v0.1.0"])).contains("never moves"));
    assert_eq!(registry.tag(NAME, "v0.1.0"), edge);
}

#[test]
fn an_archive_that_was_cut_short_or_altered_is_not_tagged() {
    if !tools() || !tools::need("skopeo", "skopeo") {
        return;
    }
    let (registry, project) = (Registry::open(), Project::new());
    let made = Made::new(&project, 1);
    let plain = fs::read(&made.path).unwrap();
    let source = format!("docker-archive:{}", made.path.display());
    project.run("skopeo", &["--insecure-policy", "copy", "--quiet", &source, "oci-archive:layout.tar:edge"]);
    let zipped = Command::new("gzip").arg("-1c").arg(&made.path).output().unwrap().stdout;
    let archives = [
        ("plain", plain.clone()),
        ("zipped", zipped),
        ("layout", fs::read(project.path("layout.tar")).unwrap()),
    ];
    let path = project.path("cut.tar");
    let rejected = |what: &str| {
        let output = push(&project, &path, &registry.repository(NAME), "edge").output().unwrap();
        let said = refused(3, &output);
        assert!(said.contains("cut.tar"), "{what}: {said}");
        assert_eq!(registry.tag(NAME, "edge"), None, "{what}");
    };
    for (kind, bytes) in archives {
        for permille in [0, 1, 100, 500, 900, 990] {
            fs::write(&path, &bytes[..bytes.len() * permille / 1000]).unwrap();
            rejected(&format!("{kind} at {permille} of 1000"));
        }
    }
    let mut altered = plain;
    altered[100_000] ^= 1;
    fs::write(&path, altered).unwrap();
    rejected("one bit flipped");
}

/// As `proxy`, which answers `instead` where the path contains `place`.
fn liar(registry: &Registry, place: &'static str, instead: &Answer) -> Proxy {
    let instead = instead.clone();
    Proxy::start(&registry.host, move |_, line| {
        if line.starts_with("GET") && line.contains(place) {
            Harm::Instead(instead.clone())
        } else {
            Harm::None
        }
    })
}

#[test]
fn a_registry_that_lies_is_not_believed() {
    if !tools() {
        return;
    }
    let (registry, project) = (Registry::open(), Project::new());
    let (old, new) = (Made::new(&project, 1), Made::new(&project, 2));
    succeeded(&["push"], &push(&project, &old.path, &registry.repository(NAME), "edge").output().unwrap());
    let edge = registry.tag(NAME, "edge").unwrap();
    let manifest = fs::read_to_string(registry.blob(NAME, &edge).unwrap()).unwrap();
    // The same layers with other sizes, still said to be of the digest.
    let lie = manifest.replace("\"size\":", "\"size\":1");
    assert_ne!(lie, manifest);
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let told =
        Answer::new(200).header("Content-Type", kind).header("Docker-Content-Digest", &edge).body(&lie);
    let manifests = liar(&registry, "/manifests/", &told);
    let blobs = liar(&registry, "/blobs/sha256:", &Answer::new(200).body("{\"rootfs\":{\"diff_ids\":[]}}"));

    for (proxy, reference) in [(&manifests, edge.as_str()), (&manifests, "edge"), (&blobs, "edge")] {
        let repository = format!("{}/{NAME}", proxy.host);
        let inspect = ["image", "inspect", reference, "--repository", &repository];
        refused(3, &project.xtask(&inspect).output().unwrap());
    }
    // What a previous tag says of digests may be a lie, too: what is pushed is right, or is not pushed.
    for (proxy, tag) in [(&manifests, "next"), (&blobs, "after")] {
        let output = push(&project, &new.path, &format!("{}/{NAME}", proxy.host), tag).output().unwrap();
        if output.status.success() {
            new.is_complete(&registry, NAME, &registry.tag(NAME, tag).unwrap()).unwrap();
        } else {
            refused(3, &output);
            assert_eq!(registry.tag(NAME, tag), None);
        }
    }
}

#[test]
fn a_full_disk_is_said_and_nothing_is_tagged() {
    if !tools() {
        return;
    }
    let (registry, project) = (Registry::open(), Project::new());
    let made = Made::new(&project, 1);
    let zipped = Command::new("gzip").arg("-1c").arg(&made.path).output().unwrap().stdout;
    fs::write(project.path("image.tar.gz"), zipped).unwrap();
    let disk = project.path("disk");
    fs::create_dir(&disk).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&disk).output();
    if !mounted.is_ok_and(|mounted| mounted.status.success()) {
        tools::skip("mount", "root, to mount a small disk");
        return;
    }
    let on_disk = |archive: &Path| {
        push(&project, archive, &registry.repository(NAME), "edge").env("TMPDIR", &disk).output().unwrap()
    };
    let outputs = [on_disk(&project.path("image.tar.gz")), on_disk(&made.path)];
    run("umount", &[disk.to_str().unwrap()], Path::new("/"));
    // The zipped one must be inflated somewhere; the plain one may need no disk.
    let said = refused(1, &outputs[0]);
    assert!(said.contains("No space left"), "{said}");
    match outputs[1].status.success() {
        true => made.is_complete(&registry, NAME, &registry.tag(NAME, "edge").unwrap()).unwrap(),
        false => {
            assert!(refused(1, &outputs[1]).contains("No space left"));
            assert_eq!(registry.tag(NAME, "edge"), None);
        }
    }
}

/// A registry has no compare-and-swap: what is held here is that the version names one whole image that somebody was told of.
#[test]
fn two_pushes_of_one_version_at_once_leave_one_whole_image() {
    if !tools() {
        return;
    }
    let (registry, project) = (Registry::open(), Project::new());
    let mut both = 0;
    for round in 0..8 {
        let tag = format!("v0.1.{round}");
        let made = [Made::small(&project, 2 * round), Made::small(&project, 2 * round + 1)];
        let start = |made: &Made| {
            let mut command = push(&project, &made.path, &registry.repository(NAME), &tag);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let outputs = made.each_ref().map(start).map(|child| child.wait_with_output().unwrap());
        let held = registry.tag(NAME, &tag).unwrap();
        let whole: Vec<_> =
            made.iter().map(|made| made.is_complete(&registry, NAME, &held).is_ok()).collect();
        let codes = outputs.each_ref().map(|output| output.status.code().unwrap());
        assert!(whole.iter().filter(|whole| **whole).count() == 1, "{held} is neither image");
        assert!(codes.iter().all(|code| [0, 3, 4].contains(code)), "{outputs:?}");
        assert!(whole.iter().zip(codes).any(|(whole, code)| *whole && code == 0), "{outputs:?}");
        both += usize::from(codes == [0, 0]);
    }
    println!("of 8 races for a version, {both} were won by both");
}

#[test]
fn https_is_trusted_by_the_systems_authorities_only() {
    if !tools() || !tools::need("openssl", "openssl") {
        return;
    }
    let (registry, stranger) = (Registry::with_tls("IP:127.0.0.1"), Registry::with_tls("DNS:other.example"));
    let project = Project::new();
    let made = Made::small(&project, 1);
    let attempt = |registry: &Registry, authority: &Registry| {
        project.log_in(&registry.host, USER, PASSWORD);
        let repository = format!("https://{}/{NAME}", registry.host);
        let mut command = push(&project, &made.path, &repository, "edge");
        command
            .env("SSL_CERT_FILE", authority.path("authority.pem"))
            .env_remove("SSL_CERT_DIR")
            .output()
            .unwrap()
    };
    // Another name, then another authority.
    for (to, authority) in [(&stranger, &stranger), (&registry, &stranger)] {
        let said = refused(2, &attempt(to, authority));
        assert!(said.contains(&to.host) && said.to_lowercase().contains("certificate"), "{said}");
        assert!(!to.log().contains("/v2/"), "something was asked: {}", to.log());
        assert_eq!(to.tag(NAME, "edge"), None);
    }
    succeeded(&["push"], &attempt(&registry, &registry));
    made.is_complete(&registry, NAME, &registry.tag(NAME, "edge").unwrap()).unwrap();
    assert!(registry.log().contains("/v2/"), "the log says nothing of requests: {}", registry.log());
}
