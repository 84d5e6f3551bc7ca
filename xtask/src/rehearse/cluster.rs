//! The rehearsal's stand-in for a cluster and its GitOps controller: one process an environment, `Recreate`, started from
//! the files of the image that the environment's kustomization pins. It reads the infra repository and nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::children::{Children, Finished};
use super::stage::Stage;
use crate::environment::Pinned;
use crate::image::Digest;
use crate::pipeline::Environment;
use crate::registry::{Registry, Runtime};
use crate::report::Observed;
use crate::service;

/// How long a start may take until `/readyz` says 200.
const START: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Cluster<'a> {
    pub stage: &'a Stage,
    pub children: &'a Children,
    pub registry: &'a Registry,
    pods: Vec<(String, Child)>,
}

impl<'a> Cluster<'a> {
    pub fn new(stage: &'a Stage, children: &'a Children, registry: &'a Registry) -> Self {
        Self { stage, children, registry, pods: Vec::new() }
    }

    /// Makes an environment run what is pinned. Returns what happened, for the person who reads along.
    pub fn reconcile(
        &mut self,
        environment: &Environment,
        pinned: &Pinned,
        token: &str,
    ) -> Result<Vec<String>> {
        let digest = pinned.pin.digest.as_ref().context("the kustomization pins no digest")?;
        let mut pod = self.pod(environment, digest, token)?;
        pod.restore.clone_from(&pinned.restore);
        let mut told = Vec::new();
        let down = Instant::now();
        if let Some(at) = self.pods.iter().position(|(name, _)| *name == environment.name) {
            self.children.end(&mut self.pods.remove(at).1)?;
            told.push("the old process ended (Recreate)".to_owned());
        }
        if !pod.data.join("ledger.duckdb").exists() {
            told.push(last_line(&self.container(&pod, &["init"])?, &pod.home));
        }
        told.push(last_line(&self.container(&pod, &["migrate", "--backup"])?, &pod.home));
        let log = fs::File::options().create(true).append(true).open(pod.home.join("dojo.log"))?;
        let mut serve = pod.command(&pod.runtime.cmd);
        serve.stdout(log.try_clone()?).stderr(log);
        self.pods.push((environment.name.clone(), self.children.spawn(&mut serve)?));
        self.wait(environment)?;
        told.push(format!("ready after {:.1} s without service", down.elapsed().as_secs_f64()));
        Ok(told)
    }

    /// The image's files on disk, and how to start them.
    fn pod(&self, environment: &Environment, digest: &Digest, token: &str) -> Result<Pod> {
        let home = self.stage.environment(&environment.name);
        let root = home.join("images").join(digest.short());
        let data = home.join("data");
        fs::create_dir_all(&data)?;
        fs::write(home.join("tokens"), format!("{token}\n"))?;
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        let runtime = self.registry.unpack(digest, &root)?;
        let listen = environment.url.trim_start_matches("http://").to_owned();
        let program = runtime.program(&root)?;
        let name = environment.name.clone();
        Ok(Pod { name, home, root, program, data, listen, runtime, restore: None })
    }

    /// Runs one container to its end, as the init container does.
    fn container(&self, pod: &Pod, args: &[&str]) -> Result<Finished> {
        let args: Vec<_> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let finished = self.children.run(&mut pod.command(&args), &|_| {})?;
        if finished.status.success() {
            return Ok(finished);
        }
        bail!("dojo {} failed in {}: {}", args.join(" "), pod.name, finished.stderr.trim())
    }

    fn wait(&mut self, environment: &Environment) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < START {
            if service::observe(&environment.url).report().is_some_and(|report| report.ready) {
                return Ok(());
            }
            if let Some((_, child)) = self.pods.iter_mut().find(|(name, _)| *name == environment.name)
                && let Some(status) = child.try_wait()?
            {
                let log = self.stage.environment(&environment.name).join("dojo.log");
                bail!("dojo ended in {} ({status}); its log is {}", environment.name, log.display());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let Observed::Silent(why) = service::observe(&environment.url) else {
            bail!("{} answers, but was not ready after {START:?}", environment.name);
        };
        bail!("{} was not up after {START:?}: {why}", environment.name)
    }

    /// Ends every environment's process.
    pub fn shut_down(&mut self) -> Result<()> {
        self.pods.drain(..).try_for_each(|(_, mut child)| self.children.end(&mut child))
    }
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        let _ = self.shut_down();
    }
}

struct Pod {
    name: String,
    home: PathBuf,
    root: PathBuf,
    program: PathBuf,
    data: PathBuf,
    listen: String,
    runtime: Runtime,
    /// The backup to start from, once.
    restore: Option<String>,
}

impl Pod {
    /// The image's entrypoint on the image's own libraries. Paths that the image fixes (`/data`) are the environment's.
    fn command(&self, args: &[String]) -> Command {
        let mut command = match loader(&self.root) {
            Some((loader, libraries)) => {
                let mut command = Command::new(loader);
                command.arg("--library-path").arg(libraries).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command.args(self.runtime.entrypoint.iter().skip(1)).args(args);
        command.env_clear().envs(self.runtime.env.iter().filter_map(|variable| variable.split_once('=')));
        command
            .env("HOSTNAME", format!("dojo-{}", self.name))
            .env("DOJO_ENV", &self.name)
            .env("DOJO_DB_PATH", self.data.join("ledger.duckdb"))
            .env("DOJO_RESTORE", self.restore.as_deref().unwrap_or_default())
            .env("DOJO_LISTEN", &self.listen)
            .env("DOJO_TOKEN_FILE", self.home.join("tokens"));
        command.current_dir(&self.home);
        command
    }
}

/// The image's dynamic loader and its library folders, where the image has them at the usual places. An image whose
/// files point into /nix/store is started directly.
fn loader(root: &Path) -> Option<(PathBuf, String)> {
    let folders: Vec<_> = [
        "lib64",
        "lib/x86_64-linux-gnu",
        "lib/aarch64-linux-gnu",
        "usr/lib/x86_64-linux-gnu",
        "lib",
        "usr/lib",
    ]
    .iter()
    .map(|folder| root.join(folder))
    .filter(|folder| folder.is_dir())
    .collect();
    let names =
        |folder: &PathBuf| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let loader = folders.iter().flat_map(names).find(|path| {
        path.is_file() && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ld-linux"))
    })?;
    let folders: Vec<_> = folders.iter().map(|folder| folder.to_string_lossy()).collect();
    Some((loader, folders.join(":")))
}

/// What a container said in the end, without this folder's path.
fn last_line(finished: &Finished, root: &Path) -> String {
    let line = finished.stdout.lines().chain(finished.stderr.lines()).find(|line| !line.trim().is_empty());
    line.unwrap_or_default().replace(&format!("{}/", root.display()), "")
}
