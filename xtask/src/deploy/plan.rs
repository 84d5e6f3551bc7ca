//! Facts -> plan, for `promote` and `rollback`: both set one environment's pin, so both pass the same guards.

use std::fmt;

use serde::Serialize;

use crate::fault::Fault;
use crate::image::{Digest, Labels, Schema};
use crate::kustomization::Pin;
use crate::pipeline::{Accepts, Environment};
use crate::report::Observed;
use crate::version::Version;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    Promote,
    Rollback,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Promote => "promote",
            Self::Rollback => "roll back",
        })
    }
}

/// An image that the environment is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// `v0.2.0` or `sha-…`: the pin's newTag.
    pub name: String,
    pub kind: Accepts,
    /// What the manifests are taken from: the version's tag, or the 40-hex commit.
    pub git_ref: String,
    /// The commit that the project's remote has under `git_ref`; `None` if it has none.
    pub commit: Option<String>,
    pub digest: Digest,
    pub labels: Labels,
}

impl Candidate {
    pub fn pin(&self) -> Pin {
        Pin {
            git_ref: Some(self.git_ref.clone()),
            tag: Some(self.name.clone()),
            digest: Some(self.digest.clone()),
        }
    }
}

/// The environment that must run the image first.
#[derive(Clone, Debug)]
pub struct Before {
    pub name: String,
    pub pin: Pin,
    pub observed: Observed,
}

/// All that a plan is made from.
#[derive(Clone, Debug)]
pub struct Facts {
    pub verb: Verb,
    pub environment: Environment,
    /// What the environment's kustomization pins now.
    pub from: Pin,
    pub to: Candidate,
    pub observed: Observed,
    pub before: Option<Before>,
    /// What the operator read off the data file, for a service that does not answer.
    pub told_schema: Option<u32>,
    /// The schemas of the images that were ever pinned here; `None` where neither commit nor registry tells it.
    pub pinned_schemas: Vec<Option<u32>>,
    /// Released versions with the schema of their binaries; gathered only when a downgrade is asked for.
    pub released: Vec<(Version, u32)>,
    /// File names of the target's migrations, in order.
    pub migrations: Vec<String>,
}

/// One change of one environment's pin, or none if it is pinned so already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    pub verb: Verb,
    pub environment: String,
    pub from: Pin,
    pub to: Pin,
    /// False when the pin is already what was asked for.
    pub change: bool,
    pub schema: Schema,
    /// The data file's schema in the operator's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub told_schema: Option<u32>,
    /// The migrations that will run on the data file.
    pub migrations: Vec<String>,
    /// What was observed, and what could not be.
    pub notes: Vec<String>,
}

/// Nothing is pinned, or the infra template's `v0.0.0`.
pub fn nothing_yet(pin: &Pin) -> bool {
    pin.tag.as_deref().is_none_or(|tag| Version::from_tag(tag).is_some_and(|version| version.is_zero()))
}

/// How a pin is called: its tag.
pub fn name(pin: &Pin) -> &str {
    if nothing_yet(pin) { "nothing" } else { pin.tag.as_deref().unwrap_or("nothing") }
}

/// Makes the plan, or refuses with every reason at once.
pub fn plan(facts: &Facts) -> Result<Plan, Fault> {
    let mut notes = Vec::new();
    let mut problems = Vec::new();
    check_candidate(facts, &mut problems);
    if facts.verb == Verb::Promote {
        check_before(facts, &mut notes, &mut problems);
    }
    check_schema(facts, &mut notes, &mut problems);
    let to = facts.to.pin();
    let change = facts.from != to;
    if change && !problems.is_empty() {
        let (what, help): (Vec<_>, Vec<_>) = problems.into_iter().unzip();
        let verb = facts.verb;
        let subject =
            format!("cannot {verb} {} to {}: {}", facts.environment.name, facts.to.name, what.join("; "));
        return Err(Fault::refused(subject).help(help.join("\n      ")));
    }
    Ok(Plan {
        verb: facts.verb,
        environment: facts.environment.name.clone(),
        from: facts.from.clone(),
        to,
        change,
        schema: facts.to.labels.schema,
        told_schema: facts.told_schema,
        migrations: pending(facts),
        notes,
    })
}

type Problems = Vec<(String, String)>;

fn check_candidate(facts: &Facts, problems: &mut Problems) {
    let Facts { environment, to, .. } = facts;
    // A rollback returns to what ran here before, whatever the environment accepts today.
    if facts.verb == Verb::Promote && !environment.accepts.contains(&to.kind) {
        let accepted: Vec<_> =
            environment.accepts.iter().map(|kind| format!("{kind:?}").to_lowercase()).collect();
        problems.push((
            format!("{} accepts {}", environment.name, accepted.join(", ")),
            "release a version, then promote that; or change accepts in deploy/pipeline.yaml".into(),
        ));
    }
    match &to.commit {
        Some(commit) if *commit == to.labels.revision => {}
        Some(commit) => problems.push((
            format!(
                "git's {} is commit {commit}, but the image was built from {}",
                to.git_ref, to.labels.revision
            ),
            "the tag was moved, or the image is another's: release a new version".into(),
        )),
        None => problems.push((
            format!("the project's remote has no {}", to.git_ref),
            "kustomize could not fetch the manifests: push the commit or the tag first".into(),
        )),
    }
    let version = Version::from_tag(&to.name);
    if version.is_some_and(|version| version.bare() != to.labels.version) {
        problems.push((
            format!("the image under {} calls itself {}", to.name, to.labels.version),
            "the tag names another version's image: release a new version".into(),
        ));
    }
}

fn check_before(facts: &Facts, notes: &mut Vec<String>, problems: &mut Problems) {
    let Some(before) = &facts.before else { return };
    let first = format!("cargo xtask promote {} {}", before.name, facts.to.name);
    if before.pin.digest.as_ref() != Some(&facts.to.digest) {
        let pinned = name(&before.pin);
        problems.push((format!("{} does not run it first: {pinned} is pinned there", before.name), first));
        return;
    }
    match &before.observed {
        Observed::Reports(report) if report.version.commit != facts.to.labels.revision => problems.push((
            format!("{} is pinned to it but still runs {}", before.name, report.version.version),
            format!("wait until {} runs it; cargo xtask status shows it", before.name),
        )),
        Observed::Reports(report) if !report.ready => problems.push((
            format!("{} runs it but is not ready", before.name),
            format!("see why {} is not ready; cargo xtask status shows it", before.name),
        )),
        Observed::Reports(_) => notes.push(format!("{} runs it and is ready", before.name)),
        Observed::Silent(why) => problems.push((
            format!("{} pins it, but whether it runs is unknown ({why})", before.name),
            format!("see why {} does not answer; cargo xtask status shows it", before.name),
        )),
    }
}

fn check_schema(facts: &Facts, notes: &mut Vec<String>, problems: &mut Problems) {
    let binary = facts.to.labels.schema.current;
    let (environment, name) = (&facts.environment.name, &facts.to.name);
    let downgrade = |file: u32| {
        format!(
            "{environment}'s data file has schema {file}, and {name} knows schema {binary}: it would need a downgrade"
        )
    };
    let why = match (&facts.observed, facts.told_schema) {
        (Observed::Reports(report), _) => {
            let file = report.version.schema.of_file();
            let ledger = &report.version.ledger;
            notes
                .push(format!("ledger {}, sequence {}, schema {}", ledger.id, ledger.sequence, file.current));
            if !file.admits(binary) {
                problems.push((downgrade(file.current), way_out(facts, file)));
            }
            return;
        }
        (Observed::Silent(why), Some(told)) => {
            notes.push(format!(
                "data file has schema {told}, as you say; {environment} does not answer ({why})"
            ));
            if let Some(higher) = facts.pinned_schemas.iter().flatten().max().filter(|schema| **schema > told)
            {
                notes.push(format!(
                    "take care: an image with schema {higher} was pinned here, and may have migrated the file"
                ));
            }
            if binary < told {
                problems
                    .push((downgrade(told), way_out(facts, Schema { current: told, oldest_binary: told })));
            }
            return;
        }
        (Observed::Silent(why), None) => why,
    };
    if facts.pinned_schemas.is_empty() {
        notes.push(format!("{environment} ran nothing before"));
        return;
    }
    let highest = facts
        .pinned_schemas
        .iter()
        .copied()
        .max()
        .filter(|_| !facts.pinned_schemas.contains(&None))
        .flatten();
    if highest.is_some_and(|highest| binary >= highest) {
        notes
            .push(format!("data file unknown ({why}); no image with a higher schema than {binary} ran here"));
        return;
    }
    let highest = highest.map_or("unknown".to_owned(), |schema| format!("at most {schema}"));
    problems.push((
        format!("{environment} does not answer ({why}), so its data file's schema is {highest}, and {name} knows schema {binary}"),
        "read it where the file lies, dojo migrate --plan, and tell it: --file-schema N".into(),
    ));
}

/// What a person can do instead of a downgrade.
fn way_out(facts: &Facts, file: Schema) -> String {
    let safe =
        facts.released.iter().filter(|(_, schema)| file.admits(*schema)).map(|(version, _)| version).max();
    let safe = safe.map_or_else(
        || "no released version opens this file: fix forward with a new release".to_owned(),
        |version| {
            format!(
                "newest safe version: {version} (cargo xtask rollback {} --to {version})",
                facts.environment.name
            )
        },
    );
    let schema = facts.to.labels.schema.current;
    format!(
        "{safe}\n      or restore the backup made before that migration: backups/*-schema{schema}-seq*.duckdb beside the data file"
    )
}

/// The target's migrations that the file has not seen; none are named while the file's schema is unknown.
fn pending(facts: &Facts) -> Vec<String> {
    let file = match &facts.observed {
        Observed::Reports(report) => report.version.schema.file,
        Observed::Silent(_) => {
            facts.told_schema.or_else(|| facts.pinned_schemas.iter().flatten().copied().max()).unwrap_or(0)
        }
    };
    let number = |name: &str| name.get(..4).and_then(|digits| digits.parse::<u32>().ok());
    let runs = file + 1..=facts.to.labels.schema.current;
    let names =
        facts.migrations.iter().filter(|name| number(name).is_some_and(|number| runs.contains(&number)));
    names.cloned().collect()
}

impl Plan {
    /// The subject of the commit in the infra repository, and of this plan.
    pub fn subject(&self, service: &str) -> String {
        format!("{service}: {} {} -> {}", self.environment, name(&self.from), name(&self.to))
    }

    /// The whole commit message: subject, changelog, migrations, trailers.
    pub fn message(&self, service: &str, changes: &str, by: &str) -> String {
        let mut message = format!("{}\n", self.subject(service));
        if !changes.trim().is_empty() {
            message += &format!("\n{}\n", changes.trim());
        }
        if !self.migrations.is_empty() {
            message += &format!("\nMigrations that will run: {}\n", self.migrations.join(", "));
        }
        message += &format!(
            "\nPin-Environment: {}\nPin-From: {}\nPin-To: {}\n",
            self.environment,
            name(&self.from),
            name(&self.to)
        );
        if let Some(digest) = &self.to.digest {
            message += &format!("Pin-Digest: {digest}\n");
        }
        message += &format!("Pin-Schema: {}\nPin-By: {by}\n", self.schema.current);
        if let Some(told) = self.told_schema {
            message += &format!("Pin-File-Schema: {told}, told by the operator\n");
        }
        if let (Verb::Rollback, Some(digest)) = (self.verb, &self.from.digest) {
            message += &format!("Pin-Bad: {digest}\n");
        }
        message
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.change {
            write!(f, "{} already pins {}: nothing to do", self.environment, name(&self.to))?;
            return match self.verb {
                Verb::Promote => Ok(()),
                Verb::Rollback => write!(f, "\nto go further back, name a version with --to"),
            };
        }
        let show = |value: Option<&str>| value.unwrap_or("none").to_owned();
        let short = |pin: &Pin| {
            pin.digest.as_ref().map_or("none".to_owned(), |digest| format!("sha256:{}…", digest.short()))
        };
        writeln!(f, "{} {}: {} -> {}", self.verb, self.environment, name(&self.from), name(&self.to))?;
        writeln!(
            f,
            "  ref     {} -> {}",
            show(self.from.git_ref.as_deref()),
            show(self.to.git_ref.as_deref())
        )?;
        writeln!(f, "  newTag  {} -> {}", show(self.from.tag.as_deref()), show(self.to.tag.as_deref()))?;
        writeln!(f, "  digest  {} -> {}", short(&self.from), short(&self.to))?;
        let migrations =
            if self.migrations.is_empty() { "none".to_owned() } else { self.migrations.join(", ") };
        write!(f, "  schema  {}, migrations to run: {migrations}", self.schema.current)?;
        self.notes.iter().try_for_each(|note| write!(f, "\n  seen    {note}"))
    }
}

#[cfg(test)]
mod tests;
