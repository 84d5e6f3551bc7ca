//! DuckDB's static archives for linking dojo: given, cached, or compiled once a machine (`dojo/engine`).
//!
//! Compiling takes 15 to 20 minutes, so it says so, stays visibly alive, is done by one process at a time, and goes
//! on where a killed one stopped. Ctrl-C: the compiler is a child in the terminal's process group and gets the
//! signal itself; whatever else ends this function early kills it.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use anyhow::Context as _;

use crate::fault::Fault;

/// What a folder must hold to be linked against.
const ARCHIVES: [&str; 2] = ["libduckdb_static.a", "libduckdb_static_extension_autoregister.a"];
/// As the build script of libduckdb-sys names them, in the same order.
const BUILT: [&str; 2] = ["libduckdb.a", "libduckdb_static_extension_autoregister.a"];
const CRATE: &str = "libduckdb-sys";
const ALIVE: Duration = Duration::from_secs(15);

/// The folder to give to cargo as DUCKDB_LIB_DIR, together with DUCKDB_STATIC=1. `engine` is the folder `dojo/engine`;
/// `announce` gets a line for people whenever there is something to wait for.
pub fn library(engine: &Path, announce: &dyn Fn(&str)) -> anyhow::Result<PathBuf> {
    if let Some(folder) = env::var_os("DUCKDB_LIB_DIR") {
        // Other folders than this one will be built in.
        return Ok(std::path::absolute(given(&folder)?)?);
    }
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    let cache = cache.ok_or_else(|| {
        Fault::usage("neither XDG_CACHE_HOME nor HOME is set: there is no place to keep DuckDB compiled")
            .help("set one of them, or DUCKDB_LIB_DIR to a folder with the archives")
    })?;
    cached(engine, &cache.join("dojo"), announce)
}

fn given(folder: &OsString) -> Result<PathBuf, Fault> {
    let folder = PathBuf::from(folder);
    let missing: Vec<_> = ARCHIVES.into_iter().filter(|name| !folder.join(name).is_file()).collect();
    if missing.is_empty() {
        return Ok(folder);
    }
    Err(Fault::usage(format!("DUCKDB_LIB_DIR={} has no {}", folder.display(), missing.join(" and no ")))
        .help("name a folder that holds both, or unset it to have DuckDB compiled once"))
}

fn cached(engine: &Path, cache: &Path, announce: &dyn Fn(&str)) -> anyhow::Result<PathBuf> {
    let lock_file = engine.join("Cargo.lock");
    let text = fs::read_to_string(&lock_file).with_context(|| format!("reading {}", lock_file.display()))?;
    let version = version(&text)
        .with_context(|| format!("{} does not name a version of {CRATE}", lock_file.display()))?;
    let place = cache.join(format!("duckdb-{version}-{}", host()?));
    // Moved into place as a whole, so a folder that is there is complete.
    if place.is_dir() {
        return Ok(place);
    }
    let compiler = compiler()?;
    fs::create_dir_all(cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let _lock = alone(&place.with_added_extension("lock"), announce)?;
    if !place.is_dir() {
        Workshop { engine, place: &place, folder: place.with_added_extension("building"), compiler }
            .run(announce)?;
    }
    Ok(place)
}

/// The version of the crate that brings the engine's source.
fn version(lock: &str) -> Option<&str> {
    let name = format!("name = \"{CRATE}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name);
    lines.nth(1)?.strip_prefix("version = \"")?.strip_suffix('"')
}

fn host() -> anyhow::Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("-vV").output().context("running rustc -vV")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

/// The C++ compiler that the build will take.
fn compiler() -> Result<OsString, Fault> {
    let compiler = env::var_os("CXX").filter(|name| !name.is_empty()).unwrap_or_else(|| "c++".into());
    let asked = Command::new(&compiler).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if asked.is_ok_and(|status| status.success()) {
        return Ok(compiler);
    }
    Err(Fault::usage(format!("DuckDB needs a C++ compiler, and {} does not run", compiler.display()))
        .help("install g++ (on Debian and Ubuntu: apt install g++), or set CXX"))
}

/// Waits until nobody else compiles.
fn alone(path: &Path, announce: &dyn Fn(&str)) -> anyhow::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    let (begun, mut told) = (Instant::now(), None::<Instant>);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
            Err(TryLockError::WouldBlock) => {}
        }
        if told.is_none_or(|told| told.elapsed() >= ALIVE) {
            announce(&format!("waiting for another process that compiles DuckDB ({})", elapsed(begun)));
            told = Some(Instant::now());
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// Where one compilation happens; kept when it is killed, so that the next one goes on.
struct Workshop<'a> {
    engine: &'a Path,
    place: &'a Path,
    folder: PathBuf,
    compiler: OsString,
}

impl Workshop<'_> {
    fn run(&self, announce: &dyn Fn(&str)) -> anyhow::Result<()> {
        fs::create_dir_all(&self.folder).with_context(|| format!("cannot make {}", self.folder.display()))?;
        let log = self.folder.join("log");
        announce(&format!(
            "compiling DuckDB, once for this machine: 15 to 20 minutes on 2 cores; the log is {}",
            log.display()
        ));
        let begun = Instant::now();
        let mut child = Running(self.cargo(&log)?.spawn().context("cannot run cargo")?);
        let mut told = Instant::now();
        let status = loop {
            if let Some(status) = child.0.try_wait()? {
                break status;
            }
            if told.elapsed() >= ALIVE {
                announce(&format!("compiling DuckDB: {}, {}", self.progress(), elapsed(begun)));
                told = Instant::now();
            }
            thread::sleep(Duration::from_millis(100));
        };
        if !status.success() {
            let last = last_lines(&log);
            anyhow::bail!(
                "DuckDB was not compiled: cargo ended with {status}; see {}\n{last}",
                log.display()
            );
        }
        self.publish()?;
        announce(&format!("compiled DuckDB in {}, kept in {}", elapsed(begun), self.place.display()));
        Ok(())
    }

    fn cargo(&self, log: &Path) -> anyhow::Result<Command> {
        let log = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--release", "--locked", "--message-format=json-render-diagnostics"]);
        cargo.arg("--manifest-path").arg(self.engine.join("Cargo.toml"));
        cargo.arg("--target-dir").arg(self.target());
        cargo.env("CXX", self.resuming_compiler()?).env("DOJO_CXX", &self.compiler);
        cargo.env_remove("CARGO_BUILD_TARGET").env_remove("RUSTC_WRAPPER");
        cargo.stdin(Stdio::null()).stdout(File::create(self.messages())?).stderr(log);
        Ok(cargo)
    }

    fn target(&self) -> PathBuf {
        self.folder.join("target")
    }

    fn messages(&self) -> PathBuf {
        self.folder.join("messages.json")
    }

    /// The compiler, which leaves out the object files that an earlier run finished. Cargo starts a killed build
    /// script from the beginning, and that would compile everything again.
    fn resuming_compiler(&self) -> anyhow::Result<PathBuf> {
        let path = self.folder.join("c++");
        fs::write(&path, RESUMING).with_context(|| format!("cannot write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }

    fn progress(&self) -> String {
        match objects(&self.target().join("release/build")) {
            0 => "preparing".into(),
            done => {
                self.sources().map_or_else(|| format!("{done} files"), |all| format!("{done} of {all} files"))
            }
        }
    }

    /// How many files there are to compile, from the manifest that comes with the source.
    fn sources(&self) -> Option<usize> {
        let unpacked = fs::read_dir(self.target().join("duckdb-sources"))
            .ok()?
            .find_map(|entry| fs::read_to_string(entry.ok()?.path().join("duckdb/manifest.json")).ok())?;
        let manifest: serde_json::Value = serde_json::from_str(&unpacked).ok()?;
        let count = |part: &serde_json::Value| part["cpp_files"].as_array().map_or(0, Vec::len);
        Some(count(&manifest["base"]) + count(&manifest["extensions"]["core_functions"]))
    }

    /// Moves both archives into place at once, then throws the rest away.
    fn publish(&self) -> anyhow::Result<()> {
        let messages = BufReader::new(File::open(self.messages())?);
        let out = messages.lines().map_while(Result::ok).find_map(|line| built_in(&line));
        let out = out.with_context(|| format!("cargo did not say where {CRATE} was built"))?;
        let ready = self.folder.join("ready");
        let _ = fs::remove_dir_all(&ready);
        fs::create_dir(&ready)?;
        for (from, to) in BUILT.into_iter().zip(ARCHIVES) {
            let from = out.join(from);
            fs::copy(&from, ready.join(to)).with_context(|| format!("copying {}", from.display()))?;
            File::open(ready.join(to))?.sync_all()?;
        }
        fs::rename(&ready, self.place).with_context(|| format!("cannot make {}", self.place.display()))?;
        // Only room is lost if this fails.
        let _ = fs::remove_dir_all(&self.folder);
        Ok(())
    }
}

/// The name is the crate cc's for an object file, unlike those of its probes; the rename keeps out half-written ones.
const RESUMING: &str = r#"#!/bin/sh
out= ; last=
for arg; do
    [ "$last" = -o ] && out=$arg
    last=$arg
done
case ${out##*/} in
????????????????-*.o)
    [ -s "$out" ] && exit 0
    $DOJO_CXX "$@" -o "$out.part" && exec mv "$out.part" "$out"
    exit 1
    ;;
esac
exec $DOJO_CXX "$@"
"#;

/// A child that does not outlive its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The output folder of the engine's build script, if this line of cargo's messages tells it.
fn built_in(line: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    let ours =
        message["reason"] == "build-script-executed" && message["package_id"].as_str()?.contains(CRATE);
    ours.then(|| message["out_dir"].as_str().map(PathBuf::from))?
}

fn objects(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => objects(&entry.path()),
            _ => usize::from(entry.path().extension().is_some_and(|extension| extension == "o")),
        })
        .sum()
}

fn last_lines(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

fn elapsed(begun: Instant) -> String {
    let seconds = begun.elapsed().as_secs();
    format!("{}:{:02} min", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
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
        let mut left: Vec<_> =
            fs::read_dir(cache.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
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
            assert!(
                second.1.len() == 1 && second.1[0].contains("waiting for another process"),
                "{:?}",
                second.1
            );
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
}
