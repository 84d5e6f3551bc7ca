//! What a running service says of itself at `/version` and `/readyz`.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::image::Schema;

/// One look at an environment's service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Observed {
    Reports(Report),
    /// It did not answer, and why.
    Silent(String),
}

/// The answer of `/version`, and whether `/readyz` said 200.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    #[serde(flatten)]
    pub version: Version,
    pub ready: bool,
}

/// The body of `/version`; unknown fields are a newer service's and ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    pub version: String,
    /// 40 hex digits, or `unknown` for a binary that was not built by this tool.
    pub commit: String,
    pub schema: Schemas,
    pub ledger: Ledger,
    pub started_at: String,
    /// For how long it has been serving; `None` if nobody can tell.
    #[serde(default)]
    pub uptime_seconds: Option<u64>,
    /// The backups on its volume, newest first; `None` of a service that does not list them yet.
    #[serde(default)]
    pub backups: Option<Vec<Backup>>,
    /// The last restore that was applied.
    #[serde(default)]
    pub restored: Option<Restored>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// What `rollback --restore` is told.
    pub id: String,
    pub schema: u32,
    pub sequence: u64,
    /// RFC 3339.
    pub made_at: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    pub id: String,
    /// RFC 3339.
    pub at: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schemas {
    pub binary: u32,
    pub file: u32,
    pub file_oldest_binary: u32,
}

impl Version {
    /// For how long it has been serving.
    pub fn uptime(&self) -> Option<SignedDuration> {
        self.uptime_seconds.and_then(|seconds| i64::try_from(seconds).ok()).map(SignedDuration::from_secs)
    }
}

impl Schemas {
    /// The schema of the data file.
    pub fn of_file(self) -> Schema {
        Schema { current: self.file, oldest_binary: self.file_oldest_binary }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    pub id: String,
    pub sequence: u64,
}

impl Observed {
    pub fn report(&self) -> Option<&Report> {
        match self {
            Self::Reports(report) => Some(report),
            Self::Silent(_) => None,
        }
    }
}
