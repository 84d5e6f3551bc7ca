//! Backups of a ledger that nobody else has open: copied by the engine, read back and compared, then put in place.
//!
//! A copy of the file's bytes would miss its log. Copying under a running service is not here.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use duckdb::{AccessMode, Config, Connection};

use super::engine::{confine, connect, folder_of, quote};
use super::open::{self, Identity};
use crate::config::is_ours;
use crate::fault::Fault;
use crate::ledger::verify;

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

/// The copy that `migrate --backup` keeps beside the ledger, one for each (schema, sequence): a pod that fails again
/// and again does not fill the volume.
pub fn before_migration(db: &Path, identity: &Identity) -> anyhow::Result<()> {
    let target =
        folder(db).join(format!("{}-schema{}-seq{}.duckdb", stem(db), identity.schema, identity.sequence));
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
    let prefix = format!("{}-schema", stem(db));
    let files = fs::read_dir(folder(db)).ok()?.filter_map(Result::ok);
    let backups = files.filter(|file| {
        let name = file.file_name().to_string_lossy().into_owned();
        name.starts_with(&prefix) && name.ends_with(".duckdb")
    });
    backups.max_by_key(|file| file.metadata().and_then(|data| data.modified()).ok()).map(|file| file.path())
}

fn write(db: &Path, target: &Path, identity: &Identity) -> anyhow::Result<()> {
    let unfinished = open::scratch(target)?;
    copy(db, &unfinished).with_context(|| format!("cannot copy {} to {}", db.display(), target.display()))?;
    let copy = connect(&unfinished, AccessMode::ReadOnly)?;
    verify::ledger(&copy).context("the copy was read back")?;
    drop(copy);
    let (copied, _) = open::inspect(&unfinished)?;
    anyhow::ensure!(copied == *identity, "the copy differs: {copied:?}, expected {identity:?}");
    open::publish(unfinished, target)
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

fn folder(db: &Path) -> PathBuf {
    folder_of(db).join("backups")
}

fn stem(db: &Path) -> String {
    db.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}
