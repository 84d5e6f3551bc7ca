//! Which texts may stand as a tag or a git ref, and how YAML must write them.

use crate::kustomization::tree::Style;

/// An OCI image tag: the distribution spec's grammar.
pub fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

/// A git ref that can stand in a URL's query as it is: `git check-ref-format --allow-onelevel`, and of those only
/// the characters that need no escape.
pub fn is_ref(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/' | b'@');
    text.bytes().all(plain)
        && text != "@"
        && !text.starts_with('-')
        && !text.ends_with('.')
        && !text.contains("..")
        && text.split('/').all(|part| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock"))
}

/// Whether a plain (unquoted) scalar is text to every YAML: 1.1, which kustomize reads, and 1.2.
pub fn is_text_unquoted(text: &str) -> bool {
    const WORDS: [&str; 11] = ["", "~", "null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    let digits = text.replace('_', "").to_ascii_lowercase();
    !WORDS.iter().any(|word| text.eq_ignore_ascii_case(word)) && !is_number(&digits) && !is_date(text)
}

fn is_number(text: &str) -> bool {
    let unsigned = text.trim_start_matches(['+', '-']);
    let radix = ["0x", "0o", "0b"].iter().find_map(|prefix| unsigned.strip_prefix(prefix));
    radix.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
        || matches!(unsigned, ".inf" | ".nan")
        || unsigned.starts_with(|c: char| c == '.' || c.is_ascii_digit()) && unsigned.parse::<f64>().is_ok()
}

/// What YAML 1.1 calls a timestamp, in the length that a tag can have.
fn is_date(text: &str) -> bool {
    let parts: Vec<_> =
        text.split('-').map(|part| (part.len(), part.bytes().all(|b| b.is_ascii_digit()))).collect();
    matches!(parts[..], [(4, true), (1 | 2, true), (1 | 2, true)])
}

/// The text as a scalar of this style; quoted where a plain one would be read as another type.
/// Tags, digests and the URLs written here hold no character that quotes would have to escape.
pub fn render(text: &str, style: Style) -> String {
    match style {
        Style::Plain if is_text_unquoted(text) => text.to_owned(),
        Style::Single => format!("'{text}'"),
        Style::Plain | Style::Double | Style::Block => format!("\"{text}\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_follow_the_grammar() {
        for good in ["v0.1.0", "_", "0", "A.b-c_d", &"x".repeat(128)] {
            assert!(is_tag(good), "{good}");
        }
        for bad in ["", ".a", "-a", "a b", "a\n", "a:b", "a/b", "ü", "a+b", &"x".repeat(129)] {
            assert!(!is_tag(bad), "{bad}");
        }
    }

    #[test]
    fn refs_follow_git_and_need_no_escape() {
        for good in [
            "v0.1.0",
            "0123456789abcdef0123456789abcdef01234567",
            "feature/x",
            "a@b",
            "a.lock/b".split_at(1).0,
        ] {
            assert!(is_ref(good), "{good}");
        }
        let bad = [
            "", "@", "-x", "a..b", "a/", "/a", "a//b", ".a", "a/.b", "a.lock", "x.lock/y", "a.", "a b",
            "a\tb", "a~1", "a^", "a:b", "a?b", "a*", "a[b", "a\\b", "a@{b", "a&b", "a#b", "a%20b", "a+b",
            "ü",
        ];
        for bad in bad {
            assert!(!is_ref(bad), "{bad}");
        }
    }

    #[test]
    fn what_yaml_takes_for_another_type_is_quoted() {
        let typed = [
            "1.10",
            "0123456",
            "12e5",
            "1",
            "1.",
            "1_000",
            "0x1F",
            "0b11",
            "0o17",
            "on",
            "No",
            "y",
            "N",
            "TRUE",
            "null",
            "Null",
            "2024-01-02",
            "2024-1-2",
        ];
        for typed in typed {
            assert_eq!(render(typed, Style::Plain), format!("\"{typed}\""));
            assert_eq!(render(typed, Style::Single), format!("'{typed}'"));
        }
        for text in ["v1", "1.2.3", "sha-0123456789ab", "edge", "1a", "2024-01-02-x", "_a", "nope", "once"] {
            assert_eq!(render(text, Style::Plain), text);
            assert_eq!(render(text, Style::Double), format!("\"{text}\""));
        }
    }
}
