//! How a page becomes HTML, and what one reads first on it.

use askama::Template;
use base64::Engine as _;
use sha2::{Digest as _, Sha256};

use super::{Fact, Next, Page, Tone, Trouble, cut, strip};

const STYLE: &str = include_str!("../page.css");
/// Copies commands and tells how long ago a time was; the page reads well without.
const SCRIPT: &str = include_str!("../page.js");

impl Page {
    /// The file's text.
    pub fn html(&self) -> Result<String, askama::Error> {
        let policy = format!(
            "default-src 'none'; style-src '{}'; script-src '{}'; img-src data:; base-uri 'none'; form-action 'none'",
            hash(STYLE),
            hash(SCRIPT)
        );
        let html = Html { page: self, policy, style: STYLE, script: SCRIPT }.render()?;
        Ok(html.replace(is_hidden, "\u{fffd}"))
    }

    /// The worst of all stages.
    fn tone(&self) -> Tone {
        self.stages.iter().map(|stage| stage.tone).fold(Tone::Well, Tone::max)
    }

    /// What one reads first: the stages that are worst.
    fn headline(&self) -> String {
        match self.tone() {
            Tone::Well => "All is well".to_owned(),
            worst => self.says(|tone| tone == worst),
        }
    }

    /// What else is not well.
    fn besides(&self) -> String {
        let worst = self.tone();
        self.says(|tone| tone < worst && tone > Tone::Well)
    }

    fn says(&self, which: impl Fn(Tone) -> bool) -> String {
        let stages = self.stages.iter().rev().filter(|stage| which(stage.tone));
        let says: Vec<_> = stages.map(|stage| format!("{} {}", stage.name, stage.says)).collect();
        cut(&says.join(", "))
    }

    /// The worst first, each with the names of the stages that have it.
    fn troubles(&self) -> Vec<(String, &Trouble)> {
        let mut troubles: Vec<(String, &Trouble)> = Vec::new();
        for stage in self.stages.iter().rev() {
            for trouble in &stage.troubles {
                match troubles.iter_mut().find(|(_, other)| other.what == trouble.what) {
                    Some((names, _)) => *names = format!("{}, {names}", stage.name),
                    None => troubles.push((stage.name.clone(), trouble)),
                }
            }
        }
        troubles.sort_by_key(|(_, trouble)| std::cmp::Reverse(trouble.tone));
        troubles
    }

    fn axis(&self) -> Option<strip::Axis> {
        strip::axis(self)
    }

    fn has_actions(&self) -> bool {
        self.stages.iter().any(|stage| !stage.actions.is_empty())
    }

    fn has_gaps(&self) -> bool {
        self.stages.iter().any(|stage| stage.gap.is_some())
    }
}

#[derive(Template)]
#[template(path = "board/page.html")]
struct Html<'a> {
    page: &'a Page,
    policy: String,
    style: &'static str,
    script: &'static str,
}

mod filters {
    /// Anybody's words, as long as a page has room for.
    #[askama::filter_fn]
    pub fn words(text: &str, _: &dyn askama::Values) -> askama::Result<String> {
        Ok(super::cut(text))
    }
}

/// As a Content-Security-Policy names a text (CSP level 3, section 6.7.3.3).
fn hash(text: &str) -> String {
    format!("sha256-{}", base64::engine::general_purpose::STANDARD.encode(Sha256::digest(text)))
}

/// What would steer the reader's eye: control characters, and marks that turn the direction of text (Unicode's Bidi_Control).
fn is_hidden(c: char) -> bool {
    let turns =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || c.is_control() && c != '\n'
}
