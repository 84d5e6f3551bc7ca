//! `dojo`: a household's finance ledger, one process on one DuckDB file.
//!
//! This file has the subcommands and the exit code: 0, 2 bad configuration, 3 refused the data file, 1 the rest.

mod config;
mod db;
mod fault;
mod http;
mod ledger;
mod stop;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use duckdb::AccessMode;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use config::{Auth, Config, Environment};
use db::beside::Beside;
use db::lock::Lock;
use db::migrate::Migrations;
use db::{Db, backup, engine, open, restore};
use http::auth::Guard;
use http::{About, App};
use ledger::verify;
use stop::Stop;

/// The commit this was built from, when the build was told.
const COMMIT: &str = match option_env!("DOJO_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// A household's finance ledger: one process on one DuckDB file
///
/// Configured by DOJO_DB_PATH, DOJO_ENV, DOJO_LOG_LEVEL, DOJO_LISTEN, DOJO_TOKEN_FILE, DOJO_AUTH and DOJO_RESTORE:
/// `dojo check --config` shows what is in force.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a new ledger where no file is
    Init,
    /// Restore what DOJO_RESTORE names, unless that was done before; bring the ledger's schema up to this binary's
    Migrate {
        /// Show what would run, and change nothing
        #[arg(long)]
        plan: bool,
        /// If there is something to run, write a backup beside the ledger first
        #[arg(long, conflicts_with = "plan")]
        backup: bool,
    },
    /// Migrate, then serve HTTP until SIGTERM or SIGINT
    Serve,
    /// Copy a ledger that is not being served, read the copy back, and put it at FILE
    Backup { file: PathBuf },
    /// Put a backup in the place of a ledger that is not being served, and keep what was there
    ///
    /// Once ever for an id on this volume, as with DOJO_RESTORE: the marker is backups/restored-TIME-ID.json. To restore
    /// the same backup once more, copy it under another name.
    Restore {
        /// The name of a file in backups/ without .duckdb, for example ledger-schema1-seq3
        id: String,
    },
    /// Check a ledger that is not being served, without changing it
    Check {
        /// Check the configuration only, without looking at the ledger
        #[arg(long)]
        config: bool,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not through the log: a person reads it, and the log may not be set up yet.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            for line in last_words(&cli.command) {
                let _ = writeln!(std::io::stderr(), "{line}");
            }
            ExitCode::from(fault::exit_code(&error))
        }
    }
}

/// Behind the error of a command that a pod runs.
fn last_words(command: &Command) -> Vec<String> {
    if !matches!(command, Command::Migrate { plan: false, .. } | Command::Serve) {
        return Vec::new();
    }
    Config::from_env().map_or_else(|_| Vec::new(), |config| db::last_words::of(&config.db_path))
}

fn run(command: &Command) -> anyhow::Result<()> {
    let config = Config::from_env()?;
    start_log(&config);
    let runtime = Runtime::new().context("cannot start the runtime")?;
    let _entered = runtime.enter();
    let stop = Stop::listen().context("cannot handle signals")?;
    let known = Migrations::embedded()?;
    let db = config.db_path.as_path();
    match command {
        Command::Init => {
            let made = open::init(db, &known, &stop)?;
            say(&format!("made {}: ledger {}, schema {}", db.display(), made.id, made.schema))
        }
        Command::Migrate { plan, backup } => {
            let id = config.restore.as_deref().map(restore::Id::parse).transpose()?;
            if *plan {
                return self::plan(db, id.as_ref(), &known);
            }
            let options =
                open::Options { environment: config.environment, backup: *backup, restore: id.as_ref() };
            let open::Opened { identity, .. } = open::current(db, options, &known, &stop)?;
            say(&format!("{} is at schema {}, sequence {}", db.display(), identity.schema, identity.sequence))
        }
        Command::Serve => serve(&config, &known, &stop, &runtime),
        Command::Backup { file } => {
            restore::settled(db)?;
            open::present(db)?;
            let _lock = Lock::take_if_present(db)?;
            let file = std::path::absolute(file)?;
            let identity = backup::to(db, &file)?;
            say(&format!(
                "wrote {}: schema {}, sequence {}",
                file.display(),
                identity.schema,
                identity.sequence
            ))
        }
        Command::Restore { id } => {
            let (before, identity) = restore::by_hand(db, &restore::Id::parse(id)?, &known)?;
            let done =
                before.map_or_else(|| "restored:".into(), |at| format!("was restored already at {at}:"));
            say(&format!(
                "{id} {done} {} is at schema {}, sequence {}",
                db.display(),
                identity.schema,
                identity.sequence
            ))
        }
        Command::Check { config: true } => {
            Guard::from(&config.auth)?;
            config.restore.as_deref().map(restore::Id::parse).transpose()?;
            say(&config.lines())
        }
        Command::Check { .. } => check(db, &known),
    }
}

fn plan(db: &Path, id: Option<&restore::Id>, known: &Migrations) -> anyhow::Result<()> {
    let restored = id.map(|id| restore::plan(db, id, known)).transpose()?.flatten();
    let (identity, pending) = match &restored {
        Some(plan) => (plan.backup.clone(), plan.pending),
        None => open::plan(db, known)?,
    };
    let is = if restored.is_some() { "would be restored, to" } else { "is at" };
    let state = format!("{} {is} schema {}, sequence {}", db.display(), identity.schema, identity.sequence);
    if pending.is_empty() {
        return say(&format!("{state}: nothing to run"));
    }
    let names: Vec<_> = pending.iter().map(|migration| format!("\n  {}", migration.name)).collect();
    say(&format!("{state}; would run, to schema {}:{}", known.current(), names.concat()))
}

fn check(db: &Path, known: &Migrations) -> anyhow::Result<()> {
    let (identity, pending) = open::plan(db, known)?;
    let conn = engine::connect(db, AccessMode::ReadOnly)?;
    let counts = engine::readable(db, verify::ledger(&conn))?;
    say(&format!(
        "{} is sound: ledger {}, schema {} ({} to run), sequence {}, {} accounts, {} transactions",
        db.display(),
        identity.id,
        identity.schema,
        pending.len(),
        identity.sequence,
        counts.accounts,
        counts.transactions
    ))
}

fn serve(config: &Config, known: &Migrations, stop: &Stop, runtime: &Runtime) -> anyhow::Result<()> {
    let started_at = Timestamp::now();
    let guard = Guard::from(&config.auth)?;
    match &config.auth {
        Auth::None => {
            tracing::warn!("DOJO_AUTH=none: everybody who reaches the port may read and write the ledger");
        }
        Auth::Token(None) => tracing::warn!("DOJO_TOKEN_FILE is not set: /v1 refuses everybody"),
        Auth::Token(Some(_)) => {}
    }
    let options = open::Options { environment: config.environment, backup: false, restore: None };
    let db = config.db_path.as_path();
    let open::Opened { conn, identity, lock } = open::current(db, options, known, stop)?;
    engine::readable(db, verify::ledger(&conn))?;
    runtime.block_on(async {
        let listener = TcpListener::bind(config.listen).await;
        let listener = listener.with_context(|| format!("cannot listen on {}", config.listen))?;
        let address = listener.local_addr()?;
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            commit = COMMIT,
            ledger = identity.id,
            schema = identity.schema,
            sequence = identity.sequence,
            "listening on http://{address}"
        );
        let beside = Beside::new(db.to_owned());
        let db = Db::start(conn, identity.sequence, engine::folder_of(db).to_owned())?;
        let (schema, oldest_binary) = (known.current(), known.oldest_binary());
        let about =
            About { environment: config.environment, schema, oldest_binary, file: identity, started_at };
        http::serve(listener, Arc::new(App::new(db, about, beside)), guard, stop).await
    })?;
    drop(lock);
    Ok(())
}

fn start_log(config: &Config) {
    let log = tracing_subscriber::fmt().with_max_level(config.log_level).with_writer(std::io::stderr);
    if config.environment == Environment::Production {
        log.json().flatten_event(true).init();
    } else {
        log.with_ansi(false).init();
    }
}

fn say(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}").context("cannot write to standard output")
}
