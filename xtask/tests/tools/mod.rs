//! What a test needs and a machine may lack: such a test skips, and says so.

use std::io::Write as _;

/// Whether `program` is on PATH; `package` is what brings it. Without it the test is skipped.
pub fn need(program: &str, package: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    found || skip(program, &format!("package {package}"))
}

/// Says that this test cannot run here, and gives `false`: on stderr, and as a line `TEST\tWHAT\tREMEDY` of the file that
/// DOJO_SKIPS names, since libtest hides what a passing test prints. Under DOJO_REQUIRE_TOOLS it is a failure.
pub fn skip(what: &str, remedy: &str) -> bool {
    assert!(std::env::var_os("DOJO_REQUIRE_TOOLS").is_none(), "this test needs {what} ({remedy})");
    eprintln!("skipped: needs {what} ({remedy})");
    if let Some(file) = std::env::var_os("DOJO_SKIPS") {
        let thread = std::thread::current();
        let line = format!("{}\t{what}\t{remedy}\n", thread.name().unwrap_or("?"));
        let opened = std::fs::OpenOptions::new().create(true).append(true).open(&file);
        let written = opened.and_then(|mut file| file.write_all(line.as_bytes()));
        assert!(written.is_ok(), "DOJO_SKIPS: {} cannot be written: {written:?}", file.display());
    }
    false
}
