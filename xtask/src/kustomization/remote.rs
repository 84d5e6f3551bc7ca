//! The remote resources that kustomize fetches by git: which repository a URL names, and where its ref stands.
//!
//! The spellings are those of kustomize's `RepoSpec`: `github.com/O/N//path?ref=X`, `https://`, `ssh://`,
//! `git@github.com:O/N`, `file://`, each with or without `git::`, `.git` and other query parameters.

use std::ops::Range;

/// How an entry of `resources` relates to a repository.
#[derive(Debug, PartialEq, Eq)]
pub enum Remote {
    /// Another repository, or a local path.
    Other,
    /// This repository; the ref stands at these bytes, or is missing.
    Pinned(Option<Range<usize>>),
    /// This repository, but in a form that cannot be pinned safely: why.
    Unclear(&'static str),
}

/// Compares one entry with a repository, written as kustomize's shortest form: `github.com/OWNER/NAME`.
pub fn classify(url: &str, source: &str) -> Remote {
    let (address, query) = url.split_at(url.find('?').unwrap_or(url.len()));
    let (found, source) = (repository(address), repository(source));
    let Some(rest) =
        strip_prefix_ignoring_case(&found, &source).filter(|r| r.is_empty() || r.starts_with('/'))
    else {
        let raw = source.replacen("github.com/", "raw.githubusercontent.com/", 1);
        let raw =
            raw != source && strip_prefix_ignoring_case(&found, &raw).is_some_and(|r| r.starts_with('/'));
        return if raw { Remote::Unclear("a raw file carries its ref in the path") } else { Remote::Other };
    };
    if !found.starts_with(&source) {
        return Remote::Unclear("its spelling differs from the repository's in letter case");
    }
    let folder = rest.trim_start_matches('/').split('/').next().unwrap_or_default();
    if matches!(folder, "raw" | "releases" | "archive" | "blob" | "tree") {
        return Remote::Unclear("a web page's address carries its ref in the path");
    }
    if address.contains('#') {
        return Remote::Unclear("it has a fragment");
    }
    match reference(query) {
        Ok(range) => Remote::Pinned(range.map(|r| r.start + address.len()..r.end + address.len())),
        Err(why) => Remote::Unclear(why),
    }
}

/// `?` or `&`, the parameter, and the ref: what to append to an entry that names no ref.
pub fn addition(url: &str, git_ref: &str) -> String {
    let joint = if url.ends_with(['?', '&']) {
        ""
    } else if url.contains('?') {
        "&"
    } else {
        "?"
    };
    format!("{joint}ref={git_ref}")
}

/// Host and path of an address, without scheme, user, port, `.git` and what follows `//`; the host in lower case.
fn repository(address: &str) -> String {
    let address = address.trim();
    let address = strip_prefix_ignoring_case(address, "git::").unwrap_or(address);
    let (scheme, rest) = address.split_once("://").map_or((None, address), |(s, r)| (Some(s), r));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, before) = authority.split_once(':').unwrap_or((authority, ""));
    // Behind a host's colon stands a port in a URL, and the path's beginning in scp's form.
    let path = match scheme {
        None if !before.is_empty() => format!("/{before}{path}"),
        _ => path.to_owned(),
    };
    let path = path.split_once("//").map_or(path.as_str(), |(repo, _)| repo);
    let path = path.split_once(".git/").map_or(path, |(repo, _)| repo);
    let path = path.trim_end_matches('/');
    format!("{}{}", host.to_ascii_lowercase(), path.strip_suffix(".git").unwrap_or(path))
}

fn strip_prefix_ignoring_case<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// Where the value of `ref` stands in a query (with its `?`). `version` means the same to kustomize.
fn reference(query: &str) -> Result<Option<Range<usize>>, &'static str> {
    if query.contains(['%', '+', ';', '#']) {
        return Err("its query is escaped, or has a fragment");
    }
    let mut found = None;
    let mut start = 1;
    for parameter in query.get(1..).unwrap_or_default().split('&') {
        let end = start + parameter.len();
        let (name, _) = parameter.split_once('=').unwrap_or((parameter, ""));
        if matches!(name, "ref" | "version") {
            if found.is_some() {
                return Err("it names two refs");
            }
            if !parameter.contains('=') {
                return Err("its ref has no value");
            }
            found = Some(start + name.len() + 1..end);
        }
        start = end + 1;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "github.com/blogle/dojo";

    #[test]
    fn every_spelling_of_the_repository_is_found() {
        let spellings = [
            "github.com/blogle/dojo//deploy?ref=v1",
            "github.com/blogle/dojo/deploy?ref=v1",
            "github.com/blogle/dojo?ref=v1",
            "github.com/blogle/dojo.git?ref=v1",
            "https://github.com/blogle/dojo//deploy?ref=v1",
            "https://github.com/blogle/dojo.git//deploy?timeout=90s&ref=v1",
            "https://github.com/blogle/dojo.git/deploy?ref=v1&submodules=false",
            "HTTPS://GitHub.com/blogle/dojo//deploy?ref=v1",
            "https://token@github.com/blogle/dojo//deploy?ref=v1",
            "git::https://github.com/blogle/dojo//deploy?ref=v1",
            "git@github.com:blogle/dojo//deploy?ref=v1",
            "git@github.com:blogle/dojo.git//deploy?ref=v1",
            "git@github.com/blogle/dojo//deploy?ref=v1",
            "org-12@github.com:blogle/dojo.git/deploy?ref=v1",
            "ssh://git@github.com/blogle/dojo.git//deploy?ref=v1",
            "ssh://git@github.com:22/blogle/dojo//deploy?ref=v1",
            "github.com/blogle/dojo//deploy?version=v1",
            "github.com/blogle/dojo//deploy?timeout=1&version=v1&submodules=0",
        ];
        for url in spellings {
            let Remote::Pinned(Some(range)) = classify(url, SOURCE) else {
                panic!("{url}: {:?}", classify(url, SOURCE));
            };
            assert_eq!(&url[range], "v1", "{url}");
        }
        assert!(matches!(
            classify("file:///srv/origin.git//deploy?ref=v1", "file:///srv/origin.git"),
            Remote::Pinned(Some(_))
        ));
    }

    #[test]
    fn others_are_left_alone() {
        let others = [
            "../base",
            "github.com/blogle/dojo-infra//x?ref=v1",
            "github.com/blogle/dojos?ref=v1",
            "deployment.yaml",
            "gitlab.com/blogle/dojo//x?ref=v1",
            "github.com/other/dojo//x?ref=v1",
            "./github.com/blogle/dojo",
            "https://example.com/github.com/blogle/dojo?ref=v1",
            "",
            "ü",
            "githüb.com/blogle/dojo",
        ];
        for url in others {
            assert_eq!(classify(url, SOURCE), Remote::Other, "{url}");
        }
    }

    #[test]
    fn what_cannot_be_pinned_says_why() {
        let unclear = [
            "github.com/Blogle/dojo//x?ref=v1",
            "github.com/blogle/dojo//x?ref=v1&ref=v2",
            "github.com/blogle/dojo//x?ref=v1&version=v2",
            "github.com/blogle/dojo//x?ref",
            "github.com/blogle/dojo//x?%72ef=v1",
            "github.com/blogle/dojo//x?ref=v1;x=1",
            "github.com/blogle/dojo//x?ref=v1#frag",
            "github.com/blogle/dojo//x#frag?ref=v1",
            "https://github.com/blogle/dojo/releases/download/v1/install.yaml",
            "https://raw.githubusercontent.com/blogle/dojo/v1/install.yaml",
        ];
        for url in unclear {
            assert!(matches!(classify(url, SOURCE), Remote::Unclear(_)), "{url}");
        }
    }

    #[test]
    fn a_missing_ref_is_appended() {
        for (url, want) in [
            ("github.com/blogle/dojo//x", "?ref=v1"),
            ("github.com/blogle/dojo//x?timeout=1", "&ref=v1"),
            ("github.com/blogle/dojo//x?", "ref=v1"),
        ] {
            assert_eq!(classify(url, SOURCE), Remote::Pinned(None), "{url}");
            assert_eq!(addition(url, "v1"), want);
        }
    }
}
