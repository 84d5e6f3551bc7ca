//! Backups of a ledger that nobody else has open: copied by the engine, read back and compared, then put in place.
//! And what those beside a ledger are called.
//!
//! A copy of the file's bytes would miss its log. Copying under a running service is not here.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use duckdb::{AccessMode, Config, Connection};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;
use serde::Serialize;
use tempfile::TempPath;

use super::engine::{confine, connect, folder_of, quote, with_suffix};
use super::open::{self, Identity};
use super::restore;
use crate::config::is_ours;
use crate::fault::Fault;
use crate::ledger::verify;

/// A backup beside the ledger, as its name and its time of change tell it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Backup {
    pub id: String,
    pub schema: u32,
    pub sequence: i64,
    /// In whole seconds.
    pub made_at: Timestamp,
}

/// Between the ledger's name and the schema in the name of what a restore replaced.
const REPLACED: &str = "-replaced-";
/// The same for a backup that was written after a restore. Sequence numbers are given again then, so without it a later
/// backup would have an earlier one's name and other content.
const SINCE: &str = "-since-";
const TIME: &str = "%Y%m%dT%H%M%SZ";
/// Room beside the copies, for a migration and the log.
const SPARE: u64 = 16 * 1024 * 1024;

/// `dojo backup FILE`.
pub fn to(db: &Path, target: &Path) -> anyhow::Result<Identity> {
    if target.exists() {
        return Err(Fault::refused(format!("{} exists already", target.display()))
            .help("name a file that does not exist: a backup is never overwritten")
            .into());
    }
    if is_ours(target) {
        return Err(Fault::config(format!("{} is a name that dojo uses itself", target.display()))
            .help("name the backup *.duckdb")
            .into());
    }
    let (identity, _) = open::inspect(db)?;
    write(db, target, &identity)?;
    Ok(identity)
}

/// The copy that `migrate --backup` keeps beside the ledger, one for each (restore, schema, sequence): a pod that fails
/// again and again does not fill the volume.
pub fn before_migration(db: &Path, identity: &Identity) -> anyhow::Result<()> {
    let since = restore::last(db)?.map(|at| format!("{SINCE}{}", time(at)));
    let target = folder(db).join(format!("{}.duckdb", name(db, &since.unwrap_or_default(), identity)));
    if target.exists() {
        let (kept, _) = open::inspect(&target)?;
        if kept != *identity {
            return Err(Fault::refused(format!("{} is the backup of another ledger", target.display()))
                .help("move it away and run this again")
                .into());
        }
        tracing::info!(file = %target.display(), "backup is there already");
        return Ok(());
    }
    fs::create_dir_all(folder(db)).with_context(|| format!("cannot make {}", folder(db).display()))?;
    write(db, &target, identity)?;
    tracing::info!(file = %target.display(), "backup written and read back");
    Ok(())
}

/// The backup of this ledger that was written last.
pub fn newest(db: &Path) -> Option<PathBuf> {
    let backups = list(db).unwrap_or_default();
    let newest = backups.into_iter().find(|backup| !backup.id.contains(REPLACED))?;
    Some(folder(db).join(format!("{}.duckdb", newest.id)))
}

/// The backups of this ledger, copies that a person named after it, and what restores replaced, newest first; no file is
/// opened.
pub fn list(db: &Path) -> io::Result<Vec<Backup>> {
    let stem = stem(db);
    let parse = |(id, made_at): (String, Timestamp)| {
        let (rest, sequence) = id.strip_prefix(&stem)?.rsplit_once("-seq")?;
        let (middle, schema) = rest.rsplit_once("-schema")?;
        let (schema, sequence) = (schema.parse().ok()?, sequence.parse().ok()?);
        let made_at = Timestamp::from_second(made_at.as_second()).ok()?;
        (middle.is_empty() || middle.starts_with('-')).then_some(Backup { id, schema, sequence, made_at })
    };
    Ok(files(db)?.into_iter().filter_map(parse).collect())
}

/// The id of every data file in `backups/` and when it was changed, newest first.
pub fn files(db: &Path) -> io::Result<Vec<(String, Timestamp)>> {
    let changed = |name: &str| {
        let modified = fs::metadata(folder(db).join(name)).and_then(|data| data.modified()).ok()?;
        Timestamp::try_from(modified).ok()
    };
    let file = |name: String| Some((name.strip_suffix(".duckdb")?.to_owned(), changed(&name)?));
    let mut files: Vec<_> = names(db)?.into_iter().filter_map(file).collect();
    files.sort_by(|(a_id, a), (b_id, b)| b.cmp(a).then_with(|| b_id.cmp(a_id)));
    Ok(files)
}

/// What is in `backups/`; nothing if there is no such folder.
pub fn names(db: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder(db)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let names = entries.map(|entry| Ok(entry?.file_name().into_string().ok()));
    names.filter_map(Result::transpose).collect()
}

/// What a file that is replaced at this time is kept as.
pub fn replaced_name(db: &Path, at: Timestamp, identity: Option<&Identity>) -> String {
    let middle = format!("{REPLACED}{}", time(at));
    identity.map_or_else(|| format!("{}{middle}", stem(db)), |identity| name(db, &middle, identity))
}

fn name(db: &Path, middle: &str, identity: &Identity) -> String {
    format!("{}{middle}-schema{}-seq{}", stem(db), identity.schema, identity.sequence)
}

/// A time in a file's name, in UTC and whole seconds.
pub fn time(at: Timestamp) -> String {
    at.strftime(TIME).to_string()
}

pub fn parse_time(text: &str) -> Option<Timestamp> {
    Offset::UTC.to_timestamp(DateTime::strptime(TIME, text).ok()?).ok()
}

fn write(db: &Path, target: &Path, identity: &Identity) -> anyhow::Result<()> {
    open::publish(read_back(db, target, identity)?, target)
}

/// A copy of `db` under an unfinished name beside `target`, proven to be the same ledger and sound.
pub fn read_back(db: &Path, target: &Path, identity: &Identity) -> anyhow::Result<TempPath> {
    let unfinished = open::scratch(target)?;
    if let Err(error) = copy(db, &unfinished) {
        // The copy itself goes with its name; the disk may be full of its log.
        let _ = fs::remove_file(with_suffix(&unfinished, ".wal"));
        return Err(error.context(format!("cannot copy {} to {}", db.display(), target.display())));
    }
    let copy = connect(&unfinished, AccessMode::ReadOnly)?;
    verify::ledger(&copy).context("the copy was read back")?;
    drop(copy);
    let (copied, _) = open::inspect(&unfinished)?;
    anyhow::ensure!(copied == *identity, "the copy differs: {copied:?}, expected {identity:?}");
    Ok(unfinished)
}

/// Refuses if this folder's disk does not take so many copies of a data file.
pub fn room(folder: &Path, source: &Path, copies: u64) -> anyhow::Result<()> {
    let size = |path: &Path| fs::metadata(path).map_or(0, |data| data.len());
    let wanted = (size(source) + size(&with_suffix(source, ".wal"))) * copies + SPARE;
    let disk = rustix::fs::statvfs(folder).with_context(|| folder.display().to_string())?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free >= wanted {
        return Ok(());
    }
    let mib = |bytes: u64| bytes.div_ceil(1024 * 1024);
    Err(Fault::refused(format!(
        "{} has {} MiB free, and {} are wanted",
        folder.display(),
        mib(free),
        mib(wanted)
    ))
    .help("enlarge the volume, or move away backups that are no longer needed; nothing was changed")
    .into())
}

fn copy(db: &Path, target: &Path) -> anyhow::Result<()> {
    let conn = Connection::open_in_memory_with_flags(Config::default().enable_autoload_extension(false)?)?;
    confine(&conn, &[folder_of(db), folder_of(target)])?;
    let [from, to] = [db, target].map(|path| quote(&path.display().to_string()));
    conn.execute_batch(&format!(
        "ATTACH {from} AS ledger_file (READ_ONLY); ATTACH {to} AS backup_file; \
         COPY FROM DATABASE ledger_file TO backup_file; DETACH backup_file;"
    ))?;
    Ok(())
}

/// Where a ledger's backups lie.
pub fn folder(db: &Path) -> PathBuf {
    folder_of(db).join("backups")
}

pub fn stem(db: &Path) -> String {
    db.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}
