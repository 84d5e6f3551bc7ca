//! Putting a backup in the ledger's place, once: what `DOJO_RESTORE` asks of `dojo migrate`, and `dojo restore` by hand.
//!
//! Nothing changes until a verified copy lies beside the ledger and `ledger.restoring` says what is to be done. From then
//! on whoever opens the ledger to write does the rest first, and whoever only reads refuses, so that a kill between any
//! two steps leaves nothing that could be taken for a ledger. At the end that file becomes the marker, in `backups/`.

use std::fmt;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use duckdb::AccessMode;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::backup::{self, folder, stem};
use super::engine::{connect, folder_of, readable, with_suffix};
use super::lock::Lock;
use super::migrate::{Migration, Migrations};
use super::open::{self, Identity};
use crate::fault::Fault;
use crate::ledger::verify;

/// The stem of a file in `backups/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id(String);

impl Id {
    /// Longer ones would leave no room for what the marker's name has besides; a file's name has 255 bytes.
    const LONGEST: usize = 150;

    pub fn parse(text: &str) -> Result<Self, Fault> {
        let plain = !text.is_empty()
            && text.len() <= Self::LONGEST
            && !text.starts_with('.')
            && !text.contains("..")
            && !text.contains(|c: char| c == '/' || c.is_control());
        if plain {
            return Ok(Self(text.to_owned()));
        }
        Err(Fault::config(format!("{text:?} is not the id of a backup")).help(
            "an id is the name of a file in backups/ without .duckdb, for example ledger-schema1-seq3; unset or empty \
             DOJO_RESTORE restores nothing",
        ))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a restore was, or is to be: the content of `ledger.restoring`, and then of the marker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub id: String,
    /// In whole seconds, and later than any other restore's on this volume: it orders them.
    pub at: Timestamp,
    /// What was put in place.
    pub schema: u32,
    pub sequence: i64,
    /// The name in `backups/` that the replaced file and its log were given; nothing if there was neither.
    pub kept: Option<String>,
    /// Nothing if there was no file, or it could not be read.
    pub replaced_schema: Option<u32>,
    pub replaced_sequence: Option<i64>,
}

/// A restore that can be done.
#[derive(Debug)]
pub struct Plan<'a> {
    source: PathBuf,
    pub backup: Identity,
    pub pending: &'a [Migration],
    /// Whether a file or its log is in the place, and what the file says of itself if it can be read.
    occupied: bool,
    pub replaced: Option<Identity>,
}

#[derive(Debug)]
enum Task<'a> {
    /// This id was applied at this time, and never is again.
    Done(Timestamp),
    Todo(Plan<'a>),
}

/// `dojo restore`: when this id was applied before, if it was, and what is in the place now.
pub fn by_hand(db: &Path, id: &Id, known: &Migrations) -> anyhow::Result<(Option<Timestamp>, Identity)> {
    open::folder(db)?;
    let _lock = Lock::take(db)?;
    finish(db)?;
    let before = apply(db, id, known)?;
    open::present(db)?;
    Ok((before, open::inspect(db)?.0))
}

/// What `dojo migrate` would restore, without changing anything.
pub fn plan<'a>(db: &Path, id: &Id, known: &'a Migrations) -> anyhow::Result<Option<Plan<'a>>> {
    settled(db)?;
    let _lock = Lock::take_if_present(db)?;
    match task(db, id, known)? {
        Task::Done(_) => Ok(None),
        Task::Todo(plan) => Ok(Some(plan)),
    }
}

/// Restores this backup, or tells when that was done. Wants the lock, and that nothing is unfinished.
pub fn apply(db: &Path, id: &Id, known: &Migrations) -> anyhow::Result<Option<Timestamp>> {
    let plan = match task(db, id, known)? {
        Task::Done(at) => {
            tracing::info!(id = id.0, "was restored already at {at}");
            return Ok(Some(at));
        }
        Task::Todo(plan) => plan,
    };
    let copies = if plan.pending.is_empty() { 1 } else { 2 };
    backup::room(folder_of(db), &plan.source, copies).with_context(|| format!("restoring {id}"))?;
    let record = record(db, id, &plan)?;
    let copy = backup::read_back(&plan.source, db, &plan.backup)?;
    File::open(&copy).and_then(|file| file.sync_all()).context("making the copy durable")?;
    // Written in one folder and moved to the other, so that what could not be moved is found out now.
    let draft = with_suffix(&folder(db).join(stem(db)), ".restoring.unfinished");
    let mut file = File::create(&draft).with_context(|| format!("cannot write {}", draft.display()))?;
    file.write_all(&serde_json::to_vec_pretty(&record)?)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    // From the next step on it is to be finished, whatever happens.
    copy.keep()?;
    fs::rename(&draft, begun(db)).with_context(|| format!("cannot write {}", begun(db).display()))?;
    sync(folder_of(db))?;
    finish(db)?;
    Ok(None)
}

/// Does the rest of a restore that was begun. Each step is one rename, and shows by its result that it is done.
pub fn finish(db: &Path) -> anyhow::Result<()> {
    let begun = begun(db);
    let text = match fs::read(&begun) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        text => text.with_context(|| format!("cannot read {}", begun.display()))?,
    };
    let record: Record = serde_json::from_slice(&text).map_err(|error| {
        Fault::refused(format!("{} is damaged: {error}", begun.display()))
            .help("see \"Restoring a backup\" in docs/operating.md for what lies where")
    })?;
    let (folder, copy) = (folder(db), open::unfinished(db));
    if fs::exists(&copy)? {
        if let Some(kept) = &record.kept {
            let kept = folder.join(format!("{kept}.duckdb"));
            // The file first: its log alone is taken for a lost ledger by everybody, older versions too.
            for suffix in ["", ".wal"] {
                set_aside(&with_suffix(db, suffix), &with_suffix(&kept, suffix))?;
            }
        }
        sync(&folder)?;
        sync(folder_of(db))?;
        fs::rename(&copy, db).with_context(|| format!("cannot write {}", db.display()))?;
        sync(folder_of(db))?;
    }
    open::present(db)?;
    let marker = folder.join(marker(&record.id, record.at));
    fs::rename(&begun, &marker).with_context(|| format!("cannot write {}", marker.display()))?;
    sync(&folder)?;
    sync(folder_of(db))?;
    let Record { id, schema, sequence, kept, replaced_schema, replaced_sequence, .. } = record;
    tracing::info!(id, schema, sequence, replaced_schema, replaced_sequence, kept, "restored");
    Ok(())
}

fn set_aside(from: &Path, to: &Path) -> anyhow::Result<()> {
    if !fs::exists(from)? {
        return Ok(());
    }
    // Neither is there twice, unless a dojo that knows nothing of restores made a new ledger meanwhile.
    if fs::exists(to)? {
        return Err(Fault::refused(format!("{} and {} are both there", from.display(), to.display()))
            .help("the second is the replaced file: move the first away, and run this again")
            .into());
    }
    fs::rename(from, to).with_context(|| format!("cannot move {} to {}", from.display(), to.display()))
}

/// Refuses while a restore is half done, for those who change nothing and for who would make a new ledger.
pub fn settled(db: &Path) -> Result<(), Fault> {
    if !is_begun(db) {
        return Ok(());
    }
    Err(Fault::refused(format!("a restore was begun and not finished: {} is there", begun(db).display()))
        .help("`dojo migrate` or `dojo serve` finishes it"))
}

pub fn is_begun(db: &Path) -> bool {
    begun(db).exists()
}

/// What restoring this id would do, with everything checked that can be; changes nothing.
fn task<'a>(db: &Path, id: &Id, known: &'a Migrations) -> anyhow::Result<Task<'a>> {
    if let Some((_, at)) = markers(db)?.into_iter().find(|(marked, _)| *marked == id.0) {
        return Ok(Task::Done(at));
    }
    let source = folder(db).join(format!("{id}.duckdb"));
    if !source.is_file() {
        let ids: Vec<_> = backup::files(db)?.into_iter().map(|(id, _)| id).collect();
        let there = if ids.is_empty() {
            "there is none: is it the right volume?".to_owned()
        } else {
            format!("there are, newest first: {}", ids.join(", "))
        };
        return Err(Fault::refused(format!("there is no backup {id} in {}", folder(db).display()))
            .help(there)
            .into());
    }
    let cannot = || format!("cannot restore {id}, and nothing was changed");
    let (identity, pending) = sound(&source, known).with_context(cannot)?;
    let occupied = fs::exists(db)? || fs::exists(with_suffix(db, ".wal"))?;
    let replaced = in_place(db)?;
    if let Some(other) = replaced.as_ref().filter(|replaced| replaced.id != identity.id) {
        let problem = format!(
            "{} is a backup of ledger {}, and {} is ledger {}",
            source.display(),
            identity.id,
            db.display(),
            other.id
        );
        return Err(Fault::refused(problem).help("is it the right volume?").into());
    }
    Ok(Task::Todo(Plan { source, backup: identity, pending, occupied, replaced }))
}

fn sound<'a>(source: &Path, known: &'a Migrations) -> anyhow::Result<(Identity, &'a [Migration])> {
    let (identity, applied) = open::inspect(source)?;
    let pending = known.pending(&applied)?;
    let conn = connect(source, AccessMode::ReadOnly)?;
    readable(source, verify::ledger(&conn))?;
    Ok((identity, pending))
}

/// The ledger that is in the place. A missing or damaged one is what restores are for.
fn in_place(db: &Path) -> anyhow::Result<Option<Identity>> {
    if !fs::exists(db)? {
        tracing::warn!(file = %db.display(), "there is no ledger to replace");
        return Ok(None);
    }
    match open::inspect(db) {
        Ok((identity, _)) => Ok(Some(identity)),
        // The engine's words for a file that another program has open; that says nothing of the file.
        Err(error) if format!("{error:#}").contains("Could not set lock") => Err(error),
        Err(error) => {
            let error = format!("{error:#}");
            tracing::warn!(file = %db.display(), error, "the ledger cannot be read: it is replaced, and kept");
            Ok(None)
        }
    }
}

/// Refuses names that are taken or cannot be, while nothing was changed.
fn record(db: &Path, id: &Id, plan: &Plan<'_>) -> anyhow::Result<Record> {
    let now = Timestamp::from_second(Timestamp::now().as_second())?;
    let after = last(db)?.map(|at| at + SignedDuration::from_secs(1));
    let at = after.map_or(now, |after| after.max(now));
    let replaced = plan.replaced.as_ref();
    let kept = plan.occupied.then(|| backup::replaced_name(db, at, replaced));
    for name in kept.iter().flat_map(|kept| ["", ".wal"].map(|suffix| format!("{kept}.duckdb{suffix}"))) {
        let path = folder(db).join(name);
        if fs::exists(&path).with_context(|| path.display().to_string())? {
            return Err(Fault::refused(format!("{} exists already", path.display()))
                .help("move it away and run this again: it is never overwritten")
                .into());
        }
    }
    Ok(Record {
        id: id.0.clone(),
        at,
        schema: plan.backup.schema,
        sequence: plan.backup.sequence,
        kept,
        replaced_schema: replaced.map(|replaced| replaced.schema),
        replaced_sequence: replaced.map(|replaced| replaced.sequence),
    })
}

/// When the newest restore of this volume was.
pub fn last(db: &Path) -> anyhow::Result<Option<Timestamp>> {
    Ok(markers(db)?.into_iter().map(|(_, at)| at).max())
}

/// The newest restore, as `/version` tells it.
pub fn newest(db: &Path) -> Option<Record> {
    let (id, at) = markers(db).ok()?.into_iter().max_by_key(|(_, at)| *at)?;
    let text = fs::read(folder(db).join(marker(&id, at))).ok()?;
    serde_json::from_slice(&text).ok()
}

/// By their names alone, so that a marker whose content was lost still counts.
fn markers(db: &Path) -> anyhow::Result<Vec<(String, Timestamp)>> {
    let names = backup::names(db).with_context(|| format!("cannot read {}", folder(db).display()))?;
    let parse = |name: &String| {
        let rest = name.strip_prefix("restored-")?.strip_suffix(".json")?;
        let (time, id) = rest.split_once('-')?;
        Some((id.to_owned(), backup::parse_time(time)?))
    };
    Ok(names.iter().filter_map(parse).collect())
}

fn marker(id: &str, at: Timestamp) -> String {
    format!("restored-{}-{id}.json", backup::time(at))
}

/// Beside the ledger, as its lock is.
fn begun(db: &Path) -> PathBuf {
    db.with_extension("restoring")
}

fn sync(folder: &Path) -> anyhow::Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).with_context(|| folder.display().to_string())
}
