//! One call of the REST API: who asks, how long it may take, and what an answer means to the caller.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use octocrab::Octocrab;
use octocrab::service::middleware::retry::RetryConfig;
use serde::Deserialize;
use serde::de::DeserializeOwned;
// The crate `http`, which octocrab has too.
use ureq::http::{HeaderMap, Method, Request, StatusCode, header};

use crate::fault::{Fault, Kind, exit_code};
use crate::pipeline::Api;

const CONNECT: Duration = Duration::from_secs(10);
/// How long the other side may be silent.
const SILENCE: Duration = Duration::from_secs(30);
/// The pauses between tries of reading.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];
/// Far more than any answer or asset of a release has.
const LIMIT: usize = 64 << 20;

/// Two clients, since octocrab knows one base path, and GitHub Enterprise has another one for uploads.
pub struct Http {
    runtime: tokio::runtime::Runtime,
    api: Octocrab,
    uploads: Octocrab,
    api_url: String,
    uploads_url: String,
    secret: Option<Secret>,
}

/// A token, and where it was found.
struct Secret {
    token: String,
    from: String,
}

/// One request.
pub struct Call<'a> {
    method: Method,
    path: String,
    upload: bool,
    accept: &'a str,
    content: Option<(&'a str, Vec<u8>)>,
    /// Also statuses that mean something to the caller beside success.
    expected: &'a [u16],
}

pub struct Answer {
    pub status: StatusCode,
    pub body: Vec<u8>,
    what: String,
}

impl<'a> Call<'a> {
    fn new(method: Method, path: &str) -> Self {
        let accept = "application/vnd.github+json";
        Self { method, path: path.to_owned(), upload: false, accept, content: None, expected: &[] }
    }

    pub fn get(path: &str) -> Self {
        Self::new(Method::GET, path)
    }

    pub fn post(path: &str) -> Self {
        Self::new(Method::POST, path)
    }

    pub fn put(path: &str) -> Self {
        Self::new(Method::PUT, path)
    }

    pub fn patch(path: &str) -> Self {
        Self::new(Method::PATCH, path)
    }

    pub fn delete(path: &str) -> Self {
        Self::new(Method::DELETE, path)
    }

    pub fn query(mut self, pairs: &[(&str, &str)]) -> Self {
        for (index, (name, value)) in pairs.iter().enumerate() {
            let mark = if index == 0 { '?' } else { '&' };
            self.path += &format!("{mark}{name}={}", escaped(value));
        }
        self
    }

    pub fn json(mut self, content: &serde_json::Value) -> Self {
        self.content = Some(("application/json", content.to_string().into_bytes()));
        self
    }

    /// Sends these bytes to where files go.
    pub fn upload(mut self, media_type: &'a str, bytes: Vec<u8>) -> Self {
        self.upload = true;
        self.content = Some((media_type, bytes));
        self
    }

    pub fn accept(mut self, media_type: &'a str) -> Self {
        self.accept = media_type;
        self
    }

    pub fn expect(mut self, statuses: &'a [u16]) -> Self {
        self.expected = statuses;
        self
    }
}

impl Answer {
    pub fn json<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Fault::remote(format!("{}: not the answer of GitHub: {error}", self.what))
                .help("does the address belong to GitHub's API? run the same command again")
                .into()
        })
    }
}

impl Http {
    pub fn open(api: &Api, host: &str) -> Result<Self, Fault> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.map_err(|error| Fault::usage(format!("no runtime for the network: {error}")))?;
        let secret = Secret::find(host)?;
        let client = |url: &str| {
            // Its service is started on the runtime.
            let _inside = runtime.enter();
            let problem = |error: octocrab::Error| Fault::usage(format!("{url}: {}", causes(&error)));
            let mut builder = Octocrab::builder()
                .base_uri(url)
                .and_then(|builder| builder.upload_uri(url))
                .map_err(problem)?
                .add_retry_config(RetryConfig::None)
                .set_connect_timeout(Some(CONNECT))
                .set_read_timeout(Some(SILENCE))
                .set_write_timeout(Some(SILENCE))
                .add_header(header::USER_AGENT, concat!("dojo-xtask/", env!("CARGO_PKG_VERSION")).to_owned());
            if let Some(secret) = &secret {
                builder = builder.personal_token(secret.token.clone());
            }
            builder
                .build()
                .map_err(|error| problem(error).help("are certificates installed (ca-certificates)?"))
        };
        let (api_url, uploads_url) = (api.api.clone(), api.uploads.clone());
        let (api, uploads) = (client(&api_url)?, client(&uploads_url)?);
        Ok(Self { runtime, api, uploads, api_url, uploads_url, secret })
    }

    /// For what changes nothing: tried again while GitHub may only be stumbling.
    pub fn read(&self, call: &Call<'_>) -> anyhow::Result<Answer> {
        for pause in PAUSES {
            match self.send(call) {
                // A limit is not waited for by asking again.
                Err(error)
                    if exit_code(&error) == Kind::Remote as u8
                        && !error.to_string().contains("rate limit") =>
                {
                    std::thread::sleep(pause);
                }
                done => return done,
            }
        }
        self.send(call)
    }

    /// Sends it once.
    pub fn send(&self, call: &Call<'_>) -> anyhow::Result<Answer> {
        let (client, url) =
            if call.upload { (&self.uploads, &self.uploads_url) } else { (&self.api, &self.api_url) };
        let shown = call.path.split('?').next().unwrap_or_default();
        let what = format!("{} {}{shown}", call.method, url.trim_end_matches('/'));
        let mut request = Request::builder()
            .method(&call.method)
            .uri(&call.path)
            .header(header::ACCEPT, call.accept)
            .header("X-GitHub-Api-Version", "2022-11-28");
        if let Some((media_type, _)) = &call.content {
            request = request.header(header::CONTENT_TYPE, *media_type);
        }
        let content = call.content.as_ref().map_or_else(Vec::new, |(_, bytes)| bytes.clone());
        let request = request.body(content).with_context(|| what.clone())?;
        let outcome = self.runtime.block_on(async {
            let whole = tokio::time::timeout(10 * SILENCE, async {
                let response = client.execute(request).await?;
                let (parts, body) = response.into_parts();
                let body = http_body_util::Limited::new(body, LIMIT);
                let body = http_body_util::BodyExt::collect(body).await?.to_bytes().to_vec();
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>((parts, body))
            });
            whole.await.unwrap_or_else(|_| Err("it took too long".into()))
        });
        let (parts, body) = outcome.map_err(|error| {
            let causes = self.scrubbed(&causes(error.as_ref()));
            Fault::remote(format!("{what}: {causes}")).help("run the same command again")
        })?;
        if parts.status.is_success() || call.expected.contains(&parts.status.as_u16()) {
            return Ok(Answer { status: parts.status, body, what });
        }
        Err(self.refusal(&what, parts.status, &parts.headers, &body).into())
    }

    /// What a status means to the caller.
    fn refusal(&self, what: &str, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Fault {
        let said = self.scrubbed(&said(body));
        let message = format!("{what}: {status}{said}");
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let limited = status == StatusCode::TOO_MANY_REQUESTS
            || header("x-ratelimit-remaining") == Some("0")
            || header("retry-after").is_some() && status == StatusCode::FORBIDDEN
            || is_limit(&said);
        match status.as_u16() {
            403 | 429 if limited => Fault::remote(message).help(match pause(headers) {
                Some(seconds) => format!("run the same command again in {seconds} s"),
                None if self.secret.is_none() => {
                    "set GITHUB_TOKEN: a login may ask far more often".to_owned()
                }
                None => "run the same command again in a while".to_owned(),
            }),
            401 | 403 => Fault::usage(message).help(self.advice()),
            // To whom may not see a private repository, it does not exist.
            404 => Fault::usage(message).help(format!("is the repository right? {}", self.advice())),
            408 | 500.. => Fault::remote(message).help("run the same command again"),
            _ => Fault::refused(message),
        }
    }

    /// GitHub's own words for a refusal that the caller expected, with its status.
    pub fn words(&self, answer: &Answer) -> String {
        format!("{}{}", answer.status, self.scrubbed(&said(&answer.body)))
    }

    pub fn login(&self) -> String {
        self.secret
            .as_ref()
            .map_or("without a token".to_owned(), |secret| format!("token of {}", secret.from))
    }

    fn advice(&self) -> String {
        match &self.secret {
            Some(secret) => format!("the token of {} was used: may it do that?", secret.from),
            None => "no token was found: set GITHUB_TOKEN, or run gh auth login".to_owned(),
        }
    }

    fn scrubbed(&self, text: &str) -> String {
        match &self.secret {
            Some(secret) => text.replace(&secret.token, "***"),
            None => text.to_owned(),
        }
    }
}

impl Secret {
    /// The token of GITHUB_TOKEN, GH_TOKEN, or that `gh` keeps for this host.
    fn find(host: &str) -> Result<Option<Self>, Fault> {
        for name in ["GITHUB_TOKEN", "GH_TOKEN"] {
            let token = std::env::var(name).unwrap_or_default().trim().to_owned();
            if !token.is_empty() {
                return Self::new(token, name).map(Some);
            }
        }
        let gh = Command::new("gh")
            .args(["auth", "token", "--hostname", host])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output();
        let kept = gh
            .ok()
            .filter(|gh| gh.status.success())
            .map(|gh| String::from_utf8_lossy(&gh.stdout).into_owned());
        let kept = kept.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        kept.map(|token| Self::new(token, "gh auth token")).transpose()
    }

    fn new(token: String, from: &str) -> Result<Self, Fault> {
        if token.bytes().all(|b| b.is_ascii_graphic()) {
            return Ok(Self { token, from: from.to_owned() });
        }
        Err(Fault::usage(format!("{from} holds no token: it has characters that no token has")))
    }
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let from = self.secret.as_ref().map(|secret| &secret.from);
        f.debug_struct("Http").field("api", &self.api_url).field("token", &from).finish_non_exhaustive()
    }
}

/// How many seconds GitHub wants to be left alone, by its `Retry-After`, or until its limit is over.
fn pause(headers: &HeaderMap) -> Option<i64> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<i64>().ok();
    let until_reset = || Some((number("x-ratelimit-reset")? - jiff::Timestamp::now().as_second()).max(1));
    number("retry-after").or_else(until_reset)
}

fn is_limit(message: &str) -> bool {
    message.to_lowercase().contains("rate limit") || message.contains(": 429 ")
}

/// An error with its causes, in one line; octocrab's own words are often only "Service Error".
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut said: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string().lines().next().unwrap_or_default().to_owned();
        let is_known = text.is_empty() || text == "Service Error";
        if !is_known && !said.iter().any(|earlier| earlier.contains(&text)) {
            said.push(text);
        }
        next = error.source();
    }
    said.join(": ")
}

/// GitHub's message with the details of each error, ready to be put behind a status.
fn said(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Message {
        message: String,
        #[serde(default)]
        errors: Vec<serde_json::Value>,
    }
    let Ok(Message { message, errors }) = serde_json::from_slice(body) else { return String::new() };
    let details = errors.iter().map(|error| {
        let text = |name: &str| error[name].as_str().unwrap_or_default();
        match error["message"].as_str().or(error.as_str()) {
            Some(message) => message.to_owned(),
            None => format!("{} {} {}", text("resource"), text("field"), text("code")).trim().to_owned(),
        }
    });
    let all: Vec<_> = std::iter::once(message).chain(details).collect();
    let line: String =
        all.join("; ").chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    format!(": {line}")
}

/// A value in a path or a query, percent-encoded (RFC 3986 section 2.3).
pub fn escaped(value: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    value.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_with_its_details() {
        let body = br#"{"message":"Validation Failed","errors":[{"resource":"Release","code":"already_exists","field":"tag_name"},{"message":"no\nsuch"}]}"#;
        assert_eq!(said(body), ": Validation Failed; Release tag_name already_exists; no such");
        assert_eq!(said(b"<html>"), "");
    }

    #[test]
    fn a_query_is_escaped() {
        let call = Call::get("/x").query(&[("head", "blogle:prepare/v0.1.0"), ("state", "all")]);
        assert_eq!(call.path, "/x?head=blogle%3Aprepare%2Fv0.1.0&state=all");
    }

    #[test]
    fn what_is_no_token_is_refused_without_being_shown() {
        let Err(fault) = Secret::new("ghp_abc\ndef".into(), "GH_TOKEN") else { panic!("it was taken") };
        assert!(fault.to_string().contains("GH_TOKEN") && !fault.to_string().contains("abc"));
    }
}
