//! A cluster, by `kubectl`. For teams without a GitOps controller it is given whole folders, and waited for; and it is looked
//! at to tell why an environment is not up. Nothing of it is read to decide on a version.

mod look;

use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use serde_json::Value;

use crate::fault::{Fault, without_credentials};
pub use look::look;

/// For one answer of the API server; kubectl alone would wait for ever.
const ANSWER: &str = "--request-timeout=60s";
/// For the init container's backup and migrations, and the start.
const ROLLOUT: &str = "--timeout=600s";

/// One context of the kubeconfig.
#[derive(Clone, Debug)]
pub struct Cluster {
    context: String,
}

/// A Deployment as it was rendered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployment {
    pub name: String,
    /// `None` is the context's own.
    pub namespace: Option<String>,
}

impl Cluster {
    /// By the context's name, else the current one. The cluster is not asked yet.
    pub fn find(context: Option<&str>) -> Result<Self, Fault> {
        let asked = match context {
            Some(name) => kubectl(&["config", "get-contexts", "--output=name", name]),
            None => kubectl(&["config", "current-context"]),
        };
        let help = "`kubectl config get-contexts` lists them; name one with --context";
        let named = asked.map_err(|why| Fault::usage(format!("no cluster to apply to: {why}")).help(help))?;
        match named.trim() {
            "" => Err(Fault::usage("no cluster to apply to: no context is set").help(help)),
            name => Ok(Self { context: name.to_owned() }),
        }
    }

    pub fn context(&self) -> &str {
        &self.context
    }

    /// `kubectl apply -k FOLDER`; `tell` gets each line as it comes. Client-side, as by hand: a server-side apply stops at
    /// fields that another manager has, such as one that a person edited, and a rollback must not.
    pub fn apply(&self, folder: &Path, tell: &(dyn Fn(&str) + Sync)) -> Result<(), String> {
        let mut command = self.command(&["apply", ANSWER, "-k"]);
        run(command.arg(folder), tell)
    }

    /// Waits until all pods of a Deployment are new ones and ready, at most ten minutes.
    pub fn wait(&self, deployment: &Deployment, tell: &(dyn Fn(&str) + Sync)) -> Result<(), String> {
        let mut command = self.command(&["rollout", "status", ROLLOUT]);
        command.arg(format!("deployment/{}", deployment.name));
        if let Some(namespace) = &deployment.namespace {
            command.args(["--namespace", namespace]);
        }
        run(&mut command, tell)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.args(["--context", &self.context]).args(args);
        command
    }
}

impl Deployment {
    /// The Deployments among rendered objects.
    pub fn among(objects: &[Value]) -> Vec<Self> {
        let deployments = objects.iter().filter(|object| object["kind"] == "Deployment");
        let text = |value: &Value| value.as_str().map(str::to_owned);
        deployments
            .filter_map(|object| {
                let metadata = &object["metadata"];
                Some(Self { name: text(&metadata["name"])?, namespace: text(&metadata["namespace"]) })
            })
            .collect()
    }
}

fn kubectl(args: &[&str]) -> Result<String, String> {
    let output = Command::new("kubectl").args(args).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("kubectl cannot be run: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

/// Runs kubectl to its end; its words on stderr, if it failed.
fn run(command: &mut Command, tell: &(dyn Fn(&str) + Sync)) -> Result<(), String> {
    // Its git must not ask for a password in the middle.
    command.env("GIT_TERMINAL_PROMPT", "0").stdin(Stdio::null());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| format!("kubectl cannot be run: {error}"))?;
    let words = Mutex::new(Vec::new());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        scope.spawn(|| lines(stdout, &|line| tell(line)));
        lines(stderr, &|line| {
            tell(line);
            if let Ok(mut words) = words.lock() {
                words.push(line.to_owned());
            }
        });
    });
    let status = child.wait().map_err(|error| error.to_string())?;
    if status.success() {
        return Ok(());
    }
    let words = words.into_inner().unwrap_or_default().join("; ");
    Err(if words.is_empty() { format!("kubectl ended with {status}") } else { words })
}

fn lines(pipe: Option<impl Read>, tell: &dyn Fn(&str)) {
    let Some(pipe) = pipe else { return };
    for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
        tell(&without_credentials(&String::from_utf8_lossy(&line)));
    }
}
