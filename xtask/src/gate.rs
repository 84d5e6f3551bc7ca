//! What a release and a pin must meet, and how an operator passes it with a reason, which messages of commits and tags keep.

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

use crate::fault::Fault;

/// What a release must meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ReleaseGate {
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

/// What an environment's new pin must meet. What cannot be passed (an image that is not there, a downgrade of the data)
/// is no gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum PinGate {
    /// Nobody holds the environment
    Hold,
    /// The environment takes this kind of image
    Accepts,
    /// The environment before it runs the image, and is ready
    After,
    /// It has run there for as long as `soak` says
    Soak,
    /// The required checks are green
    Checks,
    /// The version's git tag names the commit that the image was built from, as it did before
    Tag,
    /// What is pinned runs, or is no whole pin (`adopt`)
    Drift,
    /// A restore that was asked for has been done, and one that is asked for can be
    Restore,
}

impl fmt::Display for ReleaseGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&name(self))
    }
}

impl fmt::Display for PinGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&name(self))
    }
}

/// As the command line has it.
fn name(gate: &impl ValueEnum) -> String {
    gate.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// A gate that is passed although it is not met, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Override<G> {
    pub gate: G,
    /// One line.
    pub because: String,
}

const KEY: &str = "Override: ";

/// A trailer, as `git interpret-trailers` reads it.
impl<G: fmt::Display> fmt::Display for Override<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{KEY}{} because {}", self.gate, self.because)
    }
}

impl<G: ValueEnum> Override<G> {
    pub fn parse(line: &str) -> Option<Self> {
        let (gate, because) = line.strip_prefix(KEY)?.split_once(" because ")?;
        let gate = G::from_str(gate, false).ok()?;
        Some(Self { gate, because: because.to_owned() })
    }
}

/// What `--override GATE… --because TEXT` says; the reason is one line.
pub fn given<G: Clone>(gates: &[G], because: Option<&str>) -> Result<Vec<Override<G>>, Fault> {
    let reason = because.unwrap_or_default().trim();
    if because.is_some() && (reason.is_empty() || reason.chars().any(char::is_control)) {
        return Err(Fault::usage("--because needs a reason, in one line"));
    }
    Ok(gates.iter().map(|gate| Override { gate: gate.clone(), because: reason.to_owned() }).collect())
}

/// A message with these overrides as its last paragraph. Lines of the text that look like one are indented, so that
/// nobody's prose passes a gate.
pub fn sign<G: fmt::Display>(text: &str, overrides: &[Override<G>]) -> String {
    let plain = |line: &str| if line.starts_with(KEY) { format!(" {line}") } else { line.to_owned() };
    let text = text.trim_end().lines().map(plain).collect::<Vec<_>>().join("\n");
    let trailers: Vec<_> = overrides.iter().map(ToString::to_string).collect();
    match trailers.is_empty() {
        true => format!("{text}\n"),
        false => format!("{text}\n\n{}\n", trailers.join("\n")),
    }
}

/// The overrides of a message's last paragraph, if it has nothing else.
pub fn overrides<G: ValueEnum>(message: &str) -> Vec<Override<G>> {
    let Some((_, last)) = message.trim_end().rsplit_once("\n\n") else { return Vec::new() };
    last.lines().map(Override::parse).collect::<Option<_>>().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> [Override<ReleaseGate>; 2] {
        [(ReleaseGate::Checks, "the runner is broken because of rain"), (ReleaseGate::Clean, "x")]
            .map(|(gate, because)| Override { gate, because: because.to_owned() })
    }

    fn of(message: &str) -> Vec<Override<ReleaseGate>> {
        overrides(message)
    }

    #[test]
    fn what_was_overridden_is_read_back() {
        let message = sign("Release v0.2.0\n\n# Notes\n\n- One.\n", &all());
        assert!(message.ends_with(
            "- One.\n\nOverride: checks because the runner is broken because of rain\nOverride: clean because x\n"
        ));
        assert_eq!(of(&message), all());
        assert_eq!(sign::<ReleaseGate>("Release v0.2.0\n\n", &[]), "Release v0.2.0\n");
    }

    #[test]
    fn prose_passes_no_gate() {
        let notes = "Release v0.2.0\n\nOverride: checks because I say so";
        assert_eq!(of(&sign::<ReleaseGate>(notes, &[])), []);
        let message = sign(&format!("{notes}\n\nOverride: clean because I say so\n"), &all());
        assert_eq!(of(&message), all());
        assert_eq!(of("x\n\nOverride: checks because x\n\n- more"), []);
        assert_eq!(of("x\n\nOverride: checks because x\n- more"), []);
        assert_eq!(of("x\n\nOverride: everything because x"), []);
        assert_eq!(of("Override: checks because x"), []);
    }
}
