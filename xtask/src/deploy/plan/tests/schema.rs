//! The data file against the image: what is reported, remembered, told, or unknown.

use super::*;

#[test]
fn a_downgrade_is_refused_and_names_the_newest_safe_version_and_the_backup() {
    let text = refusal(&facts(Verb::Rollback, candidate("v0.1.0", 1), reports(2, 2)));
    assert!(text.contains("data file has schema 2, and v0.1.0 knows schema 1"), "{text}");
    assert!(
        text.contains("newest safe version: v0.2.0 (cargo xtask rollback production --to v0.2.0)"),
        "{text}"
    );
    assert!(text.contains("rollback production --to v0.1.0 --restore ledger-schema1-seq…"), "{text}");
}

#[test]
fn a_backward_compatible_migration_admits_the_older_binary() {
    assert!(plan(&facts(Verb::Rollback, candidate("v0.1.0", 1), reports(2, 1))).unwrap().change);
}

#[test]
fn an_unknown_file_is_never_guessed_to_be_old() {
    let text = refusal(&facts(Verb::Rollback, candidate("v0.1.0", 1), silent()));
    assert!(text.contains("at most 2") && text.contains("--file-schema"), "{text}");
    assert!(plan(&facts(Verb::Rollback, candidate("v0.2.0", 2), silent())).unwrap().change);
    let base = |schema| facts(Verb::Rollback, candidate("v0.2.0", schema), silent());
    let unknown = Facts { past: vec![past(1), Past::default()], ..base(2) };
    assert!(refusal(&unknown).contains("schema of the data file is unknown"));
    assert!(plan(&Facts { told_schema: Some(2), ..unknown }).unwrap().change);
    assert!(refusal(&Facts { told_schema: Some(3), ..base(2) }).contains("downgrade"));
    let told = plan(&Facts { told_schema: Some(1), ..base(2) }).unwrap().to_string();
    assert!(told.contains("take care: an image with schema 2 was pinned here"), "{told}");
    let fresh = plan(&Facts { past: vec![], ..base(2) }).unwrap();
    assert!(
        fresh
            .notes
            .contains(&"production ran nothing before, as far as the infra repository remembers".to_owned()),
        "{fresh}"
    );
}

#[test]
fn a_file_that_nobody_sees_lies_between_what_was_seen_and_the_highest_since() {
    let seen = |pinned: u32, seen: u32| {
        let schema = Schema { current: seen, oldest_binary: seen };
        Past { seen: Some(Seen { schema, ledger: "7f3a".into(), sequence: 42 }), ..past(pinned) }
    };
    let base = |to: u32, past| Facts { past, ..facts(Verb::Rollback, candidate("v0.2.0", to), silent()) };
    // Seen at 2 when 3 was pinned; what was pinned long before says nothing more.
    let since = || vec![past(3), seen(2, 2), past(2), past(9)];
    assert!(refusal(&base(2, since())).contains("between 2 and 3"));
    assert!(plan(&base(3, since())).unwrap().change);
    // What was pinned when it was seen may have been rolled out after that.
    assert!(refusal(&base(2, vec![seen(2, 2), past(3)])).contains("between 2 and 3"));
    // The highest admits an older binary, so every file up to it does.
    let admits = Past { schema: Some(Schema { current: 3, oldest_binary: 2 }), ..Past::default() };
    assert!(plan(&base(2, vec![admits, seen(2, 2), past(2)])).unwrap().change);
    let lower = vec![seen(1, 2), past(1)];
    assert!(refusal(&base(1, lower)).contains("if nobody else changed it"));
}

#[test]
fn another_volume_and_a_lost_tail_are_seen() {
    let schema = Schema { current: 2, oldest_binary: 2 };
    let told = |ledger: &str, sequence| {
        let seen = Some(Seen { schema, ledger: ledger.into(), sequence });
        let past = vec![Past { seen, ..past(2) }];
        plan(&Facts { past, ..facts(Verb::Rollback, candidate("v0.2.0", 2), reports(2, 2)) })
            .unwrap()
            .to_string()
    };
    assert!(told("beef", 1).contains("take care: until now the ledger was beef; is it the right volume?"));
    assert!(told("7f3a", 43).contains("take care: the ledger was at sequence 43 before"));
    assert!(!told("7f3a", 42).contains("take care"));
}

#[test]
fn what_the_operator_reads_is_held_against_what_the_service_said() {
    let schema = Schema { current: 2, oldest_binary: 2 };
    let seen = Some(Seen { schema, ledger: "7f3a".into(), sequence: 42 });
    let base = |restores| Facts {
        past: vec![Past { restores, ..past(1) }, Past { seen: seen.clone(), ..past(2) }],
        told_schema: Some(1),
        ..facts(Verb::Rollback, candidate("v0.1.0", 1), silent())
    };
    assert!(refusal(&base(false)).contains("a file does not go back without a restore"));
    assert!(plan(&base(true)).unwrap().change);
}

#[test]
fn a_pin_that_does_not_run_yet_may_migrate_the_file_first() {
    let mut facts = facts(Verb::Rollback, candidate("v0.1.0", 1), reports(1, 1));
    assert!(!plan(&facts).unwrap().to_string().contains("take care"));
    facts.from_image = Some(("f".repeat(40), Schema { current: 2, oldest_binary: 2 }));
    let told = plan(&facts).unwrap().to_string();
    assert!(
        told.contains(
            "take care: production does not run v0.2.1 yet, which will migrate its file to schema 2"
        ),
        "{told}"
    );
    facts.from_image = Some(("f".repeat(40), Schema { current: 2, oldest_binary: 1 }));
    assert!(!plan(&facts).unwrap().to_string().contains("take care"));
}
