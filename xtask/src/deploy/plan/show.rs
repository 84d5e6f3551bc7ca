//! What a person reads before agreeing to a plan, and what its commit tells those who come later.

use std::fmt;

use super::{Plan, Rehearsed, Verb};
use crate::kustomization::Pin;

impl Plan {
    /// The subject of the commit in the infra repository.
    pub fn subject(&self, service: &str) -> String {
        format!("{service}: {} {} -> {}", self.environment, self.from.name(), self.to.name())
    }

    /// The whole commit message: subject, changelog, migrations, trailers.
    pub fn message(&self, service: &str, changes: &str, by: &str) -> String {
        let mut text = format!("{}\n", self.subject(service));
        if !changes.trim().is_empty() {
            text += &format!("\n{}\n", changes.trim());
        }
        if !self.migrations.is_empty() {
            let will = if self.file_known { "will" } else { "may" };
            text += &format!("\nMigrations that {will} run: {}\n", self.migrations.join(", "));
        }
        if let Some(id) = &self.restore {
            text += &format!("\nRestores the backup {id}.\n");
        }
        self.trailers(by).sign(&text)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.change {
            write!(f, "{} already pins {}: nothing to do", self.environment, self.to.name())?;
            return match self.verb {
                Verb::Promote | Verb::Adopt => Ok(()),
                Verb::Rollback => write!(f, "\nto go further back, name a version with --to"),
            };
        }
        let show = |value: Option<&str>| value.unwrap_or("none").to_owned();
        let short = |pin: &Pin| {
            pin.digest.as_ref().map_or("none".to_owned(), |digest| format!("sha256:{}…", digest.short()))
        };
        let (from, to) = (&self.from, &self.to);
        writeln!(f, "{} {}: {} -> {}", self.verb, self.environment, from.name(), to.name())?;
        writeln!(f, "  ref     {} -> {}", show(from.git_ref.as_deref()), show(to.git_ref.as_deref()))?;
        writeln!(f, "  newTag  {} -> {}", show(from.tag.as_deref()), show(to.tag.as_deref()))?;
        writeln!(f, "  digest  {} -> {}", short(from), short(to))?;
        let migrations =
            if self.migrations.is_empty() { "none".to_owned() } else { self.migrations.join(", ") };
        let migrations = match self.file_known {
            true => migrations,
            false => format!("unknown, at most {migrations}"),
        };
        write!(f, "  schema  {}, migrations to run: {migrations}", self.schema.current)?;
        if let Some(id) = &self.restore {
            write!(f, "\n  restore {id}, once; the file that it replaces is kept")?;
        }
        self.notes.iter().try_for_each(|note| write!(f, "\n  seen    {note}"))?;
        self.overrides.iter().try_for_each(|pass| write!(f, "\n  passed  {}: {}", pass.gate, pass.because))
    }
}

impl fmt::Display for Rehearsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  rehearsed on a copy of {} ({} bytes)", self.backup.display(), self.bytes)?;
        for step in &self.steps {
            let tenths = (step.milliseconds + 50) / 100;
            let said = step.said.replace('\n', "\n           ");
            write!(f, "\n    {:>2}.{} s  {}: {said}", tenths / 10, tenths % 10, step.command)?;
        }
        self.note.as_ref().map_or(Ok(()), |note| write!(f, "\n  note: {note}"))
    }
}
