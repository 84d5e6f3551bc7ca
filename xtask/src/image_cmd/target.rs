//! Which image is meant: the repository to ask, or the file that was built.

use std::path::{Path, PathBuf};

use super::OUT;
use crate::builder;
use crate::fault::Fault;
use crate::pipeline::Pipeline;
use crate::registry::Registry;

#[derive(clap::Args, Debug)]
pub struct Where {
    /// The repository: `oci:FOLDER` or `HOST[:PORT]/NAME` [default: the pipeline's registry]
    #[arg(long, value_name = "R")]
    pub repository: Option<String>,
}

impl Where {
    pub fn registry(&self, root: &Path) -> anyhow::Result<Registry> {
        match &self.repository {
            // What is typed is relative to where it is typed.
            Some(location) => Registry::open(location, Path::new("")),
            None => Registry::open(Pipeline::load(root)?.registry(), root),
        }
    }
}

/// The file that was named, else what was built last.
pub fn built(named: Option<&Path>, root: &Path) -> Result<PathBuf, Fault> {
    named.map(Path::to_owned).or_else(|| builder::built(&root.join(OUT))).ok_or_else(|| {
        Fault::usage(format!("no image was built in {OUT}")).help("build it first: cargo xtask image build")
    })
}
