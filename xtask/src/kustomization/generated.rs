//! Generated kustomizations. Each is made together with the text that the change must give, from the same pieces
//! and without the editor: a value that is replaced, a line that comes, a line that goes, and all the rest.

use fastrand::Rng;
use serde_yaml::Value;

use super::tests::{COMMIT, Case, Expected, IMAGE, SOURCE, digest};
use super::{Pin, write};

/// The text before and after, grown together.
#[derive(Default)]
struct Texts {
    before: String,
    after: String,
}

impl Texts {
    fn keep(&mut self, text: &str) {
        self.before += text;
        self.after += text;
    }

    fn change(&mut self, before: &str, after: &str) {
        self.before += before;
        self.after += after;
    }
}

struct Maker {
    rng: Rng,
    eol: &'static str,
    texts: Texts,
    pin: Pin,
    /// Versions are noted behind commits.
    comment: bool,
}

const WORDS: [&str; 8] = ["über", "北京", "a: b", "# x", "newTag: v0.1.0", "'quoted'", "digest", "🚀"];

impl Maker {
    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.rng.usize(..choices.len())]
    }

    fn break_line(&mut self) {
        let eol = self.eol;
        self.texts.keep(eol);
    }

    /// Perhaps a comment or blanks at a line's end, and the line's break.
    fn finish_line(&mut self) {
        match self.rng.u8(..6) {
            0 => self.texts.keep("   "),
            1 => {
                let word = self.one_of(&WORDS);
                self.texts.keep(&format!(" # {word}"));
            }
            _ => {}
        }
        self.break_line();
    }

    /// Perhaps comments and blank lines between two lines; says whether there are comments.
    fn between(&mut self, indent: &str) -> bool {
        let mut comments = false;
        for _ in 0..self.rng.u8(..3) {
            match self.rng.u8(..4) {
                0 => {
                    let word = self.one_of(&WORDS);
                    self.texts.keep(&format!("{indent}# {word}"));
                    comments = true;
                    self.break_line();
                }
                1 => self.break_line(),
                _ => {}
            }
        }
        comments
    }

    fn quote(&mut self) -> &'static str {
        self.one_of(&["", "", "'", "\""])
    }

    /// Old and new value in the same quotes; a new one that is like a number gets quotes.
    fn value(&mut self, old: &str, new: &str, number: bool) -> (String, String) {
        let quote = self.quote();
        let to = if number && quote.is_empty() { "\"" } else { quote };
        (format!("{quote}{old}{quote}"), format!("{to}{new}{to}"))
    }

    fn other_entries(&mut self, indent: &str) {
        for _ in 0..self.rng.u8(..3) {
            let name = self.one_of(&["busybox", "ghcr.io/blogle/dojo-web", "'ghcr.io/other/dojo'"]);
            self.texts.keep(&format!("{indent}- name: {name}"));
            self.finish_line();
            if self.rng.bool() {
                self.texts.keep(&format!("{indent}  newTag: v0.1.0"));
                self.finish_line();
            }
        }
    }

    fn resources(&mut self) {
        let indent = self.one_of(&["", "  ", "    "]);
        self.texts.keep("resources:");
        self.finish_line();
        // Each folder once: kustomize takes no object twice.
        let mut paths = ["", "//deploy", ".git//deploy/k8s", "/x"];
        self.rng.shuffle(&mut paths);
        let mut others = ["../base", "github.com/other/dojo//x?ref=v0.1.0", "\"a b\""];
        self.rng.shuffle(&mut others);
        for (path, other) in paths.into_iter().zip(others).take(1 + self.rng.usize(..3)) {
            self.between(indent);
            let prefix = self.one_of(&["", "https://", "ssh://git@", "git::https://"]);
            let more = self.one_of(&["", "&timeout=90s", "&submodules=false"]);
            let less = self.one_of(&["", "timeout=90s&"]);
            let url = |git_ref: &str| format!("{prefix}{SOURCE}{path}?{less}ref={git_ref}{more}");
            let new = self.pin.git_ref.clone().unwrap_or("v0.1.0".into());
            let (old, new) = self.value(&url("v0.1.0"), &url(&new), false);
            self.texts.keep(&format!("{indent}- "));
            self.texts.change(&old, &new);
            if self.comment {
                self.note();
            } else {
                self.finish_line();
            }
            if self.rng.bool() {
                self.texts.keep(&format!("{indent}- {other}"));
                self.finish_line();
            }
        }
    }

    /// Behind an address: nothing, the version that was noted, or a person's comment.
    fn note(&mut self) {
        let version = match (self.pin.git_ref.as_deref(), self.pin.tag.as_deref()) {
            (Some(COMMIT), Some("v0.2.0")) => " # v0.2.0",
            _ => "",
        };
        match self.rng.u8(..3) {
            0 if self.pin.git_ref.is_some() => self.texts.change(" # v0.1.0", version),
            1 => self.texts.keep(" # v0.1.0, see the wiki"),
            _ => self.texts.change("", version),
        }
        self.break_line();
    }

    /// The image's entry as a block.
    fn block(&mut self) {
        let indent = self.one_of(&["", "  ", "    "]);
        let dash = self.one_of(&["- ", "-   "]);
        let inner = format!("{indent}{}", " ".repeat(dash.len()));
        self.texts.keep("images:");
        self.finish_line();
        self.other_entries(indent);
        self.between(indent);
        let mut keys = vec!["name", "newTag", "digest"];
        self.rng.shuffle(&mut keys);
        if self.rng.u8(..4) == 0 {
            keys.retain(|key| *key != "newTag");
        }
        if self.rng.bool() {
            keys.retain(|key| *key != "digest");
        }
        let tag = self.pin.tag.clone();
        let new_digest = self.pin.digest.clone().map(|digest| digest.to_string());
        // What is missing comes in behind its neighbour: the tag behind the name, the digest behind the tag.
        let add_tag = tag.clone().filter(|_| !keys.contains(&"newTag"));
        let add_digest = new_digest.clone().filter(|_| !keys.contains(&"digest"));
        let neighbour = if keys.contains(&"newTag") { "newTag" } else { "name" };
        self.texts.keep(&format!("{indent}{dash}"));
        let mut indented = true;
        for (index, key) in keys.iter().enumerate() {
            let first = index == 0;
            if !indented {
                // An own line's indentation goes with the line.
                if *key == "digest" && new_digest.is_none() {
                    self.drop_line(&inner);
                    self.between(&inner);
                    continue;
                }
                self.texts.keep(&inner);
            }
            let (old, new) = match *key {
                "newTag" => {
                    let new = tag.as_deref().unwrap_or("v0.1.0");
                    self.value("v0.1.0", new, new == "1.10")
                }
                "digest" => {
                    let old = digest('a').to_string();
                    let new = new_digest.clone().unwrap_or_default();
                    self.value(&old, &new, false)
                }
                _ => self.value(IMAGE, IMAGE, false),
            };
            if first && *key == "digest" && new_digest.is_none() {
                self.drop_first(&old, &inner);
                continue;
            }
            indented = false;
            self.texts.keep(&format!("{key}: "));
            self.texts.change(&old, &new);
            self.finish_line();
            if *key == "name"
                && let Some(tag) = &add_tag
            {
                let tag = if tag == "1.10" { "\"1.10\"" } else { tag };
                self.texts.change("", &format!("{inner}newTag: {tag}{}", self.eol));
            }
            if *key == neighbour
                && let Some(digest) = &add_digest
            {
                self.texts.change("", &format!("{inner}digest: {digest}{}", self.eol));
            }
            self.between(&inner);
        }
        self.other_entries(indent);
    }

    /// A digest's own line, which goes, but for its comment.
    fn drop_line(&mut self, inner: &str) {
        let quote = self.quote();
        let line = format!("{inner}digest: {quote}{}{quote}", digest('a'));
        if self.rng.bool() {
            self.texts.change(&line, "");
            self.texts.change(&format!("  {}", self.eol), "");
        } else {
            self.texts.keep(inner);
            self.texts.change(&format!("{}  ", line.trim_start()), "");
            self.texts.keep(&format!("# beside{}", self.eol));
        }
    }

    /// A digest behind the dash: the next key moves up to it, or comments keep their lines. Ends with the next
    /// key's indentation.
    fn drop_first(&mut self, old: &str, inner: &str) {
        match self.rng.u8(..3) {
            0 => self.texts.change(&format!("digest: {old}{}{inner}", self.eol), ""),
            1 => {
                self.texts.change(&format!("digest: {old}  "), "");
                self.texts.keep(&format!("# beside{}{inner}", self.eol));
            }
            _ => {
                // The blanks behind the dash go as well.
                let kept = self.texts.after.trim_end_matches(' ').len();
                self.texts.after.truncate(kept);
                self.texts.change(&format!("digest: {old}"), "");
                self.texts.keep(&format!("{}{inner}# above{0}{inner}", self.eol));
            }
        }
    }

    /// The image's entry in braces, with digest and tag behind the name.
    fn flow(&mut self) {
        let pad = self.one_of(&["", " "]);
        let comma = self.one_of(&[", ", ","]);
        let (old_tag, new_tag) = match self.pin.tag.clone() {
            Some(tag) => self.value("v0.1.0", &tag, tag == "1.10"),
            None => ("v0.1.0".into(), "v0.1.0".into()),
        };
        self.texts.keep(&format!("images: [{{{pad}name: {IMAGE}{comma}newTag: "));
        self.texts.change(&old_tag, &new_tag);
        let old_digest =
            if self.rng.bool() { format!("{comma}digest: {}", digest('a')) } else { String::new() };
        let new_digest =
            self.pin.digest.as_ref().map(|digest| format!("{comma}digest: {digest}")).unwrap_or_default();
        self.texts.change(&old_digest, &new_digest);
        self.texts.keep(&format!("{pad}}}]"));
        self.finish_line();
    }

    fn rest(&mut self) {
        let texts = [
            "namespace: dojo-prod",
            "configMapGenerator:|- name: a|  literals:|  - |-|    images=images:|    - name: ghcr.io/blogle/dojo|      newTag: v0.1.0",
            "labels:|- pairs: {a: 'b', \"c\": d} # c",
            "commonAnnotations: &notes|  note: \"newTag: v0.1.0\"",
            "# digest: sha256:abc",
            "",
        ];
        let text = self.one_of(&texts).replace('|', self.eol);
        // A block scalar's indicator is the one bar that is meant.
        self.texts.keep(&text.replace(&format!("  - {}-", self.eol), "  - |-"));
        self.finish_line();
    }
}

pub fn generate(seed: u64) -> Case {
    let mut rng = Rng::with_seed(seed);
    let some = |rng: &mut Rng, of: &[&str]| (rng.u8(..5) > 0).then(|| of[rng.usize(..of.len())].to_owned());
    let pin = Pin {
        git_ref: some(&mut rng, &["v0.2.0", COMMIT, "release/0.2"]),
        tag: some(&mut rng, &["v0.2.0", "sha-0123456789ab", "1.10"]),
        digest: rng.bool().then(|| digest('b')),
    };
    let eol = if rng.u8(..4) == 0 { "\r\n" } else { "\n" };
    let comment = rng.bool();
    let mut maker = Maker { rng, eol, texts: Texts::default(), pin, comment };
    if maker.rng.u8(..8) == 0 {
        maker.texts.keep("\u{feff}");
    }
    if maker.rng.u8(..4) == 0 {
        maker.texts.keep("---");
        maker.break_line();
    }
    maker.between("");
    let mut parts: [fn(&mut Maker); 2] =
        if maker.rng.bool() { [Maker::resources, Maker::block] } else { [Maker::resources, Maker::flow] };
    maker.rng.shuffle(&mut parts);
    for part in parts {
        part(&mut maker);
        maker.between("");
    }
    maker.rest();
    Case {
        name: format!("seed {seed}"),
        before: maker.texts.before,
        pin: maker.pin,
        image: IMAGE.to_owned(),
        source: Some(SOURCE),
        comment,
        expected: Expected::Text(maker.texts.after),
    }
}

#[test]
fn generated_files_change_in_nothing_but_the_pin() {
    let (mut changed, mut noted) = (0, 0);
    for seed in 0..4_000 {
        let case = generate(seed);
        let Case { name, before, pin, expected, .. } = &case;
        let Expected::Text(after) = expected else { panic!("{name}") };
        let found =
            write(before, &case.target(), pin).unwrap_or_else(|fault| panic!("{name}: {fault}\n{before}"));
        assert_eq!(found, *after, "{name}, {pin:?}, of:\n{before}");
        changed += usize::from(found != *before);
        noted += usize::from(found.lines().any(|line| line.contains(COMMIT) && line.ends_with(" # v0.2.0")));
        let value: Value = serde_yaml::from_str(found.trim_start_matches('\u{feff}')).unwrap();
        let entries = value["images"].as_sequence().unwrap();
        let entry = entries.iter().find(|entry| entry["name"] == *IMAGE).unwrap();
        assert_eq!(
            entry.get("digest").and_then(Value::as_str),
            pin.digest.as_ref().map(super::Digest::as_str)
        );
        if let Some(tag) = &pin.tag {
            assert_eq!(entry["newTag"], *tag.as_str(), "{name}");
        }
    }
    assert!(changed > 3_500, "only {changed} files were changed at all");
    assert!(noted > 100, "only {noted} files note a version");
}
