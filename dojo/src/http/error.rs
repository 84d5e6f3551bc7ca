//! Every error is an RFC 9457 `application/problem+json`, whoever made it: a handler, an extractor, a layer or the
//! router. One layer turns the plain ones into problems, so that no place can forget to.

use axum::body::{Body, to_bytes};
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::{IntoResponse, Response as AxumResponse};

use crate::db::Error;
use crate::ledger::Refusal;

const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");

/// An error answer with a sentence for the person who reads it.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    detail: String,
}

impl Problem {
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into() }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let (status, detail) = match error {
            Error::Busy => {
                (StatusCode::SERVICE_UNAVAILABLE, "too many requests wait already: try again".into())
            }
            Error::Closed => (StatusCode::SERVICE_UNAVAILABLE, "the ledger is being closed".into()),
            Error::Refused(Refusal::NotFound(detail)) => (StatusCode::NOT_FOUND, detail),
            Error::Refused(Refusal::Conflict(detail)) => (StatusCode::CONFLICT, detail),
            Error::Refused(Refusal::Invalid(detail)) => (StatusCode::UNPROCESSABLE_ENTITY, detail),
            Error::Engine(error) => {
                tracing::error!(%error, "the engine failed");
                (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "the ledger could not do this; nothing was written".into(),
                )
            }
        };
        Self { status, detail }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> AxumResponse {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let body = serde_json::json!({
            "type": "about:blank", "title": title, "status": self.status.as_u16(), "detail": self.detail,
        });
        let mut response = (self.status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, PROBLEM);
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        // These may be answered before the request's body was read, and then the server ends the connection: said
        // aloud, so that no client sends its next request into it.
        let early =
            [StatusCode::UNAUTHORIZED, StatusCode::PAYLOAD_TOO_LARGE, StatusCode::SERVICE_UNAVAILABLE];
        if early.contains(&self.status) {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// The layer: an error that is no problem yet becomes one, with its text as the detail and its headers kept.
pub async fn into_problem(response: Response<Body>) -> AxumResponse {
    let status = response.status();
    let done = response.headers().get(header::CONTENT_TYPE) == Some(&PROBLEM);
    if done || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let text = to_bytes(body, 4096).await.unwrap_or_default();
    let detail = match String::from_utf8_lossy(&text).trim() {
        "" => fallback(status).to_owned(),
        text => text.to_owned(),
    };
    let mut problem = Problem::new(status, detail).into_response();
    for (name, value) in parts.headers {
        if let Some(name) = name
            && !matches!(name, header::CONTENT_TYPE | header::CONTENT_LENGTH)
        {
            problem.headers_mut().insert(name, value);
        }
    }
    problem
}

fn fallback(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_FOUND => "there is nothing at this path",
        StatusCode::METHOD_NOT_ALLOWED => "this path does not take this method: see the header Allow",
        StatusCode::REQUEST_TIMEOUT => "the request took too long",
        _ => "the request failed",
    }
}
