//! The bearer tokens of `/v1`: one a line in a file that is read at start.
//!
//! Who a token belongs to is not known here; every valid token may do everything.

use std::path::Path;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use super::error::Problem;
use crate::config::Auth;
use crate::fault::Fault;

/// Who asked, as the ledger records it.
#[derive(Clone, Copy, Debug)]
pub struct Actor(pub &'static str);

/// Whom `/v1` lets in.
pub enum Guard {
    Tokens(Vec<[u8; 32]>),
    /// No token file was named.
    Nobody,
    Everybody,
}

impl Guard {
    pub fn from(auth: &Auth) -> Result<Self, Fault> {
        match auth {
            Auth::None => Ok(Self::Everybody),
            Auth::Token(None) => Ok(Self::Nobody),
            Auth::Token(Some(file)) => Self::read(file),
        }
    }

    fn read(file: &Path) -> Result<Self, Fault> {
        let named = format!("DOJO_TOKEN_FILE={}", file.display());
        let text = std::fs::read_to_string(file)
            .map_err(|error| Fault::config(format!("cannot read {named}: {error}")).help(FORMAT))?;
        let text = text.trim_start_matches('\u{feff}');
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let tokens: Vec<_> = lines.map(|token| Sha256::digest(token).into()).collect();
        if tokens.is_empty() {
            return Err(Fault::config(format!("{named} holds no token")).help(FORMAT));
        }
        Ok(Self::Tokens(tokens))
    }

    /// Compares with every token, in the same time whichever matches: hashes have one length and no useful prefix.
    fn admits(tokens: &[[u8; 32]], presented: &str) -> bool {
        let presented: [u8; 32] = Sha256::digest(presented).into();
        tokens.iter().fold(Choice::from(0), |found, token| found | token.ct_eq(&presented)).into()
    }
}

const FORMAT: &str =
    "the file holds one token a line, for example of `openssl rand -hex 32`; # begins a comment";

pub async fn check(
    State(guard): State<Arc<Guard>>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let refuse = |detail: &str| Problem::new(StatusCode::UNAUTHORIZED, detail);
    let presented = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let presented = presented.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let actor = match (&*guard, presented) {
        (Guard::Everybody, _) => Actor("anybody"),
        (Guard::Tokens(tokens), Some(token)) if Guard::admits(tokens, token) => Actor("token"),
        (Guard::Tokens(_), Some(_)) => return Err(refuse("this token is not in the token file")),
        (Guard::Tokens(_), None) => return Err(refuse("send the header `Authorization: Bearer TOKEN`")),
        (Guard::Nobody, _) => {
            return Err(refuse(
                "no token is configured: set DOJO_TOKEN_FILE to a file with one token a line and restart, \
                 or DOJO_AUTH=none to let everybody in",
            ));
        }
    };
    request.extensions_mut().insert(actor);
    Ok(next.run(request).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_lines_and_comments_are_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "# laptop\n  first  \n\nsecond\n").unwrap();
        let Guard::Tokens(tokens) = Guard::read(file.path()).unwrap() else { panic!("no tokens") };
        let admitted =
            ["first", "second", "", "# laptop", "firs", "first "].map(|t| Guard::admits(&tokens, t));
        assert_eq!(admitted, [true, true, false, false, false, false]);
    }

    #[test]
    fn a_token_file_without_a_token_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "# nothing yet\n").unwrap();
        let fault = Guard::read(file.path()).err().unwrap().to_string();
        assert!(fault.contains("holds no token") && fault.contains("one token a line"), "{fault}");
    }
}
