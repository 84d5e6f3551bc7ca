//! What a person at a terminal gets: a question before a change, a spinner over a second, tables that align.

/// Prints a line. A reader that went away is no reason to panic, least of all after a change was made.
macro_rules! println {
    ($($arg:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), "{}", $crate::terminal::plain(&format!($($arg)*)));
    }};
}

/// Prints a line on stderr; see `println`.
macro_rules! eprintln {
    ($($arg:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "{}", $crate::terminal::plain(&format!($($arg)*)));
    }};
}

use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::{Context as _, Result};
use indicatif::{ProgressBar, ProgressStyle};

use crate::fault::Fault;

/// Without what a terminal would obey: labels, tags and the names of files come from anybody.
pub fn plain(text: &str) -> String {
    let shown =
        |c: char| if c.is_control() && !matches!(c, '\n' | '\t') { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().map(shown).collect()
}

/// The same for a part of a line.
pub fn one_line(text: &str) -> String {
    plain(&text.replace(['\n', '\t'], " "))
}

/// Prints an object. Unlike a person, a program may take the half of it for the whole: what cannot be written is an error.
pub fn json(object: &impl serde::Serialize) -> Result<()> {
    let text = escaped(&serde_json::to_string_pretty(object)?) + "\n";
    let mut stdout = std::io::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("writing to stdout"),
        _ => Ok(()),
    }
}

/// JSON lets control characters above ASCII stand as they are, and a terminal may obey them.
fn escaped(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_control() && c != '\n' {
            escaped += &format!("\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Shows what an edge logs, since edges do not print: `warning: …` and `note: …` on stderr. What libraries log is theirs.
struct Notices;

impl log::Log for Notices {
    fn enabled(&self, about: &log::Metadata<'_>) -> bool {
        about.target().starts_with(env!("CARGO_CRATE_NAME")) && about.level() <= log::Level::Info
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let kind = if record.level() == log::Level::Info { "note" } else { "warning" };
            // A bar may be on the line, which draws itself anew below.
            if std::io::stderr().is_terminal() {
                let _ = write!(std::io::stderr(), "\r\x1b[2K");
            }
            eprintln!("{kind}: {}", record.args());
        }
    }

    fn flush(&self) {}
}

pub fn show_notices() {
    if log::set_logger(&Notices).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
}

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
        if self.0.is_hidden() {
            // As the tool coloured it.
            let _ = writeln!(std::io::stderr(), "{line}");
        } else {
            self.set(line);
        }
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
    table.add_rows(rows.into_iter().map(|row| row.iter().map(|cell| one_line(cell)).collect::<Vec<_>>()));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}
