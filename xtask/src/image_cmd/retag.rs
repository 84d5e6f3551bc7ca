//! `image retag`: further names for an image that is in the registry. Nothing but manifests goes over the wire.

use std::path::Path;

use serde_json::json;

use super::show;
use super::target::Where;
use crate::registry::Retagged;
use crate::terminal;

/// Let further tags name an image that is in the registry.
///
/// The manifest is put under the new tags as it is, also that of an image for several platforms. A version or `sha-…`
/// tag never moves to another digest; all tags are checked before the first is set.
///
/// Examples:
///   cargo xtask image retag sha-0123456789ab v0.1.0 latest
///   cargo xtask image retag v0.1.0 edge --repository localhost:5000/dojo
///   cargo xtask image retag sha256:9f86d081… v0.1.0 --json
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// A tag or a digest in the registry
    #[arg(value_name = "FROM")]
    from: String,
    /// The tags that are to name it too
    #[arg(value_name = "TO", required = true)]
    to: Vec<String>,
    #[command(flatten)]
    at: Where,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, root: &Path) -> anyhow::Result<()> {
    let registry = args.at.registry(root)?;
    let mut tags = args.to.clone();
    let mut seen = std::collections::BTreeSet::new();
    tags.retain(|tag| seen.insert(tag.clone()));
    let Retagged { digest, already } = registry.retag(&args.from, &tags)?;
    let set: Vec<_> = tags.into_iter().filter(|tag| !already.contains(tag)).collect();
    if args.json {
        let object = json!({ "repository": registry.to_string(), "from": args.from, "digest": digest,
            "set": set, "already": already });
        return terminal::json(&object);
    }
    show::lines(&[("repository", registry.to_string()), ("digest", digest.to_string())]);
    for (what, tags) in [("tagged", set), ("already", already)] {
        if !tags.is_empty() {
            show::lines(&[(what, tags.join(", "))]);
        }
    }
    Ok(())
}
