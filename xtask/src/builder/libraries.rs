//! The shared libraries that a binary needs, asked from the loader itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::fault::Fault;

/// A file on this machine, and its path in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    pub from: PathBuf,
    pub to: PathBuf,
}

/// The loader and the libraries of `binary`; none if it is linked statically.
///
/// The image has no loader cache, so all libraries lie beside the C library, where its loader always looks.
pub fn needed(binary: &Path) -> anyhow::Result<Vec<Library>> {
    let missing =
        |error| Fault::usage(format!("ldd: {error}")).help("install the C library's tools (libc-bin)");
    let output = Command::new("ldd")
        .arg(binary)
        .env("LC_ALL", "C")
        .env_remove("LD_PRELOAD")
        .output()
        .map_err(missing)?;
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    if [&said, &complaint].iter().any(|text| {
        text.contains("statically linked") || text.to_lowercase().contains("not a dynamic executable")
    }) {
        return Ok(Vec::new());
    }
    if !output.status.success() {
        return Err(Fault::refused(format!("ldd {}: {}", binary.display(), complaint.trim())).into());
    }
    parse(&said).with_context(|| format!("the libraries of {}", binary.display()))
}

fn parse(said: &str) -> Result<Vec<Library>, Fault> {
    let mut found: Vec<(String, PathBuf)> = Vec::new();
    for line in said.lines() {
        let line = line.split(" (0x").next().unwrap_or_default().trim();
        match line.split_once(" => ") {
            Some((name, "not found")) => {
                return Err(Fault::refused(format!("{name} is not on this machine")).help("install it"));
            }
            Some((name, path)) => found.push((name.to_owned(), path.into())),
            None if line.starts_with('/') => found.push((line.to_owned(), line.into())),
            // The kernel's own, which is no file.
            None => {}
        }
    }
    let c_library = found.iter().find(|(name, _)| name.starts_with("libc."));
    let folder = c_library.and_then(|(_, path)| path.parent().map(Path::to_owned));
    let folder = folder.ok_or_else(|| Fault::refused("ldd names no C library"))?;
    let libraries = found.into_iter().map(|(name, from)| Library { to: folder.join(&name), from });
    Ok(libraries.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_keeps_its_path_and_the_rest_lies_beside_libc() {
        let said = "\tlinux-vdso.so.1 (0x00007ffd)\n\
            \tlibstdc++.so.6 => /opt/gcc/lib64/libstdc++.so.6 (0x00007f12)\n\
            \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f12)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f12)\n";
        let pairs: Vec<_> = parse(said).unwrap().into_iter().map(|l| (l.from, l.to)).collect();
        let expected = [
            ("/opt/gcc/lib64/libstdc++.so.6", "/lib/x86_64-linux-gnu/libstdc++.so.6"),
            ("/lib/x86_64-linux-gnu/libc.so.6", "/lib/x86_64-linux-gnu/libc.so.6"),
            ("/lib64/ld-linux-x86-64.so.2", "/lib64/ld-linux-x86-64.so.2"),
        ];
        assert_eq!(pairs, expected.map(|(from, to)| (from.into(), to.into())));
    }

    #[test]
    fn a_library_that_is_not_there_is_named() {
        let refusal = parse("\tlibduckdb.so => not found\n").unwrap_err().to_string();
        assert!(refusal.contains("libduckdb.so"), "{refusal}");
    }
}
