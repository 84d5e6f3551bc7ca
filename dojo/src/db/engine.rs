//! The engine's handle on the data file: how it is opened, what it may reach, and what its errors are told as.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use duckdb::{AccessMode, Config, Connection};

use super::backup;
use crate::fault::Fault;

/// Opens the file once; whoever needs another connection clones this one (see `lock`).
pub fn connect(db: &Path, access: AccessMode) -> anyhow::Result<Connection> {
    let settings = || Config::default().access_mode(access)?.enable_autoload_extension(false);
    let connected = settings().and_then(|settings| Connection::open_with_flags(db, settings));
    let conn = connected.map_err(|error| refused(db, &error.to_string()))?;
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

/// What the engine said, together with what a person needs at that moment.
fn refused(db: &Path, error: &str) -> Fault {
    let wal = with_suffix(db, ".wal");
    let log = if wal.exists() { format!(" (with its log {})", wal.display()) } else { String::new() };
    let backup = backup::newest(db).map_or_else(
        || "there is no backup beside it".into(),
        |file| format!("the newest backup is {}", file.display()),
    );
    Fault::refused(format!("cannot read {}{log}: {error}", db.display()))
        .help(format!("keep both files as they are; {backup}"))
}

/// What a present file cannot answer is damage, whichever statement met it.
pub fn readable<T>(db: &Path, answer: anyhow::Result<T>) -> anyhow::Result<T> {
    answer.map_err(|error| {
        if error.is::<Fault>() {
            error.context(refusing(db))
        } else {
            refused(db, &format!("{error:#}")).into()
        }
    })
}

pub fn refusing(db: &Path) -> String {
    format!("refused {}", db.display())
}

pub fn folder_of(db: &Path) -> &Path {
    db.parent().unwrap_or(Path::new("/"))
}

pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
