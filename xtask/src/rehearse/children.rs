//! The rehearsal's child processes. Each leads its own process group, so that an interrupt ends it with all it started.

use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, test_kill_process_group, waitpid};

/// How long a process group gets between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(15);

/// The process groups that are alive now.
#[derive(Clone, Debug, Default)]
pub struct Children(Arc<Mutex<Vec<Pid>>>);

/// What a finished command printed.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Children {
    /// Ends all children and the process itself on SIGINT, SIGTERM and SIGHUP.
    pub fn end_on_interrupt(&self) -> Result<()> {
        let children = self.clone();
        ctrlc::set_handler(move || {
            eprintln!("\ninterrupted: ending what was started");
            children.end_all();
            std::process::exit(130);
        })
        .context("cannot handle interrupts")
    }

    /// Starts a process group. The lock is held across the start, so that an interrupt cannot miss it.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        let mut groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let child = command.process_group(0).stdin(Stdio::null()).spawn();
        let child =
            child.with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
        groups.push(group(&child)?);
        Ok(child)
    }

    /// Runs a command to its end; `tell` gets each line of its stderr as it comes.
    pub fn run(&self, command: &mut Command, tell: &(dyn Fn(&str) + Sync)) -> Result<Finished> {
        let mut child = self.spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (stdout, stderr) = std::thread::scope(|scope| {
            let stdout = scope.spawn(move || read(stdout, &|_| {}));
            let stderr = scope.spawn(move || read(stderr, tell));
            (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default())
        });
        let status = child.wait();
        self.forget(group(&child)?);
        Ok(Finished { status: status?, stdout, stderr })
    }

    /// Ends one child as a cluster ends a pod: SIGTERM, a grace period, SIGKILL.
    pub fn end(&self, child: &mut Child) -> Result<()> {
        let pid = group(child)?;
        let _ = kill_process_group(pid, Signal::TERM);
        let start = Instant::now();
        // An error says that the interrupt waited for it already.
        while matches!(child.try_wait(), Ok(None)) {
            if start.elapsed() > GRACE {
                let _ = kill_process_group(pid, Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.forget(pid);
        Ok(())
    }

    fn forget(&self, pid: Pid) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| *other != pid);
    }

    /// Ends every group. The lock stays held for good, so that nothing new can start, and so that whoever sees a child
    /// end waits here for the process's end instead of reporting a failure.
    pub fn end_all(&self) {
        let groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for pid in groups.iter() {
            let _ = kill_process_group(*pid, Signal::TERM);
        }
        let start = Instant::now();
        let alive = || groups.iter().filter(|pid| is_alive(**pid)).count() > 0;
        while alive() && start.elapsed() < GRACE {
            std::thread::sleep(Duration::from_millis(20));
        }
        for pid in groups.iter() {
            let _ = kill_process_group(*pid, Signal::KILL);
        }
        std::mem::forget(groups);
    }
}

/// Whether anybody of the group lives. Its leader stays in the process table until it is waited for.
fn is_alive(pid: Pid) -> bool {
    let _ = waitpid(Some(pid), WaitOptions::NOHANG);
    test_kill_process_group(pid).is_ok()
}

fn group(child: &Child) -> Result<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a process id out of range")
}

fn read(pipe: Option<impl Read>, tell: &dyn Fn(&str)) -> String {
    let mut all = String::new();
    let Some(pipe) = pipe else { return all };
    for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        tell(&line);
        all.push_str(&line);
        all.push('\n');
    }
    all
}
