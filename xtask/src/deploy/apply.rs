//! `--apply`, for teams without a controller: what the infra repository has of an environment is given to a cluster.
//! The pin is there first, so the same command again goes on where this one stopped.

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::gather::Sources;
use super::plan::{Plan, Verb};
use crate::cluster::{Cluster, Deployment};
use crate::fault::Fault;
use crate::pipeline::Environment;
use crate::terminal::Spinner;

/// What was given to which cluster, and rolled out there.
#[derive(Clone, Debug, Serialize)]
pub struct Applied {
    context: String,
    /// The commit of the infra repository whose folder it is.
    commit: String,
    /// `NAMESPACE/NAME` each.
    deployments: Vec<String>,
}

/// Applies the environment's folder at `commit`, and waits for the Deployments that it renders to. Only while the branch
/// still has that folder so: somebody who changed it since may have applied it already.
pub fn run(
    cluster: &Cluster,
    sources: &mut Sources,
    environment: &Environment,
    plan: &Plan,
    commit: &str,
    deployments: &[Deployment],
) -> Result<Applied> {
    let again = again(cluster, plan);
    let not_applied =
        || format!("{} is pinned by infra commit {commit}, but was not applied", plan.to.name());
    let infra = &mut sources.infra;
    infra.refresh().with_context(not_applied)?;
    if !infra.is_still(environment, commit)? {
        let race = format!("{}: somebody else changed {} since", not_applied(), environment.name);
        return Err(Fault::race(race)
            .help(format!("look at what is there now; to apply it: {again}"))
            .into());
    }
    let folder = tempfile::tempdir()?;
    let exported = infra.export(environment, commit, folder.path())?;
    let context = cluster.context();
    let failed = |what: &str, words: String| {
        Fault::remote(format!("{what}: {words}"))
            .help(format!("the pin is there; to apply it and wait once more: {again}"))
    };
    let spinner = Spinner::start(format!("applying to {context}"));
    let tell = |line: &str| spinner.say(&crate::terminal::plain(line));
    cluster.apply(&exported, &tell).map_err(|words| failed(&not_applied(), words))?;
    for deployment in deployments {
        let what = || {
            format!("{} was applied to {context}, but {} is not rolled out", plan.to.name(), name(deployment))
        };
        cluster.wait(deployment, &tell).map_err(|words| failed(&what(), words))?;
    }
    Ok(Applied {
        context: context.to_owned(),
        commit: commit.to_owned(),
        deployments: deployments.iter().map(name).collect(),
    })
}

fn name(deployment: &Deployment) -> String {
    let Deployment { name, namespace } = deployment;
    namespace.as_ref().map_or_else(|| name.clone(), |namespace| format!("{namespace}/{name}"))
}

/// The command that finds the pin as it is to be, and applies it.
fn again(cluster: &Cluster, plan: &Plan) -> String {
    let (environment, to) = (&plan.environment, plan.to.name());
    let context = cluster.context();
    let restore = plan.restore.as_ref().map(|id| format!(" --restore {id}")).unwrap_or_default();
    match plan.verb {
        Verb::Promote => format!("cargo xtask promote {environment} {to} --apply --context {context}"),
        Verb::Adopt => format!("cargo xtask adopt {environment} --apply --context {context}"),
        Verb::Rollback => {
            format!("cargo xtask rollback {environment} --to {to}{restore} --apply --context {context}")
        }
    }
}

impl std::fmt::Display for Applied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "applied to {}: {} rolled out", self.context, self.deployments.join(", "))
    }
}
