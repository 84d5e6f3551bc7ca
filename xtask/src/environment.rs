//! What the infra repository has of an environment: its pin, and the files of this tool beside its kustomization.
//!
//! `restore.env` names the backup that the service is to start from, once. It is a file of its own and not a line in the
//! kustomization, since it is this tool's alone; kustomize takes it into the ConfigMap `dojo` by
//! `configMapGenerator: [{name: dojo, behavior: merge, envs: [restore.env]}]`.

use serde_yaml::Value;

use crate::fault::Fault;
use crate::kustomization::Pin;

/// Names the backup to start from.
pub const RESTORE: &str = "restore.env";
/// Its presence holds the environment; its text says why.
pub const HOLD: &str = "HOLD";
/// The rendered manifests, where the environment keeps them.
pub const MANIFESTS: &str = "manifests.yaml";

/// All that the infra repository says of one environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pinned {
    pub pin: Pin,
    /// The backup that it is to start from, once.
    pub restore: Option<String>,
    /// Why nobody is to change the pin.
    pub hold: Option<String>,
}

/// Files to start from where an environment's own are gone, or cannot be edited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Base {
    /// Where they are from, for people.
    pub whence: String,
    /// Path in the infra repository, and text; the kustomization among them.
    pub files: Vec<(String, String)>,
}

impl Base {
    pub fn text(&self, path: &str) -> Option<&str> {
        self.files.iter().find(|(name, _)| name == path).map(|(_, text)| text.as_str())
    }
}

const KEY: &str = "DOJO_RESTORE=";

/// The id that the file names; `None` if it names none.
pub fn restore_of(text: &str) -> Option<String> {
    let id = text.lines().rev().find_map(|line| blank(line).strip_prefix(KEY))?.trim();
    (!id.is_empty()).then(|| id.to_owned())
}

/// kustomize takes no notice of blanks before a key, nor of a byte order mark.
fn blank(line: &str) -> &str {
    line.trim_start_matches('\u{feff}').trim_start()
}

/// The text with this id, or with none.
pub fn with_restore(text: &str, id: Option<&str>) -> String {
    let line = format!("{KEY}{}", id.unwrap_or_default());
    let mut lines: Vec<_> =
        text.lines().filter(|line| !blank(line).starts_with(KEY)).map(str::to_owned).collect();
    lines.push(line);
    lines.join("\n") + "\n"
}

/// The path of a file beside the kustomization at `path`.
pub fn beside(path: &str, name: &str) -> String {
    path.rsplit_once('/').map_or_else(|| name.to_owned(), |(folder, _)| format!("{folder}/{name}"))
}

/// Whether a backup can have this id: the name of a file, without its ending.
pub fn check_id(id: &str) -> Result<(), Fault> {
    let plain = id.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if plain && !id.is_empty() && !id.starts_with(['.', '-']) && id.len() <= 128 {
        return Ok(());
    }
    Err(Fault::usage(format!("{id:?} is no backup's id"))
        .help("an id is the name of a file in the volume's backups/, without .duckdb: ledger-schema1-seq42"))
}

/// Schema and sequence, as the names tell that `dojo migrate --backup` gives.
pub fn told_by_name(id: &str) -> Option<(u32, u64)> {
    let (rest, sequence) = id.rsplit_once("-seq")?;
    let (_, schema) = rest.rsplit_once("-schema")?;
    Some((schema.parse().ok()?, sequence.parse().ok()?))
}

/// Refuses a kustomization that does not take the file in: a restore that nobody reads would be a lie.
pub fn takes_restore(kustomization: &str, path: &str) -> Result<(), Fault> {
    let root: Value = serde_yaml::from_str(kustomization).unwrap_or_default();
    let generators = root.get("configMapGenerator").and_then(Value::as_sequence).into_iter().flatten();
    let takes = |generator: &Value| {
        let is = |key: &str, value: &str| generator.get(key).and_then(Value::as_str) == Some(value);
        if !is("name", "dojo") || !is("behavior", "merge") {
            return false;
        }
        let files = generator.get("envs").and_then(Value::as_sequence).into_iter().flatten();
        files.filter_map(Value::as_str).any(|file| file.trim_start_matches("./") == RESTORE)
    };
    if generators.into_iter().any(takes) {
        return Ok(());
    }
    Err(Fault::refused(format!("{path} does not take {RESTORE} in, so the service would not hear of the restore")).help(
        format!("add to it, and commit: configMapGenerator: [{{name: dojo, behavior: merge, envs: [{RESTORE}]}}]; and {RESTORE} with the line {KEY}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_set_and_taken_away_and_the_rest_stays() {
        let text = "# written by a rollback\nDOJO_RESTORE=\n";
        assert_eq!(restore_of(text), None);
        let set = with_restore(text, Some("ledger-schema1-seq3"));
        assert_eq!(set, "# written by a rollback\nDOJO_RESTORE=ledger-schema1-seq3\n");
        assert_eq!(restore_of(&set).as_deref(), Some("ledger-schema1-seq3"));
        assert_eq!(with_restore(&set, None), text);
        assert_eq!(with_restore("", None), "DOJO_RESTORE=\n");
        assert_eq!(restore_of("\u{feff}  DOJO_RESTORE=a\r\n").as_deref(), Some("a"));
        assert_eq!(with_restore("  DOJO_RESTORE=a\nX=1\n", None), "X=1\nDOJO_RESTORE=\n");
    }

    #[test]
    fn an_id_is_a_plain_name() {
        for bad in ["", "../x", "a/b", ".hidden", "-rf", "a b", "ü"] {
            check_id(bad).unwrap_err();
        }
        check_id("ledger-schema1-seq3").unwrap();
        assert_eq!(told_by_name("ledger-schema1-seq3"), Some((1, 3)));
        assert_eq!(told_by_name("my-schema-backup"), None);
    }

    #[test]
    fn a_kustomization_that_does_not_take_it_in_is_refused() {
        let wired = "configMapGenerator:\n- {name: dojo, behavior: merge, envs: [restore.env]}\n";
        takes_restore(wired, "p/kustomization.yaml").unwrap();
        let refusal = takes_restore("resources: []\n", "p/kustomization.yaml").unwrap_err().to_string();
        assert!(refusal.starts_with("p/kustomization.yaml does not take restore.env in"), "{refusal}");
    }
}
