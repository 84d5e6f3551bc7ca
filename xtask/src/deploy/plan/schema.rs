//! Whether an image may open the data file: its schema covers the file's, or the file admits it. A file that nobody can
//! see now lies between what was last observed and the highest that was pinned since.

use super::{Facts, Restore, Verb};
use crate::data_file::File;
use crate::report::{Backup, Ledger, Observed};

/// A refusal and its remedy.
pub type Refusal = (String, String);

/// Whether the image may open the file, whatever it is.
pub fn is_safe(facts: &Facts) -> bool {
    file(facts).admits(facts.to.schema.current)
}

fn file(facts: &Facts) -> File {
    match (&facts.restore, facts.told_schema) {
        (Some(Restore { schema: Some(number), .. }), _) => File::told(*number, &facts.past),
        (Some(_), Some(number)) => File::told(number, &facts.past),
        (Some(_), None) => File::Between(None, None),
        (None, told) => File::of(&facts.observed, told, &facts.past),
    }
}

/// Holds the image against the file. What is seen goes into the notes.
pub fn check(facts: &Facts, notes: &mut Vec<String>) -> Option<Refusal> {
    let (environment, name) = (&facts.environment.name, &facts.to.name);
    let binary = facts.to.schema.current;
    let silent = match &facts.observed {
        Observed::Reports(report) => {
            let version = &report.version;
            let file = version.schema.file;
            notes.push(format!(
                "ledger {}, sequence {}, schema {file}",
                version.ledger.id, version.ledger.sequence
            ));
            notes.extend(another_ledger(facts, &version.ledger));
            notes.extend(about_to_migrate(facts, &version.commit, file));
            None
        }
        Observed::Silent(why) => Some(why.as_str()),
    };
    let file = file(facts);
    let heeded = facts.told_schema.is_none_or(|told| file == File::told(told, &facts.past));
    if !heeded {
        notes.push("--file-schema is not heeded: it is told otherwise already".to_owned());
    }
    let what = if facts.restore.is_some() { "that backup" } else { "the data file" };
    match (&file, silent) {
        (File::Known(schema), why) => {
            if let (Some(why), None) = (why, &facts.restore) {
                let file = schema.current;
                notes.push(format!(
                    "data file has schema {file}, as you say; {environment} does not answer ({why})"
                ));
                let seen =
                    facts.past.iter().take_while(|past| !past.restores).find_map(|past| past.seen.as_ref());
                if let Some(seen) = seen.filter(|seen| seen.schema.current > file) {
                    let seen = seen.schema.current;
                    return Some((
                        format!(
                            "you say that {environment}'s data file has schema {file}, and the service said {seen} before: a file does not go back without a restore"
                        ),
                        "read it again where it lies: dojo migrate --plan".to_owned(),
                    ));
                }
                let highest = facts.past.iter().filter_map(|past| Some(past.schema?.current)).max();
                if let Some(higher) = highest.filter(|higher| *higher > file) {
                    notes.push(format!(
                        "take care: an image with schema {higher} was pinned here, and may have migrated the file"
                    ));
                }
            }
            if file.admits(binary) {
                return None;
            }
            let whose =
                if facts.restore.is_some() { what.to_owned() } else { format!("{environment}'s data file") };
            Some((
                format!(
                    "{whose} has schema {}, and {name} knows schema {binary}: it would need a downgrade",
                    schema.current
                ),
                way_out(facts, &file),
            ))
        }
        (File::Fresh, _) => {
            notes.push(format!("{environment} ran nothing before, as far as the infra repository remembers"));
            None
        }
        (File::Between(..), _) if file.admits(binary) => {
            let why = silent.unwrap_or("unknown");
            notes.push(format!(
                "data file unknown ({why}), but {name} opens all that it can be: {}",
                file.range()
            ));
            None
        }
        (File::Between(..), _) => {
            let why = silent.map_or_else(
                || "its schema is not told".to_owned(),
                |why| format!("{environment} does not answer: {why}"),
            );
            let look = match facts.restore {
                Some(_) => "tell the backup's schema: --file-schema N".to_owned(),
                None => format!(
                    "read it where the file lies, by `dojo migrate --plan` in a pod with the volume (docs/promoting.md), and tell it: --file-schema N\n      {}",
                    way_out(facts, &file)
                ),
            };
            Some((
                format!("the schema of {what} is {} ({why}), and {name} knows schema {binary}", file.range()),
                look,
            ))
        }
    }
}

/// What is pinned, and does not run yet, may migrate the file before the new pin arrives.
fn about_to_migrate(facts: &Facts, runs: &str, file: u32) -> Option<String> {
    let (revision, schema) = facts.from_image.as_ref()?;
    let coming = revision != runs && schema.current > file && !schema.admits(facts.to.schema.current);
    coming.then(|| {
        let (name, pinned, schema) = (&facts.environment.name, facts.from.pin.name(), schema.current);
        format!(
            "take care: {name} does not run {pinned} yet, which will migrate its file to schema {schema}; if it starts before this arrives, {} will refuse the file",
            facts.to.name
        )
    })
}

/// What is wrong with a ledger that was seen before: another volume, or a tail that was lost.
fn another_ledger(facts: &Facts, now: &Ledger) -> Option<String> {
    let at = facts.past.iter().position(|past| past.seen.is_some())?;
    let seen = facts.past[at].seen.as_ref()?;
    if seen.ledger != now.id {
        return Some(format!("take care: until now the ledger was {}; is it the right volume?", seen.ledger));
    }
    let restored = facts.past[..=at].iter().any(|past| past.restores);
    let back = seen.sequence > now.sequence && !restored;
    back.then(|| {
        format!(
            "take care: the ledger was at sequence {} before, and was not restored by this tool",
            seen.sequence
        )
    })
}

/// In the id of what a restore put aside, which is no backup that anybody made.
const REPLACED: &str = "-replaced-";

/// What a person can do instead of a downgrade.
fn way_out(facts: &Facts, file: &File) -> String {
    let (name, to) = (&facts.environment.name, &facts.to.name);
    let safe = || facts.others.iter().filter(|other| file.admits(other.schema));
    let newest = |ran: bool| safe().filter(|other| other.ran == ran).map(|other| &other.version).max();
    let pinned = facts.from_image.as_ref().filter(|(_, schema)| file.admits(schema.current));
    let safe = match (newest(true), pinned, newest(false)) {
        (Some(version), ..) => {
            format!("newest safe version: {version} (cargo xtask rollback {name} --to {version})")
        }
        (None, Some(_), _) => {
            let pinned = facts.from.pin.name();
            format!("newest safe version: {pinned}, which is pinned now; fix forward with a new release")
        }
        (None, None, Some(version)) => {
            format!("newest safe version: {version} (cargo xtask promote {name} {version})")
        }
        (None, None, None) => {
            "no released version is known to open it: fix forward with a new release".to_owned()
        }
    };
    if facts.verb == Verb::Promote {
        return safe;
    }
    if let Some(restore) = &facts.restore {
        return format!("{safe}; add --restore {}", restore.id);
    }
    let schema = facts.to.schema.current;
    let backups = facts.observed.report().and_then(|report| report.version.backups.as_ref());
    let fits = |backup: &&Backup| backup.schema <= schema && !backup.id.contains(REPLACED);
    let fitting = backups.and_then(|backups| backups.iter().find(fits));
    let id = fitting.map_or_else(|| format!("ledger-schema{schema}-seq…"), |backup| backup.id.clone());
    format!(
        "{safe}\n      or lose what was written since a backup: cargo xtask rollback {name} --to {to} --restore {id}"
    )
}

/// Whether it is known which migrations will run.
pub fn is_known(facts: &Facts) -> bool {
    !matches!(file(facts), File::Between(..))
}

/// The target's migrations that the file has not seen; of a file that nobody can see, those that it may not have seen.
pub fn pending(facts: &Facts) -> Vec<String> {
    let file = match file(facts) {
        File::Known(schema) => schema.current,
        File::Between(low, _) => low.unwrap_or(0),
        File::Fresh => 0,
    };
    let number = |name: &str| name.get(..4).and_then(|digits| digits.parse::<u32>().ok());
    let runs = file.saturating_add(1)..=facts.to.schema.current;
    let names =
        facts.migrations.iter().filter(|name| number(name).is_some_and(|number| runs.contains(&number)));
    names.cloned().collect()
}
