//! A command that is given a time to end in, and killed after it together with what it started.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Output};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// The process groups that run now.
static RUNNING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// Ends all that runs, for a command that was interrupted: a terminal's Ctrl-C reaches none of them.
pub fn end_all() {
    running(|groups| {
        for group in groups.iter() {
            let _ = kill_process_group(*group, Signal::KILL);
        }
    });
}

/// Runs a command to its end; `None` if it was ended after `limit`, with all that it started.
pub fn output(command: &mut Command, limit: Duration) -> std::io::Result<Option<Output>> {
    // Files take any amount, where a pipe that nobody empties would stop the command.
    let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let mut child =
        command.process_group(0).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?).spawn()?;
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    running(|groups| groups.extend(group));
    let status = wait(&mut child, limit);
    running(|groups| groups.retain(|other| Some(*other) != group));
    let Some(status) = status? else { return Ok(None) };
    Ok(Some(Output { status, stdout: all(stdout)?, stderr: all(stderr)? }))
}

fn running(change: impl FnOnce(&mut Vec<Pid>)) {
    change(&mut RUNNING.lock().unwrap_or_else(PoisonError::into_inner));
}

fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() > limit {
            end(child);
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn end(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let _ = group.map(|group| kill_process_group(group, Signal::KILL));
    let _ = child.wait();
}

fn all(mut file: File) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_is_ended_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let script = format!("sleep 100 & echo $! > {}; wait", file.display());
        let limit = Duration::from_millis(500);
        assert!(output(Command::new("sh").args(["-c", &script]), limit).unwrap().is_none());
        let pid = std::fs::read_to_string(file).unwrap();
        // It dies on its own time, and an orphan may wait for its new parent to notice.
        let alive = || {
            let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
            !state.is_empty() && !state.contains(") Z ")
        };
        let gone = (0..1000).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            !alive()
        });
        assert!(gone, "{pid} is still alive");
        let Output { status, stdout, stderr } = output(
            Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]),
            Duration::from_secs(60),
        )
        .unwrap()
        .unwrap();
        assert_eq!((status.code(), &*stdout, &*stderr), (Some(3), &b"out\n"[..], &b"err\n"[..]));
    }
}
