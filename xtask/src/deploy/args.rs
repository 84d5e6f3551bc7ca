//! What `promote` and `rollback` are told.

use std::path::PathBuf;
use std::time::Duration;

use super::{verify, wait};
use crate::gate::PinGate;

#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:
  cargo xtask promote staging              the newest that staging accepts
  cargo xtask promote staging sha-0123456789ab
  cargo xtask promote production           what staging runs
  cargo xtask promote production v0.2.0 --dry-run
  cargo xtask promote production v0.2.1 --override soak --because \"v0.2.0 loses money\"
  cargo xtask promote production v0.2.0 --rehearse-on ledger-schema1-seq42.duckdb --dry-run
  cargo xtask promote staging v0.2.0 --apply   where no controller does
  cargo xtask promote production --wait    until it runs and is ready
  cargo xtask promote production --pr

Gates: `--override` takes hold, accepts, after, soak, checks, tag and restore. An image that is not there, and a data file
that it could not open, are never passed."
)]
pub struct PromoteArgs {
    #[command(subcommand)]
    pub look: Option<Look>,
    /// The environment, as deploy/pipeline.yaml names it.
    #[arg(required = true)]
    pub environment: Option<String>,
    /// What to run: a version, a commit's tag `sha-…`, or `edge` [default: what the environment in `after` pins; without
    /// one `edge` where it is accepted, else the newest version].
    pub image: Option<String>,
    /// As CI does for an environment that follows edge: a hold, or an image that was rolled back from, ends it well.
    #[arg(long, hide = true)]
    pub follow: bool,
    #[command(flatten)]
    pub how: How,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask rollback                     production, to what ran before
  cargo xtask rollback staging --to v0.1.0
  cargo xtask rollback --dry-run
  cargo xtask rollback --to v0.1.0 --restore ledger-schema1-seq42

A rollback passes the environment's gates but for a hold, a moved tag and a restore that is not done: what it returns to ran there. With the
registry down it goes on, on the word of the commit that pinned the image.")]
pub struct RollbackArgs {
    /// The environment, as deploy/pipeline.yaml names it.
    #[arg(default_value = "production")]
    pub environment: String,
    /// The version or `sha-…` to return to [default: the newest pin before this one that was not rolled back].
    #[arg(long, value_name = "VERSION")]
    pub to: Option<String>,
    /// Also start from this backup, once: what was written since is lost, and the replaced file is kept.
    #[arg(long, value_name = "BACKUP-ID")]
    pub restore: Option<String>,
    #[command(flatten)]
    pub how: How,
}

#[derive(Debug, clap::Subcommand)]
pub enum Look {
    /// Hold what a pull request of the infra repository would pin against the gates, as its required check.
    Verify(verify::Args),
}

#[derive(Debug, clap::Args)]
pub struct How {
    /// Propose the commit by a pull request in place of pushing it to the branch.
    #[arg(long, conflicts_with = "apply")]
    pub pr: bool,
    /// Merge the pull request too, as soon as GitHub lets it.
    #[arg(long, requires = "pr")]
    pub merge: bool,
    /// The schema of the data file (or of the backup), read by you where it lies; counts only while nobody else tells it.
    #[arg(long, value_name = "N")]
    pub file_schema: Option<u32>,
    /// Pass a gate that is not met; can be given several times.
    #[arg(long = "override", value_name = "GATE", requires = "because")]
    pub gates: Vec<PinGate>,
    /// Why, also why a gate is passed; it is kept in the commit.
    #[arg(long, value_name = "TEXT")]
    pub because: Option<String>,
    /// First migrate and check a copy of this data file by the image's own program; a failure ends it.
    #[arg(long, value_name = "BACKUP")]
    pub rehearse_on: Option<PathBuf>,
    /// Then give the environment's folder to a cluster by kubectl, and wait until it is rolled out.
    #[arg(long)]
    pub apply: bool,
    /// The cluster, by its context in the kubeconfig [default: the current one].
    #[arg(long, value_name = "NAME", requires = "apply")]
    pub context: Option<String>,
    /// Then wait until the environment runs it and is ready, and hold its data file against the one of before.
    #[arg(long, conflicts_with_all = ["pr", "dry_run"])]
    pub wait: bool,
    /// How long to wait at most.
    #[arg(long, value_name = "TIME", requires = "wait", default_value = "10m", value_parser = wait::limit)]
    pub timeout: Duration,
    /// Show all that changes in the rendered manifests [default: the first lines, where somebody is to decide].
    #[arg(long)]
    pub diff: bool,
    /// Print the plan and stop; needs no right to write.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask before the change.
    #[arg(long, short)]
    pub yes: bool,
    /// Print one JSON object in place of text.
    #[arg(long)]
    pub json: bool,
}
