//! Conventions that are worth having, as tests: who may import whom, and who prints.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

/// Values in, values out: text, versions, digests, plans.
const PURE: &[&str] = &[
    "changelog",
    "checks",
    "data_file",
    "environment",
    "fault",
    "gate",
    "history",
    "image",
    "kustomization",
    "manifest",
    "pipeline",
    "report",
    "sbom",
    "situation",
    "span",
    "trailers",
    "version",
    "workload",
];
/// One outside thing each.
const EDGES: &[&str] = &[
    "archive",
    "bounded",
    "builder",
    "cluster",
    "docker",
    "duckdb",
    "git",
    "github",
    "infra",
    "kustomize",
    "observe",
    "program",
    "registry",
    "service",
];
/// Edges that stand on others: the infra repository on git, programs on a time limit, and what asks all of them at once.
const EDGE_ON_EDGE: &[(&str, &str)] = &[
    ("cluster", "bounded"),
    ("git", "bounded"),
    ("infra", "git"),
    ("kustomize", "bounded"),
    ("observe", "cluster"),
    ("observe", "git"),
    ("observe", "infra"),
    ("observe", "registry"),
    ("observe", "service"),
];
/// One verb each.
const COMMANDS: &[&str] = &[
    "board",
    "check",
    "ci",
    "deploy",
    "doctor",
    "engine",
    "hold",
    "image_cmd",
    "init",
    "pin",
    "pin_log",
    "rehearse",
    "release",
    "status",
];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The top-level module of a file, and whether it is a plan (a pure part of a command).
fn module(path: &Path) -> (String, bool) {
    let relative = path.strip_prefix(src()).unwrap().with_extension("");
    let first = relative.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    (first, relative.components().any(|part| part.as_os_str() == "plan"))
}

/// The modules that a file's code names as `crate::NAME`, its tests left out.
fn imports(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]").next().unwrap();
    let mut names = Vec::new();
    for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
        for part in line.split("crate::").skip(1) {
            let end = part.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(part.len());
            assert!(
                end > 0,
                "write one `use crate::NAME::…` line a module, so that imports can be read: {line}"
            );
            names.push(part[..end].to_owned());
        }
    }
    names
}

fn verdict(module: &str, plan: bool, import: &str) -> Result<(), &'static str> {
    let (module, import) = (&module, &import);
    if module == import || *module == "main" {
        Ok(())
    } else if plan || PURE.contains(module) {
        PURE.contains(import).then_some(()).ok_or("a pure module imports only pure modules")
    } else if EDGES.contains(module) {
        let allowed = PURE.contains(import) || EDGE_ON_EDGE.contains(&(module, import));
        allowed.then_some(()).ok_or("an edge imports pure modules, never another edge, never a command")
    } else if COMMANDS.contains(module) {
        (!COMMANDS.contains(import)).then_some(()).ok_or("a command never imports another command")
    } else if *module == "terminal" {
        PURE.contains(import).then_some(()).ok_or("terminal imports only pure modules")
    } else {
        Err("a new top-level module is listed in xtask/tests/tidy.rs: is it pure, an edge, or a command?")
    }
}

#[test]
fn modules_import_downwards_only() {
    let mut wrong = Vec::new();
    for path in sources(&src()) {
        let (name, plan) = module(&path);
        for import in imports(&fs::read_to_string(&path).unwrap()) {
            if let Err(rule) = verdict(&name, plan, &import) {
                wrong.push(format!("{}: imports {import}: {rule}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_rule_can_fail() {
    assert!(verdict("version", false, "git").is_err());
    assert!(verdict("release", true, "git").is_err());
    assert!(verdict("release", false, "git").is_ok());
    assert!(verdict("git", false, "registry").is_err());
    assert!(verdict("infra", false, "git").is_ok());
    assert!(verdict("status", false, "release").is_err());
    assert!(verdict("brand_new", false, "fault").is_err());
    let text = "use crate::git::Git;\nlet x = crate::image::sha_tag();\n#[cfg(test)]\nuse crate::ci;";
    assert_eq!(imports(text), ["git", "image"]);
}

#[test]
fn only_main_and_the_commands_print() {
    let macros = ["println!", "print!", "eprintln!", "eprint!"];
    let mut wrong = Vec::new();
    for path in sources(&src()) {
        let (name, plan) = module(&path);
        let may =
            (COMMANDS.contains(&name.as_str()) && !plan) || ["main", "terminal"].contains(&name.as_str());
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        if !may && macros.iter().any(|print| code.contains(print)) {
            wrong.push(path.display().to_string());
        }
    }
    assert!(wrong.is_empty(), "only main and the commands print: {}", wrong.join(", "));
}

#[test]
fn the_tool_compiles_without_duckdb_and_the_two_programs_know_nothing_of_each_other() {
    let dependencies = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(name).join("Cargo.toml");
        let text = fs::read_to_string(path).unwrap();
        let table = text.split("[dependencies]").nth(1).unwrap().to_owned();
        let names = table.lines().filter_map(|line| line.split(['=', '.', ' ']).next().map(str::to_owned));
        names.collect::<Vec<_>>()
    };
    let tool = dependencies("xtask");
    assert!(tool.contains(&"clap".to_owned()), "{tool:?}");
    assert!(!tool.iter().any(|name| name == "duckdb" || name == "dojo"), "{tool:?}");
    assert!(!dependencies("dojo").contains(&"xtask".to_owned()));
}
