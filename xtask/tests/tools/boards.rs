//! Boards as somebody could see them: on a quiet day, in a bad night, before anything was promoted, and with words from
//! somebody who means harm.

use crate::page::{
    Action, Commit, Event, Fact, Gap, History, Hold, Infra, Kind, Moment, Next, Page, Row, Stage, Tone,
    Trouble,
};

const DIGEST: &str = "sha256:48e8d511c86bcf3a4ee1b0c0b3e0a7f52f3d83e86a4b2b3c55a9c8f2f3f0d1aa";
const COMMIT: &str = "3f2c61d0a9b84c5e7f1029384756afbecd012345";
const BEFORE: &str = "b86e2ce2b54d1029384756afbecd0123453f2c61";
const OLDER: &str = "sha256:d771d025b800c2f3a1ee1b0c0b3e0a7f52f3d83e86a4b2b3c55a9c8f2f3f0d1a";

fn known(text: &str) -> Fact {
    Fact::Known(text.to_owned())
}

fn silent<T>() -> Fact<T> {
    Fact::Unknown("ghcr.io: HTTP status 503".to_owned())
}

/// Some minutes before 03:12 in the night of the page.
fn before(minutes: i64) -> Moment {
    let made: jiff::Timestamp = "2026-11-23T03:12:00Z".parse().unwrap();
    Moment(made - jiff::SignedDuration::from_mins(minutes))
}

fn row(name: &str, value: &str) -> Row {
    Row { name: name.to_owned(), value: known(value), full: None, at: None }
}

fn digest(digest: &str) -> Row {
    Row { full: Some(digest.to_owned()), ..row("digest", digest) }
}

fn commit(id: &str, subject: &str, by: &str, minutes: i64) -> Commit {
    let (id, subject, by) = (id.repeat(40 / id.len()), subject.to_owned(), by.to_owned());
    Commit { id, subject, by, at: Some(before(minutes)) }
}

fn action(what: &str, command: &str) -> Action {
    Action { what: what.to_owned(), command: format!("cargo xtask {command}") }
}

fn event(minutes: i64, kind: Kind, from: Option<&str>, to: &str, why: &[&str]) -> Event {
    Event {
        at: Some(before(minutes)),
        by: "Maya Okafor".to_owned(),
        kind,
        from: from.map(str::to_owned),
        to: known(to),
        why: why.iter().map(|why| (*why).to_owned()).collect(),
        commit: "c602186d7fdfab2a78e796fc76c37b513fb31a51".to_owned(),
    }
}

fn stage(name: &str, runs: &str) -> Stage {
    Stage {
        name: name.to_owned(),
        url: None,
        tone: Tone::Plain,
        state: String::new(),
        says: String::new(),
        since: None,
        has: known(runs),
        facts: Vec::new(),
        hold: None,
        notes: Vec::new(),
        troubles: Vec::new(),
        gap: None,
        actions: Vec::new(),
        history: None,
    }
}

fn gap(to: &str, newest: Vec<Commit>, migrations: &[&str]) -> Option<Gap> {
    let migrations = migrations.iter().map(|file| (*file).to_owned()).collect();
    let commits = Fact::Known(newest.len());
    Some(Gap { to: to.to_owned(), commits, ahead: 0, newest, migrations: Fact::Known(migrations) })
}

/// Ready for that many minutes, on a data file of the schema that it knows.
fn environment(name: &str, version: &str, image: &str, commit: &str, schema: u32, minutes: i64) -> Stage {
    let rows = vec![
        Row { at: Some(before(minutes + 2)), ..row("pinned by", "Maya Okafor") },
        digest(image),
        row("commit", commit),
        row("schema", &schema.to_string()),
        row("data file", &format!("schema {schema}, sequence 1904")),
        Row { full: Some("01a20948-cac7-736d-945b-b94156b2059f".to_owned()), ..row("ledger", "…56b2059f") },
        Row { at: Some(before(minutes + 1)), ..row("backup", &format!("ledger-schema{schema}-seq1841")) },
    ];
    Stage {
        url: Some(format!("https://{name}-dojo.example.com")),
        tone: Tone::Well,
        state: "ready".to_owned(),
        since: Some(before(minutes)),
        facts: rows,
        ..stage(name, version)
    }
}

fn infra() -> Infra {
    Infra {
        url: "git@github.com:blogle/infra.git".to_owned(),
        branch: "main".to_owned(),
        commit: known("07fb1c848bbf0e93d00aea7af42902531f211e23"),
    }
}

fn page(stages: Vec<Stage>) -> Page {
    Page { project: "blogle/dojo".to_owned(), made: before(0), infra: infra(), stages }
}

/// Everything runs; a version waits for production.
pub fn full() -> Page {
    let mut master = stage("master", "9ab41c77e0d2f3a4b5c6d7e8f90123456789abcd");
    master.notes = vec!["Say which account a transfer lacks".to_owned()];
    master.facts = vec![Row { at: Some(before(22)), ..row("by", "Maya Okafor") }];
    let pushed = vec![
        commit("9ab41c77e0", "Say which account a transfer lacks", "Maya Okafor", 22),
        commit("51d02e8f4b", "Name the backup in the log of a migration", "Jonas Lind", 41),
    ];
    master.gap = gap("edge", pushed, &[]);
    master.actions = vec![action("cut a release", "release --bump minor")];
    let mut edge = stage("edge", COMMIT);
    edge.facts = vec![digest(DIGEST), row("version", "0.3.0"), row("schema", "7")];
    edge.gap = gap("staging", Vec::new(), &[]);
    let mut staging = environment("staging", "v0.3.0", DIGEST, COMMIT, 7, 60 * 26);
    staging.gap = gap(
        "production",
        vec![
            commit(COMMIT, "Release v0.3.0", "Maya Okafor", 60 * 28),
            commit("b8877ad1e2", "Add a day's balance to the answer of /v1/accounts", "Jonas Lind", 60 * 31),
            commit("aa01c9d2f3", "Index transactions by day (migration 0007)", "Maya Okafor", 60 * 50),
        ],
        &["0007_index_by_day.sql"],
    );
    staging.actions = vec![
        action("try what edge is", "promote staging edge"),
        action("go back to v0.2.1", "rollback staging --to v0.2.1"),
    ];
    staging.history = Some(History {
        events: Fact::Known(vec![
            event(60 * 26, Kind::Promote, Some("v0.2.1"), "v0.3.0", &[]),
            event(60 * 24 * 9, Kind::Promote, Some("v0.2.0"), "v0.2.1", &[]),
            event(60 * 24 * 20, Kind::Promote, None, "v0.2.0", &[]),
        ]),
        older: 0,
    });
    let mut production = environment("production", "v0.2.1", OLDER, BEFORE, 6, 60 * 24 * 8);
    production.facts.push(row("soak", "staging has run v0.3.0 for 1d 2h, of 1d: enough"));
    production.facts.push(row("safe", "v0.2.0 opens schema 6"));
    production.actions = vec![
        action("give it v0.3.0", "promote production v0.3.0"),
        action("go back to v0.2.0", "rollback production --to v0.2.0"),
        action("let nobody change it", "hold production \"REASON\""),
    ];
    production.history = Some(History {
        events: Fact::Known(vec![
            event(60 * 24 * 8, Kind::Promote, Some("v0.2.0"), "v0.2.1", &[]),
            event(
                60 * 24 * 12,
                Kind::Rollback,
                Some("v0.2.1-rc.1"),
                "v0.2.0",
                &["balances of March were off by one day"],
            ),
            event(
                60 * 24 * 13,
                Kind::Promote,
                Some("v0.2.0"),
                "v0.2.1-rc.1",
                &["passed soak: the auditors wait for it"],
            ),
            event(60 * 24 * 19, Kind::ByHand, Some("v0.1.0"), "v0.2.0", &["pin v0.2.0 (#14)"]),
        ]),
        older: 6,
    });
    page(vec![master, edge, staging, production])
}

/// The service is down, staging runs what nobody pinned, and two sources are silent.
pub fn wrong() -> Page {
    let mut page = full();
    let [master, edge, staging, production] = page.stages.as_mut_slice() else { panic!("not four stages") };
    edge.tone = Tone::Unknown;
    edge.says = "is unknown".to_owned();
    edge.has = silent();
    edge.facts.clear();
    edge.troubles = vec![Trouble {
        tone: Tone::Unknown,
        what: "the registry did not answer: ghcr.io: HTTP status 503".to_owned(),
        since: None,
        next: Some(Next::Command("cargo xtask doctor".to_owned())),
    }];
    for (stage, to) in [(master, "edge"), (edge, "staging")] {
        let (commits, migrations) = (silent(), silent());
        stage.gap = Some(Gap { to: to.to_owned(), commits, ahead: 0, newest: Vec::new(), migrations });
    }
    staging.tone = Tone::Odd;
    staging.state = "drift".to_owned();
    staging.says = "runs another image than is pinned".to_owned();
    staging.troubles = vec![Trouble {
        tone: Tone::Odd,
        what: "pinned is v0.3.0 (3f2c61d0a9b8), and 0.3.1-dev (77e0d2f3a4b5) runs".to_owned(),
        since: Some(before(95)),
        next: Some(Next::Command(
            "kubectl --context home --namespace dojo-staging rollout restart deployment/dojo".to_owned(),
        )),
    }];
    staging.hold = Some(Hold {
        why: "the migration of account 17 is looked at here, until Tuesday".to_owned(),
        by: Some("Jonas Lind".to_owned()),
        at: Some(before(60 * 5)),
    });
    production.tone = Tone::Bad;
    production.has = known("v0.3.0");
    production.state = "down".to_owned();
    production.says = "is down".to_owned();
    production.since = Some(before(3));
    let unknown = |name, why: &str| Row { value: Fact::Unknown(why.to_owned()), ..row(name, "") };
    production.facts = vec![
        Row { at: Some(before(5)), ..row("pinned by", "Maya Okafor") },
        unknown("runs", "https://dojo.example.com/version: HTTP status 503"),
        digest(DIGEST),
        row("commit", COMMIT),
        row("schema", "7"),
        unknown("data file", "schema 6, sequence 1904 when it was pinned"),
        row("safe", "v0.2.1 opens schema 6, if nobody else changed it"),
    ];
    production.troubles = vec![Trouble {
        tone: Tone::Bad,
        what: "init failed in migration 0007_index_by_day.sql: disk full, 0 of 2048 MiB free on /data".to_owned(),
        since: Some(before(3)),
        next: Some(Next::Command("kubectl --context home --namespace dojo-prod patch pvc dojo -p '{\"spec\":{\"resources\":{\"requests\":{\"storage\":\"8Gi\"}}}}'".to_owned())),
    }];
    production.actions = vec![
        action("go back to v0.2.1; the file is at schema 6 still", "rollback production --to v0.2.1"),
        action("let nobody change it", "hold production \"REASON\""),
    ];
    page
}

/// A new team's: nothing has been promoted, and the services are not there.
pub fn empty() -> Page {
    let silent = |name: &str| Stage {
        tone: Tone::Unknown,
        state: "unknown".to_owned(),
        says: "is unknown".to_owned(),
        has: known("nothing"),
        history: Some(History { events: Fact::Known(Vec::new()), older: 0 }),
        actions: vec![action("give it the first version", &format!("promote {name} VERSION"))],
        ..stage(name, "")
    };
    let mut stages = vec![
        stage("master", "9ab41c77e0d2f3a4b5c6d7e8f90123456789abcd"),
        silent("staging"),
        silent("production"),
    ];
    stages[0].gap = Some(Gap {
        to: "staging".to_owned(),
        commits: Fact::Unknown("nothing is pinned there".to_owned()),
        ahead: 0,
        newest: Vec::new(),
        migrations: Fact::Known(Vec::new()),
    });
    page(stages)
}

/// Words that would run, break out, turn the line, or fill the page.
pub const EVIL: [&str; 6] = [
    "<script>document.title='owned'</script>",
    "\"'><img src=x onerror=\"document.title='owned'\">",
    "</style></title></script><h1>All is well</h1>",
    "\u{202e}deorvmi\u{2066}\u{200f} \u{7}\u{9b}2J",
    "{{ page.project }} {% raw %} &amp;",
    "one\ntwo",
];

/// Every word that people write is one of these.
pub fn hostile() -> Page {
    let long = format!("{}{}", EVIL.concat(), "x".repeat(10_000));
    let mut page = wrong();
    page.project.clone_from(&long);
    page.infra.url.clone_from(&long);
    page.infra.branch.clone_from(&long);
    page.infra.commit = known(&long);
    for stage in &mut page.stages {
        stage.name.clone_from(&long);
        stage.state.clone_from(&long);
        stage.says.clone_from(&long);
        stage.has = known(&long);
        for row in &mut stage.facts {
            (row.name, row.value, row.full) = (long.clone(), known(&long), Some(long.clone()));
        }
        stage.hold = Some(Hold { why: long.clone(), by: Some(long.clone()), at: None });
        let trouble = |evil: &str| Trouble {
            tone: Tone::Bad,
            what: evil.to_owned(),
            since: None,
            next: Some(Next::Advice(long.clone())),
        };
        stage.troubles = EVIL.iter().map(|evil| trouble(evil)).collect();
        stage.actions = vec![Action { what: long.clone(), command: long.clone() }];
        let mut newest: Vec<_> = EVIL.iter().map(|evil| commit("ab", evil, evil, 1)).collect();
        newest.push(commit("ab", &long, &long, 1));
        let to = long.clone();
        let migrations = Fact::Known(vec![long.clone()]);
        stage.gap = Some(Gap { to, commits: Fact::Known(newest.len()), ahead: 0, newest, migrations });
        let mut events: Vec<_> =
            EVIL.iter().map(|evil| event(1, Kind::ByHand, Some(evil), evil, &[evil])).collect();
        events.push(event(1, Kind::Rollback, Some(&long), &long, &[&long]));
        stage.history = Some(History { events: Fact::Known(events), older: 0 });
    }
    page
}
