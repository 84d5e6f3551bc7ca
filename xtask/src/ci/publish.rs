//! `ci publish`: one image a commit, built and pushed once as `sha-…`; every other tag is a further name of its digest,
//! and a version also gets its release on GitHub.
//!
//! Names that people and environments follow come last: after the image was read back, and has its bill of materials.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::{follow, page};
use crate::archive;
use crate::builder::{self, Builder, Recipe};
use crate::changelog;
use crate::checks::{State, judge, overall};
use crate::duckdb;
use crate::fault::Fault;
use crate::gate::{self, ReleaseGate};
use crate::git::Git;
use crate::github::Github;
use crate::image::{Digest, Image, Labels, sha_tag};
use crate::kustomization::{self, Pin, Target};
use crate::kustomize::Kustomize;
use crate::pipeline::Pipeline;
use crate::registry::{Artifact, Push, Registry};
use crate::sbom;
use crate::terminal::{self, Spinner};
use crate::version::Version;

/// The manifests that go with a release (spec section 3.3).
const PRODUCTION: &str = "deploy/k8s/overlays/production";

/// How often `latest` is looked at before whoever moves it is left alone.
const LOOKS: usize = 5;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// What was pushed: `refs/heads/BRANCH` or `refs/tags/vX.Y.Z`.
    #[arg(long, env = "GITHUB_REF", value_name = "REF")]
    git_ref: String,
    /// The commit that was pushed; must be the one that is checked out.
    #[arg(long, env = "GITHUB_SHA", value_name = "COMMIT")]
    commit: Option<String>,
    #[arg(long, value_enum, default_value_t = Builder::Nix)]
    builder: Builder,
    /// Print one JSON object in place of text.
    #[arg(long)]
    json: bool,
}

/// The tags that now name the digest, and those that were left where they are with the reason.
#[derive(Debug, Default)]
struct Names {
    set: Vec<String>,
    left: Vec<String>,
}

pub fn run(args: &Args, root: &Path) -> Result<()> {
    let pipeline = Pipeline::load(root)?;
    let git = Git::at(root);
    let commit = git.commit("HEAD")?.context("the project has no commit yet")?;
    if let Some(asked) = args.commit.as_ref().filter(|asked| **asked != commit) {
        return Err(Fault::usage(format!("GITHUB_SHA is {asked}, but {commit} is checked out")).into());
    }
    let branch = args.git_ref.strip_prefix("refs/heads/");
    let branch =
        branch.filter(|branch| *branch == pipeline.branch || pipeline.series_of_branch(branch).is_some());
    let version = args.git_ref.strip_prefix("refs/tags/").and_then(|tag| pipeline.version_of_tag(tag));
    if branch.is_none() && version.is_none() {
        return Err(Fault::usage(format!("nothing is published for {}", args.git_ref))
            .help(format!(
                "publish runs on refs/heads/{}, on refs/heads/release/{prefix}X.Y and on tags {prefix}vX.Y.Z",
                pipeline.branch,
                prefix = pipeline.tag_prefix
            ))
            .into());
    }
    let registry = Registry::open(pipeline.registry(), root)?;
    let github = match (&version, pipeline.github()) {
        (Some(_), Some(api)) => Some((Github::open(&api, &pipeline.repository)?, Kustomize::find()?)),
        _ => None,
    };
    if let Some(version) = &version {
        check_version(&git, &commit, version, &pipeline.git_tag(version))?;
        if let Some((github, _)) = &github {
            check_ci(github, &git, &pipeline, &commit, version)?;
        }
    }
    let digest = image(args, root, &pipeline, &registry, &commit)?;
    let bill = bill(root, &pipeline, &registry, &digest)?;
    let mut names = Names::default();
    let mut page = None;
    let mut followed = Vec::new();
    match (&version, branch) {
        (Some(version), _) => {
            let rendered = match &github {
                Some((_, kustomize)) => manifests(kustomize, &git, &pipeline, &commit, version, &digest)?,
                None => String::new(),
            };
            name_version(&registry, &digest, version, &mut names)?;
            if let Some((github, _)) = &github {
                let text = git.show(&commit, "CHANGELOG.md")?.unwrap_or_default();
                let notes = changelog::section(&text, version).unwrap_or_default();
                let files = files(&pipeline, version, &digest, registry.attached(&bill)?, rendered);
                let latest = names.set.iter().any(|name| name == "latest");
                page =
                    Some(page::publish(github, &pipeline.git_tag(version), version, &notes, &files, latest)?);
            }
        }
        (None, Some(branch)) if branch == pipeline.branch => {
            move_edge(&registry, &git, &digest, &commit, &mut names)?;
            followed = follow::edge(&pipeline, root)?;
        }
        (None, _) => names.left.push(format!("edge follows {} alone", pipeline.branch)),
    }
    names.set.insert(0, sha_tag(&commit));
    if args.json {
        let Names { set, left } = &names;
        let object = json!({
            "digest": digest, "sbom": bill, "tags": set, "left": left, "release": page, "followed": followed,
        });
        terminal::json(&object)?;
    } else {
        tell(&pipeline, &digest, &bill, &names, page.as_deref());
        followed.iter().for_each(|one| println!("  {}: {}", one.environment, one.state));
    }
    Ok(follow::judge(&followed)?)
}

/// A tag that somebody pushed by hand says nothing about the commit's tests.
fn check_ci(github: &Github, git: &Git, pipeline: &Pipeline, commit: &str, version: &Version) -> Result<()> {
    let overrides = gate::overrides::<ReleaseGate>(&git.tag_message(&pipeline.git_tag(version))?);
    if overrides.iter().any(|pass| pass.gate == ReleaseGate::Checks) {
        return Ok(());
    }
    let checks = judge(pipeline.checks(), &github.check_runs(commit)?, &github.checks_page(commit));
    let state = overall(&checks);
    if state == State::Green {
        return Ok(());
    }
    let bad = checks.iter().filter(|check| check.state != State::Green);
    let bad: Vec<_> = bad.map(ToString::to_string).collect();
    let message = format!("{version} is not published: on {} {}", &commit[..12], bad.join("; "));
    let fault = if state == State::Red { Fault::refused(message) } else { Fault::remote(message) };
    Err(fault.help("see to it that CI is green on that very commit, then run this again").into())
}

/// What the production overlay of this commit renders to, with the image pinned by its digest.
fn manifests(
    kustomize: &Kustomize,
    git: &Git,
    pipeline: &Pipeline,
    commit: &str,
    version: &Version,
    digest: &Digest,
) -> Result<String> {
    let folder = tempfile::tempdir()?;
    git.export(commit, "deploy/k8s", folder.path())?;
    let overlay = folder.path().join(PRODUCTION);
    let path = overlay.join("kustomization.yaml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("{PRODUCTION} at {commit}"))?;
    let target = Target {
        path: "deploy/k8s/overlays/production/kustomization.yaml",
        image: &pipeline.image,
        source: None,
        comment: false,
    };
    let pin = Pin { git_ref: None, tag: Some(version.to_string()), digest: Some(digest.clone()) };
    std::fs::write(&path, kustomization::write(&text, &target, &pin)?)?;
    Ok(kustomize.text(&overlay)?)
}

/// What a release carries: the image's digest, its bill of materials, and the manifests that run it.
fn files(
    pipeline: &Pipeline,
    version: &Version,
    digest: &Digest,
    bill: Vec<u8>,
    manifests: String,
) -> [page::File; 3] {
    let image = format!("{}:{version}@{digest}\n", pipeline.image);
    let [digest, sbom, production] = pipeline.release_files(version);
    let file = |name, media_type, bytes| page::File { name, media_type, bytes };
    [
        file(digest, "text/plain", image.into_bytes()),
        file(sbom, sbom::MEDIA_TYPE, bill),
        file(production, "application/yaml", manifests.into_bytes()),
    ]
}

fn check_version(git: &Git, commit: &str, version: &Version, tag: &str) -> Result<()> {
    let tagged = git.commit(&format!("refs/tags/{tag}"))?;
    if tagged.as_deref() != Some(commit) {
        let names = tagged.as_deref().unwrap_or("nothing here");
        return Err(Fault::refused(format!("{commit} is checked out, but the tag {tag} names {names}"))
            .help(format!("git fetch origin tag {tag} && git switch --detach {tag}"))
            .into());
    }
    let manifest = git.show(commit, "Cargo.toml")?.unwrap_or_default();
    let found = crate::manifest::workspace_version(&manifest)?;
    if found == *version {
        return Ok(());
    }
    Err(Fault::refused(format!("the tag {tag} stands on a commit whose Cargo.toml says {found}"))
        .help(format!("tags are cut by: cargo xtask release {version}"))
        .into())
}

/// The digest of the commit's image; built and pushed only if the registry does not have it.
fn image(args: &Args, root: &Path, pipeline: &Pipeline, registry: &Registry, commit: &str) -> Result<Digest> {
    let tag = sha_tag(commit);
    if let Some(digest) = registry.resolve(&tag)? {
        let revision = registry.labels(&digest)?.revision;
        if revision == commit {
            return Ok(digest);
        }
        return Err(Fault::refused(format!("{tag} is there, but was built from {revision}")).into());
    }
    // A tag's run publishes what was tested, and nothing else.
    if args.git_ref.starts_with("refs/tags/") {
        return Err(Fault::remote(format!(
            "{registry} has no {tag}, which CI pushes when {commit} comes to its branch"
        ))
        .help("run CI for that commit again, then this")
        .into());
    }
    let spinner = Spinner::start("building");
    let say = |line: &str| spinner.say(line);
    let library = match args.builder {
        Builder::Cargo => Some(duckdb::library(&root.join("dojo/engine"), &say)?),
        Builder::Nix => None,
    };
    let labels = builder::labels(root, &pipeline.repository)?;
    let recipe = Recipe {
        project: root,
        image: &pipeline.image,
        labels: &labels,
        duckdb: library.as_deref(),
        extra: &[],
    };
    let out = tempfile::tempdir()?;
    let archive = args.builder.build(&recipe, out.path(), &say)?;
    drop(spinner);
    let image = archive::read(&archive)?;
    image.labels()?.must_agree_with(&labels)?;
    let pushed = registry.push(
        &image,
        &Push { compression: pipeline.compression, ..Push::to(std::slice::from_ref(&tag)) },
        &|_| {},
    )?;
    eprintln!("pushed {tag}: {} bytes sent, {} bytes were there", pushed.bytes_sent, pushed.bytes_skipped);
    read_back(registry, &tag, &pushed.digest, &image)?;
    Ok(pushed.digest)
}

/// The registry must give what was built: under the tag its digest, under the digest its config, in the config its labels.
fn read_back(registry: &Registry, tag: &str, digest: &Digest, built: &Image) -> Result<()> {
    let named = registry.resolve(tag)?;
    let manifest = registry.manifest(digest)?;
    let same = named.as_ref() == Some(digest)
        && manifest.config.digest == built.id()
        && manifest.layers.len() == built.layers.len()
        && registry.labels(digest)? == built.labels()?;
    if same {
        return Ok(());
    }
    let named = named.map_or("nothing".to_owned(), |named| named.to_string());
    Err(Fault::refused(format!(
        "{registry}: {tag} names {named}, which is not the image just pushed, {digest}"
    ))
    .help("no other name was set; see what is there: cargo xtask image inspect")
    .into())
}

/// The digest of the image's bill of materials; made and attached only if the registry does not have one.
fn bill(root: &Path, pipeline: &Pipeline, registry: &Registry, digest: &Digest) -> Result<Digest> {
    let find = || -> Result<Option<Digest>> {
        let mut referrers = registry.referrers(digest)?.into_iter();
        Ok(referrers.find(|referrer| referrer.kind == sbom::MEDIA_TYPE).map(|referrer| referrer.digest))
    };
    if let Some(there) = find()? {
        return Ok(there);
    }
    let config = registry.config(digest)?;
    let tree = builder::labels(root, &pipeline.repository)?;
    let document = builder::sbom(root, &pipeline.image, &config, &tree)?;
    let content = document.as_bytes();
    let artifact =
        Artifact { kind: sbom::MEDIA_TYPE, name: sbom::FILE, created: &config.labels()?.created, content };
    let attached = registry.attach(digest, &artifact)?;
    if find()?.as_ref() != Some(&attached) || registry.attached(&attached)? != content {
        return Err(Fault::remote(format!("{registry} does not give the SBOM {attached} that was attached"))
            .help("run the same command again")
            .into());
    }
    Ok(attached)
}

/// `edge` follows the branch forward: a slower, older run must not move it back.
fn move_edge(registry: &Registry, git: &Git, digest: &Digest, commit: &str, names: &mut Names) -> Result<()> {
    if let Some(old) = labels(registry, "edge")?.map(|labels| labels.revision) {
        if git.commit(&old)?.is_none() {
            return Err(Fault::refused(format!("edge was built from {old}, which this clone does not have"))
                .help(
                    "fetch the whole history; if the branch was rewritten: cargo xtask image push --tag edge",
                )
                .into());
        }
        if !git.is_ancestor(&old, commit)? {
            names.left.push(format!("edge stays on {old}: {commit} does not descend from it"));
            return Ok(());
        }
    }
    registry.tag(digest, "edge")?;
    names.set.push("edge".into());
    Ok(())
}

/// The version is set once; `latest` only goes forward, and never to a pre-release.
fn name_version(registry: &Registry, digest: &Digest, version: &Version, names: &mut Names) -> Result<()> {
    registry.tag(digest, &version.to_string())?;
    names.set.push(version.to_string());
    if version.is_prerelease() {
        names.left.push(format!("latest stays: {version} is a pre-release"));
        return Ok(());
    }
    // Another version's run may be at it too. Both named theirs before: whoever looks last sees both.
    for _ in 0..LOOKS {
        let tags = registry.tags()?;
        let versions = tags.iter().filter_map(|tag| Version::from_tag(tag));
        let Some(highest) = versions.filter(|version| !version.is_prerelease()).max() else { break };
        let wanted = registry.find(&highest.to_string())?;
        if registry.resolve("latest")?.as_ref() == Some(&wanted) {
            if highest == *version {
                names.set.push("latest".into());
            } else {
                names.left.push(format!("latest stays on {highest}"));
            }
            return Ok(());
        }
        registry.tag(&wanted, "latest")?;
    }
    Err(Fault::remote(format!("{registry}: latest does not stay where it is put"))
        .help("is another run at it? run the same command again")
        .into())
}

/// The labels of what a tag names; `None` without the tag, and for an image that this tool did not build.
fn labels(registry: &Registry, tag: &str) -> Result<Option<Labels>> {
    let Some(digest) = registry.resolve(tag)? else { return Ok(None) };
    // What cannot be read is no reason to move a name backwards: only an image that says nothing of itself is foreign.
    if registry.config(&digest)?.labels().is_err() {
        return Ok(None);
    }
    registry.labels(&digest).map(Some)
}

fn tell(pipeline: &Pipeline, digest: &Digest, bill: &Digest, names: &Names, page: Option<&str>) {
    println!("{}@{digest}", pipeline.image);
    println!("  names  {}", names.set.join(", "));
    println!("  sbom   {bill}");
    if let Some(page) = page {
        println!("  page   {page}");
    }
    for left in &names.left {
        println!("  note   {left}");
    }
}
