//! The board as a page: plain values in, one HTML file out, which asks nobody for anything. Words come from anybody (subjects
//! of commits, reasons of holds, names of versions), so the template escapes all of them.

use serde::Serialize;

// Named, since the test of the page takes this file into a crate of its own.
#[path = "page/html.rs"]
mod html;
#[path = "page/strip.rs"]
mod strip;

/// Longer words are cut on the page.
const LONGEST: usize = 300;

/// What is shown, and what `--json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Page {
    /// `OWNER/NAME`.
    pub project: String,
    pub made: Moment,
    pub infra: Infra,
    /// From the branch to the last environment.
    pub stages: Vec<Stage>,
}

/// Where the pins were read.
#[derive(Clone, Debug, Serialize)]
pub struct Infra {
    /// Without credentials.
    pub url: String,
    pub branch: String,
    /// 40 hex digits.
    pub commit: Fact,
}

/// A point in time, in UTC.
#[derive(Clone, Copy, Debug)]
pub struct Moment(pub jiff::Timestamp);

impl Moment {
    fn iso(self) -> String {
        self.0.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    fn shown(self) -> String {
        self.0.strftime("%Y-%m-%d %H:%M").to_string()
    }
}

/// RFC 3339, as git and services write it; `None` if it is not.
pub fn moment(text: &str) -> Option<Moment> {
    text.parse().ok().map(Moment)
}

impl Serialize for Moment {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.iso())
    }
}

/// One value, or why nobody can tell it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact<T = String> {
    Known(T),
    Unknown(String),
}

impl Fact {
    /// A commit or a digest as people read it.
    fn short(&self) -> String {
        match self {
            Self::Known(name) => short(name),
            Self::Unknown(_) => "unknown".to_owned(),
        }
    }
}

/// How bad it is, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tone {
    /// It can be neither well nor ill.
    Plain,
    Well,
    /// Something is under way.
    Busy,
    Unknown,
    Odd,
    Bad,
}

impl Tone {
    /// The mark's id and the class.
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Well => "well",
            Self::Busy => "busy",
            Self::Unknown => "unknown",
            Self::Odd => "odd",
            Self::Bad => "bad",
        }
    }

    /// On white and on black alike: a tab's background is not ours.
    fn colour(self) -> &'static str {
        match self {
            Self::Plain | Self::Well => "2e9e5b",
            Self::Busy => "3b82c4",
            Self::Unknown => "7c8594",
            Self::Odd => "c98a00",
            Self::Bad => "e0352b",
        }
    }
}

/// One stop of the lane: the branch, `edge`, or an environment.
#[derive(Clone, Debug, Serialize)]
pub struct Stage {
    pub name: String,
    /// A web address, if it is one that people open.
    pub url: Option<String>,
    pub tone: Tone,
    /// One or two words: `ready`, `down`, `drift`; empty of what has none.
    pub state: String,
    /// What follows the name in a sentence: `is down`.
    pub says: String,
    pub since: Option<Moment>,
    /// What is there: a version, or a commit.
    pub has: Fact,
    pub facts: Vec<Row>,
    pub hold: Option<Hold>,
    /// What is worth knowing, and no trouble.
    pub notes: Vec<String>,
    pub troubles: Vec<Trouble>,
    /// What waits here for the next stage.
    pub gap: Option<Gap>,
    pub actions: Vec<Action>,
    pub history: Option<History>,
}

impl Stage {
    /// Whether its state would say nothing, or only once more that it is unknown.
    fn is_untold(&self) -> bool {
        self.state.is_empty() || self.tone == Tone::Unknown && matches!(self.has, Fact::Unknown(_))
    }
}

/// A line of a stage.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub name: String,
    pub value: Fact,
    /// What the copy button takes, where the value is shortened.
    pub full: Option<String>,
    pub at: Option<Moment>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Hold {
    pub why: String,
    pub by: Option<String>,
    pub at: Option<Moment>,
}

/// What is wrong, and the one thing that comes next.
#[derive(Clone, Debug, Serialize)]
pub struct Trouble {
    pub tone: Tone,
    pub what: String,
    pub since: Option<Moment>,
    pub next: Option<Next>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Next {
    /// As it is typed.
    Command(String),
    Advice(String),
}

#[derive(Clone, Debug, Serialize)]
pub struct Gap {
    pub to: String,
    /// How many commits it has that the next stage lacks, or why nobody can tell.
    pub commits: Fact<usize>,
    /// How many the next stage has that this one lacks.
    pub ahead: usize,
    /// The newest of them, newest first.
    pub newest: Vec<Commit>,
    /// Files in the order in which they will run, or why nobody can tell.
    pub migrations: Fact<Vec<String>>,
}

impl Gap {
    /// As few words as the rail has room for.
    fn label(&self) -> String {
        match (&self.commits, self.ahead) {
            (Fact::Unknown(_), _) => "unknown".to_owned(),
            (Fact::Known(0), 0) => "the same".to_owned(),
            (Fact::Known(behind), 0) => count(*behind, "commit"),
            (Fact::Known(0), ahead) => format!("{ahead} ahead"),
            (Fact::Known(behind), ahead) => format!("{}, {ahead} ahead", count(*behind, "commit")),
        }
    }

    fn waiting(&self) -> Option<String> {
        match &self.migrations {
            Fact::Known(files) if files.is_empty() => None,
            Fact::Known(files) => Some(count(files.len(), "migration")),
            // Said once, with the commits.
            Fact::Unknown(_) if matches!(self.commits, Fact::Unknown(_)) => None,
            Fact::Unknown(_) => Some("migrations unknown".to_owned()),
        }
    }

    fn left_out(&self) -> usize {
        match &self.commits {
            Fact::Known(all) => all.saturating_sub(self.newest.len()),
            Fact::Unknown(_) => 0,
        }
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct Commit {
    /// 40 hex digits.
    pub id: String,
    pub subject: String,
    pub by: String,
    pub at: Option<Moment>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Action {
    pub what: String,
    pub command: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct History {
    /// Newest first, or why nobody can tell.
    pub events: Fact<Vec<Event>>,
    /// How many older ones are not shown.
    pub older: usize,
}

/// One commit of the infra repository that changed what an environment pins.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    pub at: Option<Moment>,
    pub by: String,
    pub kind: Kind,
    pub from: Option<String>,
    pub to: Fact,
    /// Reasons, overridden gates and restores, each as a sentence.
    pub why: Vec<String>,
    /// 40 hex digits.
    pub commit: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Promote,
    Rollback,
    /// Pinned since it ran.
    Adopt,
    /// Not by this tool.
    ByHand,
}

impl Commit {
    fn short(&self) -> String {
        short(&self.id)
    }
}

impl Event {
    fn short(&self) -> String {
        short(&self.commit)
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Rollback => "rollback",
            Self::Adopt => "adopt",
            Self::ByHand => "by hand",
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::ByHand => "hand",
            other => other.name(),
        }
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// The first 12 hex digits of a commit or a digest.
fn short(name: &str) -> String {
    let hex = name.strip_prefix("sha256:").unwrap_or(name);
    let is_hash = hex.len() >= 40 && hex.chars().all(|c| c.is_ascii_hexdigit());
    if is_hash { hex[..12].to_owned() } else { cut(name) }
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
