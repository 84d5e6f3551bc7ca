//! `log`: who changed what an environment pins, or held it; when, from what to what, and why. Only the infra repository is
//! asked.

use std::path::Path;

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;

use crate::fault::without_credentials;
use crate::gate::{Override, PinGate};
use crate::history::{Change, Event, bad_since};
use crate::infra::Infra;
use crate::kustomization::Pin;
use crate::pipeline::Pipeline;
use crate::terminal;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask log production
  cargo xtask log staging -n 100 --json

`by hand` is a commit that no command of this tool made, whose subject stands in place of a reason.")]
pub struct Args {
    /// The environment, as deploy/pipeline.yaml names it.
    environment: String,
    /// How many changes to show, of the newest.
    #[arg(short = 'n', long = "number", value_name = "N", default_value_t = 20)]
    most: usize,
    /// Print one JSON object in place of the table.
    #[arg(long)]
    json: bool,
}

/// One change.
#[derive(Debug, Serialize)]
struct Row {
    /// RFC 3339 in UTC.
    when: String,
    /// `Name <email>`, or the name of the commit's author.
    who: String,
    /// `promote`, `rollback`, `adopt`, `hold`, `unhold` or `by hand`.
    verb: String,
    /// What was pinned, by name; of a hold `None`.
    from: Option<String>,
    to: Option<String>,
    /// What is pinned since; `None` if nobody can tell.
    pin: Option<Pin>,
    /// In somebody's words.
    because: Option<String>,
    overrides: Vec<Override<PinGate>>,
    /// The backup that it was told to start from.
    restore: Option<String>,
    /// Whether the image that it left was marked as bad by that.
    leaves_bad: bool,
    /// The commit that rolled back from this image, unless it was pinned again since.
    bad_since: Option<String>,
    /// Of the infra repository.
    commit: String,
}

pub fn run(args: &Args, root: &Path) -> Result<()> {
    let pipeline = Pipeline::load(root)?;
    let environment = pipeline.environment(&args.environment)?;
    let spinner = terminal::Spinner::start(format!("reading {}", without_credentials(&pipeline.infra.url)));
    let events = Infra::clone(&pipeline, root)?.events(environment)?;
    drop(spinner);
    let all = rows(&events);
    let (shown, more) = all.split_at(args.most.min(all.len()));
    if args.json {
        return terminal::json(
            &json!({ "environment": environment.name, "changes": shown, "more": more.len() }),
        );
    }
    if all.is_empty() {
        println!("no commit has made {} yet", environment.kustomization);
        return Ok(());
    }
    let now = Timestamp::now();
    let header = ["WHEN", "AGE", "WHO", "VERB", "FROM", "TO", "COMMIT", "WHY"];
    println!("{}", terminal::table(&header, shown.iter().map(|row| row.cells(now)).collect()));
    if !more.is_empty() {
        println!("and {} more: -n {} shows all", more.len(), all.len());
    }
    Ok(())
}

/// Of events, newest first.
fn rows(events: &[Event]) -> Vec<Row> {
    let changes: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Pin(change) => Some(Change::clone(change)),
            Event::Hold { .. } => None,
        })
        .collect();
    let mut older = changes.as_slice();
    let rows = events.iter().map(|event| match event {
        Event::Pin(change) => {
            older = older.get(1..).unwrap_or_default();
            pinned(change, older.first(), &changes)
        }
        Event::Hold { commit, by, why } => Row {
            when: commit.time.clone(),
            who: by.clone().unwrap_or_else(|| commit.author.clone()),
            verb: if why.is_some() { "hold" } else { "unhold" }.to_owned(),
            from: None,
            to: None,
            pin: None,
            because: why.clone(),
            overrides: Vec::new(),
            restore: None,
            leaves_bad: false,
            bad_since: None,
            commit: commit.id.clone(),
        },
    });
    rows.collect()
}

fn pinned(change: &Change, older: Option<&Change>, all: &[Change]) -> Row {
    let Change { commit, trailers, .. } = change;
    let foreign = change.is_foreign();
    // What a copied commit says is of another one.
    let own = |told: &Option<String>| told.clone().filter(|_| !foreign);
    let subject = || commit.message.lines().next().filter(|_| foreign).map(str::to_owned);
    // What nobody could read is called nothing by what came next.
    let lost = older.filter(|older| older.pin.is_none());
    let was = older.and_then(|older| older.restore.as_ref());
    Row {
        when: commit.time.clone(),
        who: own(&trailers.by).unwrap_or_else(|| commit.author.clone()),
        verb: own(&trailers.verb).unwrap_or_else(|| "by hand".to_owned()),
        from: lost.map(name).or_else(|| own(&trailers.from)).or_else(|| older.map(name)),
        to: Some(name(change)),
        pin: change.pin.clone(),
        because: own(&trailers.because).or_else(subject),
        overrides: trailers.overrides.clone(),
        restore: change.restore.clone().filter(|id| Some(id) != was),
        leaves_bad: trailers.bad.is_some(),
        bad_since: change
            .pin
            .as_ref()
            .and_then(|pin| pin.digest.as_ref())
            .and_then(|digest| bad_since(digest, all)),
        commit: commit.id.clone(),
    }
}

fn name(change: &Change) -> String {
    match &change.pin {
        Some(pin) => pin.name().to_owned(),
        None if change.gone => "gone".to_owned(),
        None => "unreadable".to_owned(),
    }
}

impl Row {
    fn cells(&self, now: Timestamp) -> Vec<String> {
        let when = self.when.parse::<Timestamp>();
        let minute = when.as_ref().map(|when| when.strftime("%Y-%m-%dT%H:%MZ").to_string());
        let who = self.who.split(" <").next().unwrap_or(&self.who);
        let absent = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        vec![
            minute.unwrap_or_else(|_| self.when.clone()),
            when.map_or_else(|_| "-".to_owned(), |when| age(when, now)),
            who.to_owned(),
            self.verb.clone(),
            absent(&self.from),
            absent(&self.to),
            self.commit.get(..12).unwrap_or(&self.commit).to_owned(),
            self.why(),
        ]
    }

    fn why(&self) -> String {
        let passed = self.overrides.iter().map(|pass| format!("passed {}: {}", pass.gate, pass.because));
        let from = self.from.as_deref().unwrap_or_default();
        let bad = self.leaves_bad.then(|| format!("leaves {from} as bad"));
        let restores = self.restore.as_ref().map(|id| format!("restores {id}"));
        let since = self.bad_since.as_ref().and_then(|commit| commit.get(..12));
        let since = since.map(|commit| format!("bad: rolled back by {commit}"));
        let all: Vec<_> =
            self.because.clone().into_iter().chain(passed).chain(restores).chain(bad).chain(since).collect();
        all.join("; ")
    }
}

/// `3d`: the largest unit that fits is enough beside the time.
fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs().max(0);
    let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let (length, unit) = units.into_iter().find(|(length, _)| seconds >= *length).unwrap_or((1, "s"));
    format!("{}{unit}", seconds / length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_one_unit_and_a_clock_that_goes_wrong_none_below_zero() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let ages = [0, 59, 60, 7_199, 86_400 * 3 + 1].map(|seconds| age(at(0), at(seconds)));
        assert_eq!(ages, ["0s", "59s", "1m", "1h", "3d"]);
        assert_eq!(age(at(10), at(0)), "0s");
    }
}
