//! `rehearse`: the whole pipeline inside one folder. The developer's, operator's and CI's steps are this very program,
//! run in a checkout; the cluster is one process an environment. Nothing outside the folder is touched.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::builder::Builder;
use crate::fault::Fault;
use crate::git::Git;
use crate::infra::Infra;
use crate::pipeline::Pipeline;
use crate::registry::Registry;
use crate::service;

mod children;
mod cluster;
mod household;
mod stage;
mod story;
use children::Children;
use cluster::Cluster;
use household::Household;
use stage::Stage;
use story::{Detail, Story};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask rehearse
  cargo xtask rehearse --dir /tmp/rehearsal --json")]
pub struct Args {
    /// Where everything goes; an empty folder, or an earlier rehearsal's [default: target/rehearsal].
    #[arg(long)]
    dir: Option<PathBuf>,
    /// What builds the images.
    #[arg(long, value_enum, default_value_t = Builder::Cargo)]
    builder: Builder,
    /// Print one JSON object on stdout; the story goes to stderr.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, root: &Path) -> Result<()> {
    let start = Instant::now();
    let git = Git::at(root);
    let head = git.commit("HEAD")?.context("the project has no commit yet")?;
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir));
    let unusable = |path: &Path| Fault::usage(format!("cannot use the folder {}", path.display()));
    std::fs::create_dir_all(&target).with_context(|| unusable(&target))?;
    let _alone = alone(&target)?;
    let children = Children::default();
    children.end_on_interrupt()?;
    let story = Story::new(args.json, children.clone());
    let dirty = git.dirty()?.len();
    story.say(&format!(
        "rehearsing {} from HEAD {}, images built by {}",
        Pipeline::load(root)?.service(),
        &head[..12],
        args.builder
    ));
    if dirty > 0 {
        story.say(&format!("note: {dirty} paths differ from HEAD; they are not part of it"));
    }
    let dir = args.dir.clone().unwrap_or_else(|| target.join("rehearsal"));
    let stage = Stage::open(&dir).with_context(|| unusable(&dir))?;
    let mut rehearsal =
        Rehearsal::set_up(root, &stage, story, args.builder, &target.join("rehearsal-build"))?;
    let registry = Registry::open("oci:registry", &stage.dir)?;
    let mut cluster = Cluster::new(&stage, &children, &registry);
    rehearsal.play(&mut cluster)?;
    let status = rehearsal.xtask_json(&["status", "--json"])?;
    cluster.shut_down()?;
    rehearsal.close(&status, &head, start, args.json)
}

/// Two rehearsals would build into the same folder.
fn alone(target: &Path) -> Result<std::fs::File> {
    let path = target.join("rehearsal.lock");
    let file = std::fs::File::create(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => Err(Fault::usage(format!("another rehearsal is running (it holds {})", path.display()))
            .help("wait for its end")
            .into()),
    }
}

struct Rehearsal<'a> {
    stage: &'a Stage,
    story: Story,
    program: PathBuf,
    builder: Builder,
    environment: Vec<(&'static str, std::ffi::OsString)>,
    pipeline: Pipeline,
    households: BTreeMap<String, Household>,
}

impl<'a> Rehearsal<'a> {
    /// Lays out the folder: origin.git (HEAD as master), checkout, registry, infra.git from the template.
    fn set_up(root: &Path, stage: &'a Stage, story: Story, builder: Builder, build: &Path) -> Result<Self> {
        story.chapter("set up");
        std::fs::create_dir(stage.path("tmp"))?;
        // What an interrupt leaves of temporary files stays in the folder too.
        let _ = tempfile::env::override_temp_dir(&stage.path("tmp"));
        let program = stage.path("xtask");
        std::fs::copy(std::env::current_exe()?, &program)
            .context("cannot copy this program into the folder")?;
        let environment = vec![
            ("CARGO_TARGET_DIR", build.into()),
            ("TMPDIR", stage.path("tmp").into()),
            // The person's own git settings (signing, hooks, identity) stay out of it.
            ("GIT_CONFIG_GLOBAL", "/dev/null".into()),
            ("GIT_CONFIG_NOSYSTEM", "1".into()),
            ("GIT_AUTHOR_NAME", "Rehearsal".into()),
            ("GIT_AUTHOR_EMAIL", "rehearsal@example.invalid".into()),
            ("GIT_COMMITTER_NAME", "Rehearsal".into()),
            ("GIT_COMMITTER_EMAIL", "rehearsal@example.invalid".into()),
        ];
        let mut rehearsal = Self {
            stage,
            story,
            program,
            builder,
            environment,
            pipeline: Pipeline::load(root)?,
            households: BTreeMap::new(),
        };
        if builder == Builder::Cargo {
            let library =
                rehearsal.story.aloud(&mut rehearsal.command(&rehearsal.program, root, &["engine"]))?;
            rehearsal.environment.push(("DUCKDB_LIB_DIR", library.trim().into()));
        }
        rehearsal.repositories(root)?;
        rehearsal.pipeline = Pipeline::load(&stage.checkout())?;
        for environment in &rehearsal.pipeline.environments {
            rehearsal.households.insert(environment.name.clone(), Household::new(&environment.url)?);
        }
        Ok(rehearsal)
    }

    fn repositories(&self, root: &Path) -> Result<()> {
        let stage = self.stage;
        let dir = &stage.dir;
        self.git(dir, &["init", "--quiet", "--bare", "--initial-branch=master", "origin.git"])?;
        // A shallow clone of the project can be rehearsed too.
        self.git(dir, &["-C", "origin.git", "config", "receive.shallowUpdate", "true"])?;
        let origin = stage.path("origin.git");
        // With the person's own settings, since theirs say whether the project's folder is trusted; their hooks stay out.
        let args = ["push", "--quiet", "--no-verify", &origin.to_string_lossy(), "HEAD:refs/heads/master"];
        let mut push = self.command("git", root, &args);
        push.env_remove("GIT_CONFIG_GLOBAL").env_remove("GIT_CONFIG_NOSYSTEM");
        self.story.quietly(&mut push)?;
        self.git(dir, &["clone", "--quiet", "origin.git", "checkout"])?;
        let checkout = stage.checkout();
        // For whoever goes on by hand in there.
        self.git(&checkout, &["config", "user.name", "Rehearsal"])?;
        self.git(&checkout, &["config", "user.email", "rehearsal@example.invalid"])?;
        stage.prepare_checkout()?;
        self.commit("rehearsal: start at v0.0.0, in this folder")?;

        let infra = stage.path("infra");
        stage::copy_tree(&stage.checkout().join("deploy/infra-template"), &infra)?;
        self.git(dir, &["init", "--quiet", "--bare", "--initial-branch=main", "infra.git"])?;
        self.git(&infra, &["init", "--quiet", "--initial-branch=main"])?;
        self.git(&infra, &["add", "--all"])?;
        self.git(&infra, &["commit", "--quiet", "--message", "start from the template"])?;
        self.git(&infra, &["push", "--quiet", "../infra.git", "main"])?;
        std::fs::remove_dir_all(infra)?;
        self.story.done(&["origin.git, checkout/, infra.git, registry/, environments/"]);
        Ok(())
    }

    /// The story that the README tells.
    fn play(&mut self, cluster: &mut Cluster<'_>) -> Result<()> {
        self.release("v0.1.0")?;
        for environment in ["staging", "production"] {
            self.deploy(cluster, environment, &["promote", environment, "v0.1.0"])?;
        }

        self.story.chapter("develop v0.2.0: a migration that v0.1.0 cannot do without");
        let migration = self.stage.add_migration(false)?;
        self.stage.note_change("Added", &format!("Migration {migration}."))?;
        self.commit(&format!("Add migration {migration}"))?;
        self.story.done(&[&format!("dojo/migrations/{migration}")]);
        self.release("v0.2.0")?;
        for environment in ["staging", "production"] {
            self.deploy(cluster, environment, &["promote", environment, "v0.2.0"])?;
        }

        self.story.chapter("a rollback that would need a downgrade");
        self.refused(&["rollback", "production", "--to", "v0.1.0", "--yes"])?;
        self.check("production")?;

        self.story.chapter("develop v0.2.1: a fix");
        self.stage.note_change("Fixed", "A small fault.")?;
        self.commit("Fix a small fault")?;
        self.story.done(&[]);
        self.release("v0.2.1")?;
        for environment in ["staging", "production"] {
            self.deploy(cluster, environment, &["promote", environment, "v0.2.1"])?;
        }
        self.deploy(cluster, "production", &["rollback", "production"])?;
        self.expect_pin("production", "v0.2.0")?;

        self.story.chapter("develop v0.3.0: a migration that v0.2.0 can do without");
        let migration = self.stage.add_migration(true)?;
        self.stage.note_change("Added", &format!("Migration {migration}."))?;
        self.commit(&format!("Add migration {migration}"))?;
        self.story.done(&[&format!("dojo/migrations/{migration}")]);
        self.release("v0.3.0")?;
        self.deploy(cluster, "staging", &["promote", "staging", "v0.3.0"])?;

        self.story.chapter("a lost race: somebody else changes production between the plan and the push");
        let theirs = ["rollback", "production", "--to", "v0.2.1"];
        self.loses(&["promote", "production", "v0.3.0", "--yes"], &theirs)?;
        self.reconcile(cluster, "production")?;
        self.deploy(cluster, "production", &["promote", "production", "v0.3.0"])?;

        self.story.chapter("a rollback over a migration that admits the older version");
        self.deploy(cluster, "production", &["rollback", "production"])?;
        self.expect_pin("production", "v0.2.1")?;

        self.story.chapter("a hold");
        self.xtask(&["hold", "production", "the books are being audited", "--yes"], 0, Detail::All)?;
        self.refused(&["promote", "production", "v0.3.0", "--yes"])?;
        self.xtask(&["unhold", "production", "--yes"], 0, Detail::All)?;

        self.story.chapter("a rollback that needs the backup of before the migration");
        let (backup, sequence) = self.oldest_backup("production")?;
        let household = self.households.get_mut("production").context("production has no household")?;
        let lost = household.starts_from(sequence);
        self.deploy(cluster, "production", &["rollback", "--to", "v0.1.0", "--restore", &backup])?;
        self.story
            .done(&[&format!("{lost} transactions are lost, as the plan said; the replaced file is kept")]);

        self.story.chapter("status");
        self.xtask(&["status"], 0, Detail::All)?;
        Ok(())
    }

    /// Prepare, CI, tag, CI: the two people and the machine in their real order.
    fn release(&self, version: &str) -> Result<()> {
        self.story.chapter(&format!("release {version}"));
        // Exit code 1 says "not yet": CI has to do its part before the tag, and again after it.
        self.xtask(&["release", version, "--yes"], 1, Detail::Outcome)?;
        self.ci("refs/heads/master")?;
        self.xtask(&["release", version, "--yes"], 1, Detail::Outcome)?;
        self.ci(&format!("refs/tags/{version}"))?;
        self.xtask(&["release", version, "--yes"], 0, Detail::Outcome)
    }

    /// GitHub Actions' part: the same line that ci.yml has, with the variables that Actions sets.
    fn ci(&self, reference: &str) -> Result<()> {
        let checkout = self.stage.checkout();
        let commit = Git::at(&checkout).remote_ref("origin", reference)?;
        let commit = commit.with_context(|| format!("{reference} was not pushed"))?;
        let builder = self.builder.to_string();
        let args = ["ci", "publish", "--builder", &builder];
        let mut command = self.command(&self.program, &checkout, &args);
        command.env("GITHUB_REF", reference).env("GITHUB_SHA", &commit);
        let shown = format!("GITHUB_REF={reference} cargo xtask {}", args.join(" "));
        self.story.show(&shown, &mut command, 0, Detail::Outcome)
    }

    fn deploy(&mut self, cluster: &mut Cluster<'_>, name: &str, command: &[&str]) -> Result<()> {
        self.story.chapter(&command.join(" "));
        self.xtask(&[command, &["--yes"]].concat(), 0, Detail::All)?;
        self.reconcile(cluster, name)?;
        let household = self.households.get_mut(name).context("an environment without a household")?;
        household.spend(3)?;
        self.check(name)
    }

    /// What a controller does when the infra repository has changed.
    fn reconcile(&mut self, cluster: &mut Cluster<'_>, name: &str) -> Result<()> {
        let environment = self.pipeline.environment(name)?;
        let pinned = Infra::clone(&self.pipeline, &self.stage.checkout())?.pinned(environment)?;
        let household = self.households.get(name).context("an environment without a household")?;
        self.story.aside(&format!("{name}'s controller"));
        let told = cluster.reconcile(environment, &pinned, &household.token)?;
        self.story.done(&told.iter().map(String::as_str).collect::<Vec<_>>());
        self.check(name)
    }

    /// Runs a command that loses its race (exit code 4): `theirs` is done when it has made its commit, and before it is
    /// pushed.
    fn loses(&self, args: &[&str], theirs: &[&str]) -> Result<()> {
        let settings = self.stage.let_another_go_first(&self.program, theirs)?;
        let mut command = self.command(&self.program, &self.stage.checkout(), args);
        command.env("GIT_CONFIG_GLOBAL", settings);
        self.story.show(&format!("cargo xtask {}", args.join(" ")), &mut command, 4, Detail::All)
    }

    /// The first backup that an environment made, and its sequence.
    fn oldest_backup(&self, name: &str) -> Result<(String, u64)> {
        let observed = service::observe(&self.pipeline.environment(name)?.url);
        let backups = observed.report().and_then(|report| report.version.backups.as_ref());
        let oldest = backups.and_then(|backups| backups.last()).context("no backup was made")?;
        Ok((oldest.id.clone(), oldest.sequence))
    }

    fn check(&mut self, name: &str) -> Result<()> {
        let household = self.households.get_mut(name).context("an environment without a household")?;
        self.story.aside(&format!("{name}'s ledger"));
        let told =
            household.check().with_context(|| format!("{name}'s data is not what was acknowledged"))?;
        self.story.done(&[&told]);
        Ok(())
    }

    /// Runs a command that must be refused (exit code 3) and must leave the infra repository as it was.
    fn refused(&self, args: &[&str]) -> Result<()> {
        let infra = Git::at(self.stage.path("infra.git"));
        let before = infra.commit("refs/heads/main")?;
        self.xtask(args, 3, Detail::All)?;
        ensure!(infra.commit("refs/heads/main")? == before, "a refused command changed the infra repository");
        Ok(())
    }

    fn expect_pin(&self, name: &str, tag: &str) -> Result<()> {
        let environment = self.pipeline.environment(name)?;
        let pin = Infra::clone(&self.pipeline, &self.stage.checkout())?.pin(environment)?;
        ensure!(pin.tag.as_deref() == Some(tag), "{name} pins {:?}, not {tag}", pin.tag);
        Ok(())
    }

    fn commit(&self, message: &str) -> Result<()> {
        let checkout = self.stage.checkout();
        self.git(&checkout, &["add", "--all"])?;
        self.git(&checkout, &["commit", "--quiet", "--message", message])?;
        self.git(&checkout, &["push", "--quiet", "origin", "master"])
    }

    fn git(&self, dir: &Path, args: &[&str]) -> Result<()> {
        let mut command = self.command("git", dir, args);
        self.story.quietly(&mut command)
    }

    /// Runs this program in the checkout, and expects its exit code.
    fn xtask(&self, args: &[&str], code: i32, detail: Detail) -> Result<()> {
        let mut command = self.command(&self.program, &self.stage.checkout(), args);
        self.story.show(&format!("cargo xtask {}", args.join(" ")), &mut command, code, detail)
    }

    fn xtask_json(&self, args: &[&str]) -> Result<serde_json::Value> {
        let mut command = self.command(&self.program, &self.stage.checkout(), args);
        Ok(serde_json::from_str(&self.story.read(&mut command)?)?)
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>, dir: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).current_dir(dir).envs(self.environment.iter().map(|(name, value)| (name, value)));
        for name in [
            "GIT_DIR",
            "GIT_WORK_TREE",
            "GIT_INDEX_FILE",
            "GITHUB_REF",
            "GITHUB_SHA",
            "GITHUB_TOKEN",
            "GH_TOKEN",
        ] {
            command.env_remove(name);
        }
        command
    }

    fn close(&self, status: &serde_json::Value, head: &str, start: Instant, as_json: bool) -> Result<()> {
        let seconds = start.elapsed().as_secs_f64();
        let dir = &self.stage.dir;
        self.story.say(&format!(
            "\nall of it took {seconds:.0} s, and all services are stopped; look at {}",
            dir.display()
        ));
        self.story
            .say("for example, in its folder checkout: ../xtask rollback staging --to v0.2.1 --dry-run");
        if as_json {
            let ledgers: BTreeMap<_, _> =
                self.households.iter().map(|(name, h)| (name, h.summary())).collect();
            let result = json!({
                "directory": dir,
                "head": head,
                "builder": self.builder.to_string(),
                "seconds": seconds,
                "steps": self.story.steps(),
                "status": status["environments"],
                "ledgers": ledgers,
            });
            println!("{result}");
        }
        Ok(())
    }
}
