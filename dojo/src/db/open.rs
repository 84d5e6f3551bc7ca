//! Opening the data file: what is checked before a byte of it may change, and the engine's settings.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use duckdb::{AccessMode, Config, Connection};
use tempfile::TempPath;

use super::backup;
use super::lock::Lock;
use super::migrate::{self, Applied, Migration, Migrations};
use crate::config::Environment;
use crate::fault::Fault;
use crate::ledger::store;
use crate::stop::Stop;

/// What a file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub id: String,
    pub schema: u32,
    pub oldest_binary: u32,
    pub sequence: i64,
}

/// A ledger at the schema of this binary, or at a newer one that admits it; nobody else has it open.
#[derive(Debug)]
pub struct Opened {
    pub conn: Connection,
    pub identity: Identity,
    pub lock: Lock,
}

/// What opening for writing may do besides migrating.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A missing file is made in dev; elsewhere it means a wrong or fresh volume, which must not look healthy.
    pub environment: Environment,
    /// Writes a backup first, if a migration is pending.
    pub backup: bool,
}

/// Locks, checks, backs up, opens and migrates, in this order.
pub fn current(db: &Path, options: Options, known: &Migrations, stop: &Stop) -> anyhow::Result<Opened> {
    folder(db)?;
    if options.environment != Environment::Dev {
        present(db)?;
    }
    let lock = Lock::take(db)?;
    if !db.exists() {
        create(db, known, stop)?;
    }
    let pending = {
        let (identity, applied) = inspect(db)?;
        let pending = known.pending(&applied).with_context(|| format!("refused {}", db.display()))?;
        if options.backup && !pending.is_empty() {
            backup::before_migration(db, &identity)?;
        }
        pending
    };
    let conn = connect(db, AccessMode::ReadWrite)?;
    migrate::apply(&conn, pending, stop).with_context(|| format!("migrating {}", db.display()))?;
    let identity = identity(&conn, &migrate::applied(&conn)?)?;
    Ok(Opened { conn, identity, lock })
}

/// `dojo init`: a new ledger where no file is.
pub fn init(db: &Path, known: &Migrations, stop: &Stop) -> anyhow::Result<Identity> {
    folder(db)?;
    let _lock = Lock::take(db)?;
    if db.exists() {
        return Err(Fault::refused(format!("{} exists already", db.display()))
            .help("`dojo serve` opens it; move it away to start anew")
            .into());
    }
    create(db, known, stop)?;
    Ok(inspect(db)?.0)
}

/// What is pending, without changing anything.
pub fn plan<'a>(db: &Path, known: &'a Migrations) -> anyhow::Result<(Identity, &'a [Migration])> {
    present(db)?;
    let _lock = Lock::take_if_present(db)?;
    let (identity, applied) = inspect(db)?;
    let pending = known.pending(&applied).with_context(|| format!("refused {}", db.display()))?;
    Ok((identity, pending))
}

/// Reads a file without changing it, also through a log that was not yet taken into it.
pub fn inspect(db: &Path) -> anyhow::Result<(Identity, Vec<Applied>)> {
    let conn = connect(db, AccessMode::ReadOnly)?;
    let applied = migrate::applied(&conn).with_context(|| format!("refused {}", db.display()))?;
    Ok((identity(&conn, &applied)?, applied))
}

/// Refuses a missing file.
pub fn present(db: &Path) -> Result<(), Fault> {
    if db.is_file() {
        return Ok(());
    }
    Err(Fault::refused(format!("there is no ledger at {}", db.display()))
        .help("is it the right volume? if this is a new ledger, run `dojo init` once"))
}

fn folder(db: &Path) -> Result<(), Fault> {
    let folder = folder_of(db);
    if folder.is_dir() {
        return Ok(());
    }
    Err(Fault::refused(format!("there is no folder {} for the ledger", folder.display()))
        .help("mount the volume, or set DOJO_DB_PATH"))
}

pub fn folder_of(db: &Path) -> &Path {
    db.parent().unwrap_or(Path::new("/"))
}

/// Built beside its place and moved there when complete: a ledger that was killed while it was made never shows.
fn create(db: &Path, known: &Migrations, stop: &Stop) -> anyhow::Result<()> {
    let wal = with_suffix(db, ".wal");
    if wal.exists() {
        return Err(Fault::refused(format!(
            "{} is missing, but its log {} is there",
            db.display(),
            wal.display()
        ))
        .help("the ledger was moved or lost: restore it, or move the log away, before making a new one")
        .into());
    }
    let unfinished = scratch(db)?;
    let conn = connect(&unfinished, AccessMode::ReadWrite)?;
    migrate::apply(&conn, known.pending(&[])?, stop)?;
    drop(conn);
    publish(unfinished, db)?;
    tracing::info!(file = %db.display(), "made a new ledger");
    Ok(())
}

/// A free name beside `target` for a database in the making; what a killed process left there is removed.
pub fn scratch(target: &Path) -> anyhow::Result<TempPath> {
    let path = with_suffix(target, ".tmp");
    for leftover in [&path, &with_suffix(&path, ".wal")] {
        match fs::remove_file(leftover) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", leftover.display()));
            }
            _ => {}
        }
    }
    TempPath::try_from_path(&path).with_context(|| path.display().to_string())
}

/// Makes the file durable under its final name, and never over another file.
pub fn publish(unfinished: TempPath, target: &Path) -> anyhow::Result<()> {
    let context = || format!("cannot write {}", target.display());
    fs::File::open(&unfinished).and_then(|file| file.sync_all()).with_context(context)?;
    unfinished.persist_noclobber(target).with_context(context)?;
    fs::File::open(folder_of(target)).and_then(|folder| folder.sync_all()).with_context(context)
}

pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn identity(conn: &Connection, applied: &[Applied]) -> anyhow::Result<Identity> {
    let id = conn.query_row("SELECT id::VARCHAR FROM ledger", [], |row| row.get(0));
    let last = applied.last().context("the file's record of migrations is empty")?;
    Ok(Identity {
        id: id.context("reading the ledger's id")?,
        schema: last.version,
        oldest_binary: last.oldest_binary,
        sequence: store::sequence(conn)?,
    })
}

/// Opens the file once; whoever needs another connection clones this one (see `lock`).
pub fn connect(db: &Path, access: AccessMode) -> anyhow::Result<Connection> {
    let settings = || Config::default().access_mode(access)?.enable_autoload_extension(false);
    let connected = settings().and_then(|settings| Connection::open_with_flags(db, settings));
    let conn = connected.map_err(|error| refused(db, &error))?;
    confine(&conn, &[folder_of(db)])?;
    Ok(conn)
}

/// The engine reads and writes these folders and nothing else, whatever a statement asks for.
pub fn confine(conn: &Connection, folders: &[&Path]) -> anyhow::Result<()> {
    let folders: Vec<String> = folders.iter().map(|folder| quote(&folder.display().to_string())).collect();
    conn.execute_batch(&format!(
        "SET allowed_directories = [{}]; SET memory_limit = '{MEMORY}'; SET enable_external_access = false; \
         SET lock_configuration = true;",
        folders.join(", ")
    ))
    .context("setting the engine up")
}

/// The pod has 1 GiB; the engine would take 80 % of the machine's.
const MEMORY: &str = "512MB";

/// An SQL string.
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The engine's refusal, together with what a person needs at that moment.
fn refused(db: &Path, error: &duckdb::Error) -> Fault {
    let wal = with_suffix(db, ".wal");
    let log = if wal.exists() { format!(" (with its log {})", wal.display()) } else { String::new() };
    let backup = backup::newest(db).map_or_else(
        || "there is no backup beside it".into(),
        |file| format!("the newest backup is {}", file.display()),
    );
    Fault::refused(format!("cannot open {}{log}: {error}", db.display()))
        .help(format!("keep both files as they are; {backup}"))
}
