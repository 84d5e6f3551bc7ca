//! The workspace's version, in Cargo.toml and Cargo.lock. Text in, text out: the bytes of the version are replaced
//! where toml_edit says they stand, since its own writing turns CRLF into LF. Members' own versions are left out:
//! they inherit the workspace's.

use std::ops::Range;

use toml_edit::{Document, Item};

use crate::fault::Fault;
use crate::version::Version;

/// `workspace.package.version` of a Cargo.toml.
pub fn workspace_version(cargo_toml: &str) -> Result<Version, Fault> {
    let (at, text) = find_workspace_version(cargo_toml)?;
    text.parse().map_err(|_| {
        let line = line(cargo_toml, at.start);
        Fault::refused(format!("Cargo.toml:{line}: workspace.package.version is not a version: {text}"))
            .help("write it as MAJOR.MINOR.PATCH")
    })
}

/// The same Cargo.toml with another version.
pub fn set_workspace_version(cargo_toml: &str, version: &Version) -> Result<String, Fault> {
    let (at, _) = find_workspace_version(cargo_toml)?;
    let changed = splice(cargo_toml, &[at], &version.bare());
    match workspace_version(&changed) {
        Ok(found) if found == *version => Ok(changed),
        _ => Err(Fault::refused("Cargo.toml: workspace.package.version cannot be replaced safely")
            .help("write it as version = \"0.1.0\"")),
    }
}

/// The same Cargo.lock with another version for the named members of the workspace.
pub fn set_lock_versions(cargo_lock: &str, members: &[&str], version: &Version) -> Result<String, Fault> {
    let document = parse(cargo_lock, "Cargo.lock")?;
    let packages = document.get("package").and_then(Item::as_array_of_tables);
    let mut spans = Vec::new();
    for member in members {
        let mut named =
            packages.into_iter().flatten().filter(|package| text(package.get("name")) == Some(member));
        let (Some(package), None) = (named.next(), named.next()) else {
            return Err(Fault::refused(format!("Cargo.lock: not exactly one package is named {member}"))
                .help("run cargo update --workspace"));
        };
        let version = package.get("version");
        match (package.get("source"), version.and_then(Item::span), text(version)) {
            (None, Some(span), Some(_)) => spans.push(span),
            _ => {
                return Err(Fault::refused(format!("Cargo.lock: {member} is not a member of the workspace"))
                    .help("run cargo update --workspace"));
            }
        }
    }
    spans.sort_by_key(|span| span.start);
    spans.dedup();
    let changed = splice(cargo_lock, &spans, &version.bare());
    parse(&changed, "Cargo.lock")?;
    Ok(changed)
}

fn parse<'t>(toml: &'t str, file: &str) -> Result<Document<&'t str>, Fault> {
    Document::parse(toml).map_err(|error| {
        let line = line(toml, error.span().map_or(0, |span| span.start));
        Fault::refused(format!("{file}:{line}: {}", error.message()))
    })
}

fn find_workspace_version(cargo_toml: &str) -> Result<(Range<usize>, String), Fault> {
    let document = parse(cargo_toml, "Cargo.toml")?;
    let version = document
        .get("workspace")
        .and_then(|workspace| workspace.get("package"))
        .and_then(|package| package.get("version"));
    match (version.and_then(Item::span), text(version)) {
        (Some(span), Some(text)) => Ok((span, text.to_owned())),
        _ => Err(Fault::refused("Cargo.toml: there is no workspace.package.version")
            .help("this tool releases a workspace whose members inherit one version")),
    }
}

fn text(item: Option<&Item>) -> Option<&str> {
    item.and_then(Item::as_str)
}

/// Replaces quoted strings, and keeps their quotes.
fn splice(toml: &str, strings: &[Range<usize>], with: &str) -> String {
    let (mut result, mut from) = (String::with_capacity(toml.len()), 0);
    for at in strings {
        let quotes = toml[at.clone()].bytes().take_while(|b| matches!(b, b'"' | b'\'')).count();
        result += &toml[from..at.start + quotes];
        result += with;
        from = at.end - quotes;
    }
    result + &toml[from..]
}

fn line(text: &str, at: usize) -> usize {
    text.get(..at).map_or(1, |before| before.matches('\n').count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn only_the_version_changes() {
        let forms = [
            "# top\r\n[workspace]\r\nmembers = ['a']\r\n\r\n[workspace.package]\r\nversion = 'V' # now\r\nedition='2024'",
            "[workspace.package]\nversion=\"V\"\n[workspace.dependencies]\nx = { version = \"0.1.0\" }\n",
            "[workspace]\npackage = { edition = '2024', version = 'V' }\n[package]\nversion = \"0.1.0\"\n",
            "workspace.package.version = \"V\"  # ü\n",
            "[workspace.package]\nversion = \"\"\"V\"\"\"\n",
        ];
        for form in forms {
            let text = form.replace('V', "0.1.0");
            assert_eq!(workspace_version(&text).unwrap(), version("v0.1.0"), "{form}");
            let changed = set_workspace_version(&text, &version("v0.2.0-rc.1")).unwrap();
            assert_eq!(changed, form.replace('V', "0.2.0-rc.1"));
        }
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let refusal = |text: &str| workspace_version(text).unwrap_err().to_string();
        assert!(refusal("[package]\nversion = '1.0.0'\n").contains("no workspace.package.version"));
        assert!(refusal("[workspace.package]\nversion = 1\n").contains("no workspace.package.version"));
        assert!(refusal("[workspace.package]\nversion = 'one'\n").contains("Cargo.toml:2: "));
        assert!(refusal("[workspace.package]\n\nversion = \n").contains("Cargo.toml:3: "));
        let escaped = "[workspace.package]\nversion = \"\\u0030.1.0\"\n";
        assert!(set_workspace_version(escaped, &version("v0.2.0")).is_ok());
    }

    const LOCK: &str =
        "version = 4\n\n[[package]]\nname = \"dojo\"\nversion = \"0.1.0\"\ndependencies = [\n \"serde\",\n]\n
[[package]]\nname = \"serde\"\nversion = \"0.1.0\"\nsource = \"registry+x\"\n
[[package]]\nname = \"xtask\"\nversion = \"0.1.0\"\n";

    #[test]
    fn the_lock_changes_for_members_alone() {
        for lock in [LOCK.to_owned(), LOCK.replace('\n', "\r\n")] {
            let changed = set_lock_versions(&lock, &["xtask", "dojo"], &version("v0.2.0")).unwrap();
            let mut parts = lock.split("0.1.0");
            let expected =
                ["0.2.0", "0.1.0", "0.2.0"].iter().fold(parts.next().unwrap().to_owned(), |text, version| {
                    text + version + parts.next().unwrap()
                });
            assert_eq!(changed, expected);
        }
        let refusal =
            |members: &[&str]| set_lock_versions(LOCK, members, &version("v1.0.0")).unwrap_err().to_string();
        assert!(refusal(&["dojo", "nope"]).contains("nope"));
        assert!(refusal(&["serde"]).contains("serde is not a member"));
    }

    #[test]
    fn cargo_agrees_about_this_workspace() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        let toml = std::fs::read_to_string(format!("{root}/Cargo.toml")).unwrap();
        let lock = std::fs::read_to_string(format!("{root}/Cargo.lock")).unwrap();
        let current = workspace_version(&toml).unwrap();
        assert_eq!(current.bare(), env!("CARGO_PKG_VERSION"));
        assert_eq!(set_workspace_version(&toml, &current).unwrap(), toml);
        assert_eq!(set_lock_versions(&lock, &["dojo", "xtask"], &current).unwrap(), lock);
    }
}
