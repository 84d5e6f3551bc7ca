//! stub
use crate::image::Digest;
use crate::trailers::Seen;
use jiff::Timestamp;
use serde::Serialize;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Workload {
    pub image: Option<String>,
    pub digest: Option<Digest>,
    pub available: Option<bool>,
    pub down_since: Option<Timestamp>,
    pub cause: Option<Cause>,
    pub synced: Option<String>,
    pub unseen: Vec<String>,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cause {
    pub kind: Kind,
    pub what: String,
    pub next: String,
    pub words: Option<LastWords>,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Unsynced,
    ImagePull,
    InitFailed,
    Starting,
    Other,
    Container,
    BadConfig,
    ServiceFailed,
    OomKilled,
    DiskFull,
}
impl Kind {
    pub const fn is_progress(self) -> bool {
        matches!(self, Self::Starting)
    }
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LastWords {
    pub error: Option<String>,
    pub data: Option<Seen>,
    pub backups: Vec<String>,
}
