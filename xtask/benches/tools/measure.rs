//! One run of one program: its wall time, CPU time and peak memory.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde::Serialize;
use wait4::Wait4 as _;

/// Seconds and bytes, of a program and the programs that it ran and waited for; the peak is that of one of them.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sample {
    pub wall: f64,
    pub cpu: f64,
    pub peak: u64,
}

/// Runs it; what it said if it failed.
pub fn run(mut command: Command) -> Result<Sample, String> {
    let start = Instant::now();
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child =
        spawned.map_err(|error| format!("cannot run {}: {error}", command.get_program().display()))?;
    let mut said = String::new();
    child.stderr.take().map(|mut stderr| stderr.read_to_string(&mut said));
    let ended = child.wait4().map_err(|error| error.to_string())?;
    let wall = start.elapsed().as_secs_f64();
    if !ended.status.success() {
        return Err(said.lines().next().unwrap_or("it failed and said nothing").to_owned());
    }
    let usage = ended.rusage;
    Ok(Sample { wall, cpu: (usage.utime + usage.stime).as_secs_f64(), peak: usage.maxrss })
}

/// The medians of each figure.
pub fn median(samples: &[Sample]) -> Sample {
    let middle = |figure: fn(&Sample) -> f64| {
        let mut figures: Vec<_> = samples.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    Sample { wall: middle(|s| s.wall), cpu: middle(|s| s.cpu), peak: middle(|s| s.peak as f64) as u64 }
}
