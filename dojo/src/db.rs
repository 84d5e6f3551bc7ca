//! The one owner of the open ledger: a writer thread that owns the connection, and readers that are clones of it.
//!
//! Snapshot isolation permits write skew, so whatever is checked before it is written is checked on the one writer.
//! A write is answered after COMMIT, or not at all. No table is known here: jobs bring their SQL from `ledger::store`.

pub mod backup;
pub mod beside;
pub mod engine;
pub mod last_words;
pub mod lock;
pub mod migrate;
pub mod open;
pub mod restore;
mod writer;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use duckdb::Connection;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use crate::ledger::Refusal;
pub use writer::{Draft, Status};
use writer::{Message, Writer};

/// Writes that may wait; more are told to come again.
const QUEUE: usize = 64;
const READERS: usize = 4;
const READ_WAIT: Duration = Duration::from_secs(5);
/// How long a beat stands for the next ones.
const FRESH: Duration = Duration::from_secs(1);

/// Why a read or a write was not done.
#[derive(Debug)]
pub enum Error {
    /// Too much at once: the same request may be sent again.
    Busy,
    /// The ledger is being closed.
    Closed,
    /// The ledger's rules refuse it.
    Refused(Refusal),
    Engine(duckdb::Error),
}

impl From<duckdb::Error> for Error {
    fn from(error: duckdb::Error) -> Self {
        Self::Engine(error)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What the writer said when, and what it was asked and has not answered yet.
#[derive(Default)]
struct Pulse {
    last: Option<(Instant, bool)>,
    asked: Option<oneshot::Receiver<(Instant, bool)>>,
}

pub struct Db {
    writer: mpsc::Sender<Message>,
    pulse: tokio::sync::Mutex<Pulse>,
    thread: Mutex<Option<JoinHandle<()>>>,
    status: Arc<Status>,
    readers: Arc<Mutex<Vec<Connection>>>,
    free: Arc<Semaphore>,
}

impl Db {
    /// Takes the connection over; `sequence` is the last one that the file has, `folder` the one it lies in.
    pub fn start(conn: Connection, sequence: i64, folder: PathBuf) -> anyhow::Result<Self> {
        let readers = (0..READERS).map(|_| conn.try_clone()).collect::<Result<Vec<_>, _>>()?;
        let status = Arc::new(Status::new(sequence));
        let (sender, messages) = mpsc::channel(QUEUE);
        let writer = Writer::new(conn, sequence, Arc::clone(&status), folder);
        let thread = std::thread::Builder::new().name("writer".into()).spawn(move || writer.run(messages));
        Ok(Self {
            writer: sender,
            pulse: tokio::sync::Mutex::default(),
            thread: Mutex::new(Some(thread.context("cannot start the writer thread")?)),
            status,
            readers: Arc::new(Mutex::new(readers)),
            free: Arc::new(Semaphore::new(READERS)),
        })
    }

    /// Runs `job` in a transaction on the writer, and answers once it is committed.
    pub async fn write<T, F>(&self, job: F) -> Result<T, Error>
    where
        F: FnOnce(&mut Draft<'_>) -> Result<T, Error> + Send + 'static,
        T: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Message::Job(Box::new(move |writer| {
            // Nobody may be waiting any more; the write stands all the same.
            let _ = reply.send(writer.commit(job));
        }));
        self.writer.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::Busy,
            mpsc::error::TrySendError::Closed(_) => Error::Closed,
        })?;
        answer.await.unwrap_or(Err(Error::Closed))
    }

    /// Runs `job` on one snapshot of the ledger.
    pub async fn read<T, F>(&self, job: F) -> Result<T, Error>
    where
        F: FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
        T: Send + 'static,
    {
        let permit = timeout(READ_WAIT, Arc::clone(&self.free).acquire_owned()).await;
        let permit = permit.map_err(|_| Error::Busy)?.map_err(|_| Error::Closed)?;
        let readers = Arc::clone(&self.readers);
        let done = tokio::task::spawn_blocking(move || {
            let conn = readers.lock().unwrap_or_else(PoisonError::into_inner).pop().ok_or(Error::Closed)?;
            let result = snapshot(&conn, job);
            readers.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
            drop(permit);
            result
        });
        done.await.unwrap_or(Err(Error::Closed))
    }

    /// Whether the writer thread answers within this time. Anybody may probe, so all share one question: it takes
    /// one place of the queue, and the rest is for writes.
    pub async fn beats(&self, within: Duration) -> bool {
        timeout(within, self.beat()).await.ok().flatten().unwrap_or(false)
    }

    /// Nothing if the writer has ended. Who gives up leaves the question to the next.
    async fn beat(&self) -> Option<bool> {
        let mut pulse = self.pulse.lock().await;
        loop {
            if let Some((_, alive)) = pulse.last.filter(|(at, _)| at.elapsed() < FRESH) {
                return Some(alive);
            }
            if pulse.asked.is_none() {
                let (reply, answer) = oneshot::channel();
                let beat = Message::Job(Box::new(move |writer| {
                    let alive = writer.beat();
                    let _ = reply.send((Instant::now(), alive));
                }));
                self.writer.send(beat).await.ok()?;
                pulse.asked = Some(answer);
            }
            if let Some(answer) = &mut pulse.asked {
                let answered = answer.await;
                pulse.asked = None;
                pulse.last = Some(answered.ok()?);
            }
        }
    }

    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Lets the writer finish what is queued and take the log into the file; later writes are refused.
    pub async fn close(&self) {
        // A dead writer cannot be told, and need not.
        let _ = self.writer.send(Message::Close).await;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let joined = tokio::task::spawn_blocking(|| thread.map(JoinHandle::join)).await;
        if !matches!(joined, Ok(Some(Ok(())))) {
            tracing::error!("the writer thread did not end well");
        }
        self.free.close();
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn snapshot<T>(conn: &Connection, job: impl FnOnce(&Connection) -> Result<T, Error>) -> Result<T, Error> {
    conn.execute_batch("BEGIN TRANSACTION READ ONLY")?;
    let result = job(conn);
    conn.execute_batch("ROLLBACK")?;
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn probes_leave_the_queue_to_writes() {
        let conn = Connection::open_in_memory().unwrap();
        let db = Arc::new(Db::start(conn, 0, std::env::temp_dir()).unwrap());
        assert!(db.beats(Duration::from_secs(20)).await);
        tokio::time::sleep(FRESH).await;

        let (go_on, wait) = std::sync::mpsc::channel();
        let (begun, begins) = oneshot::channel();
        let busy = tokio::spawn({
            let db = Arc::clone(&db);
            async move {
                db.write(move |_| {
                    let _ = begun.send(());
                    Ok(wait.recv().is_ok())
                })
                .await
            }
        });
        begins.await.unwrap();
        for _ in 0..2 {
            let probe = |_| {
                let db = Arc::clone(&db);
                tokio::spawn(async move { db.beats(Duration::from_millis(200)).await })
            };
            for probe in (0..150).map(probe).collect::<Vec<_>>() {
                assert!(!probe.await.unwrap(), "the writer is stuck");
            }
            assert!(db.writer.capacity() >= QUEUE - 1, "{} places left", db.writer.capacity());
        }
        go_on.send(()).unwrap();
        assert!(busy.await.unwrap().unwrap());
        assert!(db.beats(Duration::from_secs(20)).await);

        db.close().await;
        tokio::time::sleep(FRESH).await;
        assert!(!db.beats(Duration::from_secs(20)).await, "the writer has ended");
    }
}
