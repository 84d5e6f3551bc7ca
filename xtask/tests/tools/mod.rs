//! Programs that a test needs and a machine may lack: such a test skips, and says so.

use std::io::Write as _;
use std::path::Path;

/// Whether `program` is on PATH; `package` is what brings it. An absent one is a failure under DOJO_REQUIRE_TOOLS, else
/// a skip that is said on stderr and noted in the file that DOJO_SKIPS names.
pub fn need(program: &str, package: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|folder| folder.join(program).is_file()) {
        return true;
    }
    assert!(
        std::env::var_os("DOJO_REQUIRE_TOOLS").is_none(),
        "this test needs {program}: install the package {package}"
    );
    eprintln!("skipped: needs {program} (package {package})");
    if let Some(file) = std::env::var_os("DOJO_SKIPS") {
        note(Path::new(&file), program, package);
    }
    false
}

fn note(file: &Path, program: &str, package: &str) {
    let thread = std::thread::current();
    let line = format!("{}\t{program}\t{package}\n", thread.name().unwrap_or("?"));
    let opened = std::fs::OpenOptions::new().create(true).append(true).open(file);
    let written = opened.and_then(|mut file| file.write_all(line.as_bytes()));
    assert!(written.is_ok(), "DOJO_SKIPS: {} cannot be written: {written:?}", file.display());
}
