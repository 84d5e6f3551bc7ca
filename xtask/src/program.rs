//! An image's program, run from the image's files in a folder: on its own libraries, without a container. What is left
//! out is what a container adds: other users, limits, and a root folder of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::image::Runtime;

#[derive(Clone, Debug)]
pub struct Program {
    file: PathBuf,
    /// The image's loader, and the folders of its libraries as `--library-path` takes them.
    loader: Option<(PathBuf, String)>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Program {
    /// `file` lies below `root`, which has the image's files.
    pub fn new(root: &Path, file: &Path, runtime: &Runtime) -> Self {
        let pair = |variable: &String| {
            variable.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
        };
        Self {
            file: file.to_owned(),
            loader: loader(root),
            arguments: runtime.entrypoint.iter().skip(1).cloned().collect(),
            environment: runtime.env.iter().filter_map(pair).collect(),
        }
    }

    /// The program with these arguments, and with no environment but the image's.
    pub fn command(&self, arguments: &[impl AsRef<std::ffi::OsStr>]) -> Command {
        let mut command = match &self.loader {
            Some((loader, libraries)) => {
                let mut command = Command::new(loader);
                command.arg("--library-path").arg(libraries).arg(&self.file);
                command
            }
            None => Command::new(&self.file),
        };
        command.args(&self.arguments).args(arguments);
        command.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// The image's dynamic loader and its library folders, where the image has them at the usual places. An image whose
/// files point into /nix/store is started directly.
fn loader(root: &Path) -> Option<(PathBuf, String)> {
    let folders: Vec<_> = [
        "lib64",
        "lib/x86_64-linux-gnu",
        "lib/aarch64-linux-gnu",
        "usr/lib/x86_64-linux-gnu",
        "lib",
        "usr/lib",
    ]
    .iter()
    .map(|folder| root.join(folder))
    .filter(|folder| folder.is_dir())
    .collect();
    let names =
        |folder: &PathBuf| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let loader = folders.iter().flat_map(names).find(|path| {
        path.is_file() && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ld-linux"))
    })?;
    let folders: Vec<_> = folders.iter().map(|folder| folder.to_string_lossy()).collect();
    Some((loader, folders.join(":")))
}
