//! HTTP as registries need it: authorisation on a challenge, redirects without credentials, retries, and errors that name
//! the URL and never a secret.

use std::cell::Cell;
use std::io::{self, Read};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Deserialize;
use ureq::http::{Method, Response, StatusCode, Uri, header};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, AsSendBody, Body, ResponseExt as _, SendBody};

use super::auth::{Access, Auth, Challenge, Credentials, Login};
use super::compress::cause;
use super::retry::{Passing, Patience, is_rate_limit, pause, said, shown};
use crate::fault::Fault;

const CONNECT: Duration = Duration::from_secs(10);
/// A registry checks the digest of a large blob before it answers.
const SILENCE: Duration = Duration::from_secs(120);
const WHOLE_CALL: Duration = Duration::from_secs(60 * 60);
#[derive(Debug)]
pub struct Http {
    agent: Agent,
    /// `https://HOST[:PORT]`: the only place that credentials are sent to, apart from the realm that it names.
    pub origin: String,
    host: String,
    name: String,
    /// Another repository of the host, which blobs are mounted from.
    beside: OnceLock<String>,
    pub auth: Auth,
    pub patience: Patience,
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
    /// So many bytes from the start of what it opens, reporting what was sent.
    Stream(u64, &'a Open<'a>, &'a dyn Fn(u64)),
}

/// Opens what an upload sends; each try opens it anew.
pub type Open<'a> = dyn Fn() -> anyhow::Result<Box<dyn Read>> + 'a;

impl Http {
    pub fn new(scheme: &str, host: &str, name: &str, loopback: bool, login: Option<Login>) -> Self {
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
        if scheme == "https" {
            config = config.tls_config(TlsConfig::builder().root_certs(roots()).build());
        }
        Self {
            agent: config.build().into(),
            origin: format!("{scheme}://{host}"),
            host: host.to_owned(),
            name: name.to_owned(),
            beside: OnceLock::new(),
            auth: Auth::new(host, name, login),
            patience: Patience::default(),
        }
    }

    /// Lets tokens for pushing read this other repository, too.
    pub fn mount_from(&self, name: &str) {
        let _ = self.beside.set(name.to_owned());
    }

    /// Sends one request; any status but the accepted ones is an error. Not retried.
    pub fn send(&self, request: &Request<'_>, accepted: &[u16]) -> anyhow::Result<Response<Body>> {
        let mut authorization = self.auth.header(request.access);
        let mut response = self.once(request, authorization.as_deref())?;
        // The token that another thread got may have run out since; one that was got for this request has not.
        let fetched = Cell::new(false);
        while response.status() == StatusCode::UNAUTHORIZED
            && !fetched.get()
            && let Some(challenge) = self.challenge(&response)
        {
            let fetch = |found: Option<&Credentials>| {
                fetched.set(true);
                self.authorize(&challenge, request.access, found)
            };
            let renewed = self.auth.renew(request.access, authorization.as_deref(), fetch)?;
            if renewed.is_none() {
                break;
            }
            authorization = renewed;
            response = self.once(request, authorization.as_deref())?;
        }
        if accepted.contains(&response.status().as_u16()) {
            return Ok(response);
        }
        Err(self.refusal(&request.method, &request.url, response))
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
            Content::Stream(size, open, sent) => Some((Box::new(Upload { inner: open()?, sent }), size)),
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
        outcome.map_err(|error| match error {
            // What is sent was found damaged while it was read.
            ureq::Error::Io(error) if is_fault(&error) => cause(error),
            error => {
                let error = self.auth.scrub(&error.to_string());
                let message = format!("{} {}: {error}", request.method, plain(&request.url));
                // In rustls' words. It will be no other certificate next time.
                if error.contains("invalid peer certificate") {
                    let help = "nothing was sent; SSL_CERT_FILE may name the authorities to trust";
                    return Fault::usage(message).help(help).into();
                }
                Fault::remote(message)
                    .help("run the same command again; is the address right? plain HTTP needs --insecure")
                    .into()
            }
        })
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
            Challenge::Basic => return Ok(found.and_then(Credentials::basic)),
            Challenge::Bearer { realm, service } => (realm, service),
        };
        if self.origin.starts_with("https:") && !realm.starts_with("https:") {
            let fault = Fault::usage(format!("{} wants credentials sent to {}", self.host, plain(realm)));
            return Err(fault.help("that is not HTTPS; nothing was sent").into());
        }
        self.token(realm, service.as_deref(), access, found).map(Some)
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
        let mut scopes = vec![access.scope(&self.name)];
        if let (Access::Push, Some(beside)) = (access, self.beside.get()) {
            scopes.push(Access::Pull.scope(beside));
        }
        let failed = |why: String| Fault::remote(format!("{} {}: {why}", "GET", plain(realm)));
        let answer = match found.and_then(Credentials::identity_token) {
            // Docker's own extension of OAuth 2.0: one scope, several separated by spaces.
            Some(identity) => self.agent.post(realm).send_form([
                ("grant_type", "refresh_token"),
                ("client_id", "dojo-xtask"),
                ("service", service.unwrap_or(&self.host)),
                ("scope", &scopes.join(" ")),
                ("refresh_token", identity),
            ]),
            None => {
                let mut request = self.agent.get(realm).query_pairs(scopes.iter().map(|s| ("scope", s)));
                if let Some(service) = service {
                    request = request.query("service", service);
                }
                if let Some(basic) = found.and_then(Credentials::basic) {
                    request = request.header(header::AUTHORIZATION, basic);
                }
                request.call()
            }
        };
        let mut response = answer.map_err(|error| failed(error.to_string()))?;
        if response.status() != StatusCode::OK {
            return Err(self.refusal(&Method::GET, realm, response));
        }
        let token: Token =
            response.body_mut().read_json().map_err(|_| failed("no token in the answer".into()))?;
        let token = token.token.or(token.access_token).filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| failed("no token in the answer".into()))?;
        Ok(format!("Bearer {token}"))
    }

    /// What a status means to the caller.
    pub fn refusal(&self, method: &Method, url: &str, mut response: Response<Body>) -> anyhow::Error {
        let body = response.body_mut().with_config().limit(64 << 10).read_to_vec().unwrap_or_default();
        let said = said(&body).map(|said| shown(&self.auth.scrub(&said)));
        let status = response.status();
        let told = said.as_ref().map_or_else(String::new, |said| format!(": {said}"));
        let message = format!("{method} {}: {status}{told}", plain(url));
        let limited = status == StatusCode::FORBIDDEN && said.as_deref().is_some_and(is_rate_limit);
        match status.as_u16() {
            401 | 403 if !limited => Fault::usage(message).help(self.auth.advice()).into(),
            403 | 408 | 429 | 500.. => {
                let pause = pause(response.headers(), said.as_deref());
                let when = pause.map_or_else(
                    || "in a while".to_owned(),
                    |p| format!("in {} s", p.as_secs().saturating_add(1)),
                );
                let fault = Fault::remote(message).help(format!("run the same command again {when}"));
                Passing { fault, pause }.into()
            }
            _ => Fault::refused(message).into(),
        }
    }
}

/// The certificate authorities of this machine (or of `SSL_CERT_FILE`), else those that come with the program.
fn roots() -> RootCerts {
    let found = rustls_native_certs::load_native_certs().certs;
    if found.is_empty() {
        return RootCerts::WebPki;
    }
    let owned = found.iter().map(|certificate| Certificate::from_der(certificate).to_owned());
    RootCerts::Specific(Arc::new(owned.collect()))
}

/// A URL without its query, which may be signed.
fn plain(url: &str) -> &str {
    url.split('?').next().unwrap_or(url)
}

fn same_origin(origin: &str, url: &Uri) -> bool {
    let Ok(origin) = origin.parse::<Uri>() else { return false };
    let port = |url: &Uri| url.port_u16().unwrap_or(if url.scheme_str() == Some("https") { 443 } else { 80 });
    let host = |url: &Uri| url.host().map(str::to_lowercase);
    origin.scheme() == url.scheme() && host(&origin) == host(url) && port(&origin) == port(url)
}

fn is_fault(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.downcast_ref::<Fault>().is_some())
}

/// Counts what was sent.
struct Upload<'a> {
    inner: Box<dyn Read + 'a>,
    sent: &'a dyn Fn(u64),
}

impl Read for Upload<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        (self.sent)(length as u64);
        Ok(length)
    }
}
