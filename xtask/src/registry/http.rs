//! HTTP as registries need it: authorisation on a challenge, redirects without credentials, retries, and errors that name
//! the URL and never a secret.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use serde::Deserialize;
use ureq::http::{Method, Response, StatusCode, Uri, header};
use ureq::{Agent, AsSendBody, Body, ResponseExt as _, SendBody};

use super::auth::{Access, Auth, Challenge, Credentials};
use crate::fault::{Fault, Kind};

const CONNECT: Duration = Duration::from_secs(10);
/// A registry checks the digest of a large blob before it answers.
const SILENCE: Duration = Duration::from_secs(120);
const WHOLE_CALL: Duration = Duration::from_secs(60 * 60);
/// The pauses between tries, and so how many there are.
const PAUSES: [Duration; 3] =
    [Duration::from_millis(300), Duration::from_millis(1000), Duration::from_millis(3000)];

#[derive(Debug)]
pub struct Http {
    agent: Agent,
    /// `https://HOST[:PORT]`: the only place that credentials are sent to, apart from the realm that it names.
    pub origin: String,
    host: String,
    name: String,
    pub auth: Auth,
}

pub struct Request<'a> {
    pub method: Method,
    pub url: String,
    pub access: Access,
    pub headers: Vec<(header::HeaderName, String)>,
    pub content: Content<'a>,
}

#[derive(Clone, Copy)]
pub enum Content<'a> {
    None,
    Bytes(&'a [u8]),
    /// The file from its start, reporting what was sent.
    File(&'a File, u64, &'a dyn Fn(u64)),
}

/// Tries again after a [`Kind::Remote`] fault, a few times.
pub fn retry<T>(attempt: impl Fn() -> anyhow::Result<T>) -> anyhow::Result<T> {
    for pause in PAUSES {
        match attempt() {
            Err(error) if is_remote(&error) => std::thread::sleep(pause),
            outcome => return outcome,
        }
    }
    attempt()
}

fn is_remote(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<Fault>()).any(|fault| fault.kind == Kind::Remote)
}

impl Http {
    pub fn new(scheme: &str, host: &str, name: &str, loopback: bool) -> Self {
        let mut config = Agent::config_builder()
            .https_only(scheme == "https")
            .http_status_as_error(false)
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_per_read(Some(SILENCE))
            .timeout_per_write(Some(SILENCE))
            .timeout_recv_response(Some(SILENCE))
            .timeout_global(Some(WHOLE_CALL))
            .max_redirects(0)
            .user_agent(concat!("dojo-xtask/", env!("CARGO_PKG_VERSION")));
        if loopback {
            config = config.proxy(None);
        }
        Self {
            agent: config.build().into(),
            origin: format!("{scheme}://{host}"),
            host: host.to_owned(),
            name: name.to_owned(),
            auth: Auth::new(host),
        }
    }

    /// Sends one request; any status but the accepted ones is an error. Not retried.
    pub fn send(&self, request: &Request<'_>, accepted: &[u16]) -> anyhow::Result<Response<Body>> {
        let mut authorization = self.auth.header(request.access);
        let mut response = self.once(request, authorization.as_deref())?;
        if response.status() == StatusCode::UNAUTHORIZED
            && let Some(challenge) = self.challenge(&response)
        {
            let fetch = |found: Option<&Credentials>| self.authorize(&challenge, request.access, found);
            let renewed = self.auth.renew(request.access, authorization.as_deref(), fetch)?;
            if renewed.is_some() {
                authorization = renewed;
                response = self.once(request, authorization.as_deref())?;
            }
        }
        if accepted.contains(&response.status().as_u16()) {
            return Ok(response);
        }
        Err(self.fault(&request.method, &request.url, response).into())
    }

    /// A challenge counts only from the registry itself, not from where it redirected to.
    fn challenge(&self, response: &Response<Body>) -> Option<Challenge> {
        if !same_origin(&self.origin, response.get_uri()) {
            return None;
        }
        let headers = response.headers().get_all(header::WWW_AUTHENTICATE);
        Challenge::parse(headers.iter().filter_map(|value| value.to_str().ok()))
    }

    fn once(&self, request: &Request<'_>, authorization: Option<&str>) -> anyhow::Result<Response<Body>> {
        let mut reader: Option<(Box<dyn Read + '_>, u64)> = match request.content {
            Content::None => None,
            Content::Bytes(bytes) => Some((Box::new(bytes), bytes.len() as u64)),
            Content::File(file, size, sent) => Some((Box::new(Upload { file, at: 0, sent }), size)),
        };
        let mut builder = ureq::http::Request::builder().method(&request.method).uri(&request.url);
        for (name, value) in &request.headers {
            builder = builder.header(name, value);
        }
        if let Some((_, length)) = reader {
            builder = builder.header(header::CONTENT_LENGTH, length);
        }
        // An upload may be sent on to another host, which is then not told who we are.
        if let Some(authorization) = authorization
            && request.url.parse().is_ok_and(|url| same_origin(&self.origin, &url))
        {
            builder = builder.header(header::AUTHORIZATION, authorization);
        }
        let outcome = match &mut reader {
            Some((reader, _)) => self.run(builder.body(SendBody::from_reader(reader))),
            None => self.run(builder.body(())),
        };
        Ok(outcome.map_err(|error| {
            let error = self.auth.scrub(&error.to_string());
            Fault::remote(format!("{} {}: {error}", request.method, plain(&request.url)))
        })?)
    }

    /// Redirects are for reading only; ureq drops `Authorization` on each.
    fn run(
        &self,
        request: Result<ureq::http::Request<impl AsSendBody>, ureq::http::Error>,
    ) -> Result<Response<Body>, ureq::Error> {
        let request = request?;
        let redirects =
            if request.method() == Method::GET || request.method() == Method::HEAD { 5 } else { 0 };
        self.agent.run(self.agent.configure_request(request).max_redirects(redirects).build())
    }

    /// The `Authorization` header that answers a challenge; `None` if there is nothing to answer it with.
    fn authorize(
        &self,
        challenge: &Challenge,
        access: Access,
        found: Option<&Credentials>,
    ) -> anyhow::Result<Option<String>> {
        let (realm, service) = match challenge {
            Challenge::Basic => return Ok(found.map(Credentials::basic)),
            Challenge::Bearer { realm, service } => (realm, service),
        };
        if self.origin.starts_with("https:") && !realm.starts_with("https:") {
            let fault = Fault::usage(format!("{} wants credentials sent to {}", self.host, plain(realm)));
            return Err(fault.help("that is not HTTPS; nothing was sent").into());
        }
        retry(|| self.token(realm, service.as_deref(), access, found)).map(Some)
    }

    fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        access: Access,
        found: Option<&Credentials>,
    ) -> anyhow::Result<String> {
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let mut request = self.agent.get(realm).query("scope", access.scope(&self.name));
        if let Some(service) = service {
            request = request.query("service", service);
        }
        if let Some(found) = found {
            request = request.header(header::AUTHORIZATION, found.basic());
        }
        let failed = |why: String| Fault::remote(format!("GET {}: {why}", plain(realm)));
        let mut response = request.call().map_err(|error| failed(error.to_string()))?;
        if response.status() != StatusCode::OK {
            return Err(self.fault(&Method::GET, realm, response).into());
        }
        let token: Token =
            response.body_mut().read_json().map_err(|_| failed("no token in the answer".into()))?;
        let token = token.token.or(token.access_token).filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| failed("no token in the answer".into()))?;
        Ok(format!("Bearer {token}"))
    }

    /// What a status means to the caller.
    fn fault(&self, method: &Method, url: &str, mut response: Response<Body>) -> Fault {
        let status = response.status();
        let said = said(response.body_mut())
            .map_or_else(String::new, |said| format!(": {}", self.auth.scrub(&said)));
        let message = format!("{method} {}: {status}{said}", plain(url));
        match status.as_u16() {
            401 | 403 => Fault::usage(message).help(self.auth.advice()),
            429 | 500.. => Fault::remote(message).help("run the same command again in a while"),
            _ => Fault::refused(message),
        }
    }
}

/// The errors in a registry's answer.
fn said(body: &mut Body) -> Option<String> {
    #[derive(Deserialize)]
    struct Answer {
        errors: Vec<Reason>,
    }
    #[derive(Deserialize)]
    struct Reason {
        code: String,
        #[serde(default)]
        message: String,
    }
    let answer: Answer = body.with_config().limit(64 << 10).read_json().ok()?;
    let reasons: Vec<_> = answer.errors.iter().map(|e| format!("{}: {}", e.code, e.message)).collect();
    Some(reasons.join("; "))
}

/// A URL without its query, which may be signed.
fn plain(url: &str) -> &str {
    url.split('?').next().unwrap_or(url)
}

fn same_origin(origin: &str, url: &Uri) -> bool {
    let Ok(origin) = origin.parse::<Uri>() else { return false };
    origin.scheme() == url.scheme() && origin.host() == url.host() && origin.port_u16() == url.port_u16()
}

/// A file from its start, without moving its cursor: an upload can be tried again.
struct Upload<'a> {
    file: &'a File,
    at: u64,
    sent: &'a dyn Fn(u64),
}

impl Read for Upload<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read_at(buffer, self.at)?;
        self.at += length as u64;
        (self.sent)(length as u64);
        Ok(length)
    }
}
