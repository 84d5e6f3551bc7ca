//! The environment variables, typed. A bad value is named together with what is allowed; nothing is guessed.
//!
//! Reads no file but the token file, and never the volume.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use tracing::level_filters::LevelFilter;

use crate::fault::Fault;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Environment {
    Dev,
    Staging,
    Production,
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dev => "dev",
            Self::Staging => "staging",
            Self::Production => "production",
        })
    }
}

/// How `/v1` is guarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// A bearer token of this file; without a file every request is refused, and told how to set one.
    Token(Option<PathBuf>),
    /// Everybody who reaches the port may read and write.
    None,
}

#[derive(Clone, Debug)]
pub struct Config {
    pub db_path: PathBuf,
    pub environment: Environment,
    pub log_level: LevelFilter,
    pub listen: SocketAddr,
    pub auth: Auth,
    /// The id of a backup, as it was given: only who restores cares whether it is one.
    pub restore: Option<String>,
}

impl Config {
    pub fn from_env() -> Result<Self, Fault> {
        Self::from(&|name| std::env::var_os(name))
    }

    fn from(lookup: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, Fault> {
        let read = |name: &'static str, default: &str, allowed: &'static str| {
            let value = lookup(name).unwrap_or_else(|| default.into());
            value.into_string().map_err(|value| bad(name, &value.to_string_lossy(), allowed))
        };
        let path = |name: &'static str| match lookup(name) {
            Some(value) if value.is_empty() => Err(bad(name, "", "the path of a file")),
            value => Ok(value.map(PathBuf::from)),
        };

        let environment = read("DOJO_ENV", "production", ENVIRONMENTS)?;
        let log_level = read("DOJO_LOG_LEVEL", "info", LEVELS)?;
        let listen = read("DOJO_LISTEN", "0.0.0.0:8000", ADDRESS)?;
        let auth = read("DOJO_AUTH", "token", "token or none")?;
        let db_path = path("DOJO_DB_PATH")?.unwrap_or_else(|| "/data/ledger.duckdb".into());
        if is_ours(&db_path) {
            return Err(bad(
                "DOJO_DB_PATH",
                &db_path.to_string_lossy(),
                "a name that dojo does not use itself, such as ledger.duckdb",
            ));
        }
        if db_path.file_stem().is_none() || db_path.to_str().is_none() {
            return Err(bad("DOJO_DB_PATH", &db_path.to_string_lossy(), "the path of a file, in UTF-8"));
        }
        Ok(Self {
            // DuckDB wants absolute folders, and messages should name the file wherever they are read.
            db_path: std::path::absolute(&db_path)
                .map_err(|error| Fault::config(format!("DOJO_DB_PATH={}: {error}", db_path.display())))?,
            environment: match environment.as_str() {
                "dev" => Environment::Dev,
                "staging" => Environment::Staging,
                "production" => Environment::Production,
                other => return Err(bad("DOJO_ENV", other, ENVIRONMENTS)),
            },
            log_level: match log_level.as_str() {
                "error" => LevelFilter::ERROR,
                "warn" => LevelFilter::WARN,
                "info" => LevelFilter::INFO,
                "debug" => LevelFilter::DEBUG,
                "trace" => LevelFilter::TRACE,
                other => return Err(bad("DOJO_LOG_LEVEL", other, LEVELS)),
            },
            listen: listen.parse().map_err(|_| bad("DOJO_LISTEN", &listen, ADDRESS))?,
            auth: match auth.as_str() {
                "token" => Auth::Token(path("DOJO_TOKEN_FILE")?),
                "none" => Auth::None,
                other => return Err(bad("DOJO_AUTH", other, "token or none")),
            },
            restore: lookup("DOJO_RESTORE")
                .filter(|value| !value.is_empty())
                .map(|value| value.to_string_lossy().into_owned()),
        })
    }

    /// The settings as one line each, without a secret: what `dojo check --config` shows.
    pub fn lines(&self) -> String {
        let auth = match &self.auth {
            Auth::Token(Some(file)) => format!("token, from {}", file.display()),
            Auth::Token(None) => "token, and DOJO_TOKEN_FILE is not set: /v1 refuses everybody".into(),
            Auth::None => "none: everybody who reaches the port may read and write".into(),
        };
        let restore = self.restore.as_deref().map_or_else(
            || "nothing".into(),
            |id| format!("{id:?}, by `dojo migrate`, unless that was done before"),
        );
        let Self { db_path, environment, log_level, listen, .. } = self;
        format!(
            "DOJO_DB_PATH    {}\nDOJO_ENV        {environment}\nDOJO_LOG_LEVEL  {log_level}\nDOJO_LISTEN     {listen}\nDOJO_AUTH       {auth}\n\
             DOJO_RESTORE    {restore}",
            db_path.display(),
        )
    }
}

const ENVIRONMENTS: &str = "dev, staging or production";
const LEVELS: &str = "error, warn, info, debug or trace";
const ADDRESS: &str = "an address and a port, for example 0.0.0.0:8000 or [::]:8000";

fn bad(name: &str, value: &str, allowed: &str) -> Fault {
    Fault::config(format!("{name}={value:?} is not allowed")).help(format!("{name} is {allowed}"))
}

/// Whether a file of this name would be taken for the lock, the log or an unfinished copy beside some ledger.
pub fn is_ours(path: &std::path::Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    ["lock", "wal", "tmp", "unfinished", "restoring"].contains(&extension.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> Result<Config, Fault> {
        Config::from(&|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn nothing_set_is_production_on_the_volume() {
        let config = with(&[]).unwrap();
        assert_eq!(config.db_path, PathBuf::from("/data/ledger.duckdb"));
        assert_eq!(config.environment, Environment::Production);
        assert_eq!(config.listen.to_string(), "0.0.0.0:8000");
        assert_eq!(config.log_level, LevelFilter::INFO);
        assert_eq!(config.auth, Auth::Token(None));
        assert_eq!(config.restore, None);
    }

    #[test]
    fn a_bad_value_is_named_with_what_is_allowed() {
        for (name, value, allowed) in [
            ("DOJO_ENV", "prod", "dev, staging or production"),
            ("DOJO_ENV", "", "dev, staging or production"),
            ("DOJO_LOG_LEVEL", "verbose", "error, warn, info, debug or trace"),
            ("DOJO_LISTEN", "8000", "0.0.0.0:8000"),
            ("DOJO_LISTEN", "localhost:http", "0.0.0.0:8000"),
            ("DOJO_AUTH", "off", "token or none"),
            ("DOJO_DB_PATH", "", "the path of a file"),
            ("DOJO_DB_PATH", "/", "the path of a file"),
            ("DOJO_TOKEN_FILE", "", "the path of a file"),
        ] {
            let fault = with(&[(name, value)]).unwrap_err();
            let text = fault.to_string();
            assert!(text.contains(&format!("{name}={value:?}")) && text.contains(allowed), "{text}");
            assert_eq!(fault.kind, crate::fault::Kind::Config);
        }
    }

    #[test]
    fn a_ledger_is_not_called_as_its_own_lock_or_log() {
        for name in ["/d/y.lock", "/d/ledger.duckdb.wal", "/d/x.TMP"] {
            let said = with(&[("DOJO_DB_PATH", name)]).unwrap_err().to_string();
            assert!(said.contains(name) && said.contains("ledger.duckdb"), "{said}");
        }
    }

    #[test]
    fn no_authentication_is_said_aloud() {
        assert!(with(&[("DOJO_AUTH", "none")]).unwrap().lines().contains("everybody"));
    }
}
