//! `init`: makes this checkout another owner's. deploy/pipeline.yaml says whose it is now, so a fork can be renamed again.
//!
//! The programs' own sources are left alone: what they know of names they read from deploy/pipeline.yaml. That file is written
//! last, so that after a kill the same command finds the old names still, and goes on.

mod files;
mod plan;

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::json;

use crate::git::Git;
use crate::pipeline::Pipeline;
use crate::terminal;
use files::File;
use plan::{Asked, Renaming};

/// Make this checkout another owner's
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask init alice/ledger --host ledger.example.org --dry-run
  cargo xtask init alice/ledger --infra git@github.com:alice/clusters.git
  cargo xtask init alice/ledger --infra-out ../infra

It writes files of this checkout and nothing else; `git diff` shows them, and `git restore .` takes them back.")]
pub struct Args {
    /// The repository, as its host writes it; the image is called the same, in lower case
    #[arg(value_name = "OWNER/NAME")]
    repository: String,
    /// Where the image is kept, a host with or without a port [default: where it is now]
    #[arg(long, value_name = "HOST")]
    registry: Option<String>,
    /// The infra repository's URL [default: the new owner's of the same name]
    #[arg(long, value_name = "URL")]
    infra: Option<String>,
    /// The last environment's host; those before it get ENVIRONMENT-DOMAIN [default: the hosts that there are]
    #[arg(long, value_name = "DOMAIN")]
    host: Option<String>,
    /// What the git tags of versions begin with, where the repository has several services [default: what they do now]
    #[arg(long, value_name = "PREFIX")]
    tag_prefix: Option<String>,
    /// Also write what the infra repository starts with into this folder; no file there is replaced
    #[arg(long, value_name = "DIR")]
    infra_out: Option<PathBuf>,
    /// Show what would change, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object in place of text
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, root: &Path) -> Result<()> {
    let pipeline = Pipeline::load(root)?;
    let asked = Asked {
        repository: &args.repository,
        registry: args.registry.as_deref(),
        infra: args.infra.as_deref(),
        host: args.host.as_deref(),
        tag_prefix: args.tag_prefix.as_deref(),
    };
    let renaming = Renaming::of(&pipeline, &asked)?;
    let git = Git::at(root);
    let files = files::gather(&git, root, &renaming)?;
    files::check(&files, &pipeline, &renaming)?;
    let infra = match &args.infra_out {
        Some(folder) => files::infra(&git, root, &renaming, folder)?,
        None => Vec::new(),
    };
    let state = match (files.is_empty() && infra.is_empty(), args.dry_run) {
        (true, _) => "nothing to do",
        (false, true) => "dry run",
        (false, false) => "done",
    };
    if !args.dry_run {
        files.iter().chain(&infra).try_for_each(File::write)?;
    }
    let next = next(args, &pipeline, &renaming, &files);
    if args.json {
        return terminal::json(&json!({ "state": state, "files": files, "infra": infra, "next": next }));
    }
    files.iter().for_each(|file| println!("{file}"));
    infra.iter().for_each(|file| println!("{}: new", file.name));
    match state {
        "nothing to do" => println!("this checkout is {}'s already: nothing to do", renaming.repository),
        "dry run" => println!("dry run: nothing was written"),
        _ => println!("done: {} files", files.len() + infra.len()),
    }
    println!("next:");
    next.iter().for_each(|line| println!("  {line}"));
    Ok(())
}

/// The commands that make it run.
fn next(args: &Args, pipeline: &Pipeline, renaming: &Renaming, files: &[File]) -> Vec<String> {
    let mut next = Vec::new();
    if !files.is_empty() {
        let names: Vec<_> = files.iter().map(|file| quoted(&file.name)).collect();
        next.push(format!("git commit --message 'Make it {}' -- {}", args.repository, names.join(" ")));
    }
    next.push(format!("git push origin {}", pipeline.branch));
    let folder = args.infra_out.as_deref().unwrap_or(Path::new("../infra"));
    let folder = quoted(&folder.display().to_string());
    if args.infra_out.is_none() {
        next.push(format!("cargo xtask init {} --infra-out {folder}", args.repository));
    }
    let branches = pipeline.infra_branches();
    next.push(format!("git init --initial-branch={} {folder} && git -C {folder} add --all", branches[0]));
    next.push(format!("git -C {folder} commit --message 'Start'"));
    let heads: Vec<_> = branches.iter().map(|branch| format!("HEAD:refs/heads/{branch}")).collect();
    next.push(format!("git -C {folder} push {} {}", quoted(&renaming.infra), heads.join(" ")));
    next.push("cargo xtask doctor".to_owned());
    next
}

/// As a shell takes it for one word.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:@+=,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
