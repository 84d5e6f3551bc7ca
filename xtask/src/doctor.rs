//! `doctor`: which tools, logins and remotes this machine has, and what each is for. It changes nothing.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use xshell::{Shell, cmd};

use crate::git::Git;
use crate::github::Github;
use crate::pipeline::{PATH, Pipeline};
use crate::registry::Registry;
use crate::report::Observed;
use crate::service;
use crate::terminal;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print one JSON object in place of the table.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Finding {
    what: String,
    found: bool,
    detail: String,
    purpose: &'static str,
}

/// Program, how it tells its version, what it is for.
const TOOLS: [(&str, &str, &str); 10] = [
    ("git", "--version", "everything"),
    ("cargo", "--version", "building"),
    ("c++", "--version", "DuckDB, once; then linking"),
    ("nix", "--version", "image build (without it: --builder cargo)"),
    ("docker", "--version", "image load"),
    ("podman", "--version", "image load, where docker is not"),
    ("kubectl", "version --client", "check, and rendering manifests"),
    ("busybox", "--help", "a shell in images built by cargo"),
    ("skopeo", "--version", "tests of the registry"),
    ("docker-registry", "--version", "tests of the registry"),
];

pub fn run(args: &Args, root: &Path) -> Result<()> {
    let spinner = terminal::Spinner::start("looking around");
    let mut findings: Vec<_> =
        TOOLS.iter().map(|(program, version, purpose)| tool(program, version, purpose)).collect();
    findings.extend(remotes(root));
    drop(spinner);
    if args.json {
        println!("{}", serde_json::json!({ "findings": findings }));
        return Ok(());
    }
    let rows = findings.into_iter().map(|finding| {
        let mark = if finding.found { "ok" } else { "-" };
        vec![mark.to_owned(), finding.what, finding.purpose.to_owned(), finding.detail]
    });
    println!("{}", terminal::table(&["", "WHAT", "FOR", "FOUND"], rows.collect()));
    Ok(())
}

fn tool(program: &str, version: &str, purpose: &'static str) -> Finding {
    let said = Shell::new().ok().and_then(|sh| {
        let args = version.split(' ');
        cmd!(sh, "{program} {args...}").quiet().ignore_stderr().ignore_status().read().ok()
    });
    let detail = said.as_deref().map_or("not on PATH", |said| said.lines().next().unwrap_or_default());
    let detail = detail.chars().take(60).collect();
    Finding { what: program.to_owned(), found: said.is_some(), detail, purpose }
}

fn remotes(root: &Path) -> Vec<Finding> {
    let pipeline = match Pipeline::load(root) {
        Ok(pipeline) => pipeline,
        Err(error) => return vec![finding(PATH, Err(error.to_string()), "all that xtask is told")],
    };
    let git = Git::at(root);
    let branch = format!("refs/heads/{}", pipeline.branch);
    let found = |commit: Option<String>| commit.ok_or_else(|| "the branch is missing".to_owned());
    let ask = |remote: &str, reference: &str| {
        git.remote_ref(remote, reference).map_err(|e| e.to_string()).and_then(found)
    };
    let registry = Registry::open(pipeline.registry(), root).map_err(|error| error.to_string());
    let login = registry.as_ref().map_err(String::clone).and_then(Registry::login);
    let tags = registry.and_then(|registry| registry.tags().map_err(|error| error.to_string()));
    let tags = tags.map(|tags| format!("{} tags", tags.len()));
    let github = pipeline.github().map(|api| {
        let github = Github::open(&api, &pipeline.repository).map_err(|error| error.to_string())?;
        let protected = github.is_protected(&pipeline.branch).map_err(|error| error.to_string())?;
        let takes = if protected { "is protected: a release goes by pull request" } else { "takes pushes" };
        Ok(format!("{}; {} {takes}", github.login(), pipeline.branch))
    });
    let mut findings = vec![
        finding(&format!("origin {}", pipeline.branch), ask("origin", &branch), "release"),
        finding(pipeline.registry(), tags, "every image"),
        finding("registry login", login, "ci publish, image push"),
        finding(
            "git identity",
            git.identity().map_err(|error| error.to_string()),
            "release, promote, rollback",
        ),
    ];
    findings.extend(pipeline.infra_branches().into_iter().map(|branch| {
        let there = ask(&pipeline.infra.url, &format!("refs/heads/{branch}"));
        finding(&format!("infra {branch}"), there, "promote, rollback, status")
    }));
    findings.extend(github.map(|github| finding("GitHub", github, "release")));
    for environment in &pipeline.environments {
        let observed = match service::observe(&environment.url) {
            Observed::Reports(report) => Ok(format!("runs {}", report.version.version)),
            Observed::Silent(why) => Err(why),
        };
        findings.push(finding(&environment.name, observed, "status, and the schema guard"));
    }
    findings
}

fn finding(what: &str, result: Result<String, String>, purpose: &'static str) -> Finding {
    let found = result.is_ok();
    let detail = result.unwrap_or_else(|problem| problem.lines().next().unwrap_or_default().to_owned());
    Finding { what: what.to_owned(), found, detail, purpose }
}
