//! SIGTERM and SIGINT, for every subcommand: asked for once, and able to end the statement that is running.
//!
//! Handlers are installed before anything else is done: as PID 1 a process without one ignores SIGTERM.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use duckdb::{Connection, InterruptHandle};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Whether the process was asked to stop.
#[derive(Clone, Default)]
pub struct Stop(Arc<Inner>);

#[derive(Default)]
struct Inner {
    requested: watch::Sender<bool>,
    running: Mutex<Option<Arc<InterruptHandle>>>,
}

impl Stop {
    /// Installs the handlers; wants to be called within a runtime.
    pub fn listen() -> io::Result<Self> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = Self::default();
        tokio::spawn(stop.clone().on(terminate, interrupt));
        Ok(stop)
    }

    async fn on(self, mut terminate: Signal, mut interrupt: Signal) {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "asked to stop");
        self.0.requested.send_replace(true);
        // Again and again, since an interrupt that comes between two statements is forgotten by the engine.
        loop {
            self.interrupt();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn interrupt(&self) {
        if let Some(handle) = &*self.0.running.lock().unwrap_or_else(PoisonError::into_inner) {
            handle.interrupt();
        }
    }

    pub fn requested(&self) -> bool {
        *self.0.requested.borrow()
    }

    pub async fn wait(&self) {
        // The sender lives in `self`, so this only ends when the stop is requested.
        let _ = self.0.requested.subscribe().wait_for(|requested| *requested).await;
    }

    /// Runs statements that a stop may end; nothing outside of `job`, such as the ROLLBACK after it, is interrupted.
    pub fn during<T>(&self, conn: &Connection, job: impl FnOnce() -> duckdb::Result<T>) -> duckdb::Result<T> {
        let set = |handle| *self.0.running.lock().unwrap_or_else(PoisonError::into_inner) = handle;
        set(Some(conn.interrupt_handle()));
        let result = job();
        set(None);
        result
    }
}
