//! `--rehearse-on BACKUP`: the target image's own program migrates and checks a copy of a data file, before anything is
//! changed. The file itself is only read.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};

use super::plan::{Plan, Rehearsed, Step};
use crate::fault::{Fault, Kind, exit_code};
use crate::image::Digest;
use crate::program::Program;
use crate::registry::Registry;
use crate::report::Observed;
use crate::terminal::Spinner;

/// The file's name in the container, and here.
const LEDGER: &str = "ledger.duckdb";

/// Migrates a copy as the init container would, and checks it.
pub fn run(backup: &Path, plan: &Plan, registry: &Registry, observed: &Observed) -> Result<Rehearsed> {
    let size = size(backup)?;
    let folder = tempfile::Builder::new().prefix("rehearsal-").tempdir()?;
    remove_on_interrupt(folder.path())?;
    room(folder.path(), size)?;
    let spinner = Spinner::start(format!("copying {}", backup.display()));
    let data = copy(backup, &folder.path().join("data"))?;
    let digest = plan.to.digest.as_ref().context("the plan names no digest")?;
    spinner.set(&format!("unpacking {}", plan.to.name()));
    let program = unpack(registry, digest, &folder.path().join("image"))?;
    let mut steps = Vec::new();
    for arguments in [&["migrate", "--plan"][..], &["migrate"], &["check"]] {
        spinner.set(&format!("dojo {}", arguments.join(" ")));
        let mut command = program.command(arguments);
        command.env("DOJO_ENV", &plan.environment).env("DOJO_DB_PATH", &data).current_dir(folder.path());
        steps.push(step(&mut command, arguments, &data, backup, plan.to.name())?);
    }
    let ledger = steps.last().and_then(|step| ledger_of(&step.said));
    let served = observed.report().map(|report| &report.version.ledger.id);
    let note = ledger.as_ref().zip(served).filter(|(file, served)| file != served);
    let note = note.map(|(file, served)| {
        format!("that is another ledger: {} serves {served}, and the file is {file}", plan.environment)
    });
    Ok(Rehearsed { backup: backup.to_owned(), bytes: size, steps, note })
}

/// In bytes, with its log.
fn size(backup: &Path) -> Result<u64, Fault> {
    let wrong = |why: &str| {
        Fault::usage(format!("{}: {why}", backup.display()))
            .help("--rehearse-on takes a data file on this machine, such as a copy of one from the volume's backups/")
    };
    let found = fs::metadata(backup).map_err(|error| wrong(&error.to_string()))?;
    if !found.is_file() {
        return Err(wrong("not a file"));
    }
    Ok(found.len() + fs::metadata(log_of(backup)).map_or(0, |log| log.len()))
}

/// DuckDB's write-ahead log beside a file: without it, what was written last would be missing.
fn log_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".wal");
    name.into()
}

/// A migration may write each table anew.
fn room(folder: &Path, size: u64) -> Result<()> {
    let disk = rustix::fs::statvfs(folder).with_context(|| folder.display().to_string())?;
    let free = disk.f_bavail * disk.f_frsize;
    let needed = 3 * size;
    if free < needed {
        let message =
            format!("{} has {free} bytes left, and a copy and its migration need {needed}", folder.display());
        return Err(Fault::usage(message).help("set TMPDIR to a folder with more room").into());
    }
    Ok(())
}

fn copy(backup: &Path, folder: &Path) -> Result<PathBuf> {
    fs::create_dir(folder)?;
    let copy = folder.join(LEDGER);
    let log = log_of(backup);
    let files = [(backup.to_owned(), copy.clone()), (log.clone(), log_of(&copy))];
    for (from, to) in files.iter().filter(|(from, _)| *from != log || log.exists()) {
        let unread = || Fault::usage(format!("{} cannot be copied", from.display()));
        fs::copy(from, to).with_context(unread)?;
        // A backup may be read-only, and its copy is not.
        let mut rights = fs::metadata(to)?.permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut rights, 0o600);
        fs::set_permissions(to, rights)?;
    }
    Ok(copy)
}

fn unpack(registry: &Registry, digest: &Digest, into: &Path) -> Result<Program> {
    let runtime = registry.unpack(digest, into).map_err(|error| {
        // Of another platform, or of none that runs: no fault of the image.
        if exit_code(&error) == Kind::Refused as u8 && format!("{error:#}").contains("not for ") {
            return unfit(&format!("{error:#}")).into();
        }
        error
    })?;
    Ok(Program::new(into, &runtime.program(into)?, &runtime))
}

fn unfit(why: &str) -> Fault {
    Fault::usage(format!("the image does not run on this machine: {why}"))
        .help("rehearse it on a machine of the image's platform, or leave out --rehearse-on")
}

fn step(command: &mut Command, arguments: &[&str], data: &Path, backup: &Path, name: &str) -> Result<Step> {
    let start = Instant::now();
    let output = command.output().map_err(|error| unfit(&error.to_string()))?;
    let milliseconds = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let tell =
        |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().replace(&*data.to_string_lossy(), "the copy");
    let what = format!("dojo {}", arguments.join(" "));
    if output.status.success() {
        return Ok(Step { command: what, milliseconds, said: tell(&output.stdout) });
    }
    let said = tell(&output.stderr);
    // Neither its log, nor its advice and what it says of the file, which are for one that is in use.
    let aside = ["{", "help: ", "data: ", "backups: "];
    let words: Vec<_> =
        said.lines().filter(|line| !aside.iter().any(|start| line.starts_with(start))).collect();
    let failed = format!("{name} cannot take a copy of {}: {what}: {}", backup.display(), words.join("\n"));
    Err(match output.status.code() {
        // Of the loader.
        Some(126 | 127) => unfit(&said),
        Some(2) => Fault::usage(failed),
        _ => Fault::refused(failed).help("nothing was changed; the file is as it was"),
    }
    .into())
}

/// The id in the answer of `dojo check`: `… is sound: ledger ID, schema …`.
fn ledger_of(said: &str) -> Option<String> {
    let (_, rest) = said.rsplit_once(" is sound: ledger ")?;
    rest.split(',').next().map(str::to_owned)
}

/// The copy is somebody's books: an interrupt does not leave it behind.
fn remove_on_interrupt(folder: &Path) -> Result<()> {
    let folder = folder.to_owned();
    ctrlc::set_handler(move || {
        let _ = fs::remove_dir_all(&folder);
        std::process::exit(130);
    })
    .context("cannot handle interrupts")
}
