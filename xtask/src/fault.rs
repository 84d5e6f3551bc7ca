//! What went wrong, and what the caller should do about it: the exit codes of every command.
//!
//! A plain `anyhow` error exits with 1; whoever knows better wraps the cause in a [`Fault`].

use std::fmt;

/// Why a command stopped; the discriminant is the process's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A remote or the network failed, or is not ready yet: the same command may be run again.
    Remote = 1,
    /// Usage, configuration, credentials, a missing tool, or no `--yes` off a terminal.
    Usage = 2,
    /// A guard refused, or the input is corrupt.
    Refused = 3,
    /// Somebody else changed the remote in between.
    Race = 4,
}

/// One line that says what is wrong, and optionally one that says what to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub kind: Kind,
    message: String,
    help: Option<String>,
}

impl Fault {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), help: None }
    }

    /// A remote failed or is not ready: exit code 1.
    pub fn remote(message: impl Into<String>) -> Self {
        Self::new(Kind::Remote, message)
    }

    /// The caller must change the command, the configuration or the machine: exit code 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// A guard refused, or the input is corrupt: exit code 3.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(Kind::Refused, message)
    }

    /// Lost a race against somebody else: exit code 4.
    pub fn race(message: impl Into<String>) -> Self {
        Self::new(Kind::Race, message)
    }

    /// What is wrong, without the help.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Adds the line that says what to do next.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// An error with its whole text, and the kind that its exit code tells.
impl From<anyhow::Error> for Fault {
    fn from(error: anyhow::Error) -> Self {
        let kind = match exit_code(&error) {
            2 => Kind::Usage,
            3 => Kind::Refused,
            4 => Kind::Race,
            _ => Kind::Remote,
        };
        let text = format!("{error:#}");
        let (message, help) =
            text.split_once("\nhelp: ").map_or((text.as_str(), None), |(m, h)| (m, Some(h)));
        Self { kind, message: message.to_owned(), help: help.map(str::to_owned) }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.help.as_ref().map_or(Ok(()), |help| write!(f, "\nhelp: {help}"))
    }
}

impl std::error::Error for Fault {}

/// The exit code for an error: that of the outermost [`Fault`] in it, else 1.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    // A Fault that was given as context is no cause in the chain: only the error itself finds it.
    let in_chain = || error.chain().find_map(|cause| cause.downcast_ref::<Fault>());
    error.downcast_ref::<Fault>().or_else(in_chain).map_or(1, |fault| fault.kind as u8)
}

/// Replaces `user:password@` in every URL by `***@`.
pub fn without_credentials(text: &str) -> String {
    let mut parts = text.split("://");
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c == '/' || c.is_whitespace() || c == '\'').unwrap_or(part.len());
        let rest = part[..end].rfind('@').map_or(part, |at| &part[at..]);
        clean.push_str(if rest.len() < part.len() { "://***" } else { "://" });
        clean.push_str(rest);
    }
    clean
}

/// The `state` that `--json` gives of a command that this error ended.
pub fn state(error: &anyhow::Error) -> &'static str {
    match exit_code(error) {
        3 => "refused",
        4 => "raced",
        _ => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn a_fault_keeps_its_exit_code_under_context() {
        let error = Err::<(), _>(Fault::refused("schema 1 cannot open schema 2")).context("rollback");
        assert_eq!(exit_code(&error.unwrap_err()), 3);
        let absent = None::<()>.with_context(|| Fault::usage("no such file")).context("status");
        assert_eq!(exit_code(&absent.unwrap_err()), 2);
        let foreign = "x".parse::<u32>().with_context(|| Fault::race("moved"));
        assert_eq!(exit_code(&foreign.unwrap_err()), 4);
        assert_eq!(exit_code(&anyhow::anyhow!("anything else")), 1);
    }

    #[test]
    fn an_error_becomes_a_fault_of_its_kind() {
        let fault = Fault::usage("wrong password").help("log in");
        assert_eq!(Fault::from(anyhow::Error::new(fault.clone())), fault);
        let deep = Fault::from(anyhow::Error::new(Fault::refused("no")).context("look"));
        assert_eq!((deep.kind, deep.to_string()), (Kind::Refused, "look: no".to_owned()));
        assert_eq!(Fault::from(anyhow::anyhow!("x")), Fault::remote("x"));
    }

    #[test]
    fn help_is_a_line_of_its_own() {
        let fault = Fault::usage("no such environment: prod").help("use staging or production");
        assert_eq!(fault.to_string(), "no such environment: prod\nhelp: use staging or production");
    }
}
