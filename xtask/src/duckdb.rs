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
mod tests;
