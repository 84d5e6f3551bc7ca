//! The lock file beside the database: one process owns a ledger, and says who it is.
//!
//! DuckDB's own lock is a POSIX one: it goes away when any handle on the file is closed in the process. This one is
//! a flock on a separate file, held for the process's life. The file is never deleted, so that no two processes can
//! hold two files of the same name.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::fault::Fault;

#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of this database or refuses, naming the holder.
    pub fn take(db: &Path) -> anyhow::Result<Self> {
        let path = path_of(db);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        Self::hold(file.with_context(|| format!("cannot open the lock file {}", path.display()))?, &path, db)
    }

    /// For commands that change nothing: without a lock file nobody holds the ledger, and none is made.
    pub fn take_if_present(db: &Path) -> anyhow::Result<Option<Self>> {
        let path = path_of(db);
        if !path.exists() {
            return Ok(None);
        }
        let writable = OpenOptions::new().read(true).write(true).open(&path);
        let file = writable.or_else(|_| File::open(&path));
        let file = file.with_context(|| format!("cannot open the lock file {}", path.display()))?;
        Self::hold(file, &path, db).map(Some)
    }

    fn hold(mut file: File, path: &Path, db: &Path) -> anyhow::Result<Self> {
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let holder = if holder.is_empty() { "an unnamed process" } else { holder.trim() };
                let message = format!("{} is held by {holder}", db.display());
                let help =
                    format!("stop it first; the lock is {}, and deleting it is no way in", path.display());
                return Err(Fault::refused(message).help(help).into());
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        // A read-only handle still locks; it only cannot say whose it is.
        let _ = say_who(&mut file);
        Ok(Self { _file: file })
    }
}

fn say_who(file: &mut File) -> std::io::Result<()> {
    let since = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    writeln!(file, "host {}, pid {}, since {since}", host(), std::process::id())
}

/// In a pod, the pod's name.
fn host() -> String {
    let name = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
    let name = name.or_else(|| std::fs::read_to_string("/etc/hostname").ok());
    name.map_or_else(|| "unknown".into(), |name| name.trim().to_owned())
}

/// `ledger.duckdb` is guarded by `ledger.lock`.
fn path_of(db: &Path) -> PathBuf {
    db.with_extension("lock")
}
