//! The hand-written cases of `tests/pin/edits.txt`, and what holds for every one of them.

use super::*;

/// One case of the corpus.
pub struct Case {
    pub name: String,
    pub before: String,
    pub pin: Pin,
    pub image: String,
    pub source: Option<&'static str>,
    pub comment: bool,
    pub expected: Expected,
}

impl Case {
    pub fn target(&self) -> Target<'_> {
        Target { image: &self.image, comment: self.comment, ..target(self.source) }
    }
}

pub enum Expected {
    Text(String),
    Refused { line: Option<usize>, words: String },
}

pub const IMAGE: &str = "ghcr.io/blogle/dojo";
pub const SOURCE: &str = "github.com/blogle/dojo";
/// A commit of the source.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub const PATH: &str = "dojo/production/kustomization.yaml";

pub fn digest(letter: char) -> Digest {
    format!("sha256:{}", letter.to_ascii_lowercase().to_string().repeat(64)).parse().unwrap()
}

pub fn target(source: Option<&str>) -> Target<'_> {
    Target { path: PATH, image: IMAGE, source, comment: false }
}

fn unescape(text: &str) -> String {
    let text = text.replace('␣', " ").replace('␍', "\r").replace('␉', "\t").replace('␖', "\u{feff}");
    let text = text.split_once('␀').map_or(text.as_str(), |(text, _)| text);
    let mut result = String::new();
    for (index, part) in text.split_inclusive(|c: char| !c.is_alphanumeric()).enumerate() {
        let word = part.trim_end_matches(|c: char| !c.is_alphanumeric());
        let full = match (index, word) {
            (1.., "A" | "B") => digest(word.chars().next().unwrap()).to_string(),
            (1.., "C") => COMMIT.to_owned(),
            _ => word.to_owned(),
        };
        result += &full;
        result += &part[word.len()..];
    }
    result
}

pub fn corpus() -> Vec<Case> {
    let text = include_str!("../../tests/pin/edits.txt");
    let mut blocks = text.split("\n#### ").skip(1).map(|block| block.split_once('\n').unwrap_or((block, "")));
    let mut cases = Vec::new();
    while let Some((head, before)) = blocks.next() {
        let (name, options) = head.split_once(" (").unwrap_or((head, ")"));
        let option = |key: &str, default: &str| {
            let given = options.trim_end_matches(')').split_whitespace().find_map(|o| o.strip_prefix(key));
            let given = given.unwrap_or(default).replace('␣', " ").replace('C', COMMIT);
            Some(given).filter(|value| value != "-")
        };
        let body = |text: &str| unescape(&format!("{text}\n"));
        let before = body(before);
        let (verdict, after) = blocks.next().unwrap();
        let expected = match verdict.split_once(' ').unwrap_or((verdict, "")) {
            ("becomes", _) => Expected::Text(body(after)),
            ("stays", _) => Expected::Text(before.clone()),
            ("refused", rest) => {
                let (line, words) = rest.split_once(' ').unwrap_or((rest, ""));
                Expected::Refused { line: line.parse().ok(), words: words.to_owned() }
            }
            _ => panic!("{name}: {verdict}"),
        };
        cases.push(Case {
            name: name.to_owned(),
            before,
            pin: Pin {
                git_ref: option("ref=", "v0.2.0"),
                tag: option("tag=", "v0.2.0"),
                digest: option("digest=", "B").map(|letter| digest(letter.chars().next().unwrap())),
            },
            image: option("image=", IMAGE).unwrap(),
            source: option("source=", "yes").map(|_| SOURCE),
            comment: option("comment=", "-").is_some(),
            expected,
        });
    }
    cases
}

#[test]
fn the_corpus_becomes_exactly_what_it_says() {
    let cases = corpus();
    assert!(cases.len() >= 180, "only {} cases were read", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let found = write(&case.before, &case.target(), &case.pin);
        match (&case.expected, found) {
            (Expected::Text(text), Ok(found)) if *text == found => {
                // Once more changes nothing, and the pin reads back.
                assert_eq!(write(&found, &case.target(), &case.pin).as_ref(), Ok(&found), "{}", case.name);
                let pin = read(&found, &case.target()).unwrap();
                assert_eq!(pin.digest, case.pin.digest, "{}", case.name);
            }
            (Expected::Refused { line, words }, Err(fault)) => {
                let message = fault.to_string();
                let at = line.map_or(String::new(), |line| format!("{PATH}:{line}: "));
                if !message.starts_with(&at) || !message.contains(words.as_str()) {
                    wrong.push(format!("{}: {message}\nnot: {at}…{words}", case.name));
                }
            }
            (_, Ok(text)) => wrong.push(format!("{}:\n{text}", case.name)),
            (_, Err(fault)) => wrong.push(format!("{}: {fault}", case.name)),
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n\n{}", wrong.len(), cases.len(), wrong.join("\n\n"));
}

#[test]
fn what_is_read_is_what_kustomize_would_use() {
    let read = |text: &str| read(text, &target(Some(SOURCE)));
    let file = |resources: &str, entry: &str| {
        format!("resources: [{resources}]\nimages:\n- {{name: {IMAGE}, {entry}}}\n")
    };
    let r1 = "'github.com/blogle/dojo//x?ref=v0.1.0'";
    let pin = read(&file(r1, &format!("newTag: v0.1.0, digest: '{}'", digest('a')))).unwrap();
    let whole = Pin { git_ref: Some("v0.1.0".into()), tag: Some("v0.1.0".into()), digest: Some(digest('a')) };
    assert_eq!(pin, whole);
    assert_eq!(read(&file("github.com/blogle/dojo//x", "newTag: ")).unwrap(), Pin::default());
    assert_eq!(read(&file("'github.com/blogle/dojo//x?ref='", "newTag: ''")).unwrap(), Pin::default());
    let refusal = |resources: &str, entry: &str| read(&file(resources, entry)).unwrap_err().to_string();
    for number in ["1.10", "0123456", "12e5", "on", "1_000"] {
        assert!(refusal(r1, &format!("newTag: {number}")).contains("quote it"), "{number}");
    }
    assert!(refusal(r1, "digest: sha256:abc").contains("not a digest"));
    assert!(refusal(r1, &format!("newTag: 'v1@{}'", digest('a'))).contains("newTag is no image tag"));
    assert!(refusal(r1.trim_matches('\''), "newTag: v1").contains("put the address in quotes"));
    let two = format!("{r1}, 'github.com/blogle/dojo//y?ref=v0.0.9'");
    assert!(refusal(&two, "newTag: v0.1.0").contains("ref v0.0.9 here, but ref v0.1.0"));
    let unpinned = format!("{r1}, github.com/blogle/dojo//y");
    assert!(refusal(&unpinned, "newTag: v0.1.0").contains("no ref here, but ref v0.1.0"));
}

#[test]
fn large_and_deep_files_are_no_trouble() {
    let entry = format!("- name: {IMAGE}\n  newTag: v0.1.0\n");
    let mut long = String::from("images:\n");
    for index in 0..20_000 {
        long += &format!("- name: image-{index} # a comment\n  newTag: v{index}\n");
    }
    let pin = Pin { tag: Some("v0.2.0".into()), ..Pin::default() };
    let changed = write(&format!("{long}{entry}"), &target(None), &pin).unwrap();
    assert_eq!(changed, format!("{long}{}", entry.replace("v0.1.0", "v0.2.0")));
    for open in ["[", "{a: ", "- ", "? "] {
        let deep = format!("images:\n{entry}x:\n  {}", open.repeat(50_000));
        assert!(write(&deep, &target(None), &pin).is_err(), "{open}");
    }
    let comments = "# c\n".repeat(5_000);
    assert!(write(&format!("{comments}images:\n{comments}{entry}{comments}"), &target(None), &pin).is_ok());
}

#[test]
fn no_prefix_of_a_file_makes_it_panic() {
    for case in corpus() {
        for (end, _) in case.before.char_indices() {
            let _ = write(&case.before[..end], &case.target(), &case.pin);
        }
    }
}

#[test]
fn a_wrong_edit_does_not_get_past_the_checks() {
    let text = format!("namePrefix: a\nimages:\n- name: {IMAGE}\n  # why\n  newTag: v0.1.0\n");
    let edit = |old: &str, new: &str| {
        let at = text.find(old).unwrap();
        step(&text, &target(None), |_, _| Ok(vec![Edit { at: at..at + old.len(), with: new.to_owned() }]))
    };
    assert!(edit("v0.1.0", "v0.2.0").is_ok());
    let refusal = |old, new| edit(old, new).unwrap_err().to_string();
    assert!(refusal("Prefix: a", "Prefix: b").contains("reach beyond"));
    assert!(refusal("# why", "").contains("not be the same YAML"));
    assert!(refusal("v0.1.0", "[").contains("not be the same YAML"));

    let pin = Pin { tag: Some("v0.2.0".into()), ..Pin::default() };
    let meant = text.replace("v0.1.0", "v0.2.0");
    let verify = |after: &str| verify(&text, after, &target(None), &pin);
    assert!(verify(&meant).is_ok());
    for other in [
        &text,
        &meant.replace("Prefix: a", "Prefix: b"),
        &format!("{meant}  newName: ''\n"),
        &format!("{meant}x: y\n"),
    ] {
        assert!(verify(other).is_err(), "{other}");
    }
    let span = std::slice::from_ref(&(4..5));
    assert!(splice::confined("abcabc", "abcaXc", span) && !splice::confined("abcabc", "abXabc", span));
}
