//! A small project with a stand-in for the service, in a git repository of its own, and this tool run inside it.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

pub struct Project {
    pub folder: TempDir,
}

/// All that this tool is told.
pub const PIPELINE: &str = "
image: ghcr.io/blogle/dojo
registry: oci:registry
github: none
repository: github.com/blogle/dojo
branch: master
infra: {url: 'git@example.com:infra.git', branch: main}
environments:
  - {name: staging, kustomization: staging.yaml, accepts: [edge], url: 'https://staging.example.com'}
";

const FILES: [(&str, &str); 8] = [
    (
        "Cargo.toml",
        "[workspace]\nmembers = ['dojo']\nresolver = '3'\n[workspace.package]\nversion = '0.1.0'\n",
    ),
    ("dojo/Cargo.toml", "[package]\nname = 'dojo'\nversion.workspace = true\nedition = '2024'\n"),
    ("dojo/src/main.rs", "fn main() { println!(\"stand-in {}\", env!(\"DOJO_COMMIT\")); }\n"),
    ("dojo/migrations/schema.toml", "current = 3\noldest_binary = 2\n"),
    ("deploy/pipeline.yaml", PIPELINE),
    (".gitignore", "/target\n/registry\n/docker-config\n/duckdb\n"),
    // The stand-in links nothing, but the builder wants to see them.
    ("duckdb/libduckdb_static.a", ""),
    ("duckdb/libduckdb_static_extension_autoregister.a", ""),
];

impl Project {
    pub fn new() -> Self {
        let project = Self { folder: tempfile::tempdir().unwrap() };
        for (name, text) in FILES {
            let path = project.path(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        project.run("git", &["init", "--quiet", "--initial-branch=master"]);
        project.run("cargo", &["generate-lockfile", "--offline", "--quiet"]);
        project.commit("start");
        project
    }

    /// A project whose image is built already.
    pub fn built() -> Self {
        let project = Self::new();
        project.ok(&["image", "build", "--builder", "cargo"]);
        project
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn commit(&self, message: &str) -> String {
        self.run("git", &["add", "--all"]);
        let who = ["-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"];
        self.run("git", &[&who[..], &["commit", "--quiet", "--allow-empty", "-m", message]].concat());
        self.run("git", &["rev-parse", "HEAD"])
    }

    pub fn sha_tag(&self) -> String {
        format!("sha-{}", &self.run("git", &["rev-parse", "HEAD"])[..12])
    }

    /// This tool in the project, without the developer's credentials.
    pub fn xtask(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(args).current_dir(self.folder.path());
        command.env("DOCKER_CONFIG", self.path("docker-config")).env("DUCKDB_LIB_DIR", self.path("duckdb"));
        // The cargo that runs this test names folders that are not this project's.
        for name in [
            "REGISTRY_AUTH_FILE",
            "XDG_RUNTIME_DIR",
            "GITHUB_TOKEN",
            "GH_TOKEN",
            "GITHUB_ACTOR",
            "CARGO_TARGET_DIR",
            "CARGO_BUILD_TARGET",
            "RUSTFLAGS",
        ] {
            command.env_remove(name);
        }
        command
    }

    /// Docker's config.json with a password for this host, and no other.
    pub fn log_in(&self, host: &str, user: &str, password: &str) {
        fs::create_dir_all(self.path("docker-config")).unwrap();
        let auths = serde_json::json!({ "auths": { host: { "username": user, "password": password } } });
        fs::write(self.path("docker-config/config.json"), auths.to_string()).unwrap();
    }

    /// Runs it, which must end with 0, and gives its stdout.
    pub fn ok(&self, args: &[&str]) -> String {
        succeeded(args, &self.xtask(args).output().unwrap())
    }

    pub fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(args)).unwrap()
    }

    /// Runs it, which must end with this code, and gives what it said on stderr.
    pub fn fails(&self, code: i32, args: &[&str]) -> String {
        failed(code, args, &self.xtask(args).output().unwrap())
    }

    pub fn run(&self, program: &str, args: &[&str]) -> String {
        run(program, args, self.folder.path())
    }
}

pub fn succeeded(args: &[&str], output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "xtask {args:?}: {}\n{said}", output.status);
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn failed(code: i32, args: &[&str], output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "xtask {args:?}:\n{said}");
    said
}

/// Another program, which must end with 0.
pub fn run(program: &str, args: &[&str], folder: &Path) -> String {
    let output = Command::new(program).args(args).current_dir(folder).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {}\n{said}", output.status);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
