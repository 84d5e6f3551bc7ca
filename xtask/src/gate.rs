//! What a release must meet, and how an operator passes it with a reason, which messages of commits and tags keep.

use std::fmt;

use serde::Serialize;

/// What a release must meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Gate {
    /// The branch that is checked out is the one that is released from
    Branch,
    /// Nothing differs from HEAD
    Clean,
    /// HEAD is what the remote has
    Synced,
    /// The version is above the last one, and no other one is under way
    Newer,
    /// There are commits since the last version
    Changes,
    /// The required checks are green
    Checks,
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Branch => "branch",
            Self::Clean => "clean",
            Self::Synced => "synced",
            Self::Newer => "newer",
            Self::Changes => "changes",
            Self::Checks => "checks",
        })
    }
}

/// A gate that is passed although it is not met, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Override {
    pub gate: Gate,
    /// One line.
    pub because: String,
}

const KEY: &str = "Override: ";

/// A trailer, as `git interpret-trailers` reads it.
impl fmt::Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{KEY}{} because {}", self.gate, self.because)
    }
}

impl Override {
    fn parse(line: &str) -> Option<Self> {
        let (gate, because) = line.strip_prefix(KEY)?.split_once(" because ")?;
        let gate = <Gate as clap::ValueEnum>::from_str(gate, false).ok()?;
        Some(Self { gate, because: because.to_owned() })
    }
}

/// A message with these overrides as its last paragraph. Lines of the text that look like one are indented, so that
/// nobody's prose passes a gate.
pub fn sign(text: &str, overrides: &[Override]) -> String {
    let plain = |line: &str| if line.starts_with(KEY) { format!(" {line}") } else { line.to_owned() };
    let text = text.trim_end().lines().map(plain).collect::<Vec<_>>().join("\n");
    let trailers: Vec<_> = overrides.iter().map(ToString::to_string).collect();
    match trailers.is_empty() {
        true => format!("{text}\n"),
        false => format!("{text}\n\n{}\n", trailers.join("\n")),
    }
}

/// The overrides of a message's last paragraph, if it has nothing else.
pub fn overrides(message: &str) -> Vec<Override> {
    let Some((_, last)) = message.trim_end().rsplit_once("\n\n") else { return Vec::new() };
    last.lines().map(Override::parse).collect::<Option<_>>().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> [Override; 2] {
        [(Gate::Checks, "the runner is broken because of rain"), (Gate::Clean, "x")]
            .map(|(gate, because)| Override { gate, because: because.to_owned() })
    }

    #[test]
    fn what_was_overridden_is_read_back() {
        let message = sign("Release v0.2.0\n\n# Notes\n\n- One.\n", &all());
        assert!(message.ends_with(
            "- One.\n\nOverride: checks because the runner is broken because of rain\nOverride: clean because x\n"
        ));
        assert_eq!(overrides(&message), all());
        assert_eq!(sign("Release v0.2.0\n\n", &[]), "Release v0.2.0\n");
    }

    #[test]
    fn prose_passes_no_gate() {
        let notes = "Release v0.2.0\n\nOverride: checks because I say so";
        assert_eq!(overrides(&sign(notes, &[])), []);
        let message = sign(&format!("{notes}\n\nOverride: clean because I say so\n"), &all());
        assert_eq!(overrides(&message), all());
        assert_eq!(overrides("x\n\nOverride: checks because x\n\n- more"), []);
        assert_eq!(overrides("x\n\nOverride: checks because x\n- more"), []);
        assert_eq!(overrides("x\n\nOverride: everything because x"), []);
        assert_eq!(overrides("Override: checks because x"), []);
    }
}
