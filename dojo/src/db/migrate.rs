//! Forward-only migrations: which ones this binary knows, which ones a file has, what is left to run, and running it.
//!
//! Adding one is adding `migrations/NNNN_name.sql`, whose first line is `-- oldest_binary: N`, and raising the
//! numbers in `schema.toml`. There is no way down: a file is restored from a backup instead.

use std::fmt::Write as _;

use anyhow::Context as _;
use duckdb::{Connection, params};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::fault::Fault;
use crate::stop::Stop;

const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/migrations.rs"));
const SCHEMA: &str = include_str!("../../migrations/schema.toml");

/// The tables that hold what a file says of itself; made together with the first migration.
const METADATA: &str = "
    CREATE TABLE ledger (id UUID NOT NULL, created_at TIMESTAMP NOT NULL);
    CREATE TABLE schema_migration (
        version INTEGER NOT NULL, name VARCHAR NOT NULL, sha256 VARCHAR NOT NULL, applied_at TIMESTAMP NOT NULL,
        app_version VARCHAR NOT NULL, oldest_binary INTEGER NOT NULL
    );";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    pub version: u32,
    /// The file's name.
    pub name: String,
    /// The lowest schema number that a binary must know to open a file at this version.
    pub oldest_binary: u32,
    sql: String,
    sha256: String,
}

/// A row of the file's own record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    pub version: u32,
    pub name: String,
    pub sha256: String,
    pub app_version: String,
    pub oldest_binary: u32,
}

/// The migrations that a binary knows, 1 to n without a gap.
#[derive(Clone, Debug)]
pub struct Migrations(Vec<Migration>);

impl Migrations {
    /// Those of this binary.
    pub fn embedded() -> Result<Self, Fault> {
        Self::parse(FILES, SCHEMA)
    }

    fn parse(files: &[(&str, &str)], schema: &str) -> Result<Self, Fault> {
        let mut known: Vec<Migration> = Vec::new();
        for (name, sql) in files {
            let migration = Migration::parse(name, sql)?;
            let last = known.last().map_or((0, 0), |last| (last.version, last.oldest_binary));
            if migration.version != last.0 + 1 {
                return Err(Fault::refused(format!("migrations/{name} follows number {}: a gap", last.0)));
            }
            if migration.oldest_binary < last.1 || migration.oldest_binary > migration.version {
                return Err(Fault::refused(format!(
                    "migrations/{name}: oldest_binary is {}",
                    migration.oldest_binary
                ))
                .help(format!("it is at least {}, as before, and at most {}", last.1, migration.version)));
            }
            known.push(migration);
        }
        let known = Self(known);
        for (key, value) in [("current", known.current()), ("oldest_binary", known.oldest_binary())] {
            if number(schema, key) != Some(value) {
                return Err(Fault::refused(format!("migrations/schema.toml: {key} is not {value}"))
                    .help(format!("the SQL files say `{key} = {value}`")));
            }
        }
        Ok(known)
    }

    /// These and one more.
    #[cfg(test)]
    pub fn and(mut self, name: &str, sql: &str) -> Self {
        let (version, oldest) = (self.current() + 1, self.oldest_binary());
        let sql = format!("-- oldest_binary: {oldest}\n{sql}");
        self.0.push(Migration::parse(&format!("{version:04}_{name}.sql"), &sql).unwrap());
        self
    }

    /// The schema that this binary writes.
    pub fn current(&self) -> u32 {
        self.0.last().map_or(0, |last| last.version)
    }

    pub fn oldest_binary(&self) -> u32 {
        self.0.last().map_or(0, |last| last.oldest_binary)
    }

    /// What a file with this record still needs; refuses a file that this binary must not touch.
    pub fn pending(&self, applied: &[Applied]) -> Result<&[Migration], Fault> {
        for (row, expected) in applied.iter().zip(1..) {
            if row.version != expected {
                return Err(Fault::refused(format!(
                    "the file's record of migrations has a gap: {expected} is missing before {}",
                    row.version
                ))
                .help("the file is damaged or not dojo's: restore a backup"));
            }
        }
        if let Some(last) = applied.last()
            && last.version > self.current()
            && last.oldest_binary > self.current()
        {
            return Err(Fault::refused(format!(
                "the file is at schema {} (written by dojo {}) and this dojo {} knows schema {}",
                last.version,
                last.app_version,
                env!("CARGO_PKG_VERSION"),
                self.current()
            ))
            .help(format!(
                "start a dojo that knows at least schema {}, or restore a backup of schema {} or older",
                last.oldest_binary,
                self.current()
            )));
        }
        for (row, known) in applied.iter().zip(&self.0) {
            if row.sha256 != known.sha256 {
                return Err(Fault::refused(format!(
                    "migration {} was changed: the file has {} with sha256 {:.12}, this dojo has {} with {:.12}",
                    row.version, row.name, row.sha256, known.name, known.sha256
                ))
                .help("a migration that was applied is never edited: undo the edit and add a new one"));
            }
        }
        Ok(self.0.get(applied.len()..).unwrap_or_default())
    }
}

impl Migration {
    fn parse(name: &str, sql: &str) -> Result<Self, Fault> {
        let refuse = |problem: &str| Fault::refused(format!("migrations/{name}: {problem}"));
        let version = name.split_once('_').filter(|(digits, _)| digits.len() == 4);
        let version = version.and_then(|(digits, _)| digits.parse().ok());
        let oldest = sql.lines().next().and_then(|line| line.strip_prefix("-- oldest_binary: "));
        let ends_transaction = |line: &str| {
            let word = line.trim_start().split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
            ["BEGIN", "COMMIT", "ROLLBACK", "CHECKPOINT", "ATTACH"]
                .iter()
                .any(|bad| word.eq_ignore_ascii_case(bad))
        };
        if let Some(line) = sql.lines().find(|line| ends_transaction(line)) {
            return Err(refuse(&format!("`{}` would break its transaction", line.trim())));
        }
        let mut sha256 = String::new();
        for byte in Sha256::digest(sql) {
            let _ = write!(sha256, "{byte:02x}");
        }
        Ok(Self {
            version: version.ok_or_else(|| refuse("the name is not NNNN_name.sql"))?,
            name: name.to_owned(),
            oldest_binary: oldest
                .and_then(|number| number.trim().parse().ok())
                .ok_or_else(|| refuse("the first line is not `-- oldest_binary: N`"))?,
            sql: sql.to_owned(),
            sha256,
        })
    }
}

fn number(toml: &str, key: &str) -> Option<u32> {
    let line = toml.lines().find(|line| line.split('=').next().is_some_and(|left| left.trim() == key))?;
    line.split_once('=')?.1.trim().parse().ok()
}

/// The file's own record; a file without one is not a ledger.
pub fn applied(conn: &Connection) -> anyhow::Result<Vec<Applied>> {
    let sql = "SELECT count(*) FROM duckdb_tables() WHERE table_name IN ('schema_migration', 'ledger')";
    if conn.query_row(sql, [], |row| row.get::<_, i64>(0))? < 2 {
        return Err(Fault::refused(
            "the file is a database, but not a ledger: it has no record of migrations",
        )
        .help("is it the right volume? a new ledger is made by `dojo init` where no file is")
        .into());
    }
    let sql =
        "SELECT version, name, sha256, app_version, oldest_binary FROM schema_migration ORDER BY version";
    let mut statement = conn.prepare(sql)?;
    let rows = statement.query_map([], |row| {
        Ok(Applied {
            version: row.get(0)?,
            name: row.get(1)?,
            sha256: row.get(2)?,
            app_version: row.get(3)?,
            oldest_binary: row.get(4)?,
        })
    })?;
    rows.collect::<duckdb::Result<_>>().context("reading schema_migration")
}

/// Runs these, each in a transaction of its own together with its record, and checkpoints after each: a log that
/// holds DDL is what the engine replays worst.
pub fn apply(conn: &Connection, pending: &[Migration], stop: &Stop) -> anyhow::Result<()> {
    for migration in pending {
        let Migration { version, name, .. } = migration;
        if stop.requested() {
            anyhow::bail!("stopped by a signal before {name}; the file is at schema {}", version - 1);
        }
        conn.execute_batch("BEGIN TRANSACTION")?;
        if let Err(error) = run(conn, migration, stop) {
            let rolled_back = conn.execute_batch("ROLLBACK").is_ok();
            let cause = if stop.requested() { "stopped by a signal" } else { "failed" };
            let state = if rolled_back { "rolled back" } else { "left uncommitted" };
            let state = format!("{name} {cause} and was {state}: the file is at schema {}", version - 1);
            return Err(anyhow::Error::new(error).context(state));
        }
        conn.execute_batch("CHECKPOINT").with_context(|| format!("checkpoint after {name}"))?;
        tracing::info!(schema = version, name, "migrated");
    }
    Ok(())
}

/// Everything from BEGIN to COMMIT. The caller rolls back after any error, since COMMIT of an aborted transaction
/// reports success.
fn run(conn: &Connection, migration: &Migration, stop: &Stop) -> duckdb::Result<()> {
    let now = Timestamp::now().as_microsecond();
    if migration.version == 1 {
        conn.execute_batch(METADATA)?;
        let id = uuid::Uuid::now_v7().to_string();
        conn.execute(
            "INSERT INTO ledger (id, created_at) VALUES (?::UUID, make_timestamp(?))",
            params![id, now],
        )?;
    }
    stop.during(conn, || conn.execute_batch(&migration.sql))?;
    conn.execute(
        "INSERT INTO schema_migration (version, name, sha256, applied_at, app_version, oldest_binary)
         VALUES (?, ?, ?, make_timestamp(?), ?, ?)",
        params![
            migration.version,
            migration.name,
            migration.sha256,
            now,
            env!("CARGO_PKG_VERSION"),
            migration.oldest_binary
        ],
    )?;
    conn.execute_batch("COMMIT")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: (&str, &str) = ("0001_first.sql", "-- oldest_binary: 1\nCREATE TABLE account (seq BIGINT);");
    const SECOND: (&str, &str) =
        ("0002_second.sql", "-- oldest_binary: 1\nCREATE TABLE txn_version (seq BIGINT);");
    const BREAKING: (&str, &str) = ("0002_breaking.sql", "-- oldest_binary: 2\nDROP TABLE account;");

    fn known(files: &[(&str, &str)]) -> Migrations {
        let oldest = files.last().and_then(|(_, sql)| sql.lines().next()).unwrap();
        let oldest = oldest.trim_start_matches("-- oldest_binary: ");
        Migrations::parse(files, &format!("current = {}\noldest_binary = {oldest}\n", files.len())).unwrap()
    }

    fn rows(known: &Migrations) -> Vec<Applied> {
        let row = |migration: &Migration| Applied {
            version: migration.version,
            name: migration.name.clone(),
            sha256: migration.sha256.clone(),
            app_version: "0.9.0".into(),
            oldest_binary: migration.oldest_binary,
        };
        known.0.iter().map(row).collect()
    }

    #[test]
    fn schema_toml_says_what_the_sql_files_say() {
        let known = Migrations::embedded().unwrap();
        assert_eq!(number(SCHEMA, "current"), Some(known.current()));
        assert_eq!(number(SCHEMA, "oldest_binary"), Some(known.oldest_binary()));
    }

    #[test]
    fn a_wrong_folder_is_refused_by_name() {
        let good = "current = 2\noldest_binary = 1\n";
        for (files, schema, named) in [
            (vec![FIRST, ("0003_third.sql", SECOND.1)], good, "0003_third.sql follows number 1"),
            (vec![("0002_second.sql", SECOND.1)], good, "follows number 0"),
            (vec![("second.sql", SECOND.1)], good, "not NNNN_name.sql"),
            (vec![("0001_first.sql", "CREATE TABLE t (x INT)")], good, "first line"),
            (vec![FIRST, ("0002_x.sql", "-- oldest_binary: 3\n")], good, "at most 2"),
            (vec![FIRST, BREAKING, ("0003_x.sql", "-- oldest_binary: 1\n")], good, "at least 2"),
            (vec![("0001_x.sql", "-- oldest_binary: 1\n  commit;")], good, "would break its transaction"),
            (vec![FIRST, SECOND], "current = 1\noldest_binary = 1\n", "schema.toml: current is not 2"),
            (vec![FIRST, BREAKING], good, "schema.toml: oldest_binary is not 2"),
            (vec![FIRST, SECOND], "", "schema.toml: current is not 2"),
        ] {
            let fault = Migrations::parse(&files, schema).unwrap_err().to_string();
            assert!(fault.contains(named), "{named}: {fault}");
        }
    }

    #[test]
    fn only_what_is_missing_is_pending() {
        let (old, new) = (known(&[FIRST]), known(&[FIRST, SECOND]));
        assert_eq!(new.pending(&[]).unwrap().len(), 2);
        assert_eq!(new.pending(&rows(&old)).unwrap()[0].name, "0002_second.sql");
        assert!(new.pending(&rows(&new)).unwrap().is_empty());
    }

    #[test]
    fn a_newer_file_is_refused_unless_it_admits_this_binary() {
        let old = known(&[FIRST]);
        assert!(old.pending(&rows(&known(&[FIRST, SECOND]))).unwrap().is_empty());
        let fault = old.pending(&rows(&known(&[FIRST, BREAKING]))).unwrap_err().to_string();
        for part in
            ["schema 2", "dojo 0.9.0", env!("CARGO_PKG_VERSION"), "knows schema 1", "at least schema 2"]
        {
            assert!(fault.contains(part), "{part}: {fault}");
        }
    }

    #[test]
    fn a_changed_migration_and_a_gap_in_the_record_are_refused() {
        let known = known(&[FIRST, SECOND]);
        let mut changed = rows(&known);
        changed[0].sha256 = "0".repeat(64);
        let fault = known.pending(&changed).unwrap_err().to_string();
        assert!(fault.contains("migration 1 was changed") && fault.contains("0001_first.sql"), "{fault}");
        let fault = known.pending(&rows(&known)[1..]).unwrap_err().to_string();
        assert!(fault.contains("a gap: 1 is missing"), "{fault}");
    }

    #[test]
    fn a_failing_migration_leaves_the_one_before_it() {
        let conn = Connection::open_in_memory().unwrap();
        let bad = ("0003_bad.sql", "-- oldest_binary: 1\nCREATE TABLE half (x INT);\nSELECT * FROM nowhere;");
        let all = known(&[FIRST, SECOND, bad]);
        let error = apply(&conn, &all.0, &Stop::default()).unwrap_err();
        assert!(
            format!("{error:#}").contains("0003_bad.sql failed and was rolled back: the file is at schema 2")
        );
        assert_eq!(applied(&conn).unwrap().len(), 2);
        assert!(conn.execute_batch("SELECT * FROM half").is_err());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn sigterm_in_a_migration_rolls_it_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ledger.duckdb");
        let slow = "-- oldest_binary: 1\nCREATE TABLE half AS SELECT 1 AS x;\n\
                    INSERT INTO half SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range < b.range;";
        let all = known(&[FIRST, SECOND, ("0003_slow.sql", slow)]);
        let stop = Stop::listen().unwrap();
        let conn = Connection::open(&file).unwrap();
        let begun = std::time::Instant::now();
        let signal = std::thread::spawn({
            let rescue = conn.interrupt_handle();
            move || {
                std::thread::sleep(std::time::Duration::from_millis(500));
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM)
                    .unwrap();
                // The handler has this process survive a runner's SIGTERM, so the test ends by itself if it fails.
                std::thread::sleep(std::time::Duration::from_secs(5));
                rescue.interrupt();
            }
        });
        let error = format!("{:#}", apply(&conn, &all.0, &stop).unwrap_err());
        assert!(begun.elapsed().as_secs() < 4, "the signal did not end the statement");
        assert!(error.contains("0003_slow.sql stopped by a signal and was rolled back"), "{error}");
        drop(conn);

        let conn = Connection::open(&file).unwrap();
        assert_eq!(applied(&conn).unwrap().last().unwrap().version, 2);
        assert!(conn.execute_batch("SELECT * FROM half").is_err());
        let again = apply(&conn, &all.0[2..], &stop).unwrap_err().to_string();
        assert!(again.contains("stopped by a signal before 0003_slow.sql"), "{again}");
        drop(signal);
    }
}
