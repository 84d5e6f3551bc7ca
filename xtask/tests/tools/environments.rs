//! Where promotions and rollbacks are played: a project with released versions, their images in an OCI layout, an infra
//! repository from the template, and for each environment a service that runs what is pinned there.
//!
//! | tag | schema | |
//! |---|---|---|
//! | `v0.1.0`, `v0.2.0`, `v0.3.0` | 1 | |
//! | `v0.4.0` | 2 | brings a migration that no older binary can do without |
//! | `edge` | 2 | the branch's head, after `v0.4.0` |

#![allow(dead_code, reason = "each test uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::docker_archive;
use crate::git_http::{Login, Remote, credentials};
use crate::project::{Project, run};
use crate::service::Service;

pub const IMAGE: &str = "ghcr.io/blogle/dojo";
/// The project, as kustomize writes it.
const SOURCE: &str = "github.com/blogle/dojo";
pub const NAMES: [&str; 2] = ["staging", "production"];
const VERSIONS: [(&str, u32); 4] = [("0.1.0", 1), ("0.2.0", 1), ("0.3.0", 1), ("0.4.0", 2)];
const TOKEN: &str = "ghp_infra";
const WHO: [&str; 6] =
    ["-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "tag.gpgsign=false"];

/// An image that the registry has, under its own name and that of its commit.
#[derive(Clone, Debug)]
pub struct Image {
    /// `v0.1.0`; `edge` for the branch's head.
    pub name: String,
    pub commit: String,
    pub digest: String,
    pub version: String,
    pub schema: u32,
}

impl Image {
    pub fn sha_tag(&self) -> String {
        format!("sha-{}", &self.commit[..12])
    }
}

/// An environment's three values; `None` where a value is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    pub git_ref: Option<String>,
    pub tag: Option<String>,
    pub digest: Option<String>,
}

impl Pin {
    /// Of a kustomization's text.
    pub fn of(text: &str) -> Self {
        let file: Value = serde_yaml::from_str(text).unwrap();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let image = &file["images"][0];
        let resource = file["resources"][0].as_str().unwrap_or_default();
        Self {
            git_ref: resource.split_once("?ref=").map(|(_, git_ref)| git_ref.to_owned()),
            tag: text(&image["newTag"]),
            digest: text(&image["digest"]),
        }
    }
}

pub struct Environments {
    /// What was released, and the registry.
    pub project: Project,
    /// Oldest first; `edge` is the last.
    pub images: Vec<Image>,
    pub infra: Remote,
    services: Vec<Service>,
    folder: TempDir,
}

impl Environments {
    /// Nothing is promoted yet.
    pub fn new() -> Self {
        let (project, folder) = (Project::new(), tempfile::tempdir().unwrap());
        let origin = folder.path().join("blogle/dojo.git");
        fs::create_dir_all(&origin).unwrap();
        run("git", &["init", "--quiet", "--bare", "--initial-branch=master"], &origin);
        project.run("git", &["remote", "add", "origin", origin.to_str().unwrap()]);
        let images = release_all(&project);
        project.run("git", &["push", "--quiet", "origin", "master", "--tags"]);
        let infra = Remote::start("blogle/infra", vec![Login { token: TOKEN.into(), push: true }]);
        fill(&infra, &folder.path().join("infra"));
        let service = |name: &&str| Service::start(name, infra.bare(), images.clone());
        let services = NAMES.iter().map(service).collect();
        Self { project, images, infra, services, folder }
    }

    /// Somebody of that name who reaches the infra repository by `url`: [`Environments::path`] or [`Environments::http`].
    pub fn operator(&self, name: &str, url: &str) -> Operator {
        let (checkout, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        run("git", &["clone", "--quiet", self.origin().to_str().unwrap(), "."], checkout.path());
        let checkout = Project { folder: checkout };
        let entry = |name: &str, accepts: &str| {
            let url = &self.service(name).url;
            format!("\n  - {{name: {name}, kustomization: {}, {accepts}, url: '{url}'}}", path(name))
        };
        let pipeline = format!(
            "image: {IMAGE}\nregistry: oci:{}\ngithub: none\nrepository: {SOURCE}\nbranch: master
infra: {{url: '{url}', branch: main}}\nenvironments:{}{}\n",
            self.project.path("registry").display(),
            entry("staging", "accepts: [edge, sha, release]"),
            entry("production", "accepts: [release], after: staging"),
        );
        fs::write(checkout.path("deploy/pipeline.yaml"), pipeline).unwrap();
        let temporary = home.path().join("tmp");
        fs::create_dir(&temporary).unwrap();
        let mut environment = credentials(home.path(), &self.infra.server.host, TOKEN);
        environment.push(("TMPDIR", temporary.display().to_string()));
        // What kustomizations fetch comes from the project's remote of this stage.
        let instead = format!("url.file://{}/.insteadOf", self.folder.path().display());
        environment.extend([
            ("GIT_CONFIG_COUNT", "1".to_owned()),
            ("GIT_CONFIG_KEY_0", instead),
            ("GIT_CONFIG_VALUE_0", "https://github.com/".to_owned()),
        ]);
        environment.extend(["GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"].map(|key| (key, name.to_owned())));
        Operator { checkout, environment, temporary, home }
    }

    /// The infra repository's URL by HTTP, which asks for a login.
    pub fn http(&self) -> String {
        self.infra.url(&self.infra.server.host)
    }

    /// The infra repository's path, which is a URL too.
    pub fn path(&self) -> String {
        self.infra.bare().display().to_string()
    }

    /// The project's remote, `…/blogle/dojo.git`.
    pub fn origin(&self) -> PathBuf {
        self.folder.path().join("blogle/dojo.git")
    }

    pub fn service(&self, environment: &str) -> &Service {
        self.services.iter().find(|service| service.environment == environment).unwrap()
    }

    /// The image under `v…`, `edge` or `sha-…`.
    pub fn image(&self, name: &str) -> &Image {
        self.images.iter().find(|image| image.name == name || image.sha_tag() == name).unwrap()
    }

    /// The infra branch's commit.
    pub fn head(&self) -> String {
        self.infra.git(&["rev-parse", "refs/heads/main"])
    }

    /// Puts the infra branch where it was, as nobody but a test does.
    pub fn reset(&self, commit: &str) {
        self.infra.git(&["update-ref", "refs/heads/main", commit]);
    }

    /// What an environment pins at a commit of the infra repository.
    pub fn pin(&self, commit: &str, environment: &str) -> Pin {
        Pin::of(&self.infra.git(&["show", &format!("{commit}:{}", path(environment))]))
    }

    /// The tags that staging and production pin now.
    pub fn pinned(&self) -> [String; 2] {
        NAMES.map(|name| self.pin("main", name).tag.unwrap())
    }

    /// Sets the infra repository's `pre-receive`, in which the current folder is the repository.
    pub fn hook(&self, text: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.infra.bare().join("hooks/pre-receive");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// An environment's file in the infra repository.
pub fn path(environment: &str) -> String {
    format!("dojo/{environment}/kustomization.yaml")
}

/// Somebody who promotes and rolls back: a checkout of the project, and a home of their own.
pub struct Operator {
    pub checkout: Project,
    pub environment: Vec<(&'static str, String)>,
    /// Their TMPDIR, empty while they run nothing.
    pub temporary: PathBuf,
    home: TempDir,
}

impl Operator {
    pub fn xtask(&self, args: &[&str]) -> Command {
        let mut command = self.checkout.xtask(args);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.xtask(args).output().unwrap()
    }

    /// Runs it, which must end so, and gives all that it said.
    pub fn ends(&self, code: i32, args: &[&str]) -> String {
        ended(code, args, &self.run(args))
    }
}

/// It must have ended so; gives all that it said.
pub fn ended(code: i32, args: &[&str], output: &Output) -> String {
    let said = [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said)).concat();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {}\n{said}", output.status);
    said
}

/// Commits, tags and images; whose manifests are rendered is told by DOJO_MANIFESTS of the ConfigMap.
fn release_all(project: &Project) -> Vec<Image> {
    let deploy = project.path("deploy/k8s");
    copy(&repository().join("deploy/k8s"), &deploy);
    let (mut changelog, mut was) = (String::new(), VERSIONS[0].0.to_owned());
    let base = fs::read_to_string(deploy.join("base/kustomization.yaml")).unwrap();
    let mut release = |name: String, (version, schema): (&str, u32)| {
        let literal = "      - DOJO_LOG_LEVEL=info\n";
        assert!(base.contains(literal), "{base}");
        let marked = base.replace(literal, &format!("{literal}      - DOJO_MANIFESTS={name}\n"));
        let write = |name: &str, text: &str| fs::write(project.path(name), text).unwrap();
        write("deploy/k8s/base/kustomization.yaml", &marked);
        for name in ["Cargo.toml", "Cargo.lock"] {
            let text = fs::read_to_string(project.path(name)).unwrap();
            write(name, &text.replace(&was, version));
        }
        version.clone_into(&mut was);
        write("dojo/migrations/schema.toml", &format!("current = {schema}\noldest_binary = {schema}\n"));
        (1..=schema).for_each(|number| {
            write(&format!("dojo/migrations/{number:04}_step.sql"), &format!("-- oldest_binary: {number}\n"));
        });
        if name != "edge" {
            changelog =
                format!("## [{version}] - 2026-01-02\n\n### Added\n\n- What {name} brings.\n\n{changelog}");
        }
        write("CHANGELOG.md", &format!("# Changelog\n\n## [Unreleased]\n\n{changelog}"));
        let commit = project.commit(&name);
        if name != "edge" {
            project.run("git", &[&WHO[..], &["tag", "--annotate", "--message", &name, &name]].concat());
        }
        push(project, name, commit, version, schema)
    };
    let mut images =
        VERSIONS.map(|(version, schema)| release(format!("v{version}"), (version, schema))).to_vec();
    images.push(release("edge".into(), VERSIONS[3]));
    images
}

/// An image of that commit, under the name and the commit's tag.
fn push(project: &Project, name: String, commit: String, version: &str, schema: u32) -> Image {
    let archive = project.path("target/image.tar");
    fs::create_dir_all(archive.parent().unwrap()).unwrap();
    let labels = json!({ "org.opencontainers.image.revision": commit, "org.opencontainers.image.version": version,
        "org.opencontainers.image.source": "https://github.com/blogle/dojo",
        "org.opencontainers.image.created": "2026-01-02T03:04:05Z",
        "dojo.schema": schema.to_string(), "dojo.schema.oldest-binary": schema.to_string() });
    docker_archive::write_labelled(&archive, &[(6_000, 1)], &labels).unwrap();
    let sha_tag = format!("sha-{}", &commit[..12]);
    let archive = archive.to_str().unwrap();
    let pushed =
        project.json(&["image", "push", "--archive", archive, "--tag", &name, "--tag", &sha_tag, "--json"]);
    let digest = pushed["digest"].as_str().unwrap().to_owned();
    Image { name, commit, digest, version: version.to_owned(), schema }
}

/// What a new team starts with, on `main`; the server forbids nothing.
fn fill(infra: &Remote, work: &Path) {
    copy(&repository().join("deploy/infra-template"), work);
    run("git", &["init", "--quiet", "--initial-branch=main"], work);
    run("git", &["add", "--all"], work);
    let commit = ["-c", "commit.gpgsign=false", "commit", "--quiet", "--message", "start"];
    run("git", &[&WHO[..], &commit].concat(), work);
    run("git", &["push", "--quiet", infra.bare().to_str().unwrap(), "main"], work);
    infra.git(&["symbolic-ref", "HEAD", "refs/heads/main"]);
    fs::remove_file(infra.bare().join("hooks/pre-receive")).unwrap();
}

/// A folder of this checkout, which may be a fork's, with the names that the stage has.
fn copy(from: &Path, to: &Path) {
    let pipeline = fs::read_to_string(repository().join("deploy/pipeline.yaml")).unwrap();
    let pipeline: Value = serde_yaml::from_str(&pipeline).unwrap();
    let [image, source] = ["image", "repository"].map(|key| pipeline[key].as_str().unwrap());
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            let text = fs::read_to_string(path).unwrap();
            fs::write(to, text.replace(image, IMAGE).replace(source, SOURCE)).unwrap();
        }
    }
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}
