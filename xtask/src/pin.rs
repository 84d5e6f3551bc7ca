//! `cargo xtask pin`: reads and changes the pin in one kustomization on disk, without git. `promote` and `rollback`
//! make the same change through the infra repository; this is for scripts, and for looking.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::fault::Fault;
use crate::image::Digest;
use crate::kustomization::{self, Pin, Target};
use crate::version::Version;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show what a kustomization pins
    #[command(after_help = "Without --source the ref is not looked for, and not shown.

Examples:
  cargo xtask pin get production/kustomization.yaml --image ghcr.io/OWNER/dojo
  cargo xtask pin get production/kustomization.yaml --image ghcr.io/OWNER/dojo --source github.com/OWNER/dojo
  cargo xtask pin get production/kustomization.yaml --image ghcr.io/OWNER/dojo --json")]
    Get {
        #[command(flatten)]
        of: Of,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Change what a kustomization pins, and nothing else in it
    #[command(
        after_help = "What is not given stays as it is. A digest decides what runs whatever the tag says, so beside an old
digest a new tag is taken only with the new digest, or with --digest none.

Examples:
  cargo xtask pin set kustomization.yaml --image ghcr.io/OWNER/dojo --tag v0.2.0 --digest sha256:…
  cargo xtask pin set kustomization.yaml --image ghcr.io/OWNER/dojo --tag edge --digest none
  cargo xtask pin set kustomization.yaml --image ghcr.io/OWNER/dojo --source github.com/OWNER/dojo --ref v0.2.0

Exit codes: 0 changed, or nothing to change; 2 misuse; 3 the file is not safe to change, and was left as it is."
    )]
    Set {
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        to: To,
    },
}

#[derive(Debug, clap::Args)]
pub struct Of {
    /// The kustomization.yaml; a symbolic link is followed
    file: PathBuf,
    /// The image's name without a tag, as its entry in `images` has it
    #[arg(long, value_name = "NAME")]
    image: String,
    /// The repository of the remote resources whose ?ref= is meant: github.com/OWNER/NAME
    #[arg(long, value_name = "REPOSITORY")]
    source: Option<String>,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub struct To {
    /// The new newTag; quoted where YAML would take it for a number
    #[arg(long)]
    tag: Option<String>,
    /// The new digest, or `none` to take it away, so that the tag alone decides what runs
    #[arg(long, value_name = "SHA256|none")]
    digest: Option<String>,
    /// The new ?ref= of the remote resources: a tag, a branch, or all 40 hex digits of a commit
    #[arg(long = "ref", value_name = "REF", requires = "source")]
    git_ref: Option<String>,
}

pub fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Get { of, json } => {
            let pin = kustomization::read(&of.read()?, &of.target())?;
            if *json {
                println!("{}", serde_json::to_string(&pin)?);
            } else {
                of.show(&pin);
            }
            if let Some(torn) = torn(&pin) {
                eprintln!("note: {torn}");
            }
        }
        Command::Set { of, to } => set(of, to)?,
    }
    Ok(())
}

fn set(of: &Of, to: &To) -> anyhow::Result<()> {
    let (before, target) = (of.read()?, of.target());
    let pin = Pin { git_ref: to.git_ref.clone(), tag: to.tag.clone(), digest: new_digest(&before, of, to)? };
    let after = kustomization::write(&before, &target, &pin)?;
    if before == after {
        println!("{} says so already: nothing written", target.path);
        return Ok(());
    }
    replace(&of.file, &after).map_err(|error| {
        Fault::usage(format!("cannot write {}: {error}", target.path)).help("it was left as it was")
    })?;
    println!("{} is changed:", target.path);
    of.show(&kustomization::read(&after, &target)?);
    Ok(())
}

/// The digest that the file is to have. Where none is given it stays, unless it would belie the new tag.
fn new_digest(text: &str, of: &Of, to: &To) -> Result<Option<Digest>, Fault> {
    match to.digest.as_deref() {
        Some("none") => return Ok(None),
        Some(digest) => return digest.parse().map(Some),
        None => {}
    }
    let current = kustomization::read(text, &Target { source: None, ..of.target() })?;
    match (&current.digest, &to.tag) {
        (Some(digest), Some(tag)) if current.tag.as_ref() != Some(tag) => Err(Fault::usage(format!(
            "{} pins {digest}, which would run whatever the tag says",
            of.file.display()
        ))
        .help(format!("give {tag}'s digest, or --digest none"))),
        _ => Ok(current.digest),
    }
}

/// What makes the manifests and the image two versions, or lets them become two.
fn torn(pin: &Pin) -> Option<String> {
    let (git_ref, tag) = (pin.git_ref.as_deref()?, pin.tag.as_deref()?);
    let commit = kustomization::is_commit(git_ref);
    let version = |name| Version::from_tag(name).is_some();
    let other = match tag.strip_prefix("sha-") {
        Some(short) if commit => !git_ref.starts_with(short),
        _ => version(git_ref) && tag != git_ref,
    };
    if other {
        return Some(format!(
            "the manifests are those of {git_ref}, the image is {tag}: two versions run together"
        ));
    }
    (commit && pin.digest.is_none())
        .then(|| format!("the manifests are one commit's for good, but {tag} has no digest and can move"))
}

impl Of {
    /// The ref is shown where it was looked for.
    fn show(&self, pin: &Pin) {
        let line = |name, value: Option<&str>| println!("{name:8}{}", value.unwrap_or("none"));
        if self.source.is_some() {
            line("ref", pin.git_ref.as_deref());
        }
        line("tag", pin.tag.as_deref());
        line("digest", pin.digest.as_ref().map(Digest::as_str));
    }

    fn target(&self) -> Target<'_> {
        // A path that is no Unicode is a machine's accident; it is only shown.
        let path = self.file.to_str().unwrap_or("kustomization");
        Target { path, image: &self.image, source: self.source.as_deref(), comment: false }
    }

    fn read(&self) -> Result<String, Fault> {
        let path = self.file.display();
        let bytes = fs::read(&self.file).map_err(|error| {
            Fault::usage(format!("cannot read {path}: {error}")).help("give the path of a kustomization.yaml")
        })?;
        String::from_utf8(bytes).map_err(|error| {
            let good = error.utf8_error().valid_up_to();
            let line = error.as_bytes()[..good].iter().filter(|byte| **byte == b'\n').count() + 1;
            Fault::refused(format!("{path}:{line}: this is not UTF-8")).help("save it as UTF-8")
        })
    }
}

/// Replaces a file's content in one step, so that no reader and no crash sees half of it. Its mode stays; a symbolic
/// link stays one, and the file that it names is replaced.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let path = fs::canonicalize(path)?;
    let metadata = fs::metadata(&path)?;
    let (Some(folder), true) = (path.parent(), metadata.is_file()) else {
        return Err(std::io::Error::other("not a regular file"));
    };
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(text.as_bytes())?;
    new.as_file().set_permissions(metadata.permissions())?;
    new.as_file().sync_all()?;
    new.persist(&path)?;
    Ok(())
}
