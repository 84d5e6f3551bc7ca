//! Chromium, which looks at a page as people would; see `browser.mjs`.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::tools;

/// Whether there is one here, and what drives it.
pub fn is_here() -> bool {
    // Of the packages only this one has a program on PATH.
    tools::need("chromium", "chromium")
        && tools::need("node", "nodejs, 22 or newer")
        && tools::need("browsers", "puppeteer-core and axe-core from npm")
}

/// What is seen at that time, of RFC 3339; pictures of the first screenful go into a folder.
pub fn look(file: &Path, now: &str, pictures: Option<&Path>) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/browser.mjs");
    let asked = json!({ "file": file, "now": now, "pictures": pictures });
    let output = Command::new("node").arg(script).arg(asked.to_string()).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Every view of it is as it must be: nothing asked of anybody, complained of, objected to, or beyond the edge.
#[track_caller]
pub fn is_sound(seen: &Value) {
    for nothing in ["requests", "complaints"] {
        assert_eq!(seen[nothing], json!([]), "{nothing}");
    }
    let views = seen["views"].as_array().unwrap();
    assert_eq!(views.len(), 4);
    for view in views {
        let which = format!("{}, {} pixels wide", view["theme"], view["width"]);
        assert_eq!(view["objections"], json!([]), "{which}");
        for state in ["folded", "unfolded"] {
            assert_eq!(view[state]["beyond"], 0, "{which}, {state}");
        }
    }
    assert_ne!(views[0]["background"], views[2]["background"], "light and dark");
}

/// These words stand there in this order, whatever is between; all blanks are alike.
#[track_caller]
pub fn shows(text: &Value, words: &[&str]) {
    let text = text.as_str().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    let mut rest = text.as_str();
    for word in words {
        let at = rest.find(word);
        assert!(at.is_some(), "{word:?} is not there, or out of order:\n{text}");
        rest = &rest[at.unwrap() + word.len()..];
    }
}
