//! Everything that can be asked about environments, asked at once. Each source has its own time: one that is slow or down
//! is told as unknown, with the reason, and delays nobody else's line.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::Result;
use jiff::Timestamp;

use crate::cluster;
use crate::fault::Fault;
use crate::git::Git;
use crate::image::{Digest, Labels};
use crate::infra::Infra;
use crate::pipeline::{Environment, Pipeline, Place};
use crate::registry::Registry;
use crate::report::Observed;
use crate::service;
use crate::situation::{self, Facts, Hold, Pinning, Situation};
use crate::version::Version;
use crate::workload::{self, Expected, Found, Workload};

/// How long the infra repository, the project's remote and the registry may take.
const REMOTE: Duration = Duration::from_secs(8);
/// How long git may take for one answer of a remote: less, so that it is gone before its time is over.
const GIT: Duration = Duration::from_secs(7);
/// How long a service may take for its two answers.
const SERVICE: Duration = Duration::from_secs(7);
/// How long a cluster may take; kubectl has less.
const CLUSTER: Duration = Duration::from_secs(8);

/// What was seen of the whole pipeline.
#[derive(Debug)]
pub struct Look {
    /// The commit of the project's branch.
    pub tip: Result<String, String>,
    pub situations: Vec<Situation>,
}

/// A question on its way.
struct Asked<T> {
    answer: Receiver<Result<T, String>>,
    since: Instant,
    limit: Duration,
}

/// Asks on a thread of its own, which is left behind if it takes longer.
fn ask<T: Send + 'static>(
    limit: Duration,
    question: impl FnOnce() -> Result<T> + Send + 'static,
) -> Asked<T> {
    let (tell, answer) = channel();
    std::thread::spawn(move || {
        let said = question().map_err(told);
        // Nobody listens any more after the time is over.
        let _ = tell.send(said);
    });
    Asked { answer, since: Instant::now(), limit }
}

impl<T> Asked<T> {
    fn answer(self) -> Result<T, String> {
        let left = self.limit.saturating_sub(self.since.elapsed());
        self.answer.recv_timeout(left).unwrap_or_else(|error| {
            Err(match error {
                RecvTimeoutError::Timeout => format!("no answer within {} s", self.limit.as_secs()),
                RecvTimeoutError::Disconnected => "asking it failed".to_owned(),
            })
        })
    }
}

/// Why, on one line of a screen: without the command that git was given.
fn told(error: anyhow::Error) -> String {
    let fault = Fault::from(error);
    let why = fault.message();
    why.split_once(" (from git ").map_or(why, |(why, _)| why).to_owned()
}

/// Looks at these environments.
pub fn look(pipeline: &Pipeline, environments: &[Environment], root: &Path) -> Look {
    let tip = ask_tip(pipeline, root);
    let infra = ask_infra(pipeline, environments, root);
    let clusters: Vec<_> = environments.iter().map(ask_cluster).collect();
    // Whoever waits for another environment is told of that one too.
    let before = |environment: &Environment| {
        environment.after.as_ref().and_then(|name| pipeline.environment(name).ok())
    };
    let services: Vec<_> = environments
        .iter()
        .map(|environment| (ask_service(environment), before(environment).map(ask_service)))
        .collect();

    let pinnings = infra.answer();
    let labels = ask_labels(pipeline, environments.len(), &pinnings, root);
    let tip = tip.answer();
    let now = Timestamp::now();
    let mut situations = Vec::new();
    let asked = environments.iter().zip(services).zip(clusters).zip(labels).enumerate();
    for (index, (((environment, (service, earlier)), cluster), labels)) in asked {
        let infra = pinnings.as_ref().map_err(Clone::clone).and_then(|all| all[index].clone());
        let mut facts = Facts {
            environment: environment.clone(),
            now,
            infra,
            labels: labels.map_or_else(|| Err("nothing is pinned by digest".to_owned()), Asked::answer),
            observed: heard(service),
            behind: Err(String::new()),
            branch: pipeline.branch.clone(),
            tag: None,
            before: earlier.map(|service| (environment.after.clone().unwrap_or_default(), heard(service))),
            cluster: None,
        };
        let version = facts.pin().and_then(|pin| Version::from_tag(pin.tag.as_deref()?));
        facts.tag = version.map(|version| pipeline.git_tag(&version));
        facts.behind = behind(&facts, &tip, root);
        facts.cluster = environment
            .cluster
            .as_ref()
            .zip(cluster)
            .map(|(place, asked)| told_by(&facts, pipeline, place, &asked.answer()?));
        situations.push(situation::judge(facts));
    }
    Look { tip, situations }
}

/// What `edge` names in the registry.
pub fn edge(pipeline: &Pipeline, root: &Path) -> Result<(Digest, Labels), String> {
    let (registry, root) = (pipeline.registry().to_owned(), PathBuf::from(root));
    let asked = ask(REMOTE, move || {
        let registry = Registry::open(&registry, &root)?;
        let digest = registry.resolve("edge")?.ok_or_else(|| Fault::refused("it has no tag edge"))?;
        let labels = registry.labels(&digest)?;
        Ok((digest, labels))
    });
    asked.answer()
}

fn heard(service: Asked<Observed>) -> Observed {
    service.answer().unwrap_or_else(Observed::Silent)
}

fn ask_service(environment: &Environment) -> Asked<Observed> {
    let url = environment.url.clone();
    ask(SERVICE, move || Ok(service::observe(&url)))
}

/// The project's branch, as its remote has it; the commit is here afterwards.
fn ask_tip(pipeline: &Pipeline, root: &Path) -> Asked<String> {
    let (reference, project) = (format!("refs/heads/{}", pipeline.branch), Git::at(root).within(Some(GIT)));
    ask(REMOTE, move || {
        let missing = || Fault::refused(format!("the project's remote has no {reference}"));
        let tip = project.remote_ref("origin", &reference)?.ok_or_else(missing)?;
        if project.commit(&tip)?.is_none() {
            project.fetch("origin", &reference)?;
        }
        Ok(tip)
    })
}

fn ask_infra(
    pipeline: &Pipeline,
    environments: &[Environment],
    root: &Path,
) -> Asked<Vec<Result<Pinning, String>>> {
    let (pipeline, environments, root) = (pipeline.clone(), environments.to_vec(), PathBuf::from(root));
    ask(REMOTE, move || {
        let infra = Infra::clone_within(&pipeline, &root, Some(GIT))?;
        let pinning = |environment| pinning(&infra, environment).map_err(told);
        Ok(environments.iter().map(pinning).collect())
    })
}

fn pinning(infra: &Infra, environment: &Environment) -> Result<Pinning> {
    // A pin that cannot be read may be held all the same.
    let why = infra.hold(environment)?;
    let made = if why.is_some() { infra.hold_commit(environment)? } else { None };
    let hold = why.map(|why| Hold {
        why,
        by: made.as_ref().map(|commit| commit.author.clone()),
        since: made.as_ref().and_then(|commit| commit.time.parse().ok()),
    });
    Ok(Pinning {
        head: infra.head(environment)?.to_owned(),
        pinned: infra.pinned(environment).map_err(told),
        hold,
        history: infra.history(environment).unwrap_or_default(),
    })
}

/// What the registry says of each pinned digest; `None` for an environment that has none.
fn ask_labels(
    pipeline: &Pipeline,
    count: usize,
    pinnings: &Result<Vec<Result<Pinning, String>>, String>,
    root: &Path,
) -> Vec<Option<Asked<Labels>>> {
    let Ok(pinnings) = pinnings else { return (0..count).map(|_| None).collect() };
    let registry =
        Registry::open(pipeline.registry(), root).map(Arc::new).map_err(|error| format!("{error:#}"));
    let asked = pinnings.iter().map(|pinning| {
        let pin = &pinning.as_ref().ok()?.pinned.as_ref().ok()?.pin;
        let digest = pin.digest.clone().filter(|_| !pin.is_nothing())?;
        let registry = registry.clone();
        Some(ask(REMOTE, move || registry.map_err(Fault::usage)?.labels(&digest)))
    });
    asked.collect()
}

fn ask_cluster(environment: &Environment) -> Option<Asked<Found>> {
    let place = environment.cluster.clone()?;
    Some(ask(CLUSTER, move || Ok(cluster::look(&place))))
}

/// What the objects of the cluster say of what is pinned.
fn told_by(facts: &Facts, pipeline: &Pipeline, place: &Place, found: &Found) -> Result<Workload, String> {
    if let (true, Some(why)) = (found.objects.is_empty(), found.unseen.first()) {
        return Err(why.strip_prefix("cluster: ").unwrap_or(why).to_owned());
    }
    let pin = facts.pin().filter(|pin| !pin.is_nothing());
    let image = pin.map(|pin| {
        let digest = pin.digest.as_ref().map(|digest| format!("@{}", digest.as_str())).unwrap_or_default();
        format!("{}:{}{digest}", pipeline.image, pin.name())
    });
    let expected = Expected {
        environment: &facts.environment.name,
        place,
        image: image.as_deref(),
        commit: facts.change().map(|change| change.commit.id.as_str()),
        head: facts.infra.as_ref().ok().map(|infra| infra.head.as_str()),
    };
    Ok(workload::read(found, &expected, facts.now))
}

/// How many commits the branch has after the pinned one.
fn behind(facts: &Facts, tip: &Result<String, String>, root: &Path) -> Result<usize, String> {
    let tip = tip.as_ref().map_err(Clone::clone)?;
    let (commit, _) = facts.image().ok_or("which commit is pinned is unknown")?;
    Git::at(root).count(Some(&commit), tip).map_err(told)
}
