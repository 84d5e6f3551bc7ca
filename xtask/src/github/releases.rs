//! The page of a release: a draft until all its files are there, published last.

use serde::Deserialize;
use serde_json::json;

use super::Github;
use super::http::Call;
use crate::fault::Fault;
use crate::version::Version;

/// A release on GitHub. Several drafts can have the same tag; a published one is the only one of its tag.
#[derive(Clone, Debug, Deserialize)]
pub struct Page {
    pub id: u64,
    pub html_url: String,
    pub tag_name: String,
    pub draft: bool,
    pub prerelease: bool,
    pub body: Option<String>,
    #[serde(default)]
    pub assets: Vec<Asset>,
}

/// A file of a release.
#[derive(Clone, Debug, Deserialize)]
pub struct Asset {
    pub id: u64,
    pub name: String,
    /// `uploaded`, or `starter` for one whose upload broke off.
    pub state: String,
    /// In bytes.
    pub size: u64,
}

impl Github {
    /// All releases of a tag, drafts included, the oldest first. Who may not write is shown no drafts.
    pub fn pages(&self, tag: &str) -> anyhow::Result<Vec<Page>> {
        let mut pages = self.all("releases", &[], &[], |page: Vec<Page>| page)?;
        pages.retain(|page| page.tag_name == tag);
        pages.sort_by_key(|page| page.id);
        Ok(pages)
    }

    /// Makes a draft, which only those who may write can see.
    pub fn draft(&self, tag: &str, version: &Version, notes: &str) -> anyhow::Result<Page> {
        let content = json!({ "tag_name": tag, "name": tag, "body": notes, "draft": true,
            "prerelease": version.is_prerelease() });
        self.http.send(&Call::post(&self.path("releases")).json(&content))?.json()
    }

    /// Shows a draft to everybody; `latest` makes it the one that the repository's front page shows.
    pub fn publish(&self, page: u64, version: &Version, latest: bool) -> anyhow::Result<()> {
        let content = json!({ "draft": false, "prerelease": version.is_prerelease(),
            "make_latest": latest.to_string() });
        self.http.send(&Call::patch(&self.path(&format!("releases/{page}"))).json(&content)).map(drop)
    }

    /// Removes a draft. That it is gone already is as good.
    pub fn remove(&self, page: u64) -> anyhow::Result<()> {
        let path = self.path(&format!("releases/{page}"));
        self.http.send(&Call::delete(&path).expect(&[404])).map(drop)
    }

    /// Adds a file to a release.
    pub fn upload(&self, page: u64, name: &str, media_type: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let path = self.path(&format!("releases/{page}/assets"));
        let call = Call::post(&path).query(&[("name", name)]).upload(media_type, bytes.to_vec());
        self.http.send(&call).map(drop)
    }

    /// The bytes of a file of a release, from where GitHub keeps it.
    pub fn download(&self, asset: &Asset) -> anyhow::Result<Vec<u8>> {
        let path = self.path(&format!("releases/assets/{}", asset.id));
        let answer = self.http.read(&Call::get(&path).accept("application/octet-stream"))?;
        if answer.body.len() as u64 == asset.size {
            return Ok(answer.body);
        }
        let (name, got) = (&asset.name, answer.body.len());
        Err(Fault::remote(format!("{name} has {} bytes, and {got} arrived", asset.size)).into())
    }

    /// Removes a file of a draft. That it is gone already is as good.
    pub fn remove_asset(&self, asset: u64) -> anyhow::Result<()> {
        let path = self.path(&format!("releases/assets/{asset}"));
        self.http.send(&Call::delete(&path).expect(&[404])).map(drop)
    }

    /// The published release of a tag, as everybody sees it.
    pub fn published(&self, tag: &str) -> anyhow::Result<Option<Page>> {
        let path = self.path(&format!("releases/tags/{tag}"));
        let answer = self.http.read(&Call::get(&path).expect(&[404]))?;
        if answer.status == 404 { Ok(None) } else { answer.json().map(Some) }
    }
}
