//! What a rehearsal tells while it goes on, and the record that `--json` prints at its end.

use std::cell::RefCell;
use std::io::IsTerminal as _;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::Serialize;

use super::children::{Children, Finished};
use crate::terminal;

/// Off a terminal, a step that takes longer tells that it is alive this often.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// How much of a failed command's stderr is shown.
const STDERR_LINES: usize = 20;

/// One thing that was done.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    pub chapter: String,
    pub what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    pub seconds: f64,
    pub told: Vec<String>,
}

/// How much of a command's output is worth reading in passing; `--json` and a failure have all of it.
#[derive(Clone, Copy, Debug)]
pub enum Detail {
    All,
    /// The last line of stdout.
    Outcome,
}

#[derive(Debug)]
pub struct Story {
    as_json: bool,
    children: Children,
    chapter: RefCell<String>,
    /// What is going on, since when.
    now: RefCell<(String, Instant)>,
    steps: RefCell<Vec<Step>>,
}

impl Story {
    pub fn new(as_json: bool, children: Children) -> Self {
        let now = RefCell::new((String::new(), Instant::now()));
        Self { as_json, children, chapter: RefCell::default(), now, steps: RefCell::default() }
    }

    /// A line for the reader: on stdout, or on stderr where stdout carries JSON.
    pub fn say(&self, line: &str) {
        if self.as_json { eprintln!("{line}") } else { println!("{line}") }
    }

    pub fn chapter(&self, title: &str) {
        self.say(&format!("\n== {title}"));
        self.chapter.replace(title.to_owned());
        self.now.replace((title.to_owned(), Instant::now()));
    }

    /// Begins something that is not a command.
    pub fn aside(&self, what: &str) {
        self.now.replace((what.to_owned(), Instant::now()));
    }

    /// Ends what [`Story::chapter`] or [`Story::aside`] began.
    pub fn done(&self, told: &[&str]) {
        let (what, start) = self.now.borrow().clone();
        let prefix = if what == *self.chapter.borrow() { String::new() } else { format!("{what}: ") };
        for line in told {
            self.say(&format!("          {prefix}{line}"));
        }
        self.record(what, None, start, told.iter().map(|line| (*line).to_owned()).collect());
    }

    /// Runs a command without showing it, unless it fails.
    pub fn quietly(&self, command: &mut Command) -> Result<()> {
        self.read(command).map(drop)
    }

    /// Runs a command for its stdout.
    pub fn read(&self, command: &mut Command) -> Result<String> {
        let finished = self.children.run(command, &|_| {})?;
        if finished.status.success() {
            return Ok(finished.stdout);
        }
        bail!("{command:?} failed ({}): {}", finished.status, finished.stderr.trim())
    }

    /// Runs a command for its stdout, and tells each line of its stderr at once.
    pub fn aloud(&self, command: &mut Command) -> Result<String> {
        let finished = self.children.run(command, &|line| eprintln!("   {line}"))?;
        if finished.status.success() {
            return Ok(finished.stdout);
        }
        bail!("{command:?} failed ({})", finished.status)
    }

    /// Shows a command, all that it prints or only its outcome, and expects it to exit with `code`.
    pub fn show(&self, shown: &str, command: &mut Command, code: i32, detail: Detail) -> Result<()> {
        let start = Instant::now();
        let finished = self.attend(command)?;
        let exit = finished.status.code();
        let mut lines: Vec<String> = finished.stdout.lines().map(|line| line.trim_end().to_owned()).collect();
        if exit != Some(0) {
            let said: Vec<_> = finished.stderr.lines().filter(|line| !line.trim().is_empty()).collect();
            lines.extend(
                said[said.len().saturating_sub(STDERR_LINES)..].iter().map(|line| (*line).to_owned()),
            );
        }
        self.say(&format!(" {:5.1} s  $ {shown}", start.elapsed().as_secs_f64()));
        let outcome = finished.stdout.lines().last().unwrap_or_default().trim();
        match detail {
            Detail::Outcome if exit == Some(code) => self.say(&format!("            {outcome}")),
            _ => lines.iter().for_each(|line| self.say(&format!("            {line}"))),
        }
        self.record(shown.to_owned(), exit, start, lines);
        if exit != Some(code) {
            bail!("`{shown}` was to exit with {code}, but ended with {}", finished.status);
        }
        Ok(())
    }

    /// Runs a command, with its last line of stderr beside a spinner, or a sign of life now and then.
    fn attend(&self, command: &mut Command) -> Result<Finished> {
        let spinner = terminal::Spinner::start("");
        let on_terminal = std::io::stderr().is_terminal();
        let told = Mutex::new(Instant::now());
        let finished = self.children.run(command, &|line| {
            spinner.set(line);
            let Ok(mut told) = told.lock() else { return };
            if !on_terminal && told.elapsed() > HEARTBEAT {
                eprintln!("   … {line}");
                *told = Instant::now();
            }
        });
        drop(spinner);
        finished
    }

    fn record(&self, what: String, exit: Option<i32>, start: Instant, told: Vec<String>) {
        let seconds = (start.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
        let chapter = self.chapter.borrow().clone();
        self.steps.borrow_mut().push(Step { chapter, what, exit, seconds, told });
    }

    pub fn steps(&self) -> Vec<Step> {
        self.steps.borrow().clone()
    }
}
