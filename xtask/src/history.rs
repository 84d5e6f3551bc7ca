//! An environment's pins over time, as the commits of the infra repository tell them, and what follows from them.

use crate::image::{Digest, Schema, is_fixed};
use crate::kustomization::Pin;
use crate::trailers::Trailers;
use crate::version::Version;

/// One commit, for logs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// 40 hex digits.
    pub id: String,
    /// Committer time, RFC 3339 in UTC.
    pub time: String,
    pub author: String,
    /// The whole message.
    pub message: String,
}

/// One commit that changed an environment's pin.
#[derive(Clone, Debug, Default)]
pub struct Change {
    pub commit: Commit,
    /// What its message says.
    pub trailers: Trailers,
    /// The pin after it; `None` if the file of then cannot be read as one.
    pub pin: Option<Pin>,
    /// The restore after it.
    pub restore: Option<String>,
    /// Whether the file is gone.
    pub gone: bool,
}

impl Change {
    fn digest(&self) -> Option<&Digest> {
        self.pin.as_ref().and_then(|pin| pin.digest.as_ref())
    }

    /// Whether no command of this tool made it: its trailers do not tell the pin that the file has.
    pub fn is_foreign(&self) -> bool {
        self.trailers.verb.is_none() || self.trailers.digest.as_ref() != self.digest()
    }

    /// What the commit says of its image's schema, if it is that image which is pinned.
    pub fn schema(&self) -> Option<Schema> {
        let told = self.trailers.digest.as_ref();
        self.trailers.schema.filter(|_| told.is_some() && told == self.digest())
    }
}

/// One line of what befell an environment.
#[derive(Clone, Debug)]
pub enum Event {
    Pin(Box<Change>),
    /// Somebody held it, and why; or ended that.
    Hold {
        commit: Commit,
        /// `Name <email>`, as its message says.
        by: Option<String>,
        why: Option<String>,
    },
}

impl Event {
    pub fn commit(&self) -> &Commit {
        match self {
            Self::Pin(change) => &change.commit,
            Self::Hold { commit, .. } => commit,
        }
    }
}

/// An image that ran in an environment before, to go back to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Earlier {
    pub tag: String,
    pub digest: Digest,
    /// As a commit that pinned it tells; `None` if none does.
    pub schema: Option<Schema>,
    /// The commit of the infra repository that rolled back from it.
    pub bad_since: Option<String>,
}

/// The images that ran here before, without what is pinned now; the last that was pinned first.
pub fn earlier(now: Option<&Digest>, history: &[Change]) -> Vec<Earlier> {
    let mut found: Vec<Earlier> = Vec::new();
    for change in history {
        let Some((tag, digest)) = change.pin.as_ref().and_then(fixed) else { continue };
        match found.iter_mut().find(|earlier| earlier.digest == digest) {
            Some(earlier) => earlier.schema = earlier.schema.or_else(|| change.schema()),
            None if now == Some(&digest) => {}
            None => {
                let bad_since = bad_since(&digest, history);
                found.push(Earlier { tag, digest, schema: change.schema(), bad_since });
            }
        }
    }
    found
}

/// The infra template's `v0.0.0`, which no image has.
pub fn is_zero(tag: &str) -> bool {
    Version::from_tag(tag).is_some_and(|version| version.is_zero())
}

/// A pin that names one image for good: by digest, under a tag that never moves.
pub fn fixed(pin: &Pin) -> Option<(String, Digest)> {
    let tag = pin.tag.clone().filter(|tag| is_fixed(tag) && !is_zero(tag))?;
    Some((tag, pin.digest.clone()?))
}

/// The last change that rolled back from this image, unless it was pinned again since.
pub fn bad_since(digest: &Digest, history: &[Change]) -> Option<String> {
    let since = history.iter().take_while(|change| change.digest() != Some(digest));
    since
        .filter(|change| change.trailers.bad.as_ref() == Some(digest))
        .map(|change| change.commit.id.clone())
        .next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(version: u8) -> Change {
        let digest = Digest::of(&[version]);
        let tag = format!("v0.{version}.0");
        let schema = Schema { current: version.into(), oldest_binary: 1 };
        Change {
            commit: Commit { id: format!("{version:040}"), ..Commit::default() },
            trailers: Trailers {
                verb: Some("promote".into()),
                digest: Some(digest.clone()),
                schema: Some(schema),
                ..Trailers::default()
            },
            pin: Some(Pin { git_ref: Some(tag.clone()), tag: Some(tag), digest: Some(digest) }),
            ..Change::default()
        }
    }

    #[test]
    fn what_ran_before_is_listed_once_and_what_was_left_as_bad_is_marked() {
        let mut back = change(2);
        back.trailers.bad = Some(Digest::of(&[3]));
        let by_hand = Change { trailers: Trailers::default(), ..change(1) };
        let history = [back, change(3), change(2), by_hand.clone(), change(1), change(0)];
        let earlier = earlier(Some(&Digest::of(&[2])), &history);
        let told: Vec<_> =
            earlier.iter().map(|image| (image.tag.as_str(), image.schema.map(|s| s.current))).collect();
        assert_eq!(told, [("v0.3.0", Some(3)), ("v0.1.0", Some(1))]);
        assert_eq!((earlier[0].bad_since.is_some(), &earlier[1].bad_since), (true, &None));
        assert!(by_hand.is_foreign() && !change(1).is_foreign());
    }

    #[test]
    fn a_commit_that_tells_of_another_image_is_foreign_and_says_nothing_of_this_one() {
        let copied = Change { pin: change(2).pin, ..change(1) };
        assert!(copied.is_foreign());
        assert_eq!(copied.schema(), None);
    }
}
