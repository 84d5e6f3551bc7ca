//! A difference as a person reads it.

use std::fmt;

use indicatif::HumanBytes;

use super::requirements::{Change, Fate, Source};
use super::{Changelog, Commits, Difference, Manifest, Migrations, Pull, Told};

/// How many subjects are shown of each direction.
const SUBJECTS: usize = 20;

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, from, to) = (&self.environment, &self.from, &self.to);
        if from == to {
            return write!(f, "{name} pins {} already: nothing would change", to.name());
        }
        writeln!(f, "{name}: {} -> {}", from.name(), to.name())?;
        section(f, "commits", &self.commits, commits)?;
        section(f, "changelog", &self.changelog, changelog)?;
        section(f, "migrations", &self.migrations, migrations)?;
        section(f, "manifests", &self.manifests, manifests)?;
        section(f, "required", &self.requirements, |f, changes| required(f, changes))?;
        section(f, "to pull", &self.pull, |f, pull| write!(f, " {}", bytes(pull, from.name())))?;
        section(f, "gates", &self.unmet, |f, unmet| {
            if unmet.is_empty() {
                return write!(f, " all are met");
            }
            unmet.iter().try_for_each(|unmet| {
                let gate = unmet.gate.map(|gate| format!(" (--override {gate})")).unwrap_or_default();
                write!(f, "\n  would be refused: {}{gate}", unmet.what)
            })
        })
    }
}

fn section<T>(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    told: &Told<T>,
    show: impl Fn(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    write!(f, "\n{name}:")?;
    match told {
        Told::Known(known) => show(f, known)?,
        Told::Unknown(why) => write!(f, " unknown: {why}")?,
    }
    writeln!(f)
}

fn commits(f: &mut fmt::Formatter<'_>, commits: &Commits) -> fmt::Result {
    let Commits { brings, takes_back } = commits;
    write!(f, " {}", brings.len())?;
    list(f, "+", brings)?;
    if !takes_back.is_empty() {
        write!(f, "\n  takes back {}:", takes_back.len())?;
        list(f, "-", takes_back)?;
    }
    Ok(())
}

fn list(f: &mut fmt::Formatter<'_>, mark: &str, subjects: &[String]) -> fmt::Result {
    subjects.iter().take(SUBJECTS).try_for_each(|subject| write!(f, "\n  {mark} {subject}"))?;
    match subjects.len().saturating_sub(SUBJECTS) {
        0 => Ok(()),
        more => write!(f, "\n  {mark} … and {more} more"),
    }
}

fn changelog(f: &mut fmt::Formatter<'_>, changelog: &Changelog) -> fmt::Result {
    if changelog.versions.is_empty() {
        return write!(f, " no version between them");
    }
    let does = if changelog.back { "takes back" } else { "brings" };
    changelog.versions.iter().try_for_each(|(version, notes)| {
        write!(f, "\n  {does} {version}")?;
        let lines = notes.lines().filter(|line| !line.trim().is_empty());
        lines.clone().try_for_each(|line| write!(f, "\n    {line}"))
    })
}

fn migrations(f: &mut fmt::Formatter<'_>, migrations: &Migrations) -> fmt::Result {
    let Migrations { run, file_known } = migrations;
    let names = if run.is_empty() { "none".to_owned() } else { run.join(", ") };
    match file_known {
        true => write!(f, " {names}"),
        false => write!(f, " unknown, at most {names}: the service does not tell its data file's schema"),
    }
}

fn manifests(f: &mut fmt::Formatter<'_>, manifest: &Manifest) -> fmt::Result {
    let Manifest { diff, image_alone, objects, new } = manifest;
    if *new {
        return write!(f, " {objects} objects, and nothing to compare them with");
    }
    match (diff.as_str(), image_alone) {
        ("", _) => write!(f, " no object changes")?,
        (_, true) => write!(f, " only the image changes")?,
        (_, false) => {}
    }
    diff.lines().try_for_each(|line| write!(f, "\n  {line}"))
}

fn required(f: &mut fmt::Formatter<'_>, changes: &[Change]) -> fmt::Result {
    if changes.is_empty() {
        return write!(f, " the same Secrets and configuration keys");
    }
    for change in changes {
        let Change { source: Source { kind, namespace, name }, is, added, removed, optional, make } = change;
        let place = if namespace.is_empty() { name.clone() } else { format!("{namespace}/{name}") };
        let fate = match is {
            Fate::New => " (new)",
            Fate::Gone => " (no longer)",
            Fate::Changed => "",
        };
        let optional = if *optional { ", optional" } else { "" };
        write!(f, "\n  {kind:?} {place}{fate}{optional}")?;
        for (mark, keys) in [("+", added), ("-", removed)] {
            keys.iter().try_for_each(|key| match key.as_str() {
                "*" => write!(f, "\n    {mark} all of it; its keys are not named"),
                key => write!(f, "\n    {mark} {key}"),
            })?;
        }
        make.iter().try_for_each(|make| write!(f, "\n    first: {make}"))?;
    }
    Ok(())
}

fn bytes(pull: &Pull, from: &str) -> String {
    let all = HumanBytes(pull.bytes_in_all);
    match pull.bytes {
        Some(bytes) if bytes == pull.bytes_in_all => format!("{all}"),
        Some(bytes) => format!("{} of {all}, for a node that has {from}", HumanBytes(bytes)),
        None => format!("at most {all}; what {from} has of it is unknown"),
    }
}
