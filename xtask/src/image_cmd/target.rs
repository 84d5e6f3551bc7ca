//! Which image is meant: the repository to ask, or the file that was built.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::OUT;
use crate::builder;
use crate::fault::Fault;
use crate::pipeline::Pipeline;
use crate::registry::{Login, Options, Registry};

#[derive(clap::Args, Debug)]
pub struct Where {
    /// The repository: `oci:FOLDER` or `HOST[:PORT]/NAME` [default: the pipeline's registry]
    #[arg(long, value_name = "R")]
    pub repository: Option<String>,
    /// Speak plain HTTP to a host that is not this machine
    #[arg(long)]
    insecure: bool,
    /// Log in as this user, in place of what the environment and docker's and podman's files have
    #[arg(long, value_name = "U", requires = "password_stdin")]
    username: Option<String>,
    /// Read the password or token from stdin
    #[arg(long, requires = "username")]
    password_stdin: bool,
    #[arg(skip)]
    login: OnceLock<Login>,
}

/// Longer than any token.
const PASSWORD_LIMIT: u64 = 64 << 10;

impl Where {
    pub fn registry(&self, root: &Path) -> anyhow::Result<Registry> {
        match &self.repository {
            Some(location) => self.open(location, &self.options()?),
            None => {
                let location = Pipeline::load(root)?.registry().to_owned();
                Registry::open_with(&location, root, &self.options()?)
            }
        }
    }

    /// Another repository; a login that was typed is for the first one's host alone.
    pub fn beside(&self, location: &str, root: &Path) -> anyhow::Result<Registry> {
        let stranger = self.open(location, &Options { insecure: self.insecure, login: None })?;
        if self.registry(root)?.same_host(&stranger) {
            return self.open(location, &self.options()?);
        }
        Ok(stranger)
    }

    /// What is typed is relative to where it is typed.
    fn open(&self, location: &str, options: &Options) -> anyhow::Result<Registry> {
        if location.starts_with("http://") && !self.insecure {
            let shown = location.rsplit('@').next().unwrap_or(location);
            let fault = Fault::usage(format!("{shown}: plain HTTP is spoken only with --insecure"));
            return Err(fault.help("write HOST[:PORT]/NAME; a loopback host needs neither").into());
        }
        Registry::open_with(location, Path::new(""), options)
    }

    fn options(&self) -> anyhow::Result<Options> {
        if let (Some(user), None) = (&self.username, self.login.get()) {
            let secret = password()?;
            let _ = self.login.set(Login { user: user.clone(), secret });
        }
        Ok(Options { insecure: self.insecure, login: self.login.get().cloned() })
    }
}

/// The password on stdin, without the line's end that `echo` adds.
fn password() -> anyhow::Result<String> {
    let mut text = String::new();
    let read = std::io::stdin().take(PASSWORD_LIMIT).read_to_string(&mut text);
    // What was read must not be shown, not even by an error.
    read.map_err(|error| Fault::usage(format!("the password on stdin cannot be read: {}", error.kind())))?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        let fault = Fault::usage("no password came on stdin");
        return Err(fault
            .help("for example: gh auth token | cargo xtask image push … --password-stdin")
            .into());
    }
    Ok(secret.to_owned())
}

/// The file that was named, else what was built last.
pub fn built(named: Option<&Path>, root: &Path) -> Result<PathBuf, Fault> {
    named.map(Path::to_owned).or_else(|| builder::built(&root.join(OUT))).ok_or_else(|| {
        Fault::usage(format!("no image was built in {OUT}")).help("build it first: cargo xtask image build")
    })
}
