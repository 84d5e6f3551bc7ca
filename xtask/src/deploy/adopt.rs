//! `adopt`: a pin that was lost or broken is made again from what runs. It is a change of the pin like a promotion, with
//! another target: what the service says that it was built from.

use std::path::Path;

use anyhow::Result;

use super::args::How;
use super::plan::Verb;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask adopt production --dry-run
  cargo xtask adopt production --because \"somebody deleted the folder\"
  cargo xtask adopt production --override drift --because \"v0.3.0 never starts\"

The service's /version tells the commit, and the registry the image that was built from it. A pin that is whole and names
another image may only not have arrived yet: adopting would undo it, so the gate `drift` refuses.")]
pub struct Args {
    /// The environment, as deploy/pipeline.yaml names it.
    environment: String,
    #[command(flatten)]
    how: How,
}

pub fn run(args: &Args, root: &Path) -> Result<()> {
    super::run(Verb::Adopt, &args.environment, None, None, false, &args.how, root)
}
