//! `board`: the pipeline as one page for a browser, for those who have no terminal at hand. It shows what `status` shows, the
//! commits and migrations between the stages, and each environment's history.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::fault::{Fault, without_credentials};
use crate::git::Git;
use crate::history::Commit;
use crate::image::{Digest, Labels};
use crate::observe::{self, Look};
use crate::pipeline::Pipeline;
use crate::terminal;

mod actions;
mod page;
mod stages;
use page::{Fact, Gap, Moment, Page};

/// How many commits between two stages are listed.
const LISTED: usize = 50;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask board --out board.html
  cargo xtask board --out - > board.html

The page is one file that asks no other host for anything. What did not answer is on it as unknown, with the reason, and
is no failure of this command: the page is wanted most when something is broken.")]
pub struct Args {
    /// The HTML file to write, replaced in one step; `-` is stdout.
    #[arg(long, value_name = "FILE")]
    out: String,
    /// Also print what the page shows, as one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, root: &Path) -> Result<()> {
    if args.json && args.out == "-" {
        return Err(Fault::usage("the page and its JSON cannot both go to stdout")
            .help("give --out a file")
            .into());
    }
    let file = Path::new(&args.out);
    // Told before anybody is asked.
    let other = file.exists() && !file.is_file();
    if args.out != "-" && (other || !folder(file).is_dir()) {
        let problem = format!("cannot write {}: it is no file, or lies in no folder", args.out);
        return Err(Fault::usage(problem).help("give --out a file in a folder that is there").into());
    }
    let pipeline = Pipeline::load(root)?;
    let spinner = terminal::Spinner::start("asking the infra repository, the registry and the services");
    let (look, edge) = std::thread::scope(|scope| {
        let edge = scope.spawn(|| observe::edge(&pipeline, root));
        let look = observe::look(&pipeline, &pipeline.environments, root);
        (look, edge.join().unwrap_or_else(|_| Err("asking it failed".to_owned())))
    });
    let page = page(&pipeline, &look, &edge, &Git::at(root));
    drop(spinner);
    let html = page.html().context("the page")?;
    if args.out == "-" {
        let mut stdout = std::io::stdout();
        stdout.write_all(html.as_bytes()).and_then(|()| stdout.flush()).context("writing to stdout")?;
        return Ok(());
    }
    write(file, &html).map_err(|error| Fault::usage(format!("cannot write {}: {error}", args.out)))?;
    if args.json { terminal::json(&page) } else { Ok(()) }
}

fn folder(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// In one step: who reads it meanwhile gets the old page or the new one. A symbolic link stays one.
fn write(path: &Path, html: &str) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    // For everybody, as far as the umask lets it: web servers read it.
    let mut file = tempfile::Builder::new()
        .permissions(std::fs::Permissions::from_mode(0o666))
        .tempfile_in(folder(&path))?;
    file.write_all(html.as_bytes())?;
    file.persist(path)?;
    Ok(())
}

fn page(pipeline: &Pipeline, look: &Look, edge: &Result<(Digest, Labels), String>, project: &Git) -> Page {
    let now = jiff::Timestamp::now();
    let head = look.tip.as_ref().ok().and_then(|tip| project.between(None, tip, 1).ok()?.pop());
    let mut stages = vec![
        stages::branch(&pipeline.branch, &look.tip, head.as_ref()),
        stages::edge(pipeline.registry(), edge),
    ];
    stages.extend(look.situations.iter().map(stages::environment));
    actions::offer(&mut stages, &look.situations);

    let known = [look.tip.clone().ok(), edge.as_ref().ok().map(|(_, labels)| labels.revision.clone())];
    let pinned = look.situations.iter().map(|situation| situation.facts.image().map(|(commit, _)| commit));
    let commits =
        known.into_iter().chain(pinned).zip(&stages).map(|(commit, stage)| {
            commit.ok_or_else(|| format!("which commit {} has is unknown", stage.name))
        });
    let commits: Vec<_> = commits.collect();
    for index in 1..stages.len() {
        let [from, to] = [index - 1, index].map(|index| commits[index].as_ref().map_err(String::as_str));
        stages[index - 1].gap = Some(gap(project, from, to, &stages[index].name));
    }
    let head = look.situations.first().map(|situation| situation.facts.infra.as_ref());
    Page {
        project: pipeline.repository.split_once('/').map_or("", |(_, name)| name).to_owned(),
        made: Moment(now),
        infra: page::Infra {
            url: without_credentials(&pipeline.infra.url),
            branch: pipeline.infra.branch.clone(),
            commit: match head {
                Some(Ok(pinning)) => Fact::Known(pinning.head.clone()),
                Some(Err(why)) => Fact::Unknown(why.clone()),
                None => Fact::Unknown("there is no environment".to_owned()),
            },
        },
        stages,
    }
}

/// What one stage has that the next one lacks.
fn gap(project: &Git, from: Result<&String, &str>, to: Result<&String, &str>, name: &str) -> Gap {
    let told = |error: anyhow::Error| Fault::from(error).message().to_owned();
    let both = from.and_then(|from| Ok((from, to?))).map_err(str::to_owned);
    let waits = |(from, to): (&String, &String)| -> Result<(usize, usize, Vec<Commit>)> {
        let (behind, ahead) = (project.count(Some(to), from)?, project.count(Some(from), to)?);
        Ok((behind, ahead, project.between(Some(to), from, LISTED)?))
    };
    let migrations = |(from, to): (&String, &String)| -> Result<Vec<String>> {
        let mut files = project.list(from, "dojo/migrations")?;
        let there = project.list(to, "dojo/migrations")?;
        files.retain(|file| file.ends_with(".sql") && !there.contains(file));
        Ok(files)
    };
    let (commits, ahead, newest) = match both.clone().and_then(|both| waits(both).map_err(told)) {
        Ok((behind, ahead, newest)) => (Fact::Known(behind), ahead, newest),
        Err(why) => (Fact::Unknown(why), 0, Vec::new()),
    };
    let migrations = both.and_then(|both| migrations(both).map_err(told));
    Gap {
        to: name.to_owned(),
        commits,
        ahead,
        newest: newest.iter().map(stages::commit).collect(),
        migrations: migrations.map_or_else(Fact::Unknown, Fact::Known),
    }
}
