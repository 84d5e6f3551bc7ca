//! The routes, what lies around them, and the service's life from the first request to the last.

pub mod accounts;
pub mod auth;
pub mod error;
pub mod probes;
pub mod transactions;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn, from_fn_with_state, map_response};
use axum::response::Response;
use axum::routing::get;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::TimeoutLayer;

use crate::config::Environment;
use crate::db::Db;
use crate::db::beside::Beside;
use crate::db::open::Identity;
use crate::stop::Stop;
use error::Problem;

/// Requests to `/v1` at one time; more are told to come again.
const MOST_REQUESTS: u32 = 256;
/// What a request body may have: 100 lines are a tenth of it.
const BODY: usize = 64 * 1024;
const REQUEST: Duration = Duration::from_secs(30);
/// How long requests that were begun may go on after SIGTERM; Kubernetes kills after 30 s.
const DRAIN: Duration = Duration::from_secs(10);

/// What does not change while the service runs.
pub struct About {
    pub environment: Environment,
    pub schema: u32,
    pub oldest_binary: u32,
    pub file: Identity,
    pub started_at: Timestamp,
}

pub struct App {
    pub db: Db,
    pub about: About,
    pub beside: Beside,
    /// When serving began, by a clock that nobody sets.
    pub began: Instant,
    draining: AtomicBool,
    /// One for each request to `/v1`; the drain waits until it has them all.
    slots: Semaphore,
}

impl App {
    pub fn new(db: Db, about: About, beside: Beside) -> Self {
        let (draining, slots) = (AtomicBool::new(false), Semaphore::new(MOST_REQUESTS as usize));
        Self { db, about, beside, began: Instant::now(), draining, slots }
    }

    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }
}

fn router(app: Arc<App>, guard: auth::Guard) -> Router {
    let v1 = Router::new()
        .route("/accounts", get(accounts::list).post(accounts::add))
        .route("/transactions", get(transactions::list).post(transactions::add))
        .route("/transactions/{id}", get(transactions::get).delete(transactions::void))
        .fallback(async || StatusCode::NOT_FOUND)
        .layer(DefaultBodyLimit::max(BODY))
        .layer(from_fn_with_state(Arc::clone(&app), slot))
        .layer(from_fn_with_state(Arc::new(guard), auth::check));
    Router::new()
        .route("/healthz", get(probes::healthz))
        .route("/readyz", get(probes::readyz))
        .route("/version", get(probes::version))
        .nest("/v1", v1)
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, REQUEST))
        .layer(CatchPanicLayer::new())
        .layer(map_response(error::into_problem))
        .layer(from_fn(log))
        .with_state(app)
}

/// Lets a request in while there is room and the service is not stopping.
async fn slot(State(app): State<Arc<App>>, request: Request, next: Next) -> Result<Response, Problem> {
    let refuse = |detail| Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail);
    // The drain takes every slot, so a request that found none may have met a stop.
    let slot = app.slots.try_acquire();
    if app.draining() {
        return Err(refuse("the service is stopping"));
    }
    let _slot = slot.map_err(|_| refuse("too many requests at once: try again"))?;
    Ok(next.run(request).await)
}

async fn log(request: Request, next: Next) -> Response {
    let (method, path, begun) = (request.method().clone(), request.uri().path().to_owned(), Instant::now());
    let response = next.run(request).await;
    let (status, ms) = (response.status().as_u16(), begun.elapsed().as_secs_f64() * 1000.0);
    if path.starts_with("/v1/") {
        tracing::info!(%method, path, status, ms, "request");
    } else {
        tracing::debug!(%method, path, status, ms, "request");
    }
    response
}

/// Serves until a stop is asked for and everything that was begun is done.
pub async fn serve(
    listener: TcpListener,
    app: Arc<App>,
    guard: auth::Guard,
    stop: &Stop,
) -> anyhow::Result<()> {
    let drained = Arc::new(tokio::sync::Notify::new());
    let server = axum::serve(listener, router(Arc::clone(&app), guard));
    let server = server.with_graceful_shutdown({
        let drained = Arc::clone(&drained);
        async move { drained.notified().await }
    });
    let mut server = tokio::spawn(server.into_future());
    tokio::select! {
        ended = &mut server => ended??,
        () = stop.wait() => {}
    }
    // The port stays open meanwhile, so that /readyz can say that the service is stopping.
    app.draining.store(true, Ordering::SeqCst);
    let drain = async {
        let _all = app.slots.acquire_many(MOST_REQUESTS).await;
        drained.notify_one();
        (&mut server).await
    };
    if timeout(DRAIN, drain).await.is_err() {
        tracing::warn!(
            seconds = DRAIN.as_secs(),
            "requests were still going on when the time to drain was over"
        );
        server.abort();
    }
    app.db.close().await;
    tracing::info!(sequence = app.db.status().sequence(), "stopped");
    Ok(())
}
