//! Files with random damage: the corpus and generated ones, in which characters, words and lines were changed, doubled,
//! moved or lost. DOJO_FAULTS says how many rounds are played; DOJO_SEED repeats those of a failure.

use fastrand::Rng;

use super::generated::generate;
use super::rendered::{Stage, count, pinned};
use super::tests::{COMMIT, Case, IMAGE, PATH, SOURCE, corpus, digest, target};
use super::*;

/// What YAML or kustomize might take for something else.
const PIECES: [&str; 54] = [
    " ", "  ", "\t", "\n", "\r", "\r\n", "\n\n", "\u{feff}", "\u{a0}", "\u{85}", "\u{2028}", "\0", "ü", "🚀",
    "#", " # ", " #x\n", ":", ": ", " :", ",", ", ", "-", "- ", "\n- ", "? ", "?", "&", "&a ", "*a", "*a ",
    "!", "!!str ", "!!int ", "<<: ", "|", "|-\n", ">", "'", "\"", "\\", "\\u0061", "[", "]", "{", "}", "%",
    "@", "\n---\n", "\n...\n", "null", "~", "0", "1.10",
];
const BREAKS: [char; 2] = ['\n', '\r'];
const LINES: [&str; 14] = [
    "images:",
    "images: []",
    "IMAGES: []",
    "- name: ghcr.io/blogle/dojo",
    "  name: ghcr.io/blogle/dojo",
    "  newTag: v9.9.9",
    "  newtag: v9.9.9",
    "  newName: busybox",
    "  tagSuffix: -x",
    "  digest: ''",
    "resources:",
    "- github.com/blogle/dojo//z?ref=v0.1.0",
    "# v0.1.0",
    "namePrefix: &a v0.1.0",
];

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|number| number.parse().ok())
}

/// Loses, replaces or puts in a few characters.
fn damage_characters(rng: &mut Rng, text: &mut String) {
    let places: Vec<_> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    let first = rng.usize(..places.len());
    let last = (first + rng.usize(..4)).min(places.len() - 1);
    let piece = if rng.u8(..4) == 0 { "" } else { PIECES[rng.usize(..PIECES.len())] };
    text.replace_range(places[first]..places[last], piece);
}

/// Loses, doubles or moves a line, puts one in, or indents it otherwise.
fn damage_lines(rng: &mut Rng, text: &mut String) {
    let mut lines: Vec<_> = text.split_inclusive('\n').map(str::to_owned).collect();
    lines.push(String::new());
    let (from, to) = (rng.usize(..lines.len()), rng.usize(..lines.len()));
    match rng.u8(..5) {
        0 => drop(lines.remove(from)),
        1 => lines.insert(to, lines[from].clone()),
        2 => lines.swap(from, to),
        3 => lines.insert(to, format!("{}\n", LINES[rng.usize(..LINES.len())])),
        _ => lines[from] = format!("{}{}", &"    "[..rng.usize(..4)], lines[from].trim_start_matches(' ')),
    }
    *text = lines.concat();
}

/// A damaged text, and the pin to write.
struct Damaged {
    text: String,
    source: Option<&'static str>,
    pin: Pin,
}

impl Damaged {
    fn new(seed: u64, cases: &[Case]) -> Self {
        let mut rng = Rng::with_seed(seed);
        let case = &cases[rng.usize(..cases.len())];
        let (mut text, source) = match rng.bool() {
            true => (case.before.clone(), case.source),
            false => (generate(rng.u64(..500)).before, Some(SOURCE)),
        };
        for _ in 0..=rng.u8(..3) {
            let damage = if rng.bool() { damage_characters } else { damage_lines };
            damage(&mut rng, &mut text);
        }
        let git_ref = source.map(|_| ["v0.2.0", COMMIT][rng.usize(..2)].to_owned());
        let digest = rng.bool().then(|| digest('b'));
        Self { text, source, pin: Pin { git_ref, tag: Some("v0.2.0".to_owned()), digest } }
    }
}

fn cases() -> Vec<Case> {
    corpus().into_iter().filter(|case| case.image == IMAGE).collect()
}

/// The text without what a pin consists of: what no change may touch, whatever it was.
fn rest(text: &str, pins: [&Pin; 2]) -> String {
    let mut text = text.to_owned();
    let of = |pin: &Pin| [pin.digest.as_ref().map(Digest::to_string), pin.git_ref.clone(), pin.tag.clone()];
    let mut parts: Vec<_> = pins.into_iter().flat_map(of).flatten().collect();
    parts.sort_by_key(|part| std::cmp::Reverse(part.len()));
    for part in parts.iter().map(String::as_str).chain([DIGEST, TAG, "ref="]) {
        text = text.replace(part, "");
    }
    text.replace([' ', '\t', '\r', '\n', '\'', '"', ':', ',', '?', '&', '~', '#'], "").replace("null", "")
}

/// What holds for any text.
fn hold(name: &str, text: &str, source: Option<&str>, pin: &Pin) {
    let target = &target(source);
    let lines = text.split(BREAKS).count();
    let named = |fault: &Fault| {
        let fault = fault.to_string();
        let line = fault.strip_prefix(PATH).and_then(|rest| rest.get(1..)?.split(':').next()?.parse().ok());
        assert!(line.is_some_and(|line: usize| 0 < line && line <= lines), "{name}: {fault}\n{text}");
    };
    let before = read(text, target).inspect_err(named);
    let Ok(after) = write(text, target, pin).inspect_err(named) else { return };
    let found = read(&after, target).unwrap();
    assert_eq!(found, *pin, "{name}: {text}\n{after}");
    assert_eq!(write(&after, target, pin).as_ref(), Ok(&after), "{name}: not at rest:\n{text}");
    let noted = write(text, &Target { comment: true, ..*target }, pin).unwrap();
    for (plain, noted) in after.split(BREAKS).zip(noted.split(BREAKS)).filter(|(plain, noted)| plain != noted)
    {
        let [(plain, _), (noted, note)] =
            [plain, noted].map(|line| line.split_once('#').unwrap_or((line, "")));
        let note = note.trim();
        assert!(plain.contains('=') && plain.trim_end() == noted.trim_end(), "{name}: {plain:?} {noted:?}");
        assert!(note.is_empty() || Some(note) == pin.tag.as_deref(), "{name}: {note}");
    }
    assert_eq!(after.split(BREAKS).count(), noted.split(BREAKS).count(), "{name}: {noted}");
    if let Ok(before) = before
        && !text.contains('\\')
    {
        let pins = [pin, &before];
        assert_eq!(rest(text, pins), rest(&after, pins), "{name}: {before:?}\n{text}\n{after}");
        // And back: of a whole pin nothing but the values was touched.
        let whole = before.tag.is_some() && before.digest.is_some() && pin.digest.is_some();
        if whole && before.git_ref.as_deref().is_some_and(scalar::is_ref) {
            assert_eq!(write(&after, target, &before).as_deref(), Ok(text), "{name}: and back");
        }
    }
}

fn seeds(each_round: u64, rounds: u64) -> Range<u64> {
    let start = number("DOJO_SEED").unwrap_or(0);
    start..start + each_round * rounds
}

fn rounds() -> u64 {
    number("DOJO_FAULTS").unwrap_or(1)
}

#[test]
fn damage_is_refused_or_does_no_harm() {
    let cases = cases();
    let seeds = seeds(2_000, rounds());
    let written = seeds.clone().filter(|seed| {
        let Damaged { text, source, pin } = Damaged::new(*seed, &cases);
        hold(&format!("seed {seed}"), &text, source, &pin);
        write(&text, &target(source), &pin).is_ok()
    });
    let (written, all) = (written.count(), seeds.count());
    assert!(written > all / 6, "only {written} of {all} were written at all");
}

#[test]
fn what_is_read_of_a_damaged_file_is_what_kustomize_uses() {
    let Some(stage) = Stage::set() else { return };
    let (cases, seeds) = (cases(), seeds(300, rounds().div_ceil(10)).collect::<Vec<_>>());
    let rendered = count(&seeds, |seed| {
        let Damaged { text, source, .. } = Damaged::new(*seed, &cases);
        let Ok(pin) = read(&text, &target(source)) else { return false };
        let Ok(rendered) = stage.render(&text, IMAGE) else { return false };
        assert_eq!(rendered.images, [pinned(IMAGE, &pin)], "seed {seed}:\n{text}");
        // Without a ref it is whatever the default branch holds.
        let of_the_pin = |found: &String| pin.git_ref.as_ref().is_none_or(|git_ref| git_ref == found);
        assert!(rendered.refs.iter().all(of_the_pin), "seed {seed}: {rendered:?}\n{text}");
        true
    });
    assert!(rendered > seeds.len() / 16, "kubectl took only {rendered} of {}", seeds.len());
}
