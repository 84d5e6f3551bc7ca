//! The ways to the archives, with a stand-in for the engine.

use super::*;
use std::cell::RefCell;

/// An engine of the real one's shape, whose build script takes a second instead of a quarter of an hour.
fn engine(build: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let package =
        |name: &str| format!("[package]\nname = \"{name}\"\nversion = \"9.8.7\"\nedition = \"2024\"\n");
    let dependency = "[workspace]\n[dependencies]\nlibduckdb-sys = { path = \"sys\" }\n";
    write("Cargo.toml", &(package("dojo-engine") + dependency));
    write("src/lib.rs", "");
    write("sys/Cargo.toml", &package(CRATE));
    write("sys/src/lib.rs", "");
    write(
        "sys/build.rs",
        &format!("fn main() {{ let out = std::env::var(\"OUT_DIR\").unwrap();\n{build}\n}}"),
    );
    write(
        "Cargo.lock",
        "version = 4\n\n[[package]]\nname = \"dojo-engine\"\nversion = \"9.8.7\"\ndependencies = [\n \"libduckdb-sys\",\n]\n\n\
         [[package]]\nname = \"libduckdb-sys\"\nversion = \"9.8.7\"\n",
    );
    folder
}

const WRITES: &str = "for name in [\"duckdb\", \"duckdb_static_extension_autoregister\"] {
    std::fs::write(format!(\"{out}/lib{name}.a\"), name).unwrap();
}";

fn run(engine: &Path, cache: &Path) -> (anyhow::Result<PathBuf>, Vec<String>) {
    let said = RefCell::new(Vec::new());
    let result = cached(engine, cache, &|line| said.borrow_mut().push(line.to_owned()));
    (result, said.into_inner())
}

#[test]
fn dojo_and_its_engine_name_the_same_source() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let lock = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    let (dojo, engine) = (lock("Cargo.lock"), lock("dojo/engine/Cargo.lock"));
    assert!(version(&dojo).is_some_and(|found| version(&engine) == Some(found)));
}

#[test]
fn compiles_once_and_says_so_before() {
    let (engine, cache) = (engine(WRITES), tempfile::tempdir().unwrap());
    let (place, said) = run(engine.path(), cache.path());
    let place = place.unwrap();
    assert!(said[0].contains("15 to 20 minutes") && said[0].contains("the log is"), "{said:?}");
    assert_eq!(place.file_name().unwrap().to_str().unwrap(), format!("duckdb-9.8.7-{}", host().unwrap()));
    assert_eq!(fs::read_to_string(place.join(ARCHIVES[0])).unwrap(), "duckdb");
    assert_eq!(given(&place.clone().into()).unwrap(), place);
    let mut left: Vec<_> = fs::read_dir(cache.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    left.sort();
    assert_eq!(left, [place.clone(), place.with_added_extension("lock")]);

    let (again, said) = run(engine.path(), cache.path());
    assert_eq!((again.unwrap(), said.len()), (place, 0));
}

#[test]
fn a_failure_shows_the_last_lines_and_the_log_and_is_tried_again() {
    let (broken, cache) = (engine("panic!(\"no room {out}\")"), tempfile::tempdir().unwrap());
    let error = run(broken.path(), cache.path()).0.unwrap_err().to_string();
    assert!(error.contains("no room") && error.contains(".building/log"), "{error}");
    assert!(run(engine(WRITES).path(), cache.path()).0.is_ok());
}

#[test]
fn a_second_caller_waits_and_does_not_compile() {
    let slow = format!("std::thread::sleep(std::time::Duration::from_secs(2));\n{WRITES}");
    let (engine, cache) = (engine(&slow), tempfile::tempdir().unwrap());
    thread::scope(|scope| {
        let callers = [0, 400].map(|delay| {
            let (engine, cache) = (engine.path(), cache.path());
            scope.spawn(move || {
                thread::sleep(Duration::from_millis(delay));
                run(engine, cache)
            })
        });
        let [first, second] = callers.map(|caller| caller.join().unwrap());
        assert_eq!(first.0.unwrap(), second.0.unwrap());
        assert!(first.1[0].contains("compiling DuckDB"), "{:?}", first.1);
        assert!(second.1.len() == 1 && second.1[0].contains("waiting for another process"), "{:?}", second.1);
    });
}

#[test]
fn a_folder_without_the_archives_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(ARCHIVES[1]), "").unwrap();
    let fault = given(&folder.path().into()).unwrap_err();
    assert_eq!(fault.kind, crate::fault::Kind::Usage);
    assert!(fault.to_string().contains("has no libduckdb_static.a\n"), "{fault}");
}

#[test]
fn a_finished_object_file_is_not_compiled_again() {
    let folder = tempfile::tempdir().unwrap();
    let workshop = Workshop {
        engine: folder.path(),
        place: folder.path(),
        folder: folder.path().to_owned(),
        compiler: "echo".into(),
    };
    let compiler = workshop.resuming_compiler().unwrap();
    let [done, probe] = ["0123456789abcdef-a.o", "flag_check"].map(|name| folder.path().join(name));
    fs::write(&done, "object").unwrap();
    fs::write(&probe, "old").unwrap();
    let said = |out: &Path| {
        let mut command = Command::new(&compiler);
        command.env("DOJO_CXX", "echo").args(["-c", "a.cpp", "-o"]).arg(out);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    assert_eq!(said(&done), "");
    assert!(said(&probe).contains("-c a.cpp"));
}
