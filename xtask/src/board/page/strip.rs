//! What ran when, as spans of one time axis, in per cent of its width.

use jiff::{SignedDuration, Timestamp};

use super::{Event, Fact, Kind, Moment, Page};

/// The axis is never shorter, and never longer, in days.
const SHORTEST: i64 = 7;
const LONGEST: i64 = 90;
/// What a name's ends and each of its letters need on a wide screen.
const ROOM: (f64, f64) = (2.0, 0.65);

/// The axis that all environments share.
#[derive(Debug)]
pub struct Axis {
    pub begins: Moment,
    pub lanes: Vec<(String, Vec<Span>)>,
}

#[derive(Debug, PartialEq)]
pub struct Span {
    pub x: f64,
    pub width: f64,
    pub version: String,
    /// `bad` if a rollback ended it, `hand` if a person pinned it.
    pub class: &'static str,
}

impl Span {
    pub fn is_labelled(&self) -> bool {
        self.width >= ROOM.0 + ROOM.1 * self.version.chars().count() as f64
    }
}

/// `None` if nothing ever happened, or nobody can tell when.
pub fn axis(page: &Page) -> Option<Axis> {
    let made = page.made.0;
    let mut histories = Vec::new();
    for stage in &page.stages {
        let Some(Fact::Known(events)) = stage.history.as_ref().map(|history| &history.events) else {
            continue;
        };
        let dated = events.iter().filter_map(|event| Some((event.at?.0, event)));
        histories.push((stage.name.clone(), dated.collect::<Vec<_>>()));
    }
    let oldest = histories.iter().flat_map(|(_, events)| events.iter().map(|(time, _)| *time)).min()?;
    let days = |days| SignedDuration::from_hours(24 * days);
    let begins = oldest.clamp(made - days(LONGEST), made - days(SHORTEST));
    let lanes = histories.into_iter().filter(|(_, events)| !events.is_empty());
    let lanes = lanes.map(|(name, events)| (name, spans(&events, begins, made))).collect();
    Some(Axis { begins: Moment(begins), lanes })
}

/// `events`: newest first.
fn spans(events: &[(Timestamp, &Event)], begins: Timestamp, ends: Timestamp) -> Vec<Span> {
    let whole = ends.duration_since(begins).as_secs_f64();
    let at = |time: Timestamp| 100.0 * time.clamp(begins, ends).duration_since(begins).as_secs_f64() / whole;
    // What was pinned before the first event ran from the beginning on.
    let before = events.last().and_then(|(_, first)| Some((0.0, first.from.as_deref()?, None)));
    let pinned = events.iter().rev().map(|(time, event)| {
        let version = match &event.to {
            Fact::Known(version) => version.as_str(),
            Fact::Unknown(_) => "unknown",
        };
        (at(*time), version, Some(event.kind))
    });
    let all: Vec<_> = before.into_iter().chain(pinned).collect();
    let nexts = all.iter().skip(1).map(Some).chain([None]);
    let spans = all.iter().zip(nexts).map(|((x, version, kind), next)| Span {
        x: *x,
        width: next.map_or(100.0, |(next, ..)| *next) - x,
        version: (*version).to_owned(),
        class: match (kind, next.and_then(|(.., next)| *next)) {
            (_, Some(Kind::Rollback)) => "bad",
            (Some(Kind::ByHand), _) => "hand",
            _ => "",
        },
    });
    spans.filter(|span| span.width > 0.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_follow_each_other_and_show_what_was_rolled_back_from() {
        let day = |day: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * day);
        let event = |kind, from: Option<&str>, to: &str| Event {
            at: None,
            by: String::new(),
            kind,
            from: from.map(str::to_owned),
            to: Fact::Known(to.to_owned()),
            why: Vec::new(),
            commit: String::new(),
        };
        let rollback = event(Kind::Rollback, Some("v3"), "v2");
        let hand = event(Kind::ByHand, Some("v2"), "v3");
        let first = event(Kind::Promote, Some("v1"), "v2");
        let events = [(day(9), &rollback), (day(5), &hand), (day(-3), &first)];
        let spans = spans(&events, day(0), day(10));
        let told: Vec<_> =
            spans.iter().map(|span| (span.x as u32, span.width as u32, &*span.version, span.class)).collect();
        assert_eq!(told, [(0, 50, "v2", ""), (50, 40, "v3", "bad"), (90, 10, "v2", "")]);
    }
}
