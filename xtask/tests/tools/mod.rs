//! Programs that a test needs and a machine may lack: such a test is skipped, but never silently.

use std::io::Write as _;

/// Whether `program` is on the PATH. If not, the test is to return: the skip is said on stderr and in the file that
/// `DOJO_SKIPS` names; with `DOJO_REQUIRE_TOOLS` it is a failure that names the `package` to install.
pub fn need(program: &str, package: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|folder| folder.join(program).is_file()) {
        return true;
    }
    assert!(
        std::env::var_os("DOJO_REQUIRE_TOOLS").is_none(),
        "this test needs {program}: install {package}, or unset DOJO_REQUIRE_TOOLS"
    );
    eprintln!("skipped: needs {program} (package {package})");
    if let Some(skips) = std::env::var_os("DOJO_SKIPS") {
        let test = std::thread::current().name().unwrap_or("unnamed").to_owned();
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(skips).unwrap();
        file.write_all(format!("{test}\t{program}\t{package}\n").as_bytes()).unwrap();
    }
    false
}
