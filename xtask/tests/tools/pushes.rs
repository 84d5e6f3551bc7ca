//! A `git` on PATH that is the real one, tells afterwards what each push was and what came back, and can wait before it.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::environments::Operator;

const SCRIPT: &str = r#"#!/bin/sh
case " $* " in *" push "*) ;; *) exec GIT "$@" ;; esac
sleep "${PAUSE_BEFORE_PUSH:-0}"
if [ -e FOLDER/hold ]; then
    touch FOLDER/held
    tries=0
    while [ -e FOLDER/hold ] && [ $tries -lt 3000 ]; do sleep 0.02; tries=$((tries + 1)); done
fi
if [ -e FOLDER/without-lease ]; then
    rm FOLDER/without-lease
    for argument; do
        shift
        case $argument in --force-with-lease=*) ;; *) set -- "$@" "$argument" ;; esac
    done
fi
GIT "$@" >FOLDER/out 2>FOLDER/err
code=$?
{ echo "git $*"; cat FOLDER/out FOLDER/err; printf '\0'; } >>FOLDER/said
cat FOLDER/out
cat FOLDER/err >&2
exit $code
"#;

/// One operator's pushes.
pub struct Pushes(TempDir);

impl Pushes {
    pub fn of(operator: &mut Operator) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = std::env::var_os("PATH").unwrap();
        let git = std::env::split_paths(&path).map(|folder| folder.join("git")).find(|git| git.is_file());
        let script = SCRIPT.replace("GIT", &quoted(&git.unwrap())).replace("FOLDER", &quoted(folder.path()));
        let program = folder.path().join("git");
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", folder.path().display(), path.to_str().unwrap());
        operator.environment.push(("PATH", path));
        Self(folder)
    }

    /// The next push waits before it asks the remote anything, until [`Pushes::let_go`]; `without_lease` as one pushes
    /// who relies on the server to take only what goes forward.
    pub fn hold(&self, without_lease: bool) {
        if without_lease {
            fs::write(self.file("without-lease"), "").unwrap();
        }
        fs::write(self.file("hold"), "").unwrap();
    }

    pub fn wait_until_held(&self) {
        wait_for(&self.file("held"));
    }

    pub fn let_go(&self) {
        fs::remove_file(self.file("held")).unwrap();
        fs::remove_file(self.file("hold")).unwrap();
    }

    /// What each push was, and what git said of it; then none.
    pub fn take(&self) -> Vec<String> {
        let said = fs::read_to_string(self.file("said")).unwrap_or_default();
        let _ = fs::remove_file(self.file("said"));
        said.split_terminator('\0').map(str::to_owned).collect()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// Waits, for a minute at most, until a file is there.
pub fn wait_for(path: &Path) {
    for _ in 0..3000 {
        if path.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("nothing came to {}", path.display());
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display())
}
