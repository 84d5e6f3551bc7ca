//! Debian's sshd on a free loopback port, with keys and settings of its own, for the user who runs the test.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::project::run;
use crate::tools;

/// It starts itself again for each connection, and wants to be called by its whole path.
const PROGRAM: &str = "/usr/sbin/sshd";
/// How often another port is tried, and how often in 50 ms steps it is asked whether it listens.
const PORTS: usize = 5;
const TRIES: usize = 100;

pub struct Sshd {
    port: u16,
    folder: TempDir,
    child: Child,
}

/// Whether this machine has an sshd that can be started.
pub fn possible() -> bool {
    let program = Path::new(PROGRAM).is_file() || tools::skip("sshd", "package openssh-server");
    // Started by root it insists on a folder that Debian makes whenever its own sshd starts.
    let folder = Path::new("/run/sshd").is_dir() || !rustix::process::geteuid().is_root();
    let folder = folder || tools::skip("the folder /run/sshd", "mkdir /run/sshd");
    tools::need("ssh-keygen", "openssh-client") && program && folder
}

impl Sshd {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for key in ["host", "user"] {
            run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", key], folder.path());
        }
        for _ in 0..PORTS {
            // Somebody else may take it before sshd does.
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if let Some(child) = listen(folder.path(), port) {
                let key = fs::read_to_string(folder.path().join("host.pub")).unwrap();
                let known = format!("[127.0.0.1]:{port} {key}");
                fs::write(folder.path().join("known_hosts"), known).unwrap();
                return Self { port, folder, child };
            }
        }
        panic!("sshd does not listen:\n{}", fs::read_to_string(folder.path().join("log")).unwrap());
    }

    /// A repository's URL; `path` is absolute.
    pub fn url(&self, path: &Path) -> String {
        format!("ssh://127.0.0.1:{}{}", self.port, path.display())
    }

    /// What git needs in its environment to get in.
    pub fn environment(&self) -> (&'static str, String) {
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        let ssh = format!(
            "ssh -F none -i '{}' -o IdentitiesOnly=yes -o BatchMode=yes -o UserKnownHostsFile='{}'",
            file("user"),
            file("known_hosts")
        );
        ("GIT_SSH_COMMAND", ssh)
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.child.wait().unwrap();
    }
}

/// `None` if it ended, as it does where the port is taken.
fn listen(folder: &Path, port: u16) -> Option<Child> {
    let file = |name: &str| folder.join(name).display().to_string();
    let config = format!(
        "ListenAddress 127.0.0.1\nPort {port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no
PasswordAuthentication no\nKbdInteractiveAuthentication no\nMaxStartups 100\n",
        file("host"),
        file("user.pub")
    );
    fs::write(folder.join("config"), config).unwrap();
    let (config, log) = (file("config"), file("log"));
    let mut child = Command::new(PROGRAM).args(["-D", "-f", &config, "-E", &log]).spawn().unwrap();
    for _ in 0..TRIES {
        if child.try_wait().unwrap().is_some() {
            return None;
        }
        if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) {
            let mut greeting = String::new();
            let _ = BufReader::new(stream).read_line(&mut greeting);
            if greeting.starts_with("SSH-2.0-OpenSSH") {
                return Some(child);
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}
