//! What a person at a terminal gets: a question before a change, a spinner over a second, tables that align.

/// Prints a line. A reader that went away is no reason to panic, least of all after a change was made.
macro_rules! println {
    ($($arg:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($arg)*);
    }};
}

/// Prints a line on stderr; see `println`.
macro_rules! eprintln {
    ($($arg:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($arg)*);
    }};
}

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

use crate::fault::Fault;

const TICK: Duration = Duration::from_millis(100);

/// Asks before a change; off a terminal only `--yes` will do.
pub fn confirm(yes: bool) -> Result<()> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Fault::usage("this would change a remote, and nobody is there to confirm it")
            .help("add --yes")
            .into());
    }
    eprint!("go on? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Fault::usage("not confirmed: nothing was changed").into())
}

/// A sign of life beside what is going on; only a terminal shows it.
#[derive(Debug)]
pub struct Spinner(ProgressBar);

impl Spinner {
    pub fn start(what: impl Into<String>) -> Self {
        let bar = ProgressBar::new_spinner().with_message(what.into());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    /// What is going on now.
    pub fn set(&self, line: &str) {
        self.0.set_message(line.trim().to_owned());
    }

    /// A tool's line: the latest one on a terminal, all of them elsewhere.
    pub fn say(&self, line: &str) {
        if self.0.is_hidden() { eprintln!("{line}") } else { self.set(line) }
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Rows under a header, aligned by columns, without a frame.
pub fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(header);
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}
