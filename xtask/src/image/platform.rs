//! What machine an image is for: `OS/ARCHITECTURE[/VARIANT]` (OCI image spec, image index).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::fault::Fault;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

impl Platform {
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let variant = variant.map(str::to_owned);
        Self { os: os.to_owned(), architecture: architecture.to_owned(), variant, rest: BTreeMap::new() }
    }

    /// What this machine's containers run on.
    pub fn here() -> Self {
        Self::new("linux", architecture(), None)
    }

    /// Whether an image for this platform is one for `wanted`; a variant counts only where one is wanted.
    pub fn fits(&self, wanted: &Self) -> bool {
        let same = self.os == wanted.os && self.architecture == wanted.architecture;
        same && (wanted.variant.is_none() || self.exact_variant() == wanted.exact_variant())
    }

    /// 64-bit ARM is v8 also where nobody says so.
    fn exact_variant(&self) -> Option<&str> {
        self.variant.as_deref().or((self.architecture == "arm64").then_some("v8"))
    }
}

impl FromStr for Platform {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        match text.split('/').collect::<Vec<_>>().as_slice() {
            parts if parts.contains(&"") => {}
            [os, architecture] => return Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] => return Ok(Self::new(os, architecture, Some(variant))),
            _ => {}
        }
        Err(Fault::usage(format!("not a platform: {text}"))
            .help("write OS/ARCH[/VARIANT], for example linux/arm64"))
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

/// The machine's architecture as images name it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_fits_what_is_wanted() {
        let fits = |image: &str, wanted: &str| {
            image.parse::<Platform>().unwrap().fits(&wanted.parse::<Platform>().unwrap())
        };
        for (image, wanted) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/arm/v7", "linux/arm"),
            ("linux/arm64", "linux/arm64/v8"),
            ("linux/arm64/v8", "linux/arm64"),
        ] {
            assert!(fits(image, wanted), "{image} {wanted}");
        }
        for (image, wanted) in [
            ("linux/arm64", "linux/amd64"),
            ("windows/amd64", "linux/amd64"),
            ("linux/arm/v6", "linux/arm/v7"),
        ] {
            assert!(!fits(image, wanted), "{image} {wanted}");
        }
        assert_eq!("linux/arm/v7".parse::<Platform>().unwrap().to_string(), "linux/arm/v7");
        for bad in ["", "linux", "linux/", "/amd64", "a/b/c/d"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }
}
