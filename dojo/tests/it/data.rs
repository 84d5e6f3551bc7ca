//! The data file: what is refused, and that a refusal changes nothing.

use crate::dojo::{Ran, Volume, schema};

const CHANGED: &str = "UPDATE schema_migration SET sha256 = repeat('0', 64)";

/// What a newer dojo would have written: the next schema, which a binary must know to open the file, or need not.
fn newer(oldest_binary: u32) -> String {
    format!(
        "INSERT INTO schema_migration VALUES ({}, 'x_later.sql', 'abc', make_timestamp(0), '9.9.9', {oldest_binary})",
        schema() + 1
    )
}

fn account(seq: i64) -> String {
    format!(
        "INSERT INTO account (seq, account_id, name, kind, actor, recorded_at)
         VALUES ({seq}, {seq}, 'Cash', 'cash', 't', make_timestamp(0))"
    )
}

#[test]
fn a_bad_value_is_named_with_what_is_allowed() {
    let volume = Volume::fresh();
    for (name, value, allowed) in [
        ("DOJO_ENV", "prod", "dev, staging or production"),
        ("DOJO_LOG_LEVEL", "loud", "error, warn, info, debug or trace"),
        ("DOJO_LISTEN", "8000", "an address and a port"),
        ("DOJO_AUTH", "maybe", "token or none"),
        ("DOJO_TOKEN_FILE", "/nonexistent/tokens", "one token a line"),
    ] {
        for command in [&["serve"][..], &["check", "--config"]] {
            let ran = Ran::of(volume.command(command).env(name, value));
            ran.refused(2, &[name, value, allowed]);
        }
    }
    assert_eq!(volume.names("."), ["tokens"]);
}

#[test]
fn check_config_does_not_touch_the_volume() {
    let volume = Volume::fresh();
    let mut command = volume.command(&["check", "--config"]);
    let ran = Ran::of(command.env("DOJO_DB_PATH", "/nonexistent/ledger.duckdb"));
    ran.refused(0, &["/nonexistent/ledger.duckdb", "production", "token, from"]);
    assert!(!ran.text.contains(crate::dojo::TOKEN));
}

#[test]
fn a_missing_file_is_an_error_outside_dev() {
    let volume = Volume::fresh();
    for environment in ["production", "staging"] {
        for command in [&["serve"][..], &["migrate"], &["migrate", "--plan"], &["check"], &["backup", "x"]] {
            let ran = Ran::of(volume.command(command).env("DOJO_ENV", environment));
            ran.refused(3, &["there is no ledger at", "ledger.duckdb", "dojo init"]);
        }
    }
    assert_eq!(volume.names("."), ["tokens"]);
    let ran = Ran::of(volume.command(&["migrate"]).env("DOJO_ENV", "dev"));
    ran.refused(0, &[&format!("schema {}", schema())]);
}

#[test]
fn init_makes_a_ledger_once_and_never_beside_the_log_of_a_lost_one() {
    let volume = Volume::fresh();
    std::fs::write(volume.path("ledger.duckdb.wal"), "of a lost file").unwrap();
    volume.run(&["init"]).refused(3, &["ledger.duckdb.wal", "is there"]);
    std::fs::remove_file(volume.path("ledger.duckdb.wal")).unwrap();

    volume.run(&["init"]).refused(0, &[&format!("schema {}", schema())]);
    assert_eq!(volume.names("."), ["ledger.duckdb", "ledger.lock", "tokens"]);
    let before = volume.bytes();
    volume.run(&["init"]).refused(3, &["exists already"]);
    assert_eq!(volume.bytes(), before);
    volume.run(&["check"]).refused(0, &["is sound", "sequence 0"]);
}

#[test]
fn a_file_that_is_no_ledger_is_refused() {
    let volume = Volume::fresh();
    std::fs::write(volume.db(), "not a database, but longer than a header would be").unwrap();
    volume.run(&["serve"]).refused(3, &["cannot read", "ledger.duckdb", "there is no backup beside it"]);
    std::fs::remove_file(volume.db()).unwrap();
    volume.alter("CREATE TABLE holiday (day DATE)");
    let before = volume.bytes();
    volume.run(&["serve"]).refused(3, &["not a ledger"]);
    assert_eq!(volume.bytes(), before);
}

#[test]
fn a_newer_file_is_refused_before_a_byte_is_written() {
    let volume = Volume::new();
    volume.alter(&newer(schema() + 1));
    let before = volume.bytes();
    let [newer, own] = [schema() + 1, schema()].map(|number| format!("schema {number}"));
    let named = [newer.as_str(), "dojo 9.9.9", "this dojo", &own, "restore a backup"];
    for command in [&["serve"][..], &["migrate", "--backup"], &["migrate", "--plan"], &["check"]] {
        volume.run(command).refused(3, &named);
    }
    assert_eq!(volume.bytes(), before);
    assert_eq!(volume.names("."), ["ledger.duckdb", "ledger.duckdb.wal", "ledger.lock", "tokens"]);
}

#[test]
fn a_newer_file_that_admits_this_binary_is_served() {
    let volume = Volume::new();
    volume.alter(&newer(schema()));
    let service = volume.serve();
    let schema_of = &service.get("/version").body["schema"];
    let numbers = ["binary", "file", "file_oldest_binary"].map(|key| schema_of[key].as_u64().unwrap() as u32);
    assert_eq!(numbers, [schema(), schema() + 1, schema()]);
    assert_eq!(service.stop(), Some(0));
}

#[test]
fn a_changed_migration_and_a_gap_are_refused() {
    for (damage, named) in [
        (CHANGED, "migration 1 was changed"),
        ("UPDATE schema_migration SET version = version + 1", "a gap: 1 is missing"),
        ("DELETE FROM schema_migration", "its record of migrations is empty"),
    ] {
        let volume = Volume::new();
        volume.alter(damage);
        let before = volume.bytes();
        volume.run(&["serve"]).refused(3, &[named]);
        assert_eq!(volume.bytes(), before);
    }
}

#[test]
fn damaged_facts_are_refused_at_start_and_by_check() {
    let volume = Volume::new();
    volume.alter(&account(2));
    for command in ["serve", "check"] {
        volume.run(&[command]).refused(3, &["damaged", "without a gap"]);
    }
}

#[test]
fn the_plan_changes_nothing_and_reads_through_a_log() {
    let volume = Volume::new();
    volume.alter(&account(1));
    std::fs::remove_file(volume.path("ledger.lock")).unwrap();
    let before = volume.bytes();
    volume.run(&["migrate", "--plan"]).refused(0, &["sequence 1: nothing to run"]);
    assert_eq!(volume.bytes(), before);
    assert_eq!(volume.names("."), ["ledger.duckdb", "ledger.duckdb.wal", "tokens"]);
}

#[test]
fn nothing_pending_writes_no_backup() {
    let volume = Volume::new();
    volume.run(&["migrate", "--backup"]).refused(0, &[&format!("schema {}", schema())]);
    assert_eq!(volume.names("."), ["ledger.duckdb", "ledger.lock", "tokens"]);
}

#[test]
fn a_backup_holds_what_the_log_holds_and_overwrites_nothing() {
    let volume = Volume::new();
    volume.alter(&account(1));
    std::fs::create_dir(volume.path("elsewhere")).unwrap();
    volume.run(&["backup", "elsewhere/copy.duckdb"]).refused(0, &["sequence 1"]);
    assert_eq!(volume.names("elsewhere"), ["copy.duckdb"]);
    volume.run(&["backup", "elsewhere/copy.duckdb"]).refused(3, &["exists already"]);
    let mut check = volume.command(&["check"]);
    let ran = Ran::of(check.env("DOJO_DB_PATH", volume.path("elsewhere/copy.duckdb")));
    ran.refused(0, &["is sound", "sequence 1, 1 accounts"]);
}

#[test]
fn the_holder_of_a_ledger_is_named() {
    let volume = Volume::new();
    let service = volume.serve();
    for command in
        [&["serve"][..], &["migrate"], &["migrate", "--plan"], &["check"], &["backup", "x"], &["init"]]
    {
        volume.run(command).refused(3, &["is held by host dojo-pod-0, pid "]);
    }
    assert!(!volume.path("x").exists());
    assert_eq!(service.get("/readyz").status, 200);
    assert_eq!(service.stop(), Some(0));
    volume.run(&["check"]).refused(0, &["is sound"]);
}
