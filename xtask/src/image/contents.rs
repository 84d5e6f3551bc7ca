//! What each layer of an image holds, as far as the image tells: its history, else the names in the layer itself.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::{Component, Path};

use super::oci::{Config, History};

pub const STORE: &str = "/nix/store/";
/// How dockerTools begins a layer's comment; what follows is a Python list.
pub const STORE_PATHS: &str = "store paths: ";

/// For each layer, from the bottom up, what its history says; nothing where it says nothing.
pub fn told(config: &Config) -> Vec<Vec<String>> {
    let steps: Vec<_> = config.history.iter().filter(|step| !step.empty_layer).collect();
    let layers = config.rootfs.diff_ids.len();
    if steps.len() != layers {
        return vec![Vec::new(); layers];
    }
    // What is said of each layer alike, such as the name of the build tool, tells nothing about any.
    let telling = |field: fn(&History) -> Option<&str>| {
        layers == 1 || steps.iter().any(|step| field(step) != field(steps[0]))
    };
    let (by, comment) = (telling(by), telling(comment));
    steps.iter().map(|step| one(step, by, comment)).collect()
}

fn one(step: &History, by: bool, comment: bool) -> Vec<String> {
    if let Some(list) = step.comment.as_deref().and_then(|comment| comment.strip_prefix(STORE_PATHS)) {
        return list.split('\'').skip(1).step_by(2).map(store_name).collect();
    }
    let told = self::by(step).filter(|_| by).or_else(|| self::comment(step).filter(|_| comment));
    told.map(|told| vec![command(told)]).unwrap_or_default()
}

fn by(step: &History) -> Option<&str> {
    step.created_by.as_deref().filter(|text| !text.is_empty())
}

fn comment(step: &History) -> Option<&str> {
    step.comment.as_deref().filter(|text| !text.is_empty())
}

/// `/nix/store/HASH-dojo-0.1.0` is dojo-0.1.0.
fn store_name(path: &str) -> String {
    let name = path.strip_prefix(STORE).unwrap_or(path);
    let name = name.split('/').next().filter(|name| !name.is_empty()).unwrap_or(path);
    name.split_once('-').filter(|(hash, _)| hash.len() == 32).map_or(name, |(_, rest)| rest).to_owned()
}

/// A Dockerfile's line, without the shell that docker runs it in.
fn command(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let text = text.strip_suffix("# buildkit").unwrap_or(&text).trim();
    let text = text.strip_prefix("/bin/sh -c #(nop)").unwrap_or(text).trim();
    text.strip_prefix("RUN /bin/sh -c")
        .or_else(|| text.strip_prefix("/bin/sh -c"))
        .map_or_else(|| text.to_owned(), |command| format!("RUN {}", command.trim()))
}

/// The top of a layer's tree: `/etc`, or a store path's name.
pub fn top(layer: impl Read) -> io::Result<Vec<String>> {
    let mut found = BTreeSet::new();
    for entry in tar::Archive::new(layer).entries()? {
        let entry = entry?;
        let path = entry.path()?;
        let plain: Vec<_> = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
        let below_store = Path::new("/").join(plain.iter().collect::<std::path::PathBuf>());
        match (below_store.to_string_lossy().strip_prefix(STORE), plain.first()) {
            (Some(_), _) => drop(found.insert(store_name(&below_store.to_string_lossy()))),
            (None, Some(first)) => drop(found.insert(format!("/{}", first.as_os_str().to_string_lossy()))),
            (None, None) => {}
        }
    }
    // The folders above the store's paths are only the way to them.
    if found.iter().any(|name| !name.starts_with('/')) {
        found.remove("/nix");
    }
    Ok(found.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(history: &serde_json::Value, layers: usize) -> Vec<String> {
        let digest = format!("sha256:{}", "0".repeat(64));
        let config = serde_json::json!({ "architecture": "amd64", "os": "linux", "history": history,
            "rootfs": { "type": "layers", "diff_ids": vec![digest; layers] } });
        let told = told(&serde_json::from_value(config).unwrap());
        told.into_iter().map(|names| names.join(", ")).collect()
    }

    #[test]
    fn nix_names_the_store_paths_of_a_layer() {
        let hash = "0123456789abcdfghijklmnpqrsvwxyz";
        let history = serde_json::json!([
            { "comment": format!("store paths: ['/nix/store/{hash}-glibc-2.42-51']") },
            { "comment": format!("store paths: ['/nix/store/{hash}-busybox-1.37.0', '/nix/store/{hash}-dojo-0.1.0']") },
            { "comment": "store paths: []" },
        ]);
        assert_eq!(holds(&history, 3), ["glibc-2.42-51", "busybox-1.37.0, dojo-0.1.0", ""]);
    }

    #[test]
    fn docker_names_the_lines_of_a_dockerfile() {
        let history = serde_json::json!([
            { "created_by": "/bin/sh -c #(nop) ADD file:abc in / " },
            { "created_by": "/bin/sh -c #(nop)  CMD [\"sh\"]", "empty_layer": true },
            { "created_by": "RUN /bin/sh -c apk add \t curl # buildkit", "comment": "buildkit.dockerfile.v0" },
            { "created_by": "COPY dojo /bin/ # buildkit", "comment": "buildkit.dockerfile.v0" },
        ]);
        assert_eq!(holds(&history, 3), ["ADD file:abc in /", "RUN apk add curl", "COPY dojo /bin/"]);
    }

    #[test]
    fn a_history_that_tells_nothing_is_not_repeated() {
        let same = serde_json::json!([{ "created_by": "bazel" }, { "created_by": "bazel" }]);
        assert_eq!(holds(&same, 2), ["", ""]);
        let comments = serde_json::json!([{ "created_by": "jib", "comment": "dependencies" },
            { "created_by": "jib", "comment": "classes" }]);
        assert_eq!(holds(&comments, 2), ["dependencies", "classes"]);
        assert_eq!(
            holds(&serde_json::json!([{ "created_by": "one" }]), 2),
            ["", ""],
            "it is not for these layers"
        );
        assert_eq!(holds(&serde_json::json!([]), 0), Vec::<String>::new());
    }

    #[test]
    fn the_top_of_a_layer_is_named() {
        let mut tar = tar::Builder::new(Vec::new());
        for name in [
            "./etc/passwd",
            "nix/store/0123456789abcdfghijklmnpqrsvwxyz-dojo-0.1.0/bin/dojo",
            "nix/store/",
            "app/",
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_size(0);
            tar.append_data(&mut header, name, io::empty()).unwrap();
        }
        assert_eq!(top(io::Cursor::new(tar.into_inner().unwrap())).unwrap(), ["/app", "/etc", "dojo-0.1.0"]);
    }
}
