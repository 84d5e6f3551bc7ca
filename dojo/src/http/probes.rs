//! What the cluster and the deployment tool ask: alive, ready, and which version on which data. No token needed.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::App;
use super::error::Problem;
use crate::db::beside::Seen;

/// How long the writer may take to answer; a probe should wait longer than this.
const BEAT: Duration = Duration::from_secs(2);

/// Liveness: the writer thread answers. When it does not, only a restart helps.
pub async fn healthz(State(app): State<Arc<App>>) -> Result<&'static str, Problem> {
    if app.db.beats(BEAT).await {
        return Ok("ok\n");
    }
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the writer does not answer"))
}

/// Readiness. The process serves only while it holds the lock on a migrated file, so both need no question here.
pub async fn readyz(State(app): State<Arc<App>>) -> Result<&'static str, Problem> {
    let problem = if app.draining() {
        "the service is stopping"
    } else if !app.db.beats(BEAT).await {
        "the writer does not answer"
    } else if !app.db.status().commits() {
        "the last commit failed"
    } else {
        return Ok("ready\n");
    };
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, problem))
}

pub async fn version(State(app): State<Arc<App>>) -> Json<Value> {
    let about = &app.about;
    let Seen { backups, restored } = app.beside.seen().await;
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "commit": crate::COMMIT,
        "environment": about.environment.to_string(),
        "schema": {
            "binary": about.schema, "oldest_binary": about.oldest_binary,
            "file": about.file.schema, "file_oldest_binary": about.file.oldest_binary,
        },
        "ledger": {"id": about.file.id, "sequence": app.db.status().sequence()},
        "started_at": about.started_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "uptime_seconds": app.began.elapsed().as_secs(),
        "backups": backups,
        "restored": restored,
    }))
}
