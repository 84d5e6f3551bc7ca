//! `engine`: the folder with DuckDB's ready library; compiles it if this machine has none yet.

use std::path::Path;

use anyhow::Result;

use crate::duckdb;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  export DUCKDB_STATIC=1 DUCKDB_LIB_DIR=$(cargo xtask engine)
  cargo test -p dojo --no-default-features")]
pub struct Args {}

pub fn run(_: &Args, root: &Path) -> Result<()> {
    let folder = duckdb::library(&root.join("dojo/engine"), &|line| eprintln!("{line}"))?;
    println!("{}", folder.display());
    Ok(())
}
