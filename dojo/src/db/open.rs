//! Opening the ledger: what is checked before a byte of it may change, and making a new one.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use duckdb::{AccessMode, Connection};
use tempfile::TempPath;

use super::backup;
use super::engine::{connect, folder_of, readable, refusing, with_suffix};
use super::lock::Lock;
use super::migrate::{self, Applied, Migration, Migrations};
use super::restore;
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
pub struct Options<'a> {
    /// A missing file is made in dev; elsewhere it means a wrong or fresh volume, which must not look healthy.
    pub environment: Environment,
    /// Writes a backup first, if a migration is pending.
    pub backup: bool,
    /// Puts this backup in the ledger's place first, unless that was done before.
    pub restore: Option<&'a restore::Id>,
}

/// Locks, restores, checks, backs up, opens and migrates, in this order.
pub fn current(db: &Path, options: Options<'_>, known: &Migrations, stop: &Stop) -> anyhow::Result<Opened> {
    folder(db)?;
    let makes = options.environment == Environment::Dev;
    if !makes && options.restore.is_none() && !restore::is_begun(db) {
        // Before the lock, which would leave a file on what may be the wrong volume.
        present(db)?;
    }
    let lock = Lock::take(db)?;
    restore::finish(db)?;
    if let Some(id) = options.restore {
        restore::apply(db, id, known)?;
    }
    if makes && !db.exists() {
        create(db, known, stop)?;
    }
    present(db)?;
    let pending = {
        let (identity, applied) = inspect(db)?;
        let pending = known.pending(&applied).with_context(|| refusing(db))?;
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
    restore::settled(db)?;
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
    restore::settled(db)?;
    present(db)?;
    let _lock = Lock::take_if_present(db)?;
    let (identity, applied) = inspect(db)?;
    Ok((identity, known.pending(&applied).with_context(|| refusing(db))?))
}

/// Reads a file without changing it, also through a log that was not yet taken into it.
pub fn inspect(db: &Path) -> anyhow::Result<(Identity, Vec<Applied>)> {
    let conn = connect(db, AccessMode::ReadOnly)?;
    let read = || {
        let applied = migrate::applied(&conn)?;
        Ok((identity(&conn, &applied)?, applied))
    };
    readable(db, read())
}

/// Refuses a missing file.
pub fn present(db: &Path) -> Result<(), Fault> {
    match fs::metadata(db) {
        Ok(found) if found.is_file() => return Ok(()),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Fault::refused(format!("cannot look at {}: {error}", db.display()))
                .help("may this user read the volume's folder?"));
        }
        _ => {}
    }
    Err(Fault::refused(format!("there is no ledger at {}", db.display()))
        .help("is it the right volume? if this is a new ledger, run `dojo init` once"))
}

pub fn folder(db: &Path) -> Result<(), Fault> {
    let folder = folder_of(db);
    match fs::metadata(folder) {
        Ok(found) if found.is_dir() => return Ok(()),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Fault::refused(format!("cannot look at {}: {error}", folder.display())));
        }
        _ => {}
    }
    Err(Fault::refused(format!("there is no folder {} for the ledger", folder.display()))
        .help("mount the volume, or set DOJO_DB_PATH"))
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

/// What a database is called that is in the making and is to become `target`.
pub fn unfinished(target: &Path) -> PathBuf {
    with_suffix(target, ".unfinished")
}

/// That name, free: what a killed process left there is removed.
pub fn scratch(target: &Path) -> anyhow::Result<TempPath> {
    let path = unfinished(target);
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

fn identity(conn: &Connection, applied: &[Applied]) -> anyhow::Result<Identity> {
    let id = conn.query_row("SELECT id::VARCHAR FROM ledger", [], |row| row.get(0));
    let last = applied.last().context("its record of migrations is empty")?;
    Ok(Identity {
        id: id.context("reading the ledger's id")?,
        schema: last.version,
        oldest_binary: last.oldest_binary,
        sequence: store::sequence(conn)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILS: &str = "CREATE TABLE half (x INT);\nSELECT * FROM nowhere;";
    const WORKS: &str = "CREATE TABLE later (x INT);";
    const OPTIONS: Options<'_> =
        Options { environment: Environment::Production, backup: true, restore: None };

    struct Volume(tempfile::TempDir);

    impl Volume {
        fn new() -> Self {
            let volume = Self(tempfile::tempdir().unwrap());
            init(&volume.db(), &Migrations::embedded().unwrap(), &Stop::default()).unwrap();
            volume
        }

        fn db(&self) -> PathBuf {
            self.0.path().join("ledger.duckdb")
        }

        fn migrate(&self, known: &Migrations) -> anyhow::Result<Opened> {
            current(&self.db(), OPTIONS, known, &Stop::default())
        }

        fn backups(&self) -> Vec<PathBuf> {
            let entries = fs::read_dir(self.0.path().join("backups")).unwrap();
            let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
            files.sort();
            files
        }
    }

    fn add_account(conn: &Connection, seq: i64) {
        let sql = "INSERT INTO account (seq, account_id, name, kind, actor, recorded_at)
                   VALUES (?, ?, 'n', 'cash', 't', make_timestamp(0))";
        conn.execute(sql, [seq, seq]).unwrap();
    }

    #[test]
    fn a_crash_loop_writes_one_backup_and_a_new_sequence_another() {
        let volume = Volume::new();
        let old = Migrations::embedded().unwrap();
        let bad = old.clone().and("fails", FAILS);
        for _ in 0..3 {
            assert!(format!("{:#}", volume.migrate(&bad).unwrap_err()).contains("rolled back"));
        }
        let name = |seq| format!("ledger-schema{}-seq{seq}.duckdb", old.current());
        assert_eq!(volume.backups(), [volume.0.path().join("backups").join(name(0))]);

        add_account(&volume.migrate(&old).unwrap().conn, 1);
        let opened = volume.migrate(&old.clone().and("works", WORKS)).unwrap();
        assert_eq!((opened.identity.schema, opened.identity.sequence), (old.current() + 1, 1));
        drop(opened);
        assert_eq!(volume.backups().len(), 2);
        let (backup, _) = inspect(&volume.backups()[1]).unwrap();
        assert_eq!((backup.schema, backup.sequence), (old.current(), 1));
        assert_eq!(backup.id, inspect(&volume.db()).unwrap().0.id);
    }

    #[test]
    fn what_a_chain_committed_before_it_failed_is_told() {
        let volume = Volume::new();
        let old = Migrations::embedded().unwrap();
        let schema = old.current();
        let error = volume.migrate(&old.and("works", WORKS).and("fails", FAILS)).unwrap_err();
        assert!(format!("{error:#}").contains(&format!("{:04}_fails.sql failed", schema + 2)));
        let [data, backups] = &crate::db::last_words::of(&volume.db())[..] else {
            panic!("two lines are wanted")
        };
        assert!(data.starts_with(&format!("data: schema {}, oldest binary ", schema + 1)), "{data}");
        assert_eq!(*backups, format!("backups: ledger-schema{schema}-seq0"));
    }

    #[test]
    fn a_restored_ledger_is_migrated_and_its_backups_are_not_those_of_before() {
        let volume = Volume::new();
        let old = Migrations::embedded().unwrap();
        let new = old.clone().and("works", WORKS);
        add_account(&volume.migrate(&old).unwrap().conn, 1);
        drop(volume.migrate(&new).unwrap());
        let schema = old.current();
        let id = restore::Id::parse(&format!("ledger-schema{schema}-seq1")).unwrap();
        let restoring = Options { restore: Some(&id), ..OPTIONS };

        // By the old binary, which refuses the newer file but for the restore; then both go on, to another sequence 2.
        let opened = current(&volume.db(), restoring, &old, &Stop::default()).unwrap();
        assert_eq!((opened.identity.schema, opened.identity.sequence), (schema, 1));
        add_account(&opened.conn, 2);
        drop(opened);
        let opened = current(&volume.db(), restoring, &new, &Stop::default()).unwrap();
        assert_eq!((opened.identity.schema, opened.identity.sequence), (schema + 1, 2));
        drop(opened);
        let ids: Vec<_> = backup::list(&volume.db()).unwrap().into_iter().map(|backup| backup.id).collect();
        let time = backup::time(restore::last(&volume.db()).unwrap().unwrap());
        for id in [
            id.to_string(),
            format!("ledger-replaced-{time}-schema{}-seq1", schema + 1),
            format!("ledger-since-{time}-schema{schema}-seq2"),
        ] {
            assert!(ids.contains(&id), "{id} is not in {ids:?}");
        }
        assert_eq!(ids.len(), 3, "{ids:?}");
    }

    #[test]
    fn the_backup_of_another_ledger_is_not_taken_for_this_ones() {
        let (one, other) = (Volume::new(), Volume::new());
        let bad = Migrations::embedded().unwrap().and("fails", FAILS);
        one.migrate(&bad).unwrap_err();
        other.migrate(&bad).unwrap_err();
        fs::copy(&other.backups()[0], &one.backups()[0]).unwrap();
        assert!(one.migrate(&bad).unwrap_err().to_string().contains("the backup of another ledger"));
    }

    #[test]
    fn a_half_written_backup_is_replaced_and_a_damaged_ledger_gets_none() {
        let volume = Volume::new();
        let bad = Migrations::embedded().unwrap().and("fails", FAILS);
        volume.migrate(&bad).unwrap_err();
        let backup = volume.backups().remove(0);
        fs::rename(&backup, with_suffix(&backup, ".unfinished")).unwrap();
        volume.migrate(&bad).unwrap_err();
        assert_eq!(volume.backups(), [backup]);

        let volume = Volume::new();
        add_account(&volume.migrate(&Migrations::embedded().unwrap()).unwrap().conn, 7);
        let error = format!("{:#}", volume.migrate(&bad).err().unwrap());
        assert!(error.contains("damaged") && volume.backups().is_empty(), "{error}");
    }

    #[test]
    fn a_file_that_cannot_be_looked_at_is_not_called_missing() {
        let volume = tempfile::tempdir().unwrap();
        let looped = volume.path().join("ledger.duckdb");
        std::os::unix::fs::symlink(&looped, &looped).unwrap();
        let said = present(&looped).unwrap_err().to_string();
        assert!(said.contains("cannot look at") && !said.contains("dojo init"), "{said}");
    }

    #[test]
    fn no_backup_lands_under_a_name_that_is_in_use() {
        let volume = Volume::new();
        for name in ["ledger.duckdb.wal", "other.lock", "x.unfinished"] {
            let error = backup::to(&volume.db(), &volume.0.path().join(name)).unwrap_err();
            assert_eq!(crate::fault::exit_code(&error), 2, "{name}: {error}");
        }
    }

    #[test]
    fn the_engine_reaches_no_other_folder() {
        let volume = Volume::new();
        let conn = volume.migrate(&Migrations::embedded().unwrap()).unwrap().conn;
        for sql in [
            "ATTACH '/tmp/elsewhere.duckdb'",
            "SELECT * FROM read_text('/etc/passwd')",
            "COPY account TO '/tmp/account.csv'",
            "SET enable_external_access = true",
            "INSTALL json",
        ] {
            assert!(conn.execute_batch(sql).is_err(), "{sql}");
        }
    }
}
