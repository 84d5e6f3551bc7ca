//! Restoring a backup: once, whatever is killed when; what was there is kept, and a refusal changes nothing.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::dojo::{Ran, Service, Volume, schema, skip};

/// A ledger at sequence 3, part of it in its log, with a backup of sequence 1.
fn volume() -> Volume {
    let volume = Volume::new();
    volume.alter(&account(1));
    std::fs::create_dir(volume.path("backups")).unwrap();
    volume.run(&["backup", &format!("backups/{}.duckdb", id())]).refused(0, &["sequence 1"]);
    volume.run(&["migrate"]).refused(0, &[]);
    volume.alter(&account(2));
    volume.alter(&account(3));
    volume
}

fn id() -> String {
    format!("ledger-schema{}-seq1", schema())
}

fn account(seq: i64) -> String {
    format!(
        "INSERT INTO account (seq, account_id, name, kind, actor, recorded_at)
         VALUES ({seq}, {seq}, 'Cash {seq}', 'cash', 't', make_timestamp(0))"
    )
}

fn migrate(volume: &Volume, id: &str) -> Ran {
    Ran::of(volume.command(&["migrate", "--backup"]).env("DOJO_RESTORE", id))
}

/// What `dojo check` says of a file of the volume.
fn check(volume: &Volume, file: &str) -> Ran {
    Ran::of(volume.command(&["check"]).env("DOJO_DB_PATH", volume.path(file)))
}

/// The one name in `backups/` with this start and end.
#[track_caller]
fn named(volume: &Volume, start: &str, end: &str) -> String {
    let mut names = volume.names("backups");
    names.retain(|name| name.starts_with(start) && name.ends_with(end));
    assert_eq!(names.len(), 1, "{start}*{end}: {:?}", volume.names("backups"));
    format!("backups/{}", names.remove(0))
}

/// The backup is in the place, the replaced file lies beside it with all that was in its log, and nothing is left over.
#[track_caller]
fn restored(volume: &Volume) -> Value {
    volume.run(&["check"]).refused(0, &["is sound", "sequence 1, 1 accounts"]);
    let kept = named(volume, "ledger-replaced-", &format!("-schema{}-seq3.duckdb", schema()));
    check(volume, &kept).refused(0, &["is sound", "sequence 3, 3 accounts"]);
    let marker = named(volume, "restored-", &format!("-{}.json", id()));
    let mut left = volume.names(".");
    left.retain(|name| !["ledger.duckdb", "ledger.lock", "backups", "tokens"].contains(&name.as_str()));
    assert!(left.is_empty(), "{left:?}");
    serde_json::from_slice(&std::fs::read(volume.path(&marker)).unwrap()).unwrap()
}

#[test]
fn an_id_is_restored_once_and_what_was_there_is_kept() {
    let volume = volume();
    let replaced = volume.bytes();
    let ran = Ran::of(volume.command(&["migrate", "--plan"]).env("DOJO_RESTORE", id()));
    ran.refused(0, &["would be restored, to schema", "sequence 1: nothing to run"]);
    for ignoring in ["check", "serve"] {
        let mut command = volume.command(&[ignoring]);
        command.env("DOJO_RESTORE", id());
        if ignoring == "check" {
            Ran::of(&mut command).refused(0, &["sequence 3"]);
        } else {
            assert_eq!(Service::start(command).get("/version").body["restored"], Value::Null);
        }
    }
    assert_eq!(volume.bytes(), replaced);

    migrate(&volume, &id()).refused(0, &["restored", "sequence 1"]);
    let marker = restored(&volume);
    let kept = named(&volume, "ledger-replaced-", ".duckdb");
    assert_eq!(std::fs::read(volume.path(&kept)).unwrap(), replaced[0]);
    assert_eq!(std::fs::read(volume.path(&format!("{kept}.wal"))).unwrap(), replaced[1]);
    let kept = kept.trim_start_matches("backups/").trim_end_matches(".duckdb");
    assert_eq!((&marker["kept"], &marker["replaced_sequence"]), (&json!(kept), &json!(3)));

    let mut command = volume.command(&["serve"]);
    command.env("DOJO_RESTORE", id());
    let service = Service::start(command);
    let version = service.get("/version").body;
    assert!(version["uptime_seconds"].as_u64().unwrap() < 20, "{version}");
    assert_eq!(
        version["restored"],
        json!({"id": id(), "at": marker["at"], "replaced_schema": schema(), "replaced_sequence": 3})
    );
    let ids: Vec<_> = version["backups"].as_array().unwrap().iter().map(|one| &one["id"]).collect();
    assert!(ids.contains(&&json!(id())) && ids.contains(&&json!(kept)) && ids.len() == 2, "{ids:?}");
    assert!(version["backups"][0]["made_at"].as_str().unwrap().ends_with('Z'), "{version}");
    assert_eq!(service.post("/v1/accounts", &json!({"name": "Later"})).status, 201);
    assert_eq!(service.stop(), Some(0));

    migrate(&volume, &id()).refused(0, &["was restored already at", "sequence 2"]);
    volume.run(&["restore", &id()]).refused(0, &["was restored already at", "sequence 2"]);
    // The way back is the same as the way there.
    volume.run(&["restore", kept]).refused(0, &["restored", "sequence 3"]);
    volume.run(&["check"]).refused(0, &["is sound", "sequence 3, 3 accounts"]);
    assert_eq!(volume.serve().get("/version").body["restored"]["id"], json!(kept));
}

#[test]
fn without_an_id_nothing_is_restored() {
    let volume = volume();
    migrate(&volume, "").refused(0, &["sequence 3"]);
    assert_eq!(volume.names("backups"), [format!("{}.duckdb", id())]);
}

#[test]
fn what_is_no_id_is_refused_by_name() {
    let volume = volume();
    std::fs::copy(volume.path(&format!("backups/{}.duckdb", id())), volume.path("up.duckdb")).unwrap();
    let before = (volume.bytes(), volume.names("."), volume.names("backups"));
    let long = "x".repeat(200);
    for bad in ["../up", "..", ".", ".hidden", "/data/up", "a/b", "a..b", "two\nlines", "tab\t", &long] {
        let ran = migrate(&volume, bad);
        ran.refused(2, &[&format!("{bad:?}"), "is not the id of a backup", "ledger-schema1-seq3"]);
        volume.run(&["restore", bad]).refused(2, &["is not the id"]);
        let ran = Ran::of(volume.command(&["check", "--config"]).env("DOJO_RESTORE", bad));
        ran.refused(2, &["is not the id"]);
        Ran::of(volume.command(&["check"]).env("DOJO_RESTORE", bad)).refused(0, &["sequence 3"]);
    }
    volume.run(&["restore", ""]).refused(2, &["is not the id"]);
    let ran = Ran::of(volume.command(&["check", "--config"]).env("DOJO_RESTORE", "some-id"));
    ran.refused(0, &["DOJO_RESTORE    \"some-id\", by `dojo migrate`"]);
    assert_eq!((volume.bytes(), volume.names("."), volume.names("backups")), before);
}

#[test]
fn a_backup_that_cannot_serve_is_refused_and_nothing_changes() {
    let other = volume();
    let newer = format!(
        "INSERT INTO schema_migration VALUES ({0}, 'x.sql', 'abc', make_timestamp(0), '9.9.9', {0})",
        schema() + 1
    );
    type Spoil<'a> = &'a dyn Fn(&Path);
    let sql = |sql: String| {
        move |file: &Path| {
            let conn = duckdb::Connection::open(file).unwrap();
            conn.execute_batch(&sql).unwrap();
        }
    };
    let cut = |file: &Path| {
        let file = std::fs::OpenOptions::new().write(true).open(file).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    };
    let garbage = |file: &Path| std::fs::write(file, "no database, but longer than a header is").unwrap();
    let foreign = |file: &Path| {
        std::fs::copy(other.path(&format!("backups/{}.duckdb", id())), file).unwrap();
    };
    let spoils: [(Spoil<'_>, &str); 5] = [
        (&cut, "cannot read"),
        (&garbage, "cannot read"),
        (&sql(account(7)), "the ledger is damaged"),
        (&sql(newer), "dojo 9.9.9"),
        (&foreign, "is it the right volume?"),
    ];
    for (spoil, said) in spoils {
        let volume = volume();
        spoil(&volume.path(&format!("backups/{}.duckdb", id())));
        let before = (volume.bytes(), volume.names("."), volume.names("backups"));
        migrate(&volume, &id()).refused(3, &[&id(), said]);
        assert_eq!((volume.bytes(), volume.names("."), volume.names("backups")), before, "{said}");
    }
}

#[test]
fn a_backup_that_is_not_there_is_answered_with_those_that_are() {
    let volume = volume();
    std::fs::write(volume.path("backups/before-cleanup.duckdb"), "").unwrap();
    let listed = format!("newest first: before-cleanup, {}", id());
    for asked in ["ledger-schema9-seq9", &format!("{}.duckdb", id())] {
        migrate(&volume, asked).refused(3, &[&format!("there is no backup {asked} in"), &listed]);
    }
    let fresh = Volume::fresh();
    migrate(&fresh, &id()).refused(3, &["there is no backup", "is it the right volume?"]);
    let ran = Ran::of(fresh.command(&["migrate"]).env("DOJO_RESTORE", id()).env("DOJO_ENV", "dev"));
    ran.refused(3, &["there is no backup"]);
    assert!(!fresh.db().exists());
    let service = volume.serve();
    migrate(&volume, &id()).refused(3, &["is held by host dojo-pod-0"]);
    volume.run(&["restore", &id()]).refused(3, &["is held by host dojo-pod-0"]);
    assert_eq!(service.stop(), Some(0));
}

#[test]
fn a_missing_or_damaged_ledger_can_be_restored() {
    let garbage: &[u8] = b"no database, but longer than a header is";
    for (file, wal) in [(None, false), (None, true), (Some(garbage), false), (Some(garbage), true)] {
        let volume = volume();
        let log = std::fs::read(volume.path("ledger.duckdb.wal")).unwrap();
        std::fs::remove_file(volume.db()).unwrap();
        if let Some(bytes) = file {
            std::fs::write(volume.db(), bytes).unwrap();
        }
        if !wal {
            std::fs::remove_file(volume.path("ledger.duckdb.wal")).unwrap();
        }
        let logged =
            if file.is_some() { "the ledger cannot be read" } else { "there is no ledger to replace" };
        migrate(&volume, &id()).refused(0, &[logged, "sequence 1"]);
        volume.run(&["check"]).refused(0, &["is sound", "sequence 1, 1 accounts"]);
        assert_eq!(volume.names("."), ["backups", "ledger.duckdb", "ledger.lock", "tokens"]);
        if let Some(bytes) = file {
            let kept = named(&volume, "ledger-replaced-", ".duckdb");
            assert_eq!(std::fs::read(volume.path(&kept)).unwrap(), bytes);
        }
        if wal {
            let kept = named(&volume, "ledger-replaced-", ".duckdb.wal");
            assert_eq!(std::fs::read(volume.path(&kept)).unwrap(), log);
        }
        let version = volume.serve().get("/version").body;
        let expected = json!([id(), null, null]);
        let told = ["id", "replaced_schema", "replaced_sequence"].map(|key| &version["restored"][key]);
        assert_eq!(json!(told), expected, "{version}");
        assert_eq!(version["backups"].as_array().unwrap().len(), 1, "{version}");
    }
}

#[test]
fn damaged_facts_are_replaced_and_their_ledger_is_still_known() {
    let volume = volume();
    volume.alter(&account(9));
    volume.run(&["serve"]).refused(3, &["damaged"]);
    migrate(&volume, &id()).refused(0, &["sequence 1"]);
    named(&volume, "ledger-replaced-", "-seq9.duckdb");
}

#[test]
fn a_backup_is_restored_with_its_log_and_stays_as_it_was() {
    let volume = volume();
    let backup = format!("backups/{}.duckdb", id());
    let conn = duckdb::Connection::open(volume.path(&backup)).unwrap();
    conn.execute_batch("PRAGMA disable_checkpoint_on_shutdown").unwrap();
    conn.execute_batch(&account(2)).unwrap();
    drop(conn);
    let read =
        || ["", ".wal"].map(|suffix| std::fs::read(volume.path(&format!("{backup}{suffix}"))).unwrap());
    let before = read();
    migrate(&volume, &id()).refused(0, &["sequence 2"]);
    volume.run(&["check"]).refused(0, &["is sound", "sequence 2, 2 accounts"]);
    assert_eq!(read(), before);
}

/// Each state that a kill between two steps leaves, put together from what a whole restore leaves.
#[test]
fn what_was_begun_is_finished_by_whoever_writes_and_refused_by_whoever_reads() {
    for steps in 0..4 {
        for finisher in [&["migrate"][..], &["serve"], &["restore", "another"]] {
            let volume = volume();
            volume.run(&["restore", &id()]).refused(0, &[]);
            let kept = named(&volume, "ledger-replaced-", ".duckdb");
            let marker = named(&volume, "restored-", ".json");
            let back = |from: &str, to: &str| std::fs::rename(volume.path(from), volume.path(to)).unwrap();
            back(&marker, "ledger.restoring");
            if steps < 3 {
                back("ledger.duckdb", "ledger.duckdb.unfinished");
            }
            if steps < 2 {
                back(&format!("{kept}.wal"), "ledger.duckdb.wal");
            }
            if steps < 1 {
                back(&kept, "ledger.duckdb");
            }

            for reader in [&["check"][..], &["migrate", "--plan"], &["backup", "x.duckdb"], &["init"]] {
                let ran = Ran::of(volume.command(reader).env("DOJO_ENV", "dev"));
                ran.refused(3, &["a restore was begun and not finished", "`dojo migrate`"]);
            }
            let mut command = volume.command(finisher);
            command.env("DOJO_ENV", if steps == 2 { "dev" } else { "production" });
            match finisher {
                ["serve"] => {
                    assert_eq!(Service::start(command).sequence(), 1);
                    // Its log is of the restored file and stays, since it was killed.
                    volume.run(&["migrate"]).refused(0, &["sequence 1"]);
                }
                ["migrate"] => Ran::of(&mut command).refused(0, &["restored", "sequence 1"]),
                _ => Ran::of(&mut command).refused(3, &["there is no backup another"]),
            }
            assert_eq!(volume.path(&marker), volume.path(&named(&volume, "restored-", ".json")));
            restored(&volume);
        }
    }
}

#[test]
fn what_an_older_version_made_meanwhile_overwrites_nothing() {
    let volume = volume();
    volume.run(&["restore", &id()]).refused(0, &[]);
    let kept = named(&volume, "ledger-replaced-", ".duckdb");
    let marker = named(&volume, "restored-", ".json");
    std::fs::rename(volume.path(&marker), volume.path("ledger.restoring")).unwrap();
    std::fs::copy(volume.db(), volume.path("ledger.duckdb.unfinished")).unwrap();
    let before = std::fs::read(volume.path(&kept)).unwrap();
    volume.run(&["serve"]).refused(3, &["are both there", &kept]);
    assert_eq!(std::fs::read(volume.path(&kept)).unwrap(), before);
}

#[test]
fn a_ledger_that_another_program_has_open_is_not_taken_for_damaged() {
    let volume = volume();
    let _open = duckdb::Connection::open(volume.db()).unwrap();
    migrate(&volume, &id()).refused(3, &["Could not set lock"]);
    assert_eq!(volume.names("backups"), [format!("{}.duckdb", id())]);
}

/// `kill -9` of the real binary at each call that changes a file, then the same command again.
#[test]
fn a_kill_at_any_call_changes_nothing_or_is_made_good() {
    if Command::new("strace").arg("-V").output().is_err() {
        return skip("strace", "package strace (Debian)");
    }
    let template = volume();
    let (mut kills, mut begun) = (0, 0);
    for call in ["/^rename", "fsync", "/^unlink", "pwrite64"] {
        for number in 1.. {
            let volume = template.copy();
            let before = volume.bytes();
            let mut command = volume.command(&["migrate", "--backup"]);
            let mut strace = killed_at(call, number, command.env("DOJO_RESTORE", id()));
            let ran = Ran::of(&mut strace);
            if ran.code == Some(0) {
                restored(&volume);
                assert!(number > 1, "{call} is never called");
                break;
            }
            assert_eq!(ran.code, None, "{call} {number}: {}", ran.text);
            kills += 1;
            if volume.path("ledger.restoring").exists() {
                begun += 1;
                volume.run(&["check"]).refused(3, &["a restore was begun"]);
                // Every other time the pin change that emptied the variable comes first.
                if number % 2 == 0 {
                    let ran = Ran::of(volume.command(&["migrate"]).env("DOJO_ENV", "dev"));
                    ran.refused(0, &["sequence 1"]);
                }
            } else if volume.names("backups").iter().all(|name| !name.starts_with("restored-")) {
                assert_eq!(volume.bytes(), before, "{call} {number}");
            }
            migrate(&volume, &id()).refused(0, &["sequence 1"]);
            restored(&volume);
        }
    }
    eprintln!("{kills} kills, {begun} of them in the middle");
    // Of five renames the first begins it. Which thread of the engine calls the rest is not the same in every run.
    assert!(begun >= 4, "{kills} kills, {begun} in the middle: too few to tell anything");
}

/// The same command, killed when it begins its n-th call of this kind.
fn killed_at(call: &str, number: u32, command: &Command) -> Command {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
    strace.args(["-e", &format!("inject={call}:signal=KILL:when={number}")]);
    strace.arg(command.get_program()).args(command.get_args()).env_clear().env("PATH", "/usr/bin:/bin");
    strace.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    strace
}

#[test]
fn a_full_disk_refuses_and_leaves_all_as_it_was() {
    let volume = volume();
    let disk = volume.path("disk");
    std::fs::create_dir(&disk).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=40m", "tmpfs"]).arg(&disk).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        return skip("a tmpfs", "root, who may mount one");
    }
    let _unmounts = Mounted(&disk);
    for name in ["ledger.duckdb", "ledger.duckdb.wal", "backups"] {
        let copied = Command::new("cp").arg("-r").arg(volume.path(name)).arg(&disk).status().unwrap();
        assert!(copied.success());
    }
    std::fs::write(disk.join("big"), vec![1; 26 * 1024 * 1024]).unwrap();
    let before = (volume.bytes_in("disk"), volume.names("disk/backups"));
    let mut command = volume.command(&["migrate", "--backup"]);
    command.env("DOJO_RESTORE", id()).env("DOJO_DB_PATH", disk.join("ledger.duckdb"));
    Ran::of(&mut command).refused(3, &["MiB free", "are wanted", "nothing was changed"]);
    assert_eq!((volume.bytes_in("disk"), volume.names("disk/backups")), before);
    std::fs::remove_file(disk.join("big")).unwrap();
    Ran::of(&mut command).refused(0, &["sequence 1"]);
}

/// The disk that fills up while the copy is made: here the size that a file may have.
#[test]
fn a_copy_that_does_not_fit_leaves_all_as_it_was() {
    let volume = volume();
    let before = (volume.bytes(), volume.names("."), volume.names("backups"));
    let binary = volume.command(&[]);
    let mut shell = Command::new("sh");
    let script = "trap '' XFSZ; ulimit -f 20; exec \"$0\" migrate --backup";
    shell.args(["-c", script]).arg(binary.get_program()).env_clear();
    shell.envs(binary.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ran = Ran::of(shell.env("DOJO_RESTORE", id()).env("PATH", "/usr/bin:/bin"));
    ran.refused(1, &["cannot copy"]);
    assert_eq!((volume.bytes(), volume.names("."), volume.names("backups")), before);
    migrate(&volume, &id()).refused(0, &["sequence 1"]);
    restored(&volume);
}

struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}
