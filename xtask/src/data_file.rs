//! What is known of an environment's data file: what the service says, else an interval from what was last seen to the
//! highest that was pinned since. Never a guess.

use crate::history::Change;
use crate::image::Schema;
use crate::kustomization::Pin;
use crate::report::Observed;
use crate::trailers::Seen;

/// An earlier pin of the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// Of its image; `None` where neither commit nor registry tells it.
    pub schema: Option<Schema>,
    /// Of the data file, when the pin was made; `None` if the service did not answer then.
    pub seen: Option<Seen>,
    /// Whether it asked for a restore.
    pub restores: bool,
}

/// The earlier pins, newest first. `label` is what the registry says of a pinned image; it comes before what a commit says,
/// which anybody may have written.
pub fn past(history: &[Change], label: impl Fn(&Pin) -> Option<Schema>) -> Vec<Past> {
    let pinned = history.iter().filter(|change| !change.pin.as_ref().is_some_and(Pin::is_nothing));
    let mut past: Vec<_> = pinned
        .map(|change| Past {
            schema: change.pin.as_ref().and_then(&label).or_else(|| change.schema()),
            seen: change.trailers.seen.clone(),
            restores: change.restore.is_some(),
        })
        .collect();
    // A history that begins with a pin is not the whole one.
    if history.last().is_some_and(|oldest| !oldest.pin.as_ref().is_some_and(Pin::is_nothing)) {
        past.push(Past::default());
    }
    past
}

/// What is known of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum File {
    /// There is none yet.
    Fresh,
    Known(Schema),
    /// `None` is unknown.
    Between(Option<u32>, Option<Schema>),
}

impl File {
    /// As the service says, else as the operator read it off (`told`), else between what was seen and what was pinned since.
    pub fn of(observed: &Observed, told: Option<u32>, past: &[Past]) -> Self {
        match (observed, told) {
            (Observed::Reports(report), _) => Self::Known(report.version.schema.of_file()),
            (Observed::Silent(_), Some(number)) => Self::told(number, past),
            (Observed::Silent(_), None) if past.is_empty() => Self::Fresh,
            (Observed::Silent(_), None) => between(past),
        }
    }

    /// A schema by its number: which binaries it admits is the same in all images that have it.
    pub fn told(number: u32, past: &[Past]) -> Self {
        let mut all =
            past.iter().flat_map(|past| [past.schema, past.seen.as_ref().map(|seen| seen.schema)]).flatten();
        let found = all.find(|schema| schema.current == number);
        Self::Known(found.unwrap_or(Schema { current: number, oldest_binary: number }))
    }

    /// Whether a binary of this schema opens it, whatever it is.
    pub fn admits(&self, binary: u32) -> bool {
        match self {
            Self::Fresh => true,
            Self::Known(schema) | Self::Between(_, Some(schema)) => schema.admits(binary),
            Self::Between(_, None) => false,
        }
    }

    /// The same, where it is known: a file that nobody sees may still be as old as it was.
    pub fn opens(&self, binary: u32) -> Option<bool> {
        match self {
            _ if self.admits(binary) => Some(true),
            Self::Fresh | Self::Known(_) => Some(false),
            Self::Between(Some(low), Some(high)) if binary < high.oldest_binary && binary < *low => {
                Some(false)
            }
            Self::Between(..) => None,
        }
    }

    /// Its schema, for a person.
    pub fn range(&self) -> String {
        match self {
            Self::Fresh => "none".to_owned(),
            Self::Known(schema) => schema.current.to_string(),
            Self::Between(_, None) => "unknown".to_owned(),
            Self::Between(Some(low), Some(high)) if *low == high.current => {
                format!("{low}, if nobody else changed it")
            }
            Self::Between(Some(low), Some(high)) => format!("between {low} and {}", high.current),
            Self::Between(None, Some(high)) => format!("at most {}", high.current),
        }
    }
}

fn between(past: &[Past]) -> File {
    let mut schemas = Vec::new();
    let mut low = None;
    let mut restored = false;
    for Past { schema, seen, restores } in past {
        restored |= low.is_none() && *restores;
        schemas.push(*schema);
        // What was pinned when it was seen may not have been rolled out by then: that one counts too.
        if low.is_some() {
            break;
        }
        if let Some(seen) = seen {
            low = Some(seen.schema.current);
            schemas.push(Some(seen.schema));
        }
    }
    let all: Option<Vec<_>> = schemas.into_iter().collect();
    // A restore takes the file back.
    let low = low.filter(|_| !restored);
    File::Between(low, all.and_then(|all| all.into_iter().max_by_key(|schema| schema.current)))
}
