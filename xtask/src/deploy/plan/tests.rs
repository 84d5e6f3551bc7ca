//! Facts written down, and the plan or refusal that they must give.

use super::*;
use crate::report::{Ledger, Report, Schemas};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn candidate(name: &str, schema: u32) -> Candidate {
    let labels = Labels {
        revision: COMMIT.into(),
        version: name.trim_start_matches('v').into(),
        source: String::new(),
        created: String::new(),
        schema: Schema { current: schema, oldest_binary: schema },
    };
    let kind = if name.starts_with('v') { Accepts::Release } else { Accepts::Sha };
    Candidate {
        name: name.into(),
        kind,
        git_ref: name.into(),
        commit: Some(COMMIT.into()),
        digest: Digest::of(name.as_bytes()),
        labels,
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
            accepts: vec![Accepts::Release],
            after: None,
            url: String::new(),
        },
        from: candidate("v0.2.1", 2).pin(),
        to,
        observed,
        before: None,
        told_schema: None,
        pinned_schemas: vec![Some(1), Some(2)],
        released: [("v0.1.0", 1), ("v0.2.0", 2), ("v0.2.1", 2)].map(|(v, s)| (v.parse().unwrap(), s)).into(),
        migrations: vec!["0001_ledger.sql".into(), "0002_notes.sql".into(), "0003_more.sql".into()],
    }
}

fn refusal(facts: &Facts) -> String {
    plan(facts).unwrap_err().to_string()
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
fn a_downgrade_is_refused_and_names_the_newest_safe_version_and_the_backup() {
    let text = refusal(&facts(Verb::Rollback, candidate("v0.1.0", 1), reports(2, 2)));
    assert!(text.contains("data file has schema 2, and v0.1.0 knows schema 1"), "{text}");
    assert!(text.contains("newest safe version: v0.2.1"), "{text}");
    assert!(text.contains("schema1-seq"), "{text}");
}

#[test]
fn a_backward_compatible_migration_admits_the_older_binary() {
    assert!(plan(&facts(Verb::Rollback, candidate("v0.1.0", 1), reports(2, 1))).unwrap().change);
}

#[test]
fn an_unknown_file_is_never_guessed_to_be_old() {
    let silent = || Observed::Silent("connection refused".into());
    let text = refusal(&facts(Verb::Rollback, candidate("v0.1.0", 1), silent()));
    assert!(text.contains("at most 2") && text.contains("--file-schema"), "{text}");
    assert!(plan(&facts(Verb::Rollback, candidate("v0.2.0", 2), silent())).unwrap().change);
    let base = |schema| facts(Verb::Rollback, candidate("v0.2.0", schema), silent());
    let unknown = Facts { pinned_schemas: vec![Some(1), None], ..base(2) };
    assert!(refusal(&unknown).contains("schema is unknown"));
    assert!(plan(&Facts { told_schema: Some(2), ..unknown }).unwrap().change);
    assert!(refusal(&Facts { told_schema: Some(3), ..base(2) }).contains("downgrade"));
    let told = plan(&Facts { told_schema: Some(1), ..base(2) }).unwrap().to_string();
    assert!(told.contains("take care: an image with schema 2 was pinned here"), "{told}");
    assert!(plan(&Facts { pinned_schemas: vec![], ..base(2) }).unwrap().change);
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
    to.labels.version = "0.1.9".into();
    let text = refusal(&facts(Verb::Promote, to, reports(2, 2)));
    assert!(text.contains("was built from") && text.contains("calls itself 0.1.9"), "{text}");
}

#[test]
fn production_waits_for_staging() {
    let before = |name: &str, observed| {
        Some(Before { name: "staging".into(), pin: candidate(name, 2).pin(), observed })
    };
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
    facts.from = facts.to.pin();
    let plan = plan(&facts).unwrap();
    assert!(!plan.change);
    assert_eq!(plan.to_string(), "production already pins v0.2.1: nothing to do");
}
