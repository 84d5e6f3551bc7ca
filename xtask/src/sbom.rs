//! An image's bill of materials, as a CycloneDX 1.6 document (ECMA-424): the crates in the binary, DuckDB, and what else the
//! image's config says it holds.
//!
//! What is in the binary is cargo's own answer (`cargo tree`), since only its resolver knows which crates the image's
//! features and target bring in. The same commit gives the same document: its time is the commit's, and its serial number
//! is made of its content. Left out, because nothing here knows it: versions of the shared libraries that the cargo builder
//! copies, and of the Rust toolchain.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use serde_json::{Value, json};
use toml_edit::{DocumentMut, Item};

use crate::fault::Fault;
use crate::image::Digest;
use crate::image::contents::{STORE, STORE_PATHS};
use crate::image::oci::Config;

/// What a CycloneDX document is called in a registry, as kind of artifact and as file.
pub const MEDIA_TYPE: &str = "application/vnd.cyclonedx+json";
pub const FILE: &str = "sbom.cdx.json";

/// How `cargo tree --prefix depth` is to print a package; what [`document`] reads.
pub const TREE_FORMAT: &str = "{p}\t{l}";

/// What starts a layer's comment in a config that the cargo builder made.
pub const FILES: &str = "files: ";

/// The crate that brings DuckDB's source.
const ENGINE: &str = "libduckdb-sys";

/// Components by their `bom-ref`, and what each depends on.
#[derive(Default)]
struct Bill {
    components: BTreeMap<String, Value>,
    dependencies: BTreeMap<String, BTreeSet<String>>,
}

/// The document for the image called `image`. `tree` are lines of [`TREE_FORMAT`] with their depth before them, from the
/// binary's own package down; `lock` is the text of `Cargo.lock`.
pub fn document(image: &str, config: &Config, tree: &str, lock: &str) -> anyhow::Result<String> {
    let labels = config.labels()?;
    let mut bill = Bill::default();
    bill.crates(image, tree, &checksums(lock)?)?;
    for comment in config.history.iter().filter_map(|layer| layer.comment.as_deref()) {
        if let Some(paths) = comment.strip_prefix(STORE_PATHS) {
            paths
                .split(['[', ']', ',', '\'', ' '])
                .filter_map(store_path)
                .for_each(|part| bill.add(image, part));
        } else if let Some(files) = comment.strip_prefix(FILES) {
            files.split(", ").map(file).for_each(|part| bill.add(image, part));
        }
    }
    let properties = labels.to_map().into_iter().map(|(name, value)| json!({ "name": name, "value": value }));
    let dependencies =
        bill.dependencies.iter().map(|(of, on)| json!({ "ref": of, "dependsOn": on })).collect::<Vec<_>>();
    let mut document = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": labels.created,
            "lifecycles": [{ "phase": "build" }],
            "tools": { "components": [{ "type": "application", "name": "dojo-xtask",
                "version": env!("CARGO_PKG_VERSION") }] },
            "component": { "type": "container", "bom-ref": image, "name": image, "version": labels.version,
                "externalReferences": [{ "type": "vcs", "url": labels.source }],
                "properties": properties.collect::<Vec<_>>() },
        },
        "components": bill.components.into_values().collect::<Vec<_>>(),
        "dependencies": dependencies,
    });
    let serial = serial_number(&serde_json::to_vec(&document)?);
    document["serialNumber"] = serial.into();
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

/// A UUID of version 8 (RFC 9562, 5.8) from the content's SHA-256.
fn serial_number(content: &[u8]) -> String {
    let digest = Digest::of(content);
    let hex = digest.hex();
    format!("urn:uuid:{}-{}-8{}-8{}-{}", &hex[..8], &hex[8..12], &hex[12..15], &hex[15..18], &hex[18..30])
}

impl Bill {
    /// Adds a component that the component `of` depends on.
    fn add(&mut self, of: &str, (name, component): (String, Value)) {
        self.dependencies.entry(of.to_owned()).or_default().insert(name.clone());
        self.dependencies.entry(name.clone()).or_default();
        self.components.insert(name, component);
    }

    fn crates(&mut self, image: &str, tree: &str, checksums: &Checksums) -> anyhow::Result<()> {
        // The packages from the root to the present line.
        let mut above = vec![image.to_owned()];
        for line in tree.lines().filter(|line| !line.is_empty()) {
            let package = Package::parse(line).with_context(|| {
                Fault::refused(format!("cargo tree says {line:?}, which is not understood"))
            })?;
            above.truncate(package.depth + 1);
            let parent = above.last().context("cargo tree begins below a package")?.clone();
            let name = package.bom_ref();
            let checksum = checksums.get(&(package.name.to_owned(), package.version.to_owned()));
            self.add(&parent, (name.clone(), package.component(checksum)));
            if package.name == ENGINE
                && let Some(version) = engine_version(package.version)
            {
                self.add(&name, engine(&version));
            }
            above.push(name);
        }
        Ok(())
    }
}

/// A line of `cargo tree`.
#[derive(Debug)]
struct Package<'a> {
    depth: usize,
    name: &'a str,
    version: &'a str,
    /// Where the source is, if not crates.io: a folder or a URL.
    source: Option<&'a str>,
    licence: &'a str,
}

impl<'a> Package<'a> {
    /// `2name v1.2.3 (source)`, a tab, the licence, and ` (*)` if its dependencies are printed elsewhere.
    fn parse(line: &'a str) -> Option<Self> {
        let line = line.strip_suffix(" (*)").unwrap_or(line);
        let (package, licence) = line.split_once('\t')?;
        let digits = package.bytes().take_while(u8::is_ascii_digit).count();
        let depth = package[..digits].parse().ok()?;
        let (name, rest) = package[digits..].split_once(" v")?;
        let (version, source) = rest.split_once(' ').map_or((rest, None), |(v, source)| (v, Some(source)));
        let source = source.map(|source| source.trim_matches(['(', ')']));
        Some(Self { depth, name, version, source, licence })
    }

    /// A crate that is not of crates.io gets no package URL: a scanner would take it for one of that name there.
    fn purl(&self) -> Option<String> {
        let version = self.version.replace('+', "%2B");
        self.source.is_none().then(|| format!("pkg:cargo/{}@{version}", self.name))
    }

    fn bom_ref(&self) -> String {
        self.purl().unwrap_or_else(|| format!("{}@{}", self.name, self.version))
    }

    fn component(&self, checksum: Option<&String>) -> Value {
        let kind = if self.depth == 0 { "application" } else { "library" };
        let mut component = json!({ "type": kind, "bom-ref": self.bom_ref(), "name": self.name,
            "version": self.version, "scope": "required" });
        if let Some(purl) = self.purl() {
            component["purl"] = purl.into();
        }
        if !self.licence.is_empty() {
            // Old manifests have a slash, which means OR to cargo and nothing to SPDX.
            let expression = self.licence.replace('/', " OR ");
            component["licenses"] = json!([{ "expression": expression }]);
        }
        if let Some(checksum) = checksum {
            component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
        }
        component
    }
}

type Checksums = BTreeMap<(String, String), String>;

/// The SHA-256 of each package's archive, by name and version.
fn checksums(lock: &str) -> anyhow::Result<Checksums> {
    let lock: DocumentMut = lock.parse().map_err(|error| Fault::usage(format!("Cargo.lock: {error}")))?;
    let packages = lock.get("package").and_then(Item::as_array_of_tables);
    let packages = packages.into_iter().flatten().filter_map(|package| {
        let text = |key| package.get(key).and_then(Item::as_str).map(str::to_owned);
        Some(((text("name")?, text("version")?), text("checksum")?))
    });
    Ok(packages.collect())
}

/// The crate's versions are `1.MAJOR_MINOR_PATCH.x` of DuckDB (its README, "Versioning"): 1.10502.0 brings DuckDB 1.5.2.
fn engine_version(version: &str) -> Option<String> {
    let number: u32 = version.strip_prefix("1.")?.split('.').next()?.parse().ok()?;
    (number >= 10_000).then(|| format!("{}.{}.{}", number / 10_000, number / 100 % 100, number % 100))
}

fn engine(version: &str) -> (String, Value) {
    let purl = format!("pkg:github/duckdb/duckdb@v{version}");
    let component = json!({ "type": "library", "bom-ref": purl, "name": "duckdb", "version": version,
        "scope": "required", "purl": purl, "licenses": [{ "expression": "MIT" }] });
    (purl, component)
}

/// `/nix/store/HASH-NAME-VERSION`, where the version begins after the first dash that no letter follows (nix manual,
/// `parseDrvName`). The layer that only links others together is no package.
fn store_path(path: &str) -> Option<(String, Value)> {
    let (hash, package) = path.strip_prefix(STORE)?.split_at_checked(32)?;
    let package = package.strip_prefix('-').filter(|name| !name.ends_with("-customisation-layer"))?;
    let plain = hash.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let split = package
        .match_indices('-')
        .map(|(at, _)| at)
        .find(|at| package[at + 1..].starts_with(|first: char| !first.is_alphabetic()));
    let (name, version) = split.map_or((package, None), |at| (&package[..at], Some(&package[at + 1..])));
    let mut component = json!({ "type": "application", "bom-ref": path, "name": name,
        "properties": [{ "name": "nix:output_path", "value": path }] });
    if let Some(version) = version {
        component["version"] = version.into();
    }
    plain.then(|| (path.to_owned(), component))
}

/// A file of which nothing but its place is known.
fn file(path: &str) -> (String, Value) {
    (path.to_owned(), json!({ "type": "file", "bom-ref": path, "name": path }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "0dojo v0.1.0 (/home/me/dojo)\tMIT\n1axum v0.8.9\tMIT\n2bytes v1.12.2\tMIT/Apache-2.0\n\
        1libduckdb-sys v1.20000.1\tMIT\n1odd v2.0.0+spec-1.1\t\n2axum v0.8.9\tMIT (*)\n\
        1forked v1.0.0 (https://example.com/forked?rev=abc#abc)\tMIT\n";
    const LOCK: &str = "[[package]]\nname = 'bytes'\nversion = '1.12.2'\nchecksum = 'abc'\n";

    fn made(history: &Value) -> Value {
        let config = json!({ "architecture": "amd64", "os": "linux", "history": history,
            "rootfs": { "type": "layers", "diff_ids": [] },
            "config": { "Labels": {
                "org.opencontainers.image.revision": "0123456789abcdef0123456789abcdef01234567",
                "org.opencontainers.image.version": "0.1.0",
                "org.opencontainers.image.source": "https://github.com/blogle/dojo",
                "org.opencontainers.image.created": "2026-01-02T03:04:05Z",
                "dojo.schema": "1", "dojo.schema.oldest-binary": "1" } } });
        let config = serde_json::from_value(config).unwrap();
        let document = document("ghcr.io/blogle/dojo", &config, TREE, LOCK).unwrap();
        serde_json::from_str(&document).unwrap()
    }

    fn component<'a>(document: &'a Value, name: &str) -> &'a Value {
        let components = document["components"].as_array().unwrap();
        components.iter().find(|component| component["name"] == name).unwrap_or(&Value::Null)
    }

    #[test]
    fn a_crate_has_its_purl_licence_checksum_and_dependencies() {
        let document = made(&json!([]));
        let bytes = component(&document, "bytes");
        assert_eq!(bytes["purl"], "pkg:cargo/bytes@1.12.2");
        assert_eq!(bytes["licenses"], json!([{ "expression": "MIT OR Apache-2.0" }]));
        assert_eq!(bytes["hashes"], json!([{ "alg": "SHA-256", "content": "abc" }]));
        assert_eq!(component(&document, "odd")["purl"], "pkg:cargo/odd@2.0.0%2Bspec-1.1");
        let depends = |name: &str| {
            let all = document["dependencies"].as_array().unwrap();
            all.iter().find(|entry| entry["ref"] == name).unwrap()["dependsOn"].clone()
        };
        assert_eq!(depends("pkg:cargo/axum@0.8.9"), json!(["pkg:cargo/bytes@1.12.2"]));
        assert_eq!(depends("pkg:cargo/odd@2.0.0%2Bspec-1.1"), json!(["pkg:cargo/axum@0.8.9"]));
        assert_eq!(depends("ghcr.io/blogle/dojo"), json!(["dojo@0.1.0"]));
        assert_eq!(depends("pkg:cargo/libduckdb-sys@1.20000.1"), json!(["pkg:github/duckdb/duckdb@v2.0.0"]));
        // What crates.io does not have must not be taken for what it has under that name.
        for local in ["dojo", "forked"] {
            assert!(component(&document, local)["purl"].is_null() && !component(&document, local).is_null());
        }
    }

    #[test]
    fn the_engine_has_the_version_that_its_crate_encodes() {
        assert_eq!(engine_version("1.20000.1").as_deref(), Some("2.0.0"));
        assert_eq!(engine_version("1.10502.0").as_deref(), Some("1.5.2"));
        assert_eq!(engine_version("1.4.0"), None);
        assert_eq!(engine_version("2.20000.1"), None);
    }

    #[test]
    fn layers_tell_what_else_is_there() {
        let hash = "0123456789abcdfghijklmnpqrsvwxyz";
        let comment = format!(
            "store paths: ['/nix/store/{hash}-glibc-2.42-51', '/nix/store/{hash}-libidn2', \
             '/nix/store/{hash}-dojo-customisation-layer']"
        );
        let document = made(&json!([{ "comment": comment },
            { "comment": "files: /lib/libc.so.6, /bin/busybox" }, { "comment": "made by hand" }, {}]));
        assert_eq!(component(&document, "glibc")["version"], "2.42-51");
        assert_eq!(component(&document, "libidn2")["version"], Value::Null);
        assert_eq!(component(&document, "libidn2")["bom-ref"], format!("/nix/store/{hash}-libidn2"));
        assert!(!document.to_string().contains("customisation"));
        assert_eq!(component(&document, "/bin/busybox")["type"], "file");
    }

    #[test]
    fn the_serial_number_is_that_of_the_content() {
        let (one, other) = (made(&json!([])), made(&json!([{ "comment": "files: /a" }])));
        assert_eq!(one, made(&json!([])));
        assert_ne!(one["serialNumber"], other["serialNumber"]);
        assert_eq!(one["metadata"]["timestamp"], "2026-01-02T03:04:05Z");
    }
}
