//! Matrix errors as HTTP answers ("Standard error response" of the Client-Server API).

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

use crate::seldom::Seldom;

/// An answer other than 2xx: a status, an `errcode` and a sentence that helps whoever wrote the client.
#[derive(Clone, Debug)]
pub struct MatrixError {
    status: StatusCode,
    body: Map<String, Value>,
    retry_after: Option<Duration>,
}

impl MatrixError {
    pub fn new(status: StatusCode, errcode: &str, error: impl Into<String>) -> Self {
        let mut body = Map::new();
        body.insert("errcode".to_owned(), json!(errcode));
        body.insert("error".to_owned(), json!(error.into()));
        Self { status, body, retry_after: None }
    }

    /// An answer whose body is more than an errcode, such as the flows of interactive authentication.
    pub fn with_body(status: StatusCode, body: Map<String, Value>) -> Self {
        Self { status, body, retry_after: None }
    }

    /// Adds a key to the body.
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.body.insert(key.to_owned(), value.into());
        self
    }

    /// What the client would read.
    pub fn into_body(self) -> Value {
        Value::Object(self.body)
    }

    pub fn forbidden(error: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "M_FORBIDDEN", error)
    }

    /// LK-02
    pub fn suspended() -> Self {
        let text = "your account is suspended, and can't do this";
        Self::new(StatusCode::FORBIDDEN, "M_USER_SUSPENDED", text)
    }

    /// GU-01
    pub fn guest() -> Self {
        let text = "guests can't do this";
        Self::new(StatusCode::FORBIDDEN, "M_GUEST_ACCESS_FORBIDDEN", text)
    }

    pub fn not_found(error: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "M_NOT_FOUND", error)
    }

    pub fn not_json(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_NOT_JSON", error)
    }

    pub fn bad_json(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_BAD_JSON", error)
    }

    pub fn missing_param(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_MISSING_PARAM", error)
    }

    pub fn invalid_param(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_INVALID_PARAM", error)
    }

    pub fn too_large(error: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE", error)
    }

    pub fn missing_token() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "M_MISSING_TOKEN", "this request needs an access token")
    }

    pub fn unknown_token(soft_logout: bool) -> Self {
        let error = "this access token is not known, or no longer";
        Self::new(StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN", error).with("soft_logout", soft_logout)
    }

    pub fn limit_exceeded(retry_after: Duration) -> Self {
        let mut answer = Self::new(StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED", "too many requests")
            .with("retry_after_ms", retry_after.as_millis() as u64);
        answer.retry_after = Some(retry_after);
        answer
    }

    /// Something failed here. The cause goes to the log, with the id of the request; the client can do nothing with it.
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(%cause, "a request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN", "the server failed; try again later")
    }

    /// As [`MatrixError::internal`], for what fails every request until the operator has mended it.
    pub fn unavailable(cause: &dyn std::fmt::Display) -> Self {
        static SAID: Seldom = Seldom::new();
        if let Some(before) = SAID.happens() {
            tracing::error!(%cause, before, "requests fail");
        }
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "M_UNKNOWN",
            "the server can't do this now; try again later",
        )
    }
}

impl IntoResponse for MatrixError {
    fn into_response(self) -> Response {
        let mut response = (self.status, super::Json(Value::Object(self.body))).into_response();
        if let Some(wait) = self.retry_after {
            // Whole seconds, rounded up, so that whoever waits that long is let in.
            let seconds = wait.as_millis().div_ceil(1000) as u64;
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
