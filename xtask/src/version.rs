//! Release versions as people type and tag them: `v0.1.0`, `v0.2.0-rc.1`.

use std::fmt;
use std::str::FromStr;

use crate::fault::Fault;

/// A semantic version, written with a leading `v`; build metadata is refused, since an image tag cannot carry `+`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(semver::Version);

impl Version {
    pub fn is_prerelease(&self) -> bool {
        !self.0.pre.is_empty()
    }

    /// The version without the `v`, as Cargo.toml and CHANGELOG.md write it.
    pub fn bare(&self) -> String {
        self.0.to_string()
    }

    /// `v0.0.0`, which the infra template pins: nothing has been promoted yet.
    pub fn is_zero(&self) -> bool {
        self.0 == semver::Version::new(0, 0, 0)
    }

    /// The version named by a git ref or image tag; `None` for every other tag (`edge`, `sha-…`).
    pub fn from_tag(tag: &str) -> Option<Self> {
        tag.starts_with('v').then(|| tag.parse().ok()).flatten()
    }
}

impl FromStr for Version {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let parsed = semver::Version::parse(text.strip_prefix('v').unwrap_or(text));
        match parsed {
            Ok(version) if version.build.is_empty() => Ok(Self(version)),
            _ => Err(Fault::usage(format!("not a version: {text}"))
                .help("write it as vMAJOR.MINOR.PATCH, for example v0.1.0 or v0.2.0-rc.1")),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

impl serde::Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_the_leading_v() {
        assert_eq!("v0.1.0".parse::<Version>().unwrap().to_string(), "v0.1.0");
        assert_eq!("0.1.0".parse::<Version>().unwrap().to_string(), "v0.1.0");
        assert_eq!("v0.2.0-rc.1".parse::<Version>().unwrap().bare(), "0.2.0-rc.1");
    }

    #[test]
    fn orders_a_prerelease_before_its_release() {
        let version = |text: &str| text.parse::<Version>().unwrap();
        assert!(version("v0.2.0-rc.1") < version("v0.2.0"));
        assert!(version("v0.2.0-rc.2") < version("v0.2.0-rc.10"));
        assert!(version("v0.9.0") < version("v0.10.0"));
    }

    #[test]
    fn refuses_what_an_image_tag_cannot_carry() {
        for text in ["", "v", "v1", "v1.2", "1.2.3+build", "v01.2.3", "vv1.2.3", "latest"] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
        assert_eq!(Version::from_tag("sha-0123456789ab"), None);
        assert_eq!(Version::from_tag("1.2.3"), None);
    }
}
