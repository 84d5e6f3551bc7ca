//! The rehearsal, as a newcomer runs it: its story, what it leaves behind, and what an interrupt leaves behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

mod tools;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn rehearse(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.current_dir(root()).args(["rehearse", "--json", "--dir"]).arg(dir);
    command
}

/// The processes whose working folder or program lies in `dir`.
fn alive_in(dir: &Path) -> Vec<String> {
    let mut alive = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let links = ["cwd", "exe"].map(|name| std::fs::read_link(entry.path().join(name)));
        if links.iter().flatten().any(|target| target.starts_with(dir)) {
            alive.push(
                std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default().replace('\0', " "),
            );
        }
    }
    alive
}

/// One test, since two rehearsals would wait for each other's builds.
#[test]
fn the_whole_story() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().canonicalize().unwrap().join("rehearsal");

    interrupt_ends_everything(&dir);
    for round in ["first", "second"] {
        let output = rehearse(&dir).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{round} round: {stderr}");
        let result: Value = serde_json::from_slice(&output.stdout).unwrap();
        tells_the_story(&result);
        leaves_its_work(&dir, &result);
        assert_eq!(alive_in(&dir), Vec::<String>::new());
    }
    a_rollback_returns_to_what_ran_and_no_further(&dir);
    a_lost_race_is_planned_again(&dir);
    foreign_folders_are_left_alone(folder.path());
}

fn tells_the_story(result: &Value) {
    let steps = result["steps"].as_array().unwrap();
    let step = |what: &str| steps.iter().filter(|step| step["what"] == what).collect::<Vec<_>>();
    let exits = |what: &str| step(what).iter().map(|step| step["exit"].as_i64().unwrap()).collect::<Vec<_>>();
    for version in ["v0.1.0", "v0.2.0", "v0.2.1", "v0.3.0"] {
        assert_eq!(exits(&format!("cargo xtask release {version} --yes")), [1, 1, 0]);
        assert_eq!(exits(&format!("cargo xtask promote staging {version} --yes")), [0]);
    }
    for version in ["v0.1.0", "v0.2.0", "v0.2.1"] {
        assert_eq!(exits(&format!("cargo xtask promote production {version} --yes")), [0]);
    }
    let refusal = &step("cargo xtask rollback production --to v0.1.0 --yes")[0];
    assert_eq!(refusal["exit"], 3);
    let told = refusal["told"].to_string();
    assert!(
        told.contains("it would need a downgrade") && told.contains("newest safe version: v0.2.0"),
        "{told}"
    );
    // To v0.2.0, and over a migration that admits it to v0.2.1.
    assert_eq!(exits("cargo xtask rollback production --yes"), [0, 0]);
    let told = |what: &str| step(what).iter().map(|step| step["told"].to_string()).collect::<Vec<_>>();
    let promotion = "cargo xtask promote production v0.3.0 --yes";
    assert_eq!(exits(promotion), [4, 0, 3]);
    let [lost, _, held] = &told(promotion)[..] else { panic!("not three promotions") };
    assert!(
        lost.contains("somebody else changed production")
            && lost.contains("promote production: v0.2.1 -> v0.3.0"),
        "{lost}"
    );
    assert!(held.contains("production is held: the books are being audited"), "{held}");
    let restore = steps.iter().find(|step| step["what"].as_str().unwrap().contains("--restore")).unwrap();
    let what = restore["what"].as_str().unwrap();
    assert_eq!(what, "cargo xtask rollback --to v0.1.0 --restore ledger-schema1-seq4 --yes");
    assert!(restore["told"].to_string().contains("data that is lost: sequences 5 to "), "{restore}");

    let environments = result["status"].as_array().unwrap();
    let running = |name: &str| {
        let status = environments.iter().find(|status| status["environment"] == name).unwrap();
        assert_eq!(status["state"], "ok", "{status}");
        (status["pin"]["tag"].clone(), status["observed"]["reports"]["version"].clone())
    };
    assert_eq!(running("staging"), ("v0.3.0".into(), "0.3.0".into()));
    assert_eq!(running("production"), ("v0.1.0".into(), "0.1.0".into()));
    // Three transactions from before the migration, and three since the restore.
    assert_eq!(result["ledgers"]["production"]["transactions"], 6);
}

fn git(repository: &Path, args: &[&str]) -> String {
    let identity = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.invalid"];
    let output = Command::new("git").arg("-C").arg(repository).args(identity).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// This program in the rehearsal's checkout.
fn xtask(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    for name in ["GIT_AUTHOR", "GIT_COMMITTER"] {
        command.env(format!("{name}_NAME"), "Me").env(format!("{name}_EMAIL"), "me@example.invalid");
    }
    command.current_dir(dir.join("checkout")).args(args).output().unwrap()
}

fn a_rollback_returns_to_what_ran_and_no_further(dir: &Path) {
    let infra = dir.join("infra.git");
    let before = git(&infra, &["rev-parse", "main"]);
    let again = xtask(dir, &["rollback", "production", "--yes"]);
    let said = String::from_utf8_lossy(&again.stdout);
    assert!(again.status.success() && said.contains("already pins v0.1.0: nothing to do"), "{said}");
    for never_ran in ["edge", "v9.9.9", "sha-0123456789ab"] {
        let refused = xtask(dir, &["rollback", "production", "--to", never_ran, "--yes"]);
        assert_eq!(refused.status.code(), Some(3));
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(said.contains(&format!("production never ran {never_ran}")), "{said}");
    }
    let unknown = xtask(dir, &["promote", "staging", "v9.9.9", "--yes"]);
    assert_eq!(unknown.status.code(), Some(3), "{}", String::from_utf8_lossy(&unknown.stderr));
    let silent = xtask(dir, &["promote", "production", "v0.3.0", "--yes"]);
    assert_eq!(silent.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&silent.stderr).contains("staging pins it, but whether it runs is unknown")
    );
    assert_eq!(git(&infra, &["rev-parse", "main"]), before);
}

/// A push that meets another one in flight: the remote's update hook moves the branch before git does.
fn a_lost_race_is_planned_again(dir: &Path) {
    let infra = dir.join("infra.git");
    let hook = infra.join("hooks/update");
    let once = "#!/bin/sh
[ \"$1\" = refs/heads/main ] && [ ! -e raced ] || exit 0
touch raced
git update-ref refs/heads/main refs/heads/theirs
";
    std::fs::write(&hook, once).unwrap();
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let theirs = |change: &dyn Fn(&Path)| {
        let work = dir.join("theirs");
        git(dir, &["clone", "--quiet", "infra.git", "theirs"]);
        change(&work.join("dojo/staging/kustomization.yaml"));
        git(&work, &["commit", "--quiet", "--all", "--allow-empty", "--message", "theirs"]);
        git(&work, &["push", "--quiet", "--force", "origin", "HEAD:refs/heads/theirs"]);
        std::fs::remove_dir_all(work).unwrap();
        let _ = std::fs::remove_file(infra.join("raced"));
    };
    let xtask = |args: &[&str]| xtask(dir, args);

    theirs(&|_| {});
    let output = xtask(&["rollback", "staging", "--to", "v0.2.0", "--yes"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let log = git(&infra, &["log", "--format=%s", "-2", "main"]);
    assert_eq!(
        log, "dojo: staging v0.3.0 -> v0.2.0\ntheirs",
        "another's unrelated commit stays, and ours follows"
    );

    theirs(&|file| {
        let text = std::fs::read_to_string(file).unwrap();
        std::fs::write(file, text.replace("v0.2.0", "v0.1.0")).unwrap();
    });
    let output = xtask(&["promote", "staging", "v0.2.1", "--yes"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{stderr}");
    assert!(stderr.contains("somebody else changed staging"), "{stderr}");
    assert!(stderr.contains("promote staging: v0.1.0 -> v0.2.1"), "the new plan is shown: {stderr}");
    assert_eq!(
        git(&infra, &["rev-parse", "main"]),
        git(&infra, &["rev-parse", "theirs"]),
        "nothing was forced"
    );
}

fn leaves_its_work(dir: &Path, result: &Value) {
    assert_eq!(result["directory"], dir.to_str().unwrap());
    assert_eq!(
        git(&dir.join("origin.git"), &["tag", "--list"]).lines().collect::<Vec<_>>(),
        ["v0.1.0", "v0.2.0", "v0.2.1", "v0.3.0"]
    );
    assert_eq!(git(&dir.join("origin.git"), &["cat-file", "-t", "v0.2.0"]), "tag");
    let log = git(&dir.join("infra.git"), &["log", "--format=%s", "-1", "main"]);
    assert_eq!(log, "dojo: production v0.2.1 -> v0.1.0");
    let kustomization = git(&dir.join("infra.git"), &["show", "main:dojo/production/kustomization.yaml"]);
    assert!(kustomization.contains("?ref=v0.1.0"), "{kustomization}");
    assert!(kustomization.contains("digest: sha256:"), "{kustomization}");

    assert!(dir.join("registry/oci-layout").is_file());
    let data = dir.join("environments/production/data");
    let kept = |name: &str| data.join("backups").join(name).exists();
    assert!(kept("ledger-schema1-seq4.duckdb"), "made before v0.2.0's migration");
    let replaced = std::fs::read_dir(data.join("backups")).unwrap().flatten();
    let replaced: Vec<_> =
        replaced.filter(|entry| entry.file_name().to_string_lossy().starts_with("replaced-")).collect();
    assert_eq!(replaced.len(), 1, "the file that the restore replaced is kept: {replaced:?}");

    if tools::need("skopeo", "skopeo") {
        let layout = format!("oci:{}:v0.2.1", dir.join("registry").display());
        let output = Command::new("skopeo").args(["inspect", &layout]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let inspected: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(inspected["Labels"]["org.opencontainers.image.version"], "0.2.1");
    }
}

/// Interrupted at several points; each time nothing is left running, and the folder can be used again.
fn interrupt_ends_everything(dir: &Path) {
    let points: u64 = std::env::var("DOJO_INTERRUPTS").ok().and_then(|count| count.parse().ok()).unwrap_or(3);
    for point in 0..=points {
        let mut child = rehearse(dir).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(400 + 1700 * point));
        // The last one comes when a service runs already.
        while point == points && !dir.join("environments/production/dojo.log").exists() {
            assert!(child.try_wait().unwrap().is_none(), "the rehearsal ended before it was interrupted");
            std::thread::sleep(Duration::from_millis(50));
        }
        let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(status.success());
        let start = Instant::now();
        let code = child.wait().unwrap().code();
        assert_eq!(code, Some(130), "after {point} interrupts");
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        assert_eq!(alive_in(dir), Vec::<String>::new());
    }
}

fn foreign_folders_are_left_alone(folder: &Path) {
    let foreign = folder.join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("letter.txt"), "dear").unwrap();
    let output = rehearse(&foreign).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not from a rehearsal"));
    assert_eq!(std::fs::read_to_string(foreign.join("letter.txt")).unwrap(), "dear");
}
