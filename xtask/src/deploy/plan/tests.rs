//! Facts written down, and the plan or refusal that they must give.

use super::*;
use crate::checks::State;
use crate::pipeline::{Manifests, Ref};
use crate::report::{Ledger, Report, Schemas};

mod schema;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn candidate(name: &str, schema: u32) -> Candidate {
    let kind = if name.starts_with('v') { Accepts::Release } else { Accepts::Sha };
    Candidate {
        name: name.into(),
        kind,
        git_ref: name.into(),
        commit: Some(COMMIT.into()),
        digest: Digest::of(name.as_bytes()),
        revision: COMMIT.into(),
        schema: Schema { current: schema, oldest_binary: schema },
        version: Some(name.trim_start_matches('v').into()),
        unasked: None,
    }
}

fn reports(file: u32, oldest_binary: u32) -> Observed {
    Observed::Reports(Report {
        version: crate::report::Version {
            version: "0.2.1".into(),
            commit: COMMIT.into(),
            schema: Schemas { binary: file, file, file_oldest_binary: oldest_binary },
            ledger: Ledger { id: "7f3a".into(), sequence: 42 },
            started_at: String::new(),
            uptime_seconds: Some(3600),
            backups: None,
            restored: None,
        },
        ready: true,
    })
}

fn facts(verb: Verb, to: Candidate, observed: Observed) -> Facts {
    Facts {
        verb,
        environment: Environment {
            name: "production".into(),
            kustomization: "p/kustomization.yaml".into(),
            branch: None,
            accepts: vec![Accepts::Release],
            after: None,
            soak: None,
            follow: None,
            git_ref: Ref::Tag,
            manifests: Manifests::Remote,
            cluster: None,
            url: String::new(),
        },
        from: Pinned { pin: candidate("v0.2.1", 2).pin(), ..Pinned::default() },
        to,
        restore: None,
        lost: Lost::default(),
        observed,
        before: None,
        checks: Ok(Vec::new()),
        tagged_before: None,
        bad_since: None,
        told_schema: None,
        past: vec![past(2), past(1)],
        overrides: Vec::new(),
        because: None,
        from_digest: Some(Digest::of(b"v0.2.1")),
        from_image: Some((COMMIT.into(), Schema { current: 2, oldest_binary: 2 })),
        named: true,
        others: [("v0.1.0", 1, true), ("v0.2.0", 2, true), ("v0.3.0", 2, false)]
            .map(|(v, schema, ran)| Other { version: v.parse().unwrap(), schema, ran })
            .into(),
        migrations: vec!["0001_ledger.sql".into(), "0002_notes.sql".into(), "0003_more.sql".into()],
    }
}

fn past(schema: u32) -> Past {
    Past { schema: Some(Schema { current: schema, oldest_binary: schema }), ..Past::default() }
}

fn before(name: &str, observed: Observed) -> Option<Before> {
    Some(Before { name: "staging".into(), pin: candidate(name, 2).pin(), observed })
}

fn refusal(facts: &Facts) -> String {
    plan(facts).unwrap_err().to_string()
}

fn silent() -> Observed {
    Observed::Silent("connection refused".into())
}

#[test]
fn a_rollback_within_the_schema_is_one_pin_change() {
    let plan = plan(&facts(Verb::Rollback, candidate("v0.2.0", 2), reports(2, 2))).unwrap();
    assert!(plan.change);
    assert_eq!(plan.subject("dojo"), "dojo: production v0.2.1 -> v0.2.0");
    assert_eq!(plan.migrations, Vec::<String>::new());
    let message = plan.message("dojo", "", "A <a@b>");
    assert!(message.contains(&format!("Pin-Bad: {}", Digest::of(b"v0.2.1"))), "{message}");
    assert!(message.contains("Pin-Schema: 2\n"), "{message}");
}

#[test]
fn a_promotion_names_the_migrations_that_will_run() {
    let plan = plan(&facts(Verb::Promote, candidate("v0.3.0", 3), reports(2, 2))).unwrap();
    assert_eq!(plan.migrations, ["0003_more.sql"]);
    assert!(plan.to_string().contains("migrations to run: 0003_more.sql"));
}

#[test]
fn only_accepted_kinds_are_promoted_and_all_reasons_come_at_once() {
    let mut to = candidate("sha-0123456789ab", 1);
    to.commit = None;
    let text = refusal(&facts(Verb::Promote, to, reports(2, 2)));
    for reason in ["production accepts release", "remote has no sha-0123456789ab", "downgrade"] {
        assert!(text.contains(reason), "{reason} is missing in {text}");
    }
}

#[test]
fn a_moved_tag_and_a_mislabelled_image_are_refused() {
    let mut to = candidate("v0.2.0", 2);
    to.commit = Some("f".repeat(40));
    to.version = Some("0.1.9".into());
    let text = refusal(&facts(Verb::Promote, to, reports(2, 2)));
    assert!(text.contains("was built from") && text.contains("calls itself 0.1.9"), "{text}");
}

#[test]
fn production_waits_for_staging() {
    let base = || facts(Verb::Promote, candidate("v0.2.2", 2), reports(2, 2));
    let other = Facts { before: before("v0.2.1", reports(2, 2)), ..base() };
    assert!(refusal(&other).contains("cargo xtask promote staging v0.2.2"));
    let behind = |commit: &str, ready| {
        let Observed::Reports(mut report) = reports(2, 2) else { unreachable!() };
        report.version.commit = commit.into();
        report.ready = ready;
        Facts { before: before("v0.2.2", Observed::Reports(report)), ..base() }
    };
    assert!(refusal(&behind("other", true)).contains("still runs"));
    assert!(refusal(&behind(COMMIT, false)).contains("not ready"));
    let silent = Facts { before: before("v0.2.2", Observed::Silent("refused".into())), ..base() };
    assert!(refusal(&silent).contains("whether it runs is unknown"));
    assert!(plan(&behind(COMMIT, true)).unwrap().change);
}

#[test]
fn the_same_pin_again_is_nothing_to_do_even_when_a_guard_would_refuse_it() {
    let mut facts = facts(Verb::Promote, candidate("v0.2.1", 1), reports(2, 2));
    facts.from.pin = facts.to.pin();
    let plan = plan(&facts).unwrap();
    assert!(!plan.change);
    assert_eq!(plan.to_string(), "production already pins v0.2.1: nothing to do");
}

fn overridden(facts: Facts, gates: &[PinGate]) -> Facts {
    let pass = |gate: &PinGate| Override { gate: *gate, because: "it burns".into() };
    Facts { overrides: gates.iter().map(pass).collect(), ..facts }
}

#[test]
fn each_gate_refuses_by_name_and_is_passed_with_a_reason_that_the_commit_keeps() {
    type Spoil = fn(&mut Facts);
    let spoils: [(PinGate, &str, Spoil); 7] = [
        (PinGate::Hold, "production is held: audit", |f| f.from.hold = Some("audit".into())),
        (PinGate::Accepts, "production accepts release", |f| f.to.kind = Accepts::Edge),
        (PinGate::After, "staging does not run it first", |f| {
            f.before = before("v0.1.0", reports(2, 2));
        }),
        (PinGate::Soak, "has run it for 1h, and production asks for 2h", |f| {
            f.before = before("v0.2.2", reports(2, 2));
            f.environment.soak = Some(jiff::SignedDuration::from_hours(2));
        }),
        (PinGate::Checks, "check test is failure, https://x", |f| {
            let (name, said, url) = ("test".into(), "failure".into(), "https://x".into());
            f.checks = Ok(vec![Check { name, state: State::Red, said, url }]);
        }),
        (PinGate::Tag, "was built from", |f| f.to.commit = Some("f".repeat(40))),
        (PinGate::Tag, "when infra commit abc pinned it", |f| {
            f.tagged_before = Some(("e".repeat(40), "abc".into()));
        }),
    ];
    for (gate, words, spoil) in spoils {
        let mut facts = facts(Verb::Promote, candidate("v0.2.2", 2), reports(2, 2));
        spoil(&mut facts);
        let text = refusal(&facts);
        assert!(
            text.contains(words) && text.contains(&format!("--override {gate} --because")),
            "{gate}: {text}"
        );
        let others: Vec<_> =
            [PinGate::Hold, PinGate::After, PinGate::Soak, PinGate::Tag, PinGate::Checks, PinGate::Accepts]
                .into_iter()
                .filter(|other| *other != gate)
                .collect();
        refusal(&overridden(facts.clone(), &others));
        let plan = plan(&overridden(facts, &[gate])).unwrap();
        let message = plan.message("dojo", "", "A <a@b>");
        assert!(message.ends_with(&format!("Override: {gate} because it burns\n")), "{message}");
        assert!(plan.to_string().contains(&format!("passed  {gate}: it burns")), "{plan}");
    }
}

#[test]
fn what_is_met_needs_no_override_and_what_cannot_be_passed_has_none() {
    let met = overridden(facts(Verb::Promote, candidate("v0.2.2", 2), reports(2, 2)), &[PinGate::Soak]);
    assert_eq!(plan(&met).unwrap().overrides, []);
    let all = [PinGate::Hold, PinGate::After, PinGate::Soak, PinGate::Tag, PinGate::Checks, PinGate::Accepts];
    let mut gone = candidate("v0.2.2", 2);
    gone.commit = None;
    for to in [gone, candidate("v0.2.2", 1)] {
        let text = refusal(&overridden(facts(Verb::Promote, to, reports(2, 2)), &all));
        assert!(!text.contains("--override"), "{text}");
    }
}

#[test]
fn what_nobody_can_tell_now_may_be_asked_again() {
    let kind = |facts: &Facts| plan(facts).unwrap_err().kind;
    let base = || facts(Verb::Promote, candidate("v0.2.2", 2), reports(2, 2));
    let unknown = Facts { checks: Err(Fault::remote("no route")), ..base() };
    assert_eq!(kind(&unknown), crate::fault::Kind::Remote);
    let mut held = unknown;
    held.from.hold = Some("audit".into());
    assert_eq!(kind(&held), crate::fault::Kind::Refused);
}

#[test]
fn a_rollback_asks_for_a_hold_and_the_tag_alone() {
    let mut facts = facts(Verb::Rollback, candidate("v0.2.0", 2), reports(2, 2));
    facts.environment.accepts = vec![Accepts::Sha];
    facts.environment.soak = Some(jiff::SignedDuration::from_hours(2));
    facts.checks = Err(Fault::remote("no route"));
    assert!(plan(&facts).unwrap().change);
    facts.to.unasked = Some("connection refused".into());
    let told = plan(&facts).unwrap().to_string();
    assert!(told.contains("take care: the registry does not answer (connection refused)"), "{told}");
    facts.from.hold = Some("audit".into());
    assert!(refusal(&facts).contains("held: audit"));
}

fn restoring(to: &str, restore: Restore, observed: Observed) -> Facts {
    Facts { restore: Some(restore), ..facts(Verb::Rollback, candidate(to, 1), observed) }
}

fn backup() -> Restore {
    let id = "ledger-schema1-seq40".to_owned();
    Restore {
        id,
        schema: Some(1),
        sequence: Some(40),
        made_at: Some("2026-01-01T02:14:00Z".into()),
        ..Restore::default()
    }
}

#[test]
fn a_restore_goes_by_the_backups_schema_and_names_what_is_lost() {
    let plan_of = |restore, observed| plan(&restoring("v0.1.0", restore, observed));
    let told = plan_of(backup(), reports(2, 2)).unwrap();
    assert_eq!(told.restore.as_deref(), Some("ledger-schema1-seq40"));
    let lost = "data that is lost: sequences 41 to 42, written since 2026-01-01T02:14:00Z";
    assert!(told.notes.contains(&lost.to_owned()), "{told}");
    assert!(told.message("dojo", "", "A").contains("\nPin-Restore: ledger-schema1-seq40\n"));
    let silent = plan_of(Restore { made_at: None, ..backup() }, silent()).unwrap().to_string();
    assert!(
        silent.contains("data that is lost: all after sequence 40; how much that is, is unknown"),
        "{silent}"
    );
    let refused = |restore| plan_of(restore, reports(2, 2)).unwrap_err().to_string();
    assert!(refused(Restore { schema: Some(2), ..backup() }).contains("that backup has schema 2"));
    assert!(
        refused(Restore { schema: None, ..backup() }).contains("tell the backup's schema: --file-schema N")
    );
    let absent = Restore { there: Some(vec!["other".into()]), ..backup() };
    assert!(refused(absent).contains("production does not list a backup ledger-schema1-seq40"));
    let twice = Restore { asked_before: Some("abc".into()), ..backup() };
    assert!(refused(twice).contains("an id is applied once"));
}

#[test]
fn a_restore_of_the_same_pin_is_a_change_once() {
    let mut facts = restoring("v0.2.1", backup(), reports(1, 1));
    facts.from.pin = facts.to.pin();
    let first = plan(&facts).unwrap();
    assert!(first.change && !first.message("dojo", "", "A").contains("Pin-Bad"), "{first}");
    facts.from.restore = Some("ledger-schema1-seq40".into());
    assert!(!plan(&facts).unwrap().change);
    // Without a word of a restore, the one that is asked for stays while the pin does.
    facts.restore = None;
    assert!(!plan(&facts).unwrap().change);
}

#[test]
fn what_was_rolled_back_is_promoted_again_by_name_alone() {
    let mut facts = facts(Verb::Promote, candidate("v0.2.2", 2), reports(2, 2));
    facts.bad_since = Some("abc".into());
    assert!(plan(&facts).unwrap().to_string().contains("take care: v0.2.2 was rolled back from here"));
    facts.named = false;
    let text = refusal(&facts);
    assert!(
        text.contains("rolled back from here (infra commit abc)")
            && text.contains("name it: cargo xtask promote production v0.2.2"),
        "{text}"
    );
    // Back to what was left as bad: the other one is not bad for that.
    facts.verb = Verb::Rollback;
    assert_eq!(plan(&facts).unwrap().bad, None);
}

#[test]
fn a_restore_that_is_not_done_is_not_taken_back_in_passing() {
    let mut facts = facts(Verb::Promote, candidate("v0.2.2", 2), reports(2, 2));
    facts.from.restore = Some("ledger-schema1-seq40".into());
    let text = refusal(&facts);
    assert!(
        text.contains("was told to restore ledger-schema1-seq40, and has not said that it did"),
        "{text}"
    );
    assert!(plan(&overridden(facts.clone(), &[PinGate::Restore])).unwrap().change);
    if let Observed::Reports(report) = &mut facts.observed {
        let (id, at) = ("ledger-schema1-seq40".to_owned(), String::new());
        report.version.restored = Some(crate::report::Restored { id, at });
    }
    assert!(plan(&facts).unwrap().change);
}
