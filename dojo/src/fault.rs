//! Why dojo stopped before or while it held the data file, and the exit code that tells it.
//!
//! A plain `anyhow` error exits with 1. What goes wrong inside a request is not a fault: see `http::error`.

use std::fmt;

/// The discriminant is the process's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The configuration is wrong.
    Config = 2,
    /// The data file is missing, locked, newer than this binary, changed or damaged.
    Refused = 3,
}

/// One line that says what is wrong, and one that says what to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub kind: Kind,
    message: String,
    help: Option<String>,
}

impl Fault {
    pub fn config(message: impl Into<String>) -> Self {
        Self { kind: Kind::Config, message: message.into(), help: None }
    }

    pub fn refused(message: impl Into<String>) -> Self {
        Self { kind: Kind::Refused, message: message.into(), help: None }
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
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

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_fault_keeps_its_exit_code_as_cause_and_as_context() {
        let cause = Err::<(), _>(Fault::refused("no")).context("migrating");
        let context = None::<()>.with_context(|| Fault::config("no")).context("starting");
        assert_eq!([cause, context].map(|result| exit_code(&result.unwrap_err())), [3, 2]);
        assert_eq!(exit_code(&anyhow::anyhow!("anything else")), 1);
    }
}
