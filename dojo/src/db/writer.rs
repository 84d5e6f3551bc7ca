//! The writer thread: one transaction at a time, one sequence number a write.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use duckdb::Connection;
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::Error;
use crate::ledger::store;

pub enum Message {
    Job(Box<dyn FnOnce(&mut Writer) + Send>),
    Close,
}

/// What others may know of the writer without asking it.
#[derive(Debug)]
pub struct Status {
    sequence: AtomicI64,
    committing: AtomicBool,
}

impl Status {
    pub fn new(sequence: i64) -> Self {
        Self { sequence: AtomicI64::new(sequence), committing: AtomicBool::new(true) }
    }

    /// The last committed sequence number.
    pub fn sequence(&self) -> i64 {
        self.sequence.load(Ordering::SeqCst)
    }

    /// Whether the last commit went fine.
    pub fn commits(&self) -> bool {
        self.committing.load(Ordering::SeqCst)
    }
}

/// An open transaction of the writer.
pub struct Draft<'a> {
    pub conn: &'a Connection,
    pub now: Timestamp,
    last: i64,
    taken: bool,
}

impl Draft<'_> {
    /// The sequence number of this write; without asking for it, nothing counts as written.
    pub fn sequence(&mut self) -> i64 {
        self.taken = true;
        self.last + 1
    }

    /// The last number that was given, this write's included.
    pub fn last_sequence(&self) -> i64 {
        self.last + i64::from(self.taken)
    }
}

/// A request body is 64 KiB at most.
const ROOM: usize = 1024 * 1024;

pub struct Writer {
    conn: Connection,
    sequence: i64,
    status: Arc<Status>,
    /// Where the log grows.
    folder: PathBuf,
    broken: bool,
}

impl Writer {
    pub fn new(conn: Connection, sequence: i64, status: Arc<Status>, folder: PathBuf) -> Self {
        Self { conn, sequence, status, folder, broken: false }
    }

    pub fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        while let Some(message) = messages.blocking_recv() {
            match message {
                Message::Job(job) => job(&mut self),
                // What was queued before is still received, then the channel ends.
                Message::Close => messages.close(),
            }
            if self.broken {
                // The thread's end makes /healthz fail, and a new process starts from what is committed.
                tracing::error!("the writer could not roll back: it stops");
                return;
            }
        }
        match self.conn.execute_batch("CHECKPOINT") {
            Ok(()) => tracing::info!(sequence = self.sequence, "checkpoint done"),
            Err(error) => tracing::warn!(%error, "no checkpoint: the log stays beside the file"),
        }
    }

    pub fn commit<T>(&mut self, job: impl FnOnce(&mut Draft<'_>) -> Result<T, Error>) -> Result<T, Error> {
        let result = self.attempt(job);
        match &result {
            Ok(_) => self.status.committing.store(true, Ordering::SeqCst),
            Err(Error::Engine(error)) => {
                tracing::error!(%error, "a write failed");
                self.status.committing.store(false, Ordering::SeqCst);
            }
            Err(_) => {}
        }
        result
    }

    fn attempt<T>(&mut self, job: impl FnOnce(&mut Draft<'_>) -> Result<T, Error>) -> Result<T, Error> {
        self.conn.execute_batch("BEGIN TRANSACTION")?;
        // What is answered is what is stored: microseconds.
        let now = Timestamp::from_microsecond(Timestamp::now().as_microsecond()).unwrap_or_default();
        let mut draft = Draft { conn: &self.conn, now, last: self.sequence, taken: false };
        let done = job(&mut draft);
        let sequence = draft.last_sequence();
        let done = done.and_then(|value| {
            // COMMIT of an aborted transaction reports success and keeps nothing; any other statement fails in it.
            self.conn.execute_batch("SELECT 1")?;
            self.conn.execute_batch("COMMIT")?;
            Ok(value)
        });
        if done.is_ok() {
            self.sequence = sequence;
            self.status.sequence.store(sequence, Ordering::SeqCst);
        } else {
            self.roll_back();
        }
        done
    }

    /// A failed COMMIT has ended its transaction already, so the test is whether a new one begins.
    fn roll_back(&mut self) {
        let _ = self.conn.execute_batch("ROLLBACK");
        let clean = self.conn.execute_batch("BEGIN TRANSACTION; ROLLBACK").is_ok();
        // A COMMIT that reports failure should have kept nothing; should it have, its number is not given again.
        match store::sequence(&self.conn) {
            Ok(sequence) if clean => self.sequence = self.sequence.max(sequence),
            _ => self.broken = true,
        }
    }

    /// Whether the connection answers. After a failed commit this also tries a commit, since a service that is
    /// unready gets no write that would show that the disk has room again. So small a commit may fit where no write
    /// does, hence the file before it.
    pub fn beat(&mut self) -> bool {
        if !self.status.commits() {
            match self.room() {
                Ok(()) => {
                    let _ = self.commit(|draft| Ok(draft.conn.execute_batch("UPDATE ledger SET id = id")?));
                }
                Err(error) => tracing::warn!(%error, folder = %self.folder.display(), "no room for a write"),
            }
        }
        self.conn.execute_batch("SELECT 1").is_ok()
    }

    /// Whether the volume takes more than any one write: into a file without a name, which a kill leaves nothing of.
    fn room(&self) -> io::Result<()> {
        let mut file = tempfile::tempfile_in(&self.folder)?;
        file.write_all(&[b'.'; ROOM])?;
        file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{NewAccount, Refusal};

    fn writer() -> Writer {
        let conn = Connection::open_in_memory().unwrap();
        let known = crate::db::migrate::Migrations::embedded().unwrap();
        let stop = crate::stop::Stop::default();
        crate::db::migrate::apply(&conn, known.pending(&[]).unwrap(), &stop).unwrap();
        Writer::new(conn, 0, Arc::new(Status::new(0)), std::env::temp_dir())
    }

    fn account(name: &str) -> NewAccount {
        serde_json::from_value(serde_json::json!({"name": name})).unwrap()
    }

    fn names(writer: &Writer) -> i64 {
        writer.conn.query_row("SELECT count(*) FROM account", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn a_refused_write_keeps_nothing_and_its_number_is_given_again() {
        let mut writer = writer();
        let refused = writer.commit(|draft| {
            store::add_account(draft, &account("Cash"), "test")?;
            Err::<(), _>(Error::Refused(Refusal::Conflict("no".into())))
        });
        assert!(matches!(refused, Err(Error::Refused(_))));
        assert_eq!((names(&writer), writer.status.sequence(), writer.status.commits()), (0, 0, true));
        assert_eq!(
            writer.commit(|draft| store::add_account(draft, &account("Cash"), "test")).unwrap().sequence,
            1
        );
        assert_eq!(writer.status.sequence(), 1);
    }

    #[test]
    fn a_swallowed_engine_error_is_no_success() {
        let mut writer = writer();
        let result = writer.commit(|draft| {
            store::add_account(draft, &account("Cash"), "test")?;
            let _ = draft.conn.execute_batch("SELECT error('as an overflow would')");
            Ok(())
        });
        assert!(matches!(result, Err(Error::Engine(_))), "{result:?}");
        assert_eq!((names(&writer), writer.status.commits()), (0, false));
    }

    #[test]
    fn a_beat_after_a_failed_commit_finds_out_whether_commits_work_again() {
        let mut writer = writer();
        let _ = writer.commit(|draft| Ok(draft.conn.execute_batch("SELECT * FROM nowhere")?));
        assert!(!writer.status.commits());
        assert!(writer.beat() && writer.status.commits());
        assert_eq!(writer.status.sequence(), 0);
    }

    #[test]
    fn a_commit_that_fits_proves_nothing_while_the_volume_takes_no_file() {
        let mut writer = writer();
        let volume = tempfile::tempdir().unwrap();
        writer.folder = volume.path().join("gone");
        let _ = writer.commit(|draft| Ok(draft.conn.execute_batch("SELECT * FROM nowhere")?));
        assert!(writer.beat() && !writer.status.commits());
        std::fs::create_dir(&writer.folder).unwrap();
        assert!(writer.beat() && writer.status.commits());
        assert_eq!(std::fs::read_dir(&writer.folder).unwrap().count(), 0);
    }
}
