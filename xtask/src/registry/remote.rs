//! A registry that speaks the OCI distribution protocol, as far as one repository needs it.

mod blobs;

use std::cell::Cell;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ureq::http::{Method, Response, Uri, header};
use ureq::{Body, http::HeaderName};

use super::Options;
use super::auth::Access;
use super::http::{Content, Http, Request};
use super::retry::said;
use crate::fault::Fault;
use crate::image::oci::{DOCUMENT_LIMIT, Descriptor, INDEX, Index, MANIFEST, MANIFESTS, Stored};
use crate::image::{Digest, is_fixed, may_name};

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
/// Far more tags than a page each can hold: whoever sends more pages than this goes in circles.
const PAGES: usize = 1000;
/// The longest wait between setting a tag that never moves and the look at whether it did.
const SETTLE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct Remote {
    http: Http,
    location: String,
    name: String,
}

impl Remote {
    pub fn open(location: &str, options: &Options) -> anyhow::Result<Self> {
        let (scheme, bare) = match location.split_once("://") {
            None => (None, location),
            Some((scheme @ ("http" | "https"), rest)) => (Some(scheme), rest),
            Some(_) => return Err(malformed(location).into()),
        };
        let (host, name) = bare.split_once('/').ok_or_else(|| malformed(location))?;
        let authority: Uri = host.parse().map_err(|_| malformed(location))?;
        let bare_host =
            authority.host().filter(|_| !host.contains('@')).ok_or_else(|| malformed(location))?;
        let address = bare_host.trim_matches(['[', ']']).parse::<IpAddr>();
        let loopback = bare_host == "localhost" || address.is_ok_and(|address| address.is_loopback());
        let is_host = bare_host == "localhost" || host.contains(['.', ':']);
        if !is_host || !is_name(name) {
            return Err(malformed(location).into());
        }
        let plain = loopback || options.insecure;
        let scheme = scheme.unwrap_or(if plain { "http" } else { "https" });
        let http = Http::new(scheme, host, name, loopback, options.login.clone());
        Ok(Self { http, location: bare.to_owned(), name: name.to_owned() })
    }

    /// Prepares for [`Self::mount`] from another repository, and gives its name; `None` if it is on another host.
    pub fn mounts_from<'a>(&self, other: &'a Self) -> Option<&'a str> {
        if !self.same_host(other) || self.name == other.name {
            return None;
        }
        self.http.mount_from(&other.name);
        Some(&other.name)
    }

    /// See [`super::auth::Auth::login`].
    pub fn login(&self) -> Result<String, String> {
        self.http.auth.login()
    }

    pub fn tags(&self) -> anyhow::Result<Vec<String>> {
        #[derive(serde::Deserialize)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        let (mut tags, mut url) = (Vec::new(), self.url("tags/list?n=1000"));
        for _ in 0..PAGES {
            let (page, next) = self.http.patience.retry(|| {
                let mut response = self.get(&url, &[200, 404])?;
                if response.status() == 404 {
                    self.plainly_absent(&mut response)?;
                    return Ok((Page { tags: None }, None));
                }
                let next = response.headers().get(header::LINK).and_then(|link| link.to_str().ok());
                let next = next.and_then(next_page).map(|next| self.resolve_url(next)).transpose()?;
                Ok((self.json(response.body_mut())?, next))
            })?;
            tags.extend(page.tags.unwrap_or_default());
            match next {
                Some(next) => url = next,
                None => return Ok(tags),
            }
        }
        Err(Fault::refused(format!("{}: the list of tags has no end", self.location)).into())
    }

    /// The manifest under a tag or a digest. Always a GET: its bytes prove the digest, and some registries refuse HEAD.
    pub fn manifest(&self, reference: &str) -> anyhow::Result<Option<Stored>> {
        let url = self.url(&format!("manifests/{reference}"));
        self.http.patience.retry(|| {
            let mut response = self.get(&url, &[200, 404])?;
            if response.status() == 404 {
                self.plainly_absent(&mut response)?;
                return Ok(None);
            }
            let media_type = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
            let media_type = media_type.unwrap_or(MANIFEST).to_owned();
            let bytes = response.body_mut().with_config().limit(DOCUMENT_LIMIT).read_to_vec();
            let bytes = bytes.map_err(|error| self.broken_off(&error))?;
            let digest = Digest::of(&bytes);
            match response.headers().get(CONTENT_DIGEST).and_then(|value| value.to_str().ok()) {
                Some(told) if told.starts_with("sha256:") && told != digest.as_str() => {
                    let message = format!(
                        "{}: {reference} is said to be {told} and arrived as {digest}",
                        self.location
                    );
                    Err(Fault::refused(message).help("the registry's content is damaged").into())
                }
                _ => Ok(Some(Stored { digest, media_type, bytes })),
            }
        })
    }

    pub fn same_host(&self, other: &Self) -> bool {
        self.http.origin == other.http.origin
    }

    /// Puts a manifest under a tag or its own digest. `false` if the registry misses a blob that it names.
    pub fn put(&self, reference: &str, stored: &Stored) -> anyhow::Result<bool> {
        if !is_fixed(reference) {
            return self.put_free(reference, stored);
        }
        let start = Instant::now();
        let held = self.manifest(reference)?.map(|held| held.digest);
        may_name(reference, held.as_ref(), &stored.digest)?;
        if held.is_some() {
            return Ok(true);
        }
        if self.send_manifest(reference, stored)?.is_none() {
            return Ok(false);
        }
        // Another push that looked before this one wrote needs about as long to write.
        std::thread::sleep(start.elapsed().min(SETTLE));
        self.was_not_overtaken(reference, &stored.digest).map(|()| true)
    }

    /// The same where a look at the tag was taken just before.
    pub fn put_free(&self, reference: &str, stored: &Stored) -> anyhow::Result<bool> {
        match self.send_manifest(reference, stored)? {
            Some(_) => self.was_not_overtaken(reference, &stored.digest).map(|()| true),
            None => Ok(false),
        }
    }

    /// A manifest with a `subject`, under its digest; gives whether the registry lists it as a referrer by itself, and
    /// `None` if it misses a blob that the manifest names.
    pub fn put_referrer(&self, stored: &Stored) -> anyhow::Result<Option<bool>> {
        let answer = self.send_manifest(stored.digest.as_str(), stored)?;
        Ok(answer.map(|answer| answer.headers().contains_key(SUBJECT)))
    }

    /// The answer to a manifest that the registry took; `None` if it misses a blob that the manifest names.
    fn send_manifest(&self, reference: &str, stored: &Stored) -> anyhow::Result<Option<Response<Body>>> {
        let url = self.url(&format!("manifests/{reference}"));
        let mut request = self.request(Method::PUT, url, Access::Push, Content::Bytes(&stored.bytes));
        request.headers.push((header::CONTENT_TYPE, stored.media_type.clone()));
        let tried = Cell::new(false);
        let response = self.http.patience.retry(|| {
            // Another push may have named it in the pause, or this one before its answer was lost.
            if tried.replace(true) {
                self.was_not_overtaken(reference, &stored.digest)?;
            }
            self.http.send(&request, &[201, 400, 404])
        })?;
        if response.status() == 201 {
            self.same_digest(&response, &stored.digest)?;
            return Ok(Some(response));
        }
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.into_body().with_config().limit(DOCUMENT_LIMIT).read_to_vec().unwrap_or_default();
        // ghcr.io says it in words.
        if said(&body).is_some_and(|said| said.contains("BLOB_UNKNOWN") || said.contains("unknown blob")) {
            return Ok(None);
        }
        let mut again = Response::new(Body::builder().data(body));
        (*again.status_mut(), *again.headers_mut()) = (status, headers);
        Err(self.http.refusal(&Method::PUT, &request.url, again))
    }

    /// A registry has no compare-and-swap: two pushes may both have seen that a fixed tag is free. Whoever wrote first can
    /// only look again.
    fn was_not_overtaken(&self, reference: &str, digest: &Digest) -> anyhow::Result<()> {
        if !is_fixed(reference) {
            return Ok(());
        }
        match self.manifest(reference)? {
            Some(held) if held.digest != *digest => {
                let message = format!(
                    "{}: {reference} was given to {} meanwhile, not to {digest}",
                    self.location, held.digest
                );
                Err(Fault::race(message)
                    .help("two pushes of different images ran at once: which is right?")
                    .into())
            }
            _ => Ok(()),
        }
    }

    /// The registry's own list of referrers; `None` where it keeps none: a 404, or an answer that is no index.
    pub fn referrers(&self, subject: &Digest) -> anyhow::Result<Option<Vec<Descriptor>>> {
        let (mut found, mut url) = (Vec::new(), self.url(&format!("referrers/{subject}")));
        for _ in 0..PAGES {
            let page = self.http.patience.retry(|| {
                let mut response = self.get(&url, &[200, 404])?;
                let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
                let kind = header(header::CONTENT_TYPE).and_then(|kind| kind.split(';').next());
                if response.status() == 404 || kind != Some(INDEX) {
                    return Ok(None);
                }
                let next = header(header::LINK).and_then(next_page);
                let next = next.map(|next| self.resolve_url(next)).transpose()?;
                Ok(Some((self.json::<Index>(response.body_mut())?, next)))
            })?;
            let Some((page, next)) = page else { return Ok(None) };
            found.extend(page.manifests);
            match next {
                Some(next) => url = next,
                None => return Ok(Some(found)),
            }
        }
        Err(Fault::refused(format!("{}: the list of referrers has no end", self.location)).into())
    }

    /// The registry must have understood the same bytes.
    fn same_digest(&self, response: &Response<Body>, digest: &Digest) -> anyhow::Result<()> {
        match response.headers().get(CONTENT_DIGEST).map(|value| value.to_str().unwrap_or_default()) {
            Some(other) if other != digest.as_str() => {
                let message = format!("{}: sent {digest}, and the registry has {other}", self.location);
                Err(Fault::refused(message).help("push it again").into())
            }
            _ => Ok(()),
        }
    }

    /// A 404 counts as "there is none" only from a registry: a proxy's page or a wrong host is an error.
    fn plainly_absent(&self, response: &mut Response<Body>) -> anyhow::Result<()> {
        let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if kind.is_some_and(|kind| kind.starts_with("text/html")) {
            return Err(self.odd("a web page").into());
        }
        let bytes = response.body_mut().with_config().limit(DOCUMENT_LIMIT).read_to_vec();
        let bytes = bytes.map_err(|error| self.broken_off(&error))?;
        if bytes.is_empty() || serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok() {
            return Ok(());
        }
        // What stands before a registry that is starting says so, and not that there is no such tag.
        let message = format!("{}: a 404 that is not a registry's", self.location);
        Err(Fault::remote(message).help("is it starting, or is the address wrong?").into())
    }

    fn get(&self, url: &str, accepted: &[u16]) -> anyhow::Result<Response<Body>> {
        let mut request = self.request(Method::GET, url.to_owned(), Access::Pull, Content::None);
        request.headers.push((header::ACCEPT, format!("{}, application/json, */*", MANIFESTS.join(", "))));
        self.http.send(&request, accepted)
    }

    fn request<'a>(&self, method: Method, url: String, access: Access, content: Content<'a>) -> Request<'a> {
        Request { method, url, access, headers: Vec::new(), content }
    }

    fn json<T: serde::de::DeserializeOwned>(&self, body: &mut Body) -> anyhow::Result<T> {
        let bytes = body.with_config().limit(DOCUMENT_LIMIT).read_to_vec();
        let bytes = bytes.map_err(|error| self.broken_off(&error))?;
        serde_json::from_slice(&bytes).map_err(|_| self.odd("something that is not JSON").into())
    }

    fn broken_off(&self, error: &dyn std::fmt::Display) -> Fault {
        Fault::remote(format!("{}: the answer broke off: {error}", self.location))
    }

    fn odd(&self, what: &str) -> Fault {
        Fault::refused(format!("{} answered with {what}", self.location))
            .help("is this a container registry?")
    }

    fn url(&self, rest: &str) -> String {
        format!("{}/v2/{}/{rest}", self.http.origin, self.name)
    }

    /// A `Location` or `Link`, which may be relative to the host.
    fn resolve_url(&self, target: &str) -> Result<String, Fault> {
        if target.starts_with('/') {
            return Ok(format!("{}{target}", self.http.origin));
        }
        let absolute = target.starts_with("https://")
            || (target.starts_with("http://") && self.http.origin.starts_with("http://"));
        if absolute { Ok(target.to_owned()) } else { Err(self.odd("a Location that cannot be followed")) }
    }
}

impl std::fmt::Display for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.location)
    }
}

fn malformed(location: &str) -> Fault {
    // Somebody may have put a password before the host.
    let shown = location.rsplit('@').next().unwrap_or(location);
    Fault::usage(format!("not a registry: {shown}"))
        .help("write oci:FOLDER or HOST[:PORT]/NAME, for example ghcr.io/OWNER/NAME, without a tag")
}

/// The form that the distribution spec gives a repository's name.
fn is_name(name: &str) -> bool {
    name.split('/').all(|part| {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let inside = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        edge(part.chars().next()) && edge(part.chars().last()) && part.bytes().all(inside)
    })
}

fn next_page(link: &str) -> Option<&str> {
    link.split(", <").find_map(|one| {
        let (url, parameters) = one.trim_start_matches('<').split_once('>')?;
        parameters.contains(r#"rel="next""#).then_some(url)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_a_host_and_a_name() {
        let open = |location: &str| Remote::open(location, &Options::default());
        let origin = |location: &str| open(location).unwrap().http.origin;
        assert_eq!(origin("ghcr.io/blogle/dojo"), "https://ghcr.io");
        assert_eq!(origin("127.0.0.1:5000/dojo"), "http://127.0.0.1:5000");
        assert_eq!(origin("[::1]:5000/dojo"), "http://[::1]:5000");
        assert_eq!(origin("localhost:5000/dojo"), "http://localhost:5000");
        assert_eq!(origin("http://registry.lan:5000/dojo"), "http://registry.lan:5000");
        assert_eq!(origin("registry.lan:5000/dojo"), "https://registry.lan:5000");
        let insecure = Options { insecure: true, ..Options::default() };
        assert_eq!(Remote::open("registry.lan/dojo", &insecure).unwrap().http.origin, "http://registry.lan");
        for bad in [
            "dojo",
            "blogle/dojo",
            "ghcr.io/",
            "ghcr.io/Dojo",
            "ghcr.io/dojo:v1",
            "ghcr.io/a//b",
            "ftp://a.b/c",
            "127.0.0.1.evil/../x",
        ] {
            assert!(open(bad).is_err(), "{bad}");
        }
        let refusal = open("user:s3cret@ghcr.io/dojo").unwrap_err().to_string();
        assert!(!refusal.contains("s3cret"), "{refusal}");
    }

    #[test]
    fn the_next_page_is_a_link() {
        assert_eq!(
            next_page(r#"</v2/a/tags/list?last=b&n=1>; rel="next""#),
            Some("/v2/a/tags/list?last=b&n=1")
        );
        assert_eq!(next_page(r#"</v2/a>; rel="prev""#), None);
        assert_eq!(next_page(r#"</v2/a>; rel="prev", </v2/b>; rel="next""#), Some("/v2/b"));
    }
}
