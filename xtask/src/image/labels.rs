//! The labels in an image's config: ours, which say where it came from and which data files it opens.

use std::collections::BTreeMap;

use crate::fault::Fault;

/// What the image says of itself, in its config's labels.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Labels {
    /// `org.opencontainers.image.revision`: the 40-hex commit that it was built from.
    pub revision: String,
    /// `org.opencontainers.image.version`: the workspace version at that commit, without `v`.
    pub version: String,
    /// `org.opencontainers.image.source`: the repository's URL.
    pub source: String,
    /// `org.opencontainers.image.created`: the commit's time, RFC 3339.
    pub created: String,
    /// `dojo.schema` and `dojo.schema.oldest-binary`.
    pub schema: Schema,
}

/// What the labels say where any of them may be missing: most images are not ours.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Told {
    pub revision: Option<String>,
    pub version: Option<String>,
    pub source: Option<String>,
    pub created: Option<String>,
    pub schema: Option<Schema>,
}

impl Told {
    pub fn from_map(map: &BTreeMap<String, String>) -> Self {
        let text = |key: &str| map.get(key).filter(|text| !text.is_empty()).cloned();
        let number = |key: &str| map.get(key)?.parse().ok();
        let schema = number(SCHEMA).zip(number(OLDEST_BINARY));
        Self {
            revision: text(REVISION),
            version: text(VERSION),
            source: text(SOURCE),
            created: text(CREATED),
            schema: schema.map(|(current, oldest_binary)| Schema { current, oldest_binary }),
        }
    }
}

/// A schema number, and the lowest schema number that a binary must know to open a file of this one
/// (`dojo/migrations/schema.toml`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    pub current: u32,
    pub oldest_binary: u32,
}

impl Schema {
    /// Whether a binary of schema `binary` may open a file of this schema.
    pub fn admits(self, binary: u32) -> bool {
        binary >= self.current || binary >= self.oldest_binary
    }
}

const REVISION: &str = "org.opencontainers.image.revision";
const VERSION: &str = "org.opencontainers.image.version";
const SOURCE: &str = "org.opencontainers.image.source";
const CREATED: &str = "org.opencontainers.image.created";
const SCHEMA: &str = "dojo.schema";
const OLDEST_BINARY: &str = "dojo.schema.oldest-binary";

impl Labels {
    /// Reads an image config's `Labels`; a missing or malformed one is refused by name.
    pub fn from_map(map: &BTreeMap<String, String>) -> Result<Self, Fault> {
        let text = |key: &str| {
            map.get(key).cloned().ok_or_else(|| {
                Fault::refused(format!("the image has no label {key}: it was not built by this tool"))
            })
        };
        let number = |key: &str| {
            let value = text(key)?;
            value
                .parse()
                .map_err(|_| Fault::refused(format!("the image's label {key} is not a number: {value}")))
        };
        Ok(Self {
            revision: text(REVISION)?,
            version: text(VERSION)?,
            source: text(SOURCE)?,
            created: text(CREATED)?,
            schema: Schema { current: number(SCHEMA)?, oldest_binary: number(OLDEST_BINARY)? },
        })
    }

    /// Refuses a built image that says something else than the work tree: the flake writes the labels of nix's image.
    pub fn must_agree_with(&self, tree: &Self) -> Result<(), Fault> {
        let told = |labels: &Self| (labels.revision.clone(), labels.version.clone(), labels.schema);
        if told(self) == told(tree) {
            return Ok(());
        }
        if self.revision != tree.revision {
            let message =
                format!("the image was built from {}, and {} is checked out", self.revision, tree.revision);
            return Err(Fault::refused(message)
                .help("build it again, or check that commit out; untracked files are invisible to nix"));
        }
        let tell = |labels: &Self| {
            let Schema { current, oldest_binary } = labels.schema;
            format!("version {}, schema {current}, oldest binary {oldest_binary}", labels.version)
        };
        Err(Fault::refused(format!("the image says {}, and the work tree {}", tell(self), tell(tree)))
            .help("build it again"))
    }

    /// The labels as an image config carries them.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        [
            (REVISION, self.revision.clone()),
            (VERSION, self.version.clone()),
            (SOURCE, self.source.clone()),
            (CREATED, self.created.clone()),
            (SCHEMA, self.schema.current.to_string()),
            (OLDEST_BINARY, self.schema.oldest_binary.to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_survive_the_round_trip_and_a_missing_one_is_named() {
        let labels = Labels {
            revision: "0123456789abcdef0123456789abcdef01234567".into(),
            version: "0.1.0".into(),
            source: "https://github.com/blogle/dojo".into(),
            created: "2026-01-02T03:04:05Z".into(),
            schema: Schema { current: 3, oldest_binary: 2 },
        };
        let mut map = labels.to_map();
        assert_eq!(Labels::from_map(&map).unwrap(), labels);
        map.remove("dojo.schema");
        assert!(Labels::from_map(&map).unwrap_err().to_string().contains("dojo.schema"));
    }

    #[test]
    fn a_file_admits_binaries_from_its_oldest_binary_on() {
        let file = Schema { current: 5, oldest_binary: 3 };
        assert_eq!([2, 3, 5, 6].map(|binary| file.admits(binary)), [false, true, true, true]);
    }
}
