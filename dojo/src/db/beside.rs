//! What lies beside the ledger while it is served, for `/version`: looked at seldom, and never waited for long.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use super::backup::{self, Backup};
use super::restore::{self, Record};

/// How long a look stands for the next ones; anybody may ask.
const FRESH: Duration = Duration::from_secs(2);
/// A volume that takes longer is answered for by the look before.
const WAIT: Duration = Duration::from_millis(500);
const MOST: usize = 20;

#[derive(Clone, Debug, Default, Serialize)]
pub struct Seen {
    /// Newest first, at most 20; `None` if the folder could not be read (in time).
    pub backups: Option<Vec<Backup>>,
    /// The newest restore.
    pub restored: Option<Restored>,
}

/// A restore, and what the file that it replaced said of itself if it could be read.
#[derive(Clone, Debug, Serialize)]
pub struct Restored {
    pub id: String,
    pub at: jiff::Timestamp,
    pub replaced_schema: Option<u32>,
    pub replaced_sequence: Option<i64>,
}

pub struct Beside {
    db: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    seen: Seen,
    at: Option<Instant>,
    /// One at a time, and one that hangs is waited for by the next who asks.
    looking: Option<JoinHandle<Seen>>,
}

impl Beside {
    pub fn new(db: PathBuf) -> Self {
        Self { db, state: Mutex::default() }
    }

    pub async fn seen(&self) -> Seen {
        let mut state = self.state.lock().await;
        if state.at.is_none_or(|at| at.elapsed() > FRESH) {
            let db = self.db.clone();
            let looking = state.looking.get_or_insert_with(|| spawn_blocking(move || look(&db)));
            if let Ok(seen) = timeout(WAIT, looking).await {
                state.looking = None;
                state.seen = seen.unwrap_or_default();
            }
            state.at = Some(Instant::now());
        }
        state.seen.clone()
    }
}

fn look(db: &std::path::Path) -> Seen {
    let mut backups = backup::list(db).ok();
    backups.iter_mut().for_each(|backups| backups.truncate(MOST));
    let restored =
        restore::newest(db).map(|Record { id, at, replaced_schema, replaced_sequence, .. }| Restored {
            id,
            at,
            replaced_schema,
            replaced_sequence,
        });
    Seen { backups, restored }
}
