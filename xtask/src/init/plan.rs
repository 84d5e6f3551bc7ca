//! Which names a checkout has by its deploy/pipeline.yaml, which it is to have, and a text with the ones in place of the
//! others. Every other byte stays.

use crate::fault::Fault;
use crate::pipeline::{PATH, Pipeline, on_github};

/// What is asked for; what is left out stays, or follows the owner.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// `OWNER/NAME`, as GitHub writes it.
    pub repository: &'a str,
    /// The image's host.
    pub registry: Option<&'a str>,
    /// The infra repository's URL.
    pub infra: Option<&'a str>,
    /// The last environment's host; an earlier one's is `ENVIRONMENT-HOST`.
    pub host: Option<&'a str>,
    /// What the git tags of versions are to begin with.
    pub tag_prefix: Option<&'a str>,
}

/// What may follow a name that is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A tag or a digest; what has one more part is another image.
    Image,
    /// A path inside, or `.git`.
    Repository,
    /// A port or a path.
    Host,
    /// Whatever does: of tags, in deploy/pipeline.yaml and in workflows alone. Elsewhere it is an example.
    Prefix,
}

#[derive(Debug)]
struct Pair {
    kind: Kind,
    from: String,
    to: String,
}

/// New names for old ones.
#[derive(Debug)]
pub struct Renaming {
    /// The longest first, so that none is taken for a part of another.
    pairs: Vec<Pair>,
    pub image: String,
    /// `HOST/OWNER/NAME`.
    pub repository: String,
    /// The infra repository's URL.
    pub infra: String,
    pub tag_prefix: String,
}

impl Renaming {
    /// From the names of a pipeline to those that are asked for.
    pub fn of(now: &Pipeline, asked: &Asked<'_>) -> Result<Self, Fault> {
        let (owner, name) = owner_and_name(asked.repository)?;
        let (host, from) = now.repository.split_once('/').unwrap_or(("github.com", &now.repository));
        let repository = format!("{host}/{owner}/{name}");
        let registry = asked.registry.unwrap_or_else(|| now.image.split('/').next().unwrap_or_default());
        let image = format!("{}/{}", registry_host(registry)?, image_path(owner, name)?);
        let infra = asked.infra.map_or_else(|| moved(&now.infra.url, from, owner), str::to_owned);
        if infra.is_empty()
            || infra.chars().any(|c| c.is_whitespace() || c.is_control() || "\"'\\".contains(c))
        {
            return Err(Fault::usage(format!("{infra:?} is no URL of a repository"))
                .help("for example --infra git@github.com:OWNER/infra.git"));
        }
        let pair = |kind, from: &str, to: &str| Pair { kind, from: from.to_owned(), to: to.to_owned() };
        let mut pairs = vec![
            pair(Kind::Image, &now.image, &image),
            pair(Kind::Repository, &now.repository, &repository),
            // As ssh writes it, and as actions/checkout asks for it.
            pair(Kind::Repository, &format!("{host}:{from}"), &format!("{host}:{owner}/{name}")),
            pair(Kind::Repository, &format!("repository: {from}"), &format!("repository: {owner}/{name}")),
            pair(Kind::Repository, &now.infra.url, &infra),
        ];
        if let Some(was) = now.infra.repository() {
            let to = on_github(&infra).unwrap_or_else(|| moved(&was, from, owner));
            pairs.push(pair(Kind::Repository, &was, &to));
        }
        if let Some(host) = asked.host {
            pairs.extend(hosts(now, host)?.into_iter().map(|(from, to)| pair(Kind::Host, &from, &to)));
        }
        let tag_prefix = asked.tag_prefix.unwrap_or(&now.tag_prefix).to_owned();
        pairs.extend(
            prefixes(&now.tag_prefix, &tag_prefix)
                .into_iter()
                .map(|(from, to)| pair(Kind::Prefix, &from, &to)),
        );
        pairs.sort_by(|one, other| other.from.len().cmp(&one.from.len()).then(one.from.cmp(&other.from)));
        for two in pairs.windows(2) {
            if let [one, other] = two
                && one.from == other.from
                && one.to != other.to
            {
                return Err(Fault::usage(format!(
                    "{} would have to become {} here and {} there",
                    one.from, one.to, other.to
                ))
                .help(format!("give them names of their own in {PATH} first")));
            }
        }
        Ok(Self { pairs, image, repository, infra, tag_prefix })
    }

    /// The text with the new names. Refuses one that has an old name's new one where that is another's old one.
    pub fn rewrite(&self, path: &str, text: &str) -> Result<String, Fault> {
        let new = self.once(path, text);
        // A second run, after a kill, must not rename what the first one wrote.
        if self.once(path, &new) != new {
            return Err(Fault::usage(format!("{path}: a new name there is the old one of something else"))
                .help("rename in two steps, by way of names that nothing has"));
        }
        Ok(new)
    }

    fn once(&self, path: &str, text: &str) -> String {
        let prefixed = path == PATH || path.starts_with(".github/workflows/");
        let pairs = || self.pairs.iter().filter(|pair| prefixed || pair.kind != Kind::Prefix);
        let mut new = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let at = &text[..text.len() - rest.len()];
            let found = pairs().find(|pair| {
                rest.strip_prefix(pair.from.as_str()).is_some_and(|after| begins(at) && pair.kind.ends(after))
            });
            let (taken, put) = found.map_or_else(
                || (c.len_utf8(), &rest[..c.len_utf8()]),
                |pair| (pair.from.len(), pair.to.as_str()),
            );
            new.push_str(put);
            rest = &rest[taken..];
        }
        new
    }
}

/// Whether a name may begin after this: not inside a word, a host or a path, but after a URL's `//`.
fn begins(before: &str) -> bool {
    match before.chars().next_back() {
        Some('/') => before.ends_with("//"),
        Some(c) => !is_part(c) && c != '.',
        None => true,
    }
}

fn is_part(c: char) -> bool {
    c.is_alphanumeric() || "_-".contains(c)
}

impl Kind {
    /// Whether a name of this kind may end before this.
    fn ends(self, after: &str) -> bool {
        if self == Self::Prefix {
            return true;
        }
        let mut after = after;
        if self == Self::Repository {
            after = after.strip_prefix(".git").unwrap_or(after);
        }
        let mut next = after.chars();
        match next.next() {
            Some('/') => self != Self::Image,
            // The end of a sentence, or a longer name.
            Some('.') => !next.next().is_some_and(is_part),
            Some(c) => !is_part(c),
            None => true,
        }
    }
}

/// Where the prefix of tags stands: in deploy/pipeline.yaml, and in the workflow's patterns, which may still have none.
fn prefixes(now: &str, new: &str) -> Vec<(String, String)> {
    let mut pairs = vec![(format!("tag_prefix: \"{now}\""), format!("tag_prefix: \"{new}\""))];
    for was in [now, ""] {
        for (before, after) in
            [("tags: [\"", "v*\"]"), ("\"release/", "*\""), ("startsWith(github.ref_name, 'release/", "')")]
        {
            pairs.push((format!("{before}{was}{after}"), format!("{before}{new}{after}")));
        }
    }
    pairs.sort();
    pairs.dedup();
    pairs
}

/// The two parts, by GitHub's rules.
fn owner_and_name(text: &str) -> Result<(&str, &str), Fault> {
    let wrong = |why: &str| {
        Err(Fault::usage(format!("{text:?} is no OWNER/NAME: {why}"))
            .help("for example: cargo xtask init alice/dojo"))
    };
    let Some((owner, name)) = text.split_once('/') else { return wrong("it has no /") };
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if owner.is_empty() || owner.len() > 39 || !owner.chars().all(plain) {
        return wrong("an owner has 1 to 39 letters, digits and hyphens");
    }
    if owner.starts_with('-') || owner.ends_with('-') || owner.contains("--") {
        return wrong("an owner's hyphens are single, and between other characters");
    }
    if name.is_empty() || name.len() > 100 || !name.chars().all(|c| plain(c) || "._".contains(c)) {
        return wrong("a repository's name has 1 to 100 letters, digits, hyphens, dots and underscores");
    }
    if name == "." || name == ".." || name.to_ascii_lowercase().ends_with(".git") {
        return wrong("a repository's name is neither . nor .., and does not end with .git");
    }
    Ok((owner, name))
}

/// `owner/name` as registries take it: lower case, with separators only between other characters (OCI distribution, "Pulling
/// manifests").
fn image_path(owner: &str, name: &str) -> Result<String, Fault> {
    let path = format!("{owner}/{name}").to_ascii_lowercase();
    let (_, name) = path.split_once('/').unwrap_or_default();
    let separators = name.split(|c: char| c.is_ascii_alphanumeric());
    let single =
        |between: &str| matches!(between, "" | "." | "_" | "__") || between.bytes().all(|b| b == b'-');
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    if !ends(name.chars().next()) || !ends(name.chars().next_back()) || !separators.into_iter().all(single) {
        return Err(Fault::usage(format!("registries take no image of the name {path}"))
            .help("choose a name that begins and ends with a letter or digit, with single dots or underscores between"));
    }
    Ok(path)
}

/// `HOST[:PORT]`, which must look like one, or it would be taken for a part of a path.
fn registry_host(host: &str) -> Result<&str, Fault> {
    let (name, port) = host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
    let number = port.is_none_or(|port| port.parse::<u16>().is_ok());
    if is_host(name) && number && (name.contains('.') || port.is_some() || name == "localhost") {
        return Ok(host);
    }
    Err(Fault::usage(format!("{host:?} is no host of a registry")).help("for example --registry ghcr.io"))
}

/// A name of DNS (RFC 1123), in lower case as Ingress asks.
fn is_host(name: &str) -> bool {
    let label = |label: &str| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        (1..=63).contains(&label.len())
            && label.chars().all(plain)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// The same address, where it is one of the old owner's.
fn moved(address: &str, repository: &str, owner: &str) -> String {
    let was = repository.split('/').next().unwrap_or_default();
    for joint in [':', '/'] {
        let (from, to) = (format!("{joint}{was}/"), format!("{joint}{owner}/"));
        if address.contains(&from) {
            return address.replacen(&from, &to, 1);
        }
    }
    address.to_owned()
}

/// The environments' hosts, each with its new one.
fn hosts(now: &Pipeline, host: &str) -> Result<Vec<(String, String)>, Fault> {
    let last = now.environments.len().saturating_sub(1);
    let mut hosts = Vec::new();
    for (index, environment) in now.environments.iter().enumerate() {
        let to = if index == last { host.to_owned() } else { format!("{}-{host}", environment.name) };
        if !is_host(&to) || !to.contains('.') {
            return Err(Fault::usage(format!("{to:?} is no host in lower case"))
                .help("for example --host dojo.example.com"));
        }
        let authority = environment.url.split_once("://").map_or("", |(_, rest)| rest);
        let from = authority.split(['/', ':']).next().unwrap_or_default();
        hosts.push((from.to_owned(), to));
    }
    Ok(hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "
image: ghcr.io/o/dojo
repository: github.com/o/dojo
branch: master
infra: {url: 'git@github.com:o/infra.git', branch: main}
environments:
  - {name: staging, kustomization: s.yaml, accepts: [edge], url: 'https://staging-dojo.example.com'}
  - {name: production, kustomization: p.yaml, accepts: [release], url: 'https://dojo.example.com:8443/x'}
";

    fn renaming(now: &str, asked: &Asked<'_>) -> Result<Renaming, Fault> {
        Renaming::of(&Pipeline::parse(now).unwrap(), asked)
    }

    #[test]
    fn whole_names_are_renamed_and_what_only_looks_like_one_is_not() {
        let asked = Asked { repository: "A/New", host: Some("new.example.org"), ..Asked::default() };
        let renaming = renaming(NOW, &asked).unwrap();
        let new = |text: &str| renaming.rewrite("file", text).unwrap();
        for (from, to) in [
            ("image: ghcr.io/o/dojo:v1@sha256:0", "image: ghcr.io/a/new:v1@sha256:0"),
            ("docker://ghcr.io/o/dojo", "docker://ghcr.io/a/new"),
            ("(https://github.com/o/dojo).", "(https://github.com/A/New)."),
            ("https://github.com/o/dojo.git", "https://github.com/A/New.git"),
            ("github.com/o/dojo//deploy?ref=v1", "github.com/A/New//deploy?ref=v1"),
            ("git@github.com:o/dojo.git", "git@github.com:A/New.git"),
            ("\trepository: o/dojo\r\n", "\trepository: A/New\r\n"),
            ("git@github.com:o/infra.git", "git@github.com:A/infra.git"),
            ("https://github.com/o/infra", "https://github.com/A/infra"),
            (
                "https://dojo.example.com:8443/x, dojo.example.com.",
                "https://new.example.org:8443/x, new.example.org.",
            ),
            ("staging-dojo.example.com", "staging-new.example.org"),
        ] {
            assert_eq!(new(from), to);
        }
        for same in [
            "ghcr.io/o/dojo-web",
            "ghcr.io/o/dojo/web",
            "ghcr.io/o/dojo.web",
            "mirror/ghcr.io/o/dojo",
            "github.com/o/dojos",
            "github.com/o/dojo.io",
            "github.com/O/dojo",
            "raw.github.com/o/dojo",
            "my-repository: o/dojo",
            "cdn.dojo.example.com",
            "old-dojo.example.com",
            "dojo.example.community",
        ] {
            assert_eq!(new(same), same);
        }
    }

    #[test]
    fn names_that_cannot_be_told_apart_are_refused() {
        let same = NOW.replace("ghcr.io", "github.com");
        let refused =
            renaming(&same, &Asked { repository: "A/New", ..Asked::default() }).unwrap_err().to_string();
        assert!(refused.contains("github.com/o/dojo would have to become "), "{refused}");
        // A second run would rename what the first one wrote.
        let asked = Asked { repository: "o/dojo", host: Some("dojo.example.com"), ..Asked::default() };
        let swapped = NOW.replace("staging-dojo", "old").replace("//dojo.", "//staging-dojo.");
        let refused = renaming(&swapped.replace("old.", "dojo."), &asked).unwrap();
        let refused = refused.rewrite("file", "host: dojo.example.com").unwrap_err().to_string();
        assert!(refused.contains("file: a new name there is the old one of something else"), "{refused}");
    }
}
