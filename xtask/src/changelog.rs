//! CHANGELOG.md in the form of keepachangelog.com: what is unreleased becomes a version's section, and sections
//! become release notes. Text in, text out; the rest of the file keeps its bytes. The prose is left to people: a
//! draft from commit subjects is only ever a draft.

use std::ops::Range;

use crate::fault::Fault;
use crate::version::Version;

const FILE: &str = "CHANGELOG.md";
const UNRELEASED: &str = "Unreleased";

/// A `## ` heading and what stands below it.
#[derive(Debug)]
struct Section<'t> {
    /// Without brackets and date.
    title: &'t str,
    line: usize,
    /// Where the heading ends, before its line break.
    heading_end: usize,
    /// From there to the next heading, or to the link references at the file's end.
    body: Range<usize>,
}

/// What the next release will say: the body of `[Unreleased]`, without blank lines around it.
pub fn unreleased(text: &str) -> Result<String, Fault> {
    let section = find_unreleased(text)?;
    Ok(text[section.body].trim().to_owned())
}

/// Puts notes below an `[Unreleased]` that has none.
pub fn fill(text: &str, notes: &str) -> Result<String, Fault> {
    let section = find_unreleased(text)?;
    if has_notes(&text[section.body.clone()]) {
        return Err(Fault::refused(format!("{FILE}:{}: [Unreleased] has notes already", section.line)));
    }
    let eol = line_break(text);
    let notes = notes.trim().lines().collect::<Vec<_>>().join(eol);
    let after = if text[section.body.end..].is_empty() { "" } else { eol };
    Ok(format!("{}{eol}{eol}{notes}{eol}{after}{}", &text[..section.heading_end], &text[section.body.end..]))
}

/// Makes the unreleased notes those of `version`, below a fresh `[Unreleased]`; `today` is YYYY-MM-DD, `repository`
/// is github.com/OWNER/NAME. Compare links at the file's end follow, if there are any, between what `tag` makes of versions.
pub fn roll(
    text: &str,
    version: &Version,
    today: &str,
    repository: &str,
    tag: &dyn Fn(&Version) -> String,
) -> Result<String, Fault> {
    if today.len() != 10 || today.parse::<jiff::civil::Date>().is_err() {
        return Err(Fault::usage(format!("not a date: {today}")).help("write it as YYYY-MM-DD"));
    }
    let bare = version.bare();
    let sections = sections(text);
    if let Some(section) = sections.iter().find(|section| section.version().as_ref() == Some(version)) {
        return Err(Fault::refused(format!("{FILE}:{}: {bare} has a section already", section.line))
            .help("a released version keeps its notes: release the next one"));
    }
    let section = find_unreleased(text)?;
    if !has_notes(&text[section.body.clone()]) {
        return Err(Fault::refused(format!(
            "{FILE}:{}: [Unreleased] says nothing about {version}",
            section.line
        ))
        .help("write down what changed for those who run it"));
    }
    let previous = sections.iter().filter(|later| later.line > section.line).find_map(Section::version);
    let eol = line_break(text);
    let mut result = text[..section.heading_end].to_owned();
    result += &format!("{eol}{eol}## [{bare}] - {today}");
    let rest = &text[section.heading_end..];
    match links(rest, version, previous.as_ref(), repository, tag) {
        Some((at, lines)) => {
            result += &rest[..at.start];
            result += &lines.join(eol);
            result += &rest[at.end..];
        }
        None => result += rest,
    }
    Ok(result)
}

/// The notes of one version; `None` if it has no section.
pub fn section(text: &str, version: &Version) -> Option<String> {
    let section = sections(text).into_iter().find(|section| section.version().as_ref() == Some(version))?;
    Some(text[section.body].trim().to_owned())
}

/// The notes of the versions after `from` up to `to`, newest first.
pub fn between(text: &str, from: Option<&Version>, to: &Version) -> Vec<(Version, String)> {
    let mut found: Vec<_> = sections(text)
        .into_iter()
        .filter_map(|section| Some((section.version()?, text[section.body].trim().to_owned())))
        .filter(|(version, _)| version <= to && from.is_none_or(|from| version > from))
        .collect();
    found.sort_by(|(a, _), (b, _)| b.cmp(a));
    found
}

/// A first draft from commit subjects, to be rewritten by people: grouped by each subject's first word.
pub fn draft(subjects: &[String]) -> String {
    let groups = ["Added", "Changed", "Fixed"];
    let mut lists = [const { Vec::new() }; 3];
    for subject in subjects.iter().map(|subject| subject.trim()) {
        let first = subject.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        let group = match first.to_ascii_lowercase().as_str() {
            // What this tool writes itself is no news.
            "release" if is_release(subject) => continue,
            "" | "merge" => continue,
            "add" | "adds" | "added" | "feat" => 0,
            "fix" | "fixes" | "fixed" => 2,
            _ => 1,
        };
        lists[group].push(format!("- {}", subject.replace(['\r', '\n'], " ")));
    }
    let parts: Vec<_> = groups
        .iter()
        .zip(lists)
        .filter(|(_, list)| !list.is_empty())
        .map(|(group, list)| format!("### {group}\n\n{}", list.join("\n")))
        .collect();
    parts.join("\n\n")
}

/// `release: v0.1.0`, or with the prefix that a service's tags have.
fn is_release(subject: &str) -> bool {
    let tag =
        subject.strip_prefix("release: ").and_then(|rest| rest.split_whitespace().next()).unwrap_or_default();
    tag.match_indices('v').any(|(at, _)| Version::from_tag(&tag[at..]).is_some())
}

impl Section<'_> {
    fn version(&self) -> Option<Version> {
        self.title.parse().ok()
    }
}

fn find_unreleased(text: &str) -> Result<Section<'_>, Fault> {
    let mut found =
        sections(text).into_iter().filter(|section| section.title.eq_ignore_ascii_case(UNRELEASED));
    match (found.next(), found.next()) {
        (Some(section), None) => Ok(section),
        (Some(_), Some(second)) => {
            Err(Fault::refused(format!("{FILE}:{}: a second [Unreleased]", second.line)).help("keep one"))
        }
        (None, _) => Err(Fault::refused(format!("{FILE}:1: there is no section ## [Unreleased]"))
            .help("add one above the newest version, in the form of keepachangelog.com")),
    }
}

/// Whether there is more than headings, blank lines and one-line HTML comments.
fn has_notes(body: &str) -> bool {
    body.lines()
        .map(str::trim)
        .any(|line| !line.is_empty() && !line.starts_with('#') && !line.starts_with("<!--"))
}

/// The lines of a text: number from 1, start, and the line without its break. For a code fence and what it holds, the
/// mark stands in place of the line, so that nothing in there is taken for a heading or a link.
fn lines(text: &str) -> Vec<(usize, usize, &str)> {
    let (mut start, mut fence, mut found) = (0, None, Vec::new());
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let trimmed = line.trim_start();
        let mark = ["```", "~~~"].into_iter().find(|mark| trimmed.starts_with(mark));
        let code = fence.or(mark);
        found.push((index + 1, start, code.unwrap_or(line.trim_end_matches(['\r', '\n']))));
        match (fence, mark) {
            (Some(open), Some(mark)) if open == mark => fence = None,
            (None, Some(mark)) => fence = Some(mark),
            _ => {}
        }
        start += line.len();
    }
    found
}

fn sections(text: &str) -> Vec<Section<'_>> {
    let lines = lines(text);
    // The link references after the last section belong to none.
    let mut end = text.len();
    for (_, start, _) in lines.iter().rev().take_while(|(_, _, line)| line.trim().is_empty() || is_link(line))
    {
        end = *start;
    }
    let mut found: Vec<Section<'_>> = Vec::new();
    for (number, start, line) in lines {
        let Some(heading) = line.strip_prefix("## ") else { continue };
        if let Some(last) = found.last_mut() {
            last.body.end = start;
        }
        let heading = heading.trim_start();
        let title = match heading.strip_prefix('[') {
            Some(bracketed) => bracketed.split(']').next(),
            None => heading.split_whitespace().next(),
        };
        let heading_end = start + line.len();
        let title = title.unwrap_or_default().trim();
        found.push(Section { title, line: number, heading_end, body: heading_end..end.max(heading_end) });
    }
    found
}

/// A link reference definition: `[label]: address`.
fn is_link(line: &str) -> bool {
    label(line).is_some()
}

fn label(line: &str) -> Option<&str> {
    line.strip_prefix('[')?.split_once("]:").map(|(label, _)| label)
}

/// Which bytes of the text the lines of links replace, if it has links for versions at all.
fn links(
    text: &str,
    version: &Version,
    previous: Option<&Version>,
    repository: &str,
    tag: &dyn Fn(&Version) -> String,
) -> Option<(Range<usize>, Vec<String>)> {
    let (bare, own) = (version.bare(), tag(version));
    let link = match previous.map(tag) {
        Some(previous) => format!("[{bare}]: https://{repository}/compare/{previous}...{own}"),
        None => format!("[{bare}]: https://{repository}/releases/tag/{own}"),
    };
    let links: Vec<_> = lines(text).into_iter().filter(|(_, _, line)| is_link(line)).collect();
    let labelled =
        |wanted: &dyn Fn(&str) -> bool| links.iter().find(|(_, _, line)| label(line).is_some_and(wanted));
    if let Some((_, start, line)) = labelled(&|label| label.eq_ignore_ascii_case(UNRELEASED)) {
        let head = line.rsplit_once("...").map_or("HEAD", |(_, head)| head);
        let name = label(line).unwrap_or(UNRELEASED);
        let unreleased = format!("[{name}]: https://{repository}/compare/{own}...{head}");
        return Some((*start..start + line.len(), vec![unreleased, link]));
    }
    let (_, start, _) = labelled(&|label| label.parse::<Version>().is_ok())?;
    Some((*start..*start, vec![link, String::new()]))
}

fn line_break(text: &str) -> &'static str {
    if text.lines().next().is_some_and(|first| text[first.len()..].starts_with("\r\n")) {
        "\r\n"
    } else {
        "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Changelog

## [Unreleased]

### Added

- A ledger that balances ([#12]).

```text
## [9.9.9] not a heading
```

## [0.2.0] - 2026-02-03

- Two.

## v0.1.0 - 2026-01-02 [YANKED]

- One.

[Unreleased]: https://github.com/blogle/dojo/compare/v0.2.0...HEAD
[0.2.0]: https://github.com/blogle/dojo/compare/v0.1.0...v0.2.0
[0.1.0]: https://github.com/blogle/dojo/releases/tag/v0.1.0
";
    const REPOSITORY: &str = "github.com/blogle/dojo";

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    fn rolled(text: &str, to: &str) -> String {
        roll(text, &version(to), "2026-03-04", REPOSITORY, &Version::to_string).unwrap()
    }

    #[test]
    fn a_release_takes_the_unreleased_notes() {
        let expected = TEXT
            .replace("## [Unreleased]\n", "## [Unreleased]\n\n## [0.3.0] - 2026-03-04\n")
            .replace(
                "[Unreleased]: https://github.com/blogle/dojo/compare/v0.2.0...HEAD",
                "[Unreleased]: https://github.com/blogle/dojo/compare/v0.3.0...HEAD\n[0.3.0]: https://github.com/blogle/dojo/compare/v0.2.0...v0.3.0",
            );
        assert_eq!(rolled(TEXT, "v0.3.0"), expected);
        assert_eq!(rolled(&TEXT.replace('\n', "\r\n"), "v0.3.0"), expected.replace('\n', "\r\n"));
        assert_eq!(unreleased(&expected).unwrap(), "");
        assert_eq!(section(&expected, &version("v0.3.0")).unwrap(), unreleased(TEXT).unwrap());
        assert!(unreleased(TEXT).unwrap().ends_with("```"));
    }

    #[test]
    fn links_appear_only_where_there_are_some() {
        let first = "# Changelog\n\n## [Unreleased]\n\n- One.\n";
        let out = "# Changelog\n\n## [Unreleased]\n\n## [0.1.0] - 2026-03-04\n\n- One.\n";
        assert_eq!(rolled(first, "v0.1.0"), out);
        let ours =
            roll(TEXT, &version("v0.3.0"), "2026-03-04", REPOSITORY, &|version| format!("dojo-{version}"))
                .unwrap();
        let both = "compare/dojo-v0.3.0...HEAD\n[0.3.0]: https://github.com/blogle/dojo/compare/dojo-v0.2.0...dojo-v0.3.0\n";
        assert!(ours.contains(both), "{ours}");
        let linked = format!("{first}\n[unreleased]: https://github.com/blogle/dojo/commits/master\n");
        let tail = "[unreleased]: https://github.com/blogle/dojo/compare/v0.1.0...HEAD\n[0.1.0]: https://github.com/blogle/dojo/releases/tag/v0.1.0\n";
        assert_eq!(rolled(&linked, "v0.1.0"), format!("{out}\n{tail}"));
        let old = TEXT.replace("[Unreleased]: https://github.com/blogle/dojo/compare/v0.2.0...HEAD\n", "");
        let rolled = rolled(&old, "v0.3.0");
        assert!(rolled.ends_with(&format!(
            "- One.\n\n[0.3.0]: https://github.com/blogle/dojo/compare/v0.2.0...v0.3.0\n{}",
            TEXT.split_once("HEAD\n").unwrap().1
        )));
    }

    #[test]
    fn notes_are_found_by_version() {
        assert_eq!(section(TEXT, &version("v0.1.0")).as_deref(), Some("- One."));
        assert_eq!(section(TEXT, &version("v9.9.9")), None);
        let notes = |from: Option<&str>, to: &str| -> Vec<String> {
            let from = from.map(version);
            between(TEXT, from.as_ref(), &version(to)).into_iter().map(|(v, n)| format!("{v} {n}")).collect()
        };
        assert_eq!(notes(None, "v0.2.0"), ["v0.2.0 - Two.", "v0.1.0 - One."]);
        assert_eq!(notes(Some("v0.1.0"), "v0.2.0"), ["v0.2.0 - Two."]);
        assert!(notes(Some("v0.2.0"), "v0.2.0").is_empty());
    }

    #[test]
    fn a_fence_before_the_links_belongs_to_the_notes() {
        let text = "## [0.1.0]\n\n```sh\n## x\n\n[a]: b\n```\n\n[0.1.0]:https://x\n";
        assert_eq!(section(text, &version("v0.1.0")).unwrap(), "```sh\n## x\n\n[a]: b\n```");
    }

    #[test]
    fn what_is_wrong_is_named_by_line() {
        let refusal = |text: &str| {
            roll(text, &version("v0.3.0"), "2026-03-04", REPOSITORY, &Version::to_string)
                .unwrap_err()
                .to_string()
        };
        assert!(refusal("# Changelog\n").starts_with("CHANGELOG.md:1: there is no section"));
        assert!(refusal(&TEXT.replace("[0.2.0] -", "[0.3.0] -")).starts_with("CHANGELOG.md:13: 0.3.0 has"));
        assert!(
            refusal("\n## [Unreleased]\n\n### Added\n<!-- here -->\n")
                .starts_with("CHANGELOG.md:2: [Unreleased] says nothing")
        );
        assert!(
            refusal("## [Unreleased]\n- a\n## Unreleased\n- b\n").starts_with("CHANGELOG.md:3: a second")
        );
        for date in ["", "2026-3-4", "2026-02-30", "2026-03-04T00:00:00", "today"] {
            assert!(roll(TEXT, &version("v0.3.0"), date, REPOSITORY, &Version::to_string).is_err(), "{date}");
        }
    }

    #[test]
    fn a_draft_fills_an_empty_section_and_no_other() {
        let subjects =
            ["Add accounts", "Merge branch 'x'", "release: v0.1.0", "fix(ledger): rounding", "Speed up", " "]
                .map(String::from);
        let draft = draft(&subjects);
        assert_eq!(
            draft,
            "### Added\n\n- Add accounts\n\n### Changed\n\n- Speed up\n\n### Fixed\n\n- fix(ledger): rounding"
        );
        assert_eq!(super::draft(&[]), "");
        for (empty, after) in [
            ("## [Unreleased]", "\n"),
            ("## [Unreleased]\n\n### Added\n\n## [0.1.0]\n- x\n", "\n\n## [0.1.0]\n- x\n"),
        ] {
            assert_eq!(fill(empty, &draft).unwrap(), format!("## [Unreleased]\n\n{draft}{after}"));
        }
        assert_eq!(fill("## [Unreleased]\r\n", "- a\n- b").unwrap(), "## [Unreleased]\r\n\r\n- a\r\n- b\r\n");
        assert!(fill(TEXT, &draft).is_err());
    }
}
