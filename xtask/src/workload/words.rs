//! The last lines of dojo's log, as the pod's status carries them (`terminationMessagePolicy: FallbackToLogsOnError`).

use serde::Serialize;
use serde_json::Value;

use super::cause::Kind;
use crate::trailers::Seen;

/// What dojo said before it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LastWords {
    /// Of `error:`, or the last line of whatever was said.
    pub error: String,
    pub help: Option<String>,
    /// The data file, as it was read when the program failed.
    pub data: Option<Seen>,
    /// The newest backups beside it, newest first.
    pub backups: Vec<String>,
}

impl LastWords {
    /// Of a log's end; nothing if there is no line. The start of it may be cut off: the kubelet keeps 2048 bytes.
    pub fn parse(log: &str) -> Option<Self> {
        let lines: Vec<&str> = log.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        let begin = lines.iter().rposition(|line| line.starts_with("error: "));
        let tail = lines.get(begin.unwrap_or(0)..)?;
        let value = |key: &str| tail.iter().rev().find_map(|line| line.strip_prefix(key)).map(str::trim);
        let is_known =
            |line: &&&str| ["help: ", "data: ", "backups: "].iter().any(|key| line.starts_with(key));
        let error = match begin {
            // It may go on for some lines: the engine's errors do.
            Some(_) => tail.iter().take_while(|line| !is_known(line)).copied().collect::<Vec<_>>().join(" "),
            None => message(tail.iter().rfind(|line| !is_known(line))?),
        };
        Some(Self {
            error: super::plain_long(error.strip_prefix("error: ").unwrap_or(&error)),
            help: value("help: ").map(super::plain_long),
            data: value("data: ").and_then(Seen::parse),
            backups: value("backups: ")
                .map(|ids| ids.split(", ").map(super::plain).collect())
                .unwrap_or_default(),
        })
    }
}

/// The text of a line of a JSON log, or the line.
fn message(line: &str) -> String {
    let json: Option<Value> = serde_json::from_str(line).ok();
    let text = json.as_ref().and_then(|json| json["message"].as_str());
    text.unwrap_or(line).to_owned()
}

/// A failure by dojo's own words.
#[derive(Debug)]
pub struct Told {
    pub kind: Kind,
    /// Goes on after `init failed`.
    pub what: String,
}

/// What kind of failure these words tell of, `other` if none that is known. `code` is dojo's exit code: 2 is its
/// configuration.
pub fn tell(words: &LastWords, code: i64, other: Kind) -> Told {
    let error = words.error.as_str();
    let has = |signs: &[&str]| signs.iter().any(|sign| error.contains(sign));
    let at = migration(error).map_or_else(String::new, |number| format!(", migration {number}"));
    let told = |kind, name: &str, text: &str| {
        let text = if text.is_empty() { String::new() } else { format!(": {text}") };
        let name = if name.is_empty() { String::new() } else { format!(", {name}") };
        Told { kind, what: format!("{at}{name}{text}") }
    };
    // What failed in a migration is told after the state that it left.
    let cause = error.split_once(": the file is at schema ").and_then(|(_, rest)| rest.split_once(": "));
    let cause = cause.map_or(error, |(_, cause)| cause);
    if has(&["disk full", "No space left on device", "MiB free, and"]) {
        return told(Kind::DiskFull, "disk full", "");
    }
    if has(&["is held by", "Could not set lock"]) {
        return told(Kind::LockHeld, "lock held", error);
    }
    if has(&["there is no ledger at", "there is no folder", "but not a ledger"])
        || words.help.as_deref().is_some_and(|help| help.contains("is it the right volume"))
    {
        return told(Kind::WrongVolume, "wrong volume", error);
    }
    if error.contains("and this dojo") && error.contains("knows schema") {
        return told(Kind::SchemaAhead, "schema ahead", error);
    }
    if has(&["cannot read", "is damaged", "was changed: the file has"]) {
        return told(Kind::Damaged, "damaged", error);
    }
    if code == 2 {
        return told(Kind::BadConfig, "configuration", error);
    }
    told(other, "", cause)
}

/// `0007` of `0007_name.sql`.
fn migration(error: &str) -> Option<&str> {
    let words = error.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.'));
    let numbers = words.filter(|word| word.ends_with(".sql")).filter_map(|word| word.split_once('_'));
    numbers.map(|(number, _)| number).find(|n| n.len() == 4 && n.bytes().all(|b| b.is_ascii_digit()))
}
