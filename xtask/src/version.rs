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

/// Which part of a version goes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Bump {
    /// v0.1.0 -> v0.1.1
    Patch,
    /// v0.1.0 -> v0.2.0
    Minor,
    /// v0.1.0 -> v1.0.0
    Major,
    /// v0.1.0 -> v0.2.0-rc.1 -> v0.2.0-rc.2; in a series of its own v0.1.0 -> v0.1.1-rc.1
    Rc,
}

/// The versions that can be cut from a branch of their own: `0.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Series {
    major: u64,
    minor: u64,
}

impl Series {
    pub fn of(version: &Version) -> Self {
        Self { major: version.0.major, minor: version.0.minor }
    }

    /// The first version of the series, or its first pre-release.
    pub fn first(self, bump: Bump) -> Version {
        let mut first = semver::Version::new(self.major, self.minor, 0);
        if bump == Bump::Rc {
            first.pre = semver::Prerelease::new("rc.1").unwrap_or_default();
        }
        Version(first)
    }
}

/// `0.1`; neither `01.2` nor `+1.2`.
impl FromStr for Series {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let parsed = text
            .split_once('.')
            .and_then(|(major, minor)| Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? }));
        let same = |series: &Self| series.to_string() == text;
        parsed.filter(same).ok_or_else(|| Fault::usage(format!("not the series of a version: {text}")))
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Version {
    /// The version after this one. A pre-release becomes the release that it prepares, if that is as far as `bump` goes.
    pub fn bumped(&self, bump: Bump, series: Option<Series>) -> Self {
        let semver::Version { major, minor, patch, .. } = self.0;
        let pre = self.is_prerelease();
        let plain = semver::Version::new;
        let next = match bump {
            Bump::Patch if pre => plain(major, minor, patch),
            Bump::Patch => plain(major, minor, patch.saturating_add(1)),
            Bump::Minor if pre && patch == 0 => plain(major, minor, 0),
            Bump::Minor => plain(major, minor.saturating_add(1), 0),
            Bump::Major if pre && (minor, patch) == (0, 0) => plain(major, 0, 0),
            Bump::Major => plain(major.saturating_add(1), 0, 0),
            Bump::Rc => {
                let mut next = match (pre, series) {
                    (true, _) => plain(major, minor, patch),
                    (false, Some(_)) => plain(major, minor, patch.saturating_add(1)),
                    (false, None) => plain(major, minor.saturating_add(1), 0),
                };
                let before = pre.then(|| self.0.pre.strip_prefix("rc.")?.parse::<u64>().ok()).flatten();
                // `rc.N` always parses.
                next.pre = semver::Prerelease::new(&format!("rc.{}", before.unwrap_or(0).saturating_add(1)))
                    .unwrap_or_default();
                next
            }
        };
        Self(next)
    }
}

impl FromStr for Version {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let parsed = semver::Version::parse(text.strip_prefix('v').unwrap_or(text));
        match parsed {
            // git takes no tag that ends so.
            Ok(version) if version.build.is_empty() && !text.ends_with(".lock") => Ok(Self(version)),
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
    fn a_bump_goes_up_by_one_step() {
        let bumped = |from: &str, bump| from.parse::<Version>().unwrap().bumped(bump, None).to_string();
        for (from, patch, minor, major, rc) in [
            ("v0.0.0", "v0.0.1", "v0.1.0", "v1.0.0", "v0.1.0-rc.1"),
            ("v0.1.2", "v0.1.3", "v0.2.0", "v1.0.0", "v0.2.0-rc.1"),
            ("v0.2.0-rc.9", "v0.2.0", "v0.2.0", "v1.0.0", "v0.2.0-rc.10"),
            ("v1.2.3-rc.1", "v1.2.3", "v1.3.0", "v2.0.0", "v1.2.3-rc.2"),
            (
                "v18446744073709551615.18446744073709551615.18446744073709551615",
                "v18446744073709551615.18446744073709551615.18446744073709551615",
                "v18446744073709551615.18446744073709551615.0",
                "v18446744073709551615.0.0",
                "v18446744073709551615.18446744073709551615.0-rc.1",
            ),
            ("v2.0.0-beta", "v2.0.0", "v2.0.0", "v2.0.0", "v2.0.0-rc.1"),
        ] {
            let all = [Bump::Patch, Bump::Minor, Bump::Major, Bump::Rc].map(|bump| bumped(from, bump));
            assert_eq!(all, [patch, minor, major, rc], "{from}");
        }
        let series = "0.1".parse().ok();
        let fix = "v0.1.2".parse::<Version>().unwrap().bumped(Bump::Rc, series);
        assert_eq!(fix.to_string(), "v0.1.3-rc.1");
    }

    #[test]
    fn a_series_has_its_name_in_one_spelling() {
        let series: Series = "0.1".parse().unwrap();
        assert_eq!(series, Series::of(&"v0.1.7-rc.1".parse().unwrap()));
        assert_eq!(series.to_string(), "0.1");
        assert_eq!(series.first(Bump::Minor).to_string(), "v0.1.0");
        assert_eq!(series.first(Bump::Rc).to_string(), "v0.1.0-rc.1");
        for other in ["v0.1", "0.1.0", "01.2", "+1.2", "", "master"] {
            assert!(other.parse::<Series>().is_err(), "{other}");
        }
    }

    #[test]
    fn refuses_what_an_image_tag_cannot_carry() {
        for text in ["", "v", "v1", "v1.2", "1.2.3+build", "v01.2.3", "vv1.2.3", "latest", "v1.2.3-a.lock"] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
        assert_eq!(Version::from_tag("sha-0123456789ab"), None);
        assert_eq!(Version::from_tag("1.2.3"), None);
    }
}
