//! The last lines of a start that failed, which a pod's status carries.

use std::process::Command;

use crate::dojo::{Ran, Volume, schema, skip};

/// The lines behind `error:` and `help:`.
fn words(ran: &Ran) -> Vec<&str> {
    assert_ne!(ran.code, Some(0), "{}", ran.text);
    let error = ran.text.lines().position(|line| line.starts_with("error: ")).unwrap();
    ran.text.lines().skip(error + 1).filter(|line| !line.starts_with("help: ")).collect()
}

fn data(volume: &Volume, schema: u32, oldest_binary: u32, sequence: u32) -> String {
    let conn = duckdb::Connection::open(volume.copy().db()).unwrap();
    let id: String = conn.query_row("SELECT id::VARCHAR FROM ledger", [], |row| row.get(0)).unwrap();
    format!("data: schema {schema}, oldest binary {oldest_binary}, ledger {id}, sequence {sequence}")
}

fn account(seq: i64) -> String {
    format!(
        "INSERT INTO account (seq, account_id, name, kind, actor, recorded_at)
         VALUES ({seq}, {seq}, 'Cash', 'cash', 't', make_timestamp(0))"
    )
}

#[test]
fn a_start_that_failed_says_what_the_file_is_at_and_which_backups_there_are() {
    let volume = Volume::new();
    volume.alter(&account(1));
    std::fs::create_dir(volume.path("backups")).unwrap();
    for (seq, seconds) in [(1, 1), (2, 2), (3, 3), (4, 4)] {
        let file = volume.path(&format!("backups/ledger-schema1-seq{seq}.duckdb"));
        let file = std::fs::File::create(file).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).unwrap();
    }
    let next = schema() + 1;
    volume.alter(&format!(
        "INSERT INTO schema_migration VALUES ({next}, 'x.sql', 'abc', make_timestamp(0), '9.9.9', {next})"
    ));
    let (before, names) = (volume.bytes(), volume.names("."));
    let backups = "backups: ledger-schema1-seq4, ledger-schema1-seq3, ledger-schema1-seq2";
    for command in [&["migrate", "--backup"][..], &["migrate"], &["serve"]] {
        let ran = volume.run(command);
        ran.refused(3, &["this dojo"]);
        assert_eq!(words(&ran), [&data(&volume, next, next, 1), backups], "{command:?}");
    }
    for command in [&["migrate", "--plan"][..], &["check"]] {
        assert_eq!(words(&volume.run(command)), [""; 0], "{command:?}");
    }
    assert_eq!((volume.bytes(), volume.names(".")), (before, names));
}

#[test]
fn a_service_that_cannot_listen_says_it_too_and_success_says_nothing() {
    let volume = Volume::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut serve = volume.command(&["serve"]);
    let ran = Ran::of(serve.env("DOJO_LISTEN", taken.local_addr().unwrap().to_string()));
    assert_eq!(words(&ran), [data(&volume, schema(), schema(), 0)]);
    let ran = volume.run(&["migrate"]);
    ran.refused(0, &[]);
    assert!(!ran.text.contains("data: "), "{}", ran.text);
}

#[test]
fn what_cannot_be_read_is_left_out_and_nothing_is_made() {
    let fresh = Volume::fresh();
    assert_eq!(words(&fresh.run(&["migrate", "--backup"])), [""; 0]);
    assert_eq!(fresh.names("."), ["tokens"]);
    std::fs::write(fresh.db(), "no database, but longer than a header is").unwrap();
    assert_eq!(words(&fresh.run(&["serve"])), [""; 0]);

    let mut bad = fresh.command(&["serve"]);
    assert_eq!(words(&Ran::of(bad.env("DOJO_ENV", "prod"))), [""; 0]);

    let volume = Volume::new();
    let service = volume.serve();
    let ran = volume.run(&["migrate"]);
    ran.refused(3, &["is held by"]);
    assert_eq!(words(&ran), [""; 0]);
    assert_eq!(service.get("/readyz").status, 200);
    assert_eq!(service.stop(), Some(0));
}

/// In dev a missing ledger is made by the same migrations.
#[test]
fn a_migration_that_a_full_disk_ended_is_named_with_the_disk() {
    let volume = Volume::fresh();
    let disk = volume.path("disk");
    std::fs::create_dir(&disk).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=200k", "tmpfs"]).arg(&disk).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        return skip("a tmpfs", "root, who may mount one");
    }
    let mut migrate = volume.command(&["migrate", "--backup"]);
    migrate.env("DOJO_DB_PATH", disk.join("ledger.duckdb")).env("DOJO_ENV", "dev");
    let ran = Ran::of(&mut migrate);
    let unmounted = Command::new("umount").arg(&disk).status();
    assert!(unmounted.unwrap().success());
    ran.refused(1, &["0001_ledger.sql", "No space left on device"]);
    assert_eq!(words(&ran), [""; 0]);
}
