//! What a commit in the infra repository says of its pin, in the last lines of its message: written by a promotion or a
//! rollback, read by those that come after.

use std::fmt;

use crate::gate::{Override, PinGate};
use crate::image::{Digest, Schema};
use crate::report::Version;

/// The key of the reason, which has a paragraph of its own above the trailers.
const BECAUSE: &str = "Because";

/// The trailers of one change of a pin. What cannot be read is `None`: a person may have made the commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trailers {
    /// `promote`, `rollback` or `adopt`.
    pub verb: Option<String>,
    pub environment: Option<String>,
    /// What was pinned, and is now: by tag.
    pub from: Option<String>,
    pub to: Option<String>,
    pub digest: Option<Digest>,
    /// The commit that the image was built from, 40 hex digits.
    pub commit: Option<String>,
    /// Of the image.
    pub schema: Option<Schema>,
    /// What the service said of its data file before the change.
    pub seen: Option<Seen>,
    /// The data file's schema in the operator's words.
    pub told: Option<u32>,
    /// The backup that the environment is to start from.
    pub restore: Option<String>,
    /// The digest that was rolled back from.
    pub bad: Option<Digest>,
    /// `Name <email>`.
    pub by: Option<String>,
    /// Why, in the operator's words.
    pub because: Option<String>,
    /// The gates that were not met and were passed.
    pub overrides: Vec<Override<PinGate>>,
}

/// A data file, as the service that has it open describes it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Seen {
    pub schema: Schema,
    pub ledger: String,
    pub sequence: u64,
}

impl Seen {
    pub fn of(version: &Version) -> Self {
        Self {
            schema: version.schema.of_file(),
            ledger: version.ledger.id.clone(),
            sequence: version.ledger.sequence,
        }
    }

    /// Reads what is written below; dojo's `data:` line has the same form.
    pub fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split(", ").map(|field| field.rsplit_once(' '));
        let mut next = |name: &str| fields.next()?.filter(|(key, _)| *key == name).map(|(_, value)| value);
        Some(Self {
            schema: Schema {
                current: next("schema")?.parse().ok()?,
                oldest_binary: next("oldest binary")?.parse().ok()?,
            },
            ledger: next("ledger")?.to_owned(),
            sequence: next("sequence")?.parse().ok()?,
        })
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Schema { current, oldest_binary } = self.schema;
        let Self { ledger, sequence, .. } = self;
        write!(f, "schema {current}, oldest binary {oldest_binary}, ledger {ledger}, sequence {sequence}")
    }
}

impl Trailers {
    /// Reads a message: of its paragraphs those that are trailers and nothing else, of several lines with one key the last.
    pub fn parse(message: &str) -> Self {
        let message = message.replace("\r\n", "\n");
        let lines: Vec<_> = trailers_of(&message).collect();
        let text = |key: &str| {
            let value = lines.iter().rev().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
            value.map(|value| value.trim().to_owned())
        };
        let schema = || {
            let current = text("Pin-Schema")?.parse().ok()?;
            let oldest_binary = text("Pin-Oldest-Binary").and_then(|number| number.parse().ok());
            // Where it is not said, nothing older is let in.
            Some(Schema { current, oldest_binary: oldest_binary.unwrap_or(current) })
        };
        let digest = |key: &str| text(key)?.parse().ok();
        Self {
            verb: text("Pin-Verb"),
            environment: text("Pin-Environment"),
            from: text("Pin-From"),
            to: text("Pin-To"),
            digest: digest("Pin-Digest"),
            commit: text("Pin-Commit"),
            schema: schema(),
            seen: text("Pin-Seen").and_then(|seen| Seen::parse(&seen)),
            told: text("Pin-File-Schema").and_then(|told| told.split(',').next()?.parse().ok()),
            restore: text("Pin-Restore"),
            bad: digest("Pin-Bad"),
            by: text("Pin-By"),
            because: text(BECAUSE),
            overrides: overrides(&message),
        }
    }

    fn lines(&self) -> Vec<String> {
        // One line each, whoever said it.
        let flat = |value: String| value.replace(|c: char| c.is_control(), " ");
        let line = |key: &str, value: Option<String>| value.map(|value| format!("{key}: {}", flat(value)));
        let lines = [
            line("Pin-Verb", self.verb.clone()),
            line("Pin-Environment", self.environment.clone()),
            line("Pin-From", self.from.clone()),
            line("Pin-To", self.to.clone()),
            line("Pin-Digest", self.digest.as_ref().map(ToString::to_string)),
            line("Pin-Commit", self.commit.clone()),
            line("Pin-Schema", self.schema.map(|schema| schema.current.to_string())),
            line("Pin-Oldest-Binary", self.schema.map(|schema| schema.oldest_binary.to_string())),
            line("Pin-Seen", self.seen.as_ref().map(ToString::to_string)),
            line("Pin-File-Schema", self.told.map(|told| format!("{told}, told by the operator"))),
            line("Pin-Restore", self.restore.clone()),
            line("Pin-Bad", self.bad.as_ref().map(ToString::to_string)),
            line("Pin-By", self.by.clone()),
        ];
        let overrides = self.overrides.iter().map(ToString::to_string);
        lines.into_iter().flatten().chain(overrides).collect()
    }

    /// A message that ends in the reason, as a paragraph of its own, and in these trailers. Lines of the text that look
    /// like one are indented, so that nobody's prose counts as one.
    pub fn sign(&self, text: &str) -> String {
        let looks = |line: &str| {
            let key = line.split_once(':').map_or("", |(key, _)| key);
            key.starts_with("Pin-") || [BECAUSE, "Override"].contains(&key)
        };
        let plain = |line: &str| if looks(line) { format!(" {line}") } else { line.to_owned() };
        let text = text.trim_end().lines().map(plain).collect::<Vec<_>>().join("\n");
        let because = self.because.as_ref().map(|why| format!("{BECAUSE}: {why}\n\n")).unwrap_or_default();
        format!("{text}\n\n{because}{}\n", self.lines().join("\n"))
    }
}

/// The overrides in the trailers of a message.
pub fn overrides(message: &str) -> Vec<Override<PinGate>> {
    let message = message.replace("\r\n", "\n");
    trailers_of(&message).filter_map(Override::parse).collect()
}

/// The lines of the paragraphs that are trailers and nothing else: hosts add some behind ours when they merge. The first
/// paragraph is the subject.
fn trailers_of(message: &str) -> impl Iterator<Item = &str> {
    let is_trailer = |line: &str| {
        let key = line.split_once(": ").map_or("", |(key, _)| key);
        !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    let paragraphs = message.split("\n\n").skip(1).map(|paragraph| paragraph.trim_matches('\n'));
    paragraphs.filter(move |paragraph| paragraph.lines().all(is_trailer)).flat_map(str::lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let trailers = Trailers {
            verb: Some("rollback".into()),
            environment: Some("production".into()),
            from: Some("v0.1.0".into()),
            to: Some("v0.2.0".into()),
            digest: Some(Digest::of(b"x")),
            commit: Some("0".repeat(40)),
            schema: Some(Schema { current: 2, oldest_binary: 1 }),
            seen: Some(Seen {
                schema: Schema { current: 1, oldest_binary: 1 },
                ledger: "7f3a".into(),
                sequence: 42,
            }),
            told: Some(3),
            restore: Some("ledger-schema1-seq3".into()),
            bad: Some(Digest::of(b"y")),
            by: Some("A <a@b>".into()),
            because: Some("it lost a cent: again".into()),
            overrides: vec![Override { gate: PinGate::Soak, because: "it burns".to_owned() }],
        };
        let prose = "dojo: x\n\nBrings\nPin-Bad: prose\nOverride: soak because prose\n\nBecause: prose";
        let message = trailers.sign(prose);
        assert!(message.ends_with("Pin-By: A <a@b>\nOverride: soak because it burns\n"), "{message}");
        assert!(message.contains("\n Pin-Bad: prose\n Override: soak because prose\n"), "{message}");
        assert_eq!(Trailers::parse(&message), trailers);
        let unexplained = Trailers { because: None, ..trailers.clone() };
        assert_eq!(Trailers::parse(&unexplained.sign(prose)), unexplained);
        assert_eq!(Trailers::parse("by hand"), Trailers::default());
        assert_eq!(Trailers::parse("by hand\n\nPin-Schema: 9\nsays who"), Trailers::default());
        assert_eq!(overrides(&message), trailers.overrides);
    }

    #[test]
    fn overrides_are_read_of_trailers_alone() {
        let gates = |message: &str| overrides(message).into_iter().map(|pass| pass.gate).collect::<Vec<_>>();
        let by_hand = "Pin v0.2.0\n\nWhy.\n\nOverride: soak because it burns\nOverride: hold because x\n\nCo-authored-by: B <b@c>\n";
        assert_eq!(gates(by_hand), [PinGate::Soak, PinGate::Hold]);
        assert_eq!(gates(&by_hand.replace('\n', "\r\n")), [PinGate::Soak, PinGate::Hold]);
        assert_eq!(gates("Override: soak because x"), []);
        assert_eq!(gates("x\n\nWe do not\nOverride: soak because x"), []);
        assert_eq!(gates("x\n\n Override: soak because x"), []);
        assert_eq!(gates("x\n\nOverride: soak\nOverride: everything because x"), []);
    }

    #[test]
    fn the_last_trailer_counts_also_before_what_a_host_added() {
        let message =
            "subject\n\nPin-Schema: 9\n\nPin-Schema: 2\nPin-By: A <a@b>\n\nCo-authored-by: B <b@c>\n";
        let read = Trailers::parse(message);
        assert_eq!(read.schema, Some(Schema { current: 2, oldest_binary: 2 }));
        assert_eq!((read.by.as_deref(), read.bad), (Some("A <a@b>"), None));
    }
}
