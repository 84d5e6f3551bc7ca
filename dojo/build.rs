//! Embeds the migrations folder, and links the DuckDB that DUCKDB_LIB_DIR names.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    embed_migrations()?;
    link_duckdb();
    Ok(())
}

/// Writes `migrations.rs`, a slice of (file name, text), so that adding a file is all an author does.
fn embed_migrations() -> io::Result<()> {
    let folder = Path::new(&variable("CARGO_MANIFEST_DIR")?).join("migrations");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut files: Vec<PathBuf> =
        fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "sql"));
    files.sort();
    let mut list = String::from("&[\n");
    for file in &files {
        let name = file.file_name().unwrap_or_default();
        list += &format!("    ({name:?}, include_str!({file:?})),\n");
    }
    list += "]\n";
    fs::write(Path::new(&variable("OUT_DIR")?).join("migrations.rs"), list)
}

/// What the engine's crate leaves out when it links without `bundled`.
fn link_duckdb() {
    for name in ["DUCKDB_LIB_DIR", "DUCKDB_STATIC"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    if env::var_os("CARGO_FEATURE_BUNDLED").is_some() {
        return;
    }
    let Ok(folder) = env::var("DUCKDB_LIB_DIR") else {
        // Only a warning: `cargo check` and clippy link nothing.
        println!(
            "cargo::warning=without the feature `bundled`, linking needs DUCKDB_LIB_DIR: with DUCKDB_STATIC=1 the folder \
             of libduckdb_static.a and libduckdb_static_extension_autoregister.a, else that of libduckdb.so"
        );
        return;
    };
    println!("cargo::rustc-link-search=native={folder}");
    // As the engine's crate reads it.
    let args = if env::var("DUCKDB_STATIC").is_ok_and(|value| value != "0") {
        // The whole of the autoregister archive, without which the core functions are missing, and the C++ library
        // after everything that needs it.
        let autoregister = format!("{folder}/libduckdb_static_extension_autoregister.a");
        vec![
            "-Wl,--whole-archive".to_owned(),
            autoregister,
            "-Wl,--no-whole-archive".into(),
            "-lstdc++".into(),
        ]
    } else {
        vec![format!("-Wl,-rpath,{folder}")]
    };
    for arg in args {
        println!("cargo::rustc-link-arg-bins={arg}");
        println!("cargo::rustc-link-arg-tests={arg}");
    }
}

fn variable(name: &str) -> io::Result<String> {
    env::var(name).map_err(|error| io::Error::other(format!("{name}: {error}")))
}
