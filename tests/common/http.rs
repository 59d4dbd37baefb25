//! A small HTTP client for JSON over one base address. It owns its pool of connections and never interprets an answer:
//! any status is an [`Answer`], which the test judges.

use super::PATIENCE;
use ::http::{HeaderMap, Method, Request, Uri, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;

/// A client of one server. Clones share their connections.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    base: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// The body as JSON; [`Value::Null`] if it isn't JSON (see `bytes`).
    pub(crate) json: Value,
    pub(crate) bytes: Bytes,
    /// `METHOD path`, for messages.
    asked: String,
}

/// The request had no answer: connection refused or cut, or nothing within [`PATIENCE`].
#[derive(Debug)]
pub(crate) struct Unanswered(pub(crate) String);

impl Http {
    /// `base` is `http://host:port`, without a slash at the end.
    pub(crate) fn new(base: impl Into<String>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self { base: base.into(), client: Client::builder(TokioExecutor::new()).build(connector) }
    }

    /// `http://host:port`.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    pub(crate) async fn get(&self, path: &str, token: Option<&str>) -> Answer {
        self.request(Method::GET, path, token, None).await
    }

    pub(crate) async fn put(&self, path: &str, token: Option<&str>, body: Value) -> Answer {
        self.request(Method::PUT, path, token, Some(body)).await
    }

    pub(crate) async fn post(&self, path: &str, token: Option<&str>, body: Value) -> Answer {
        self.request(Method::POST, path, token, Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str, token: Option<&str>, body: Option<Value>) -> Answer {
        self.request(Method::DELETE, path, token, body).await
    }

    pub(crate) async fn options(&self, path: &str) -> Answer {
        self.request(Method::OPTIONS, path, None, None).await
    }

    /// Any method with a JSON body or none.
    ///
    /// # Panics
    /// If there is no answer at all: [`Http::try_request`] returns that instead.
    pub(crate) async fn request(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> Answer {
        match self.try_request(method, path, token, body).await {
            Ok(answer) => answer,
            Err(Unanswered(why)) => panic!("{why}"),
        }
    }

    /// As [`Http::request`], for tests in which the server may be gone.
    pub(crate) async fn try_request(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> Result<Answer, Unanswered> {
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().expect("access tokens are plain ASCII");
            headers.insert(header::AUTHORIZATION, value);
        }
        let body = body.map_or_else(Bytes::new, |json| {
            headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
            json.to_string().into()
        });
        self.send(method, path, headers, body).await
    }

    /// The request exactly as given: any headers, any bytes for a body. For bad input.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: impl Into<Bytes>,
    ) -> Result<Answer, Unanswered> {
        let asked = format!("{method} {path}");
        let mut request = Request::new(Full::new(body.into()));
        *request.method_mut() = method;
        *request.uri_mut() = self.uri(path);
        *request.headers_mut() = headers;

        let exchange = async {
            let response =
                self.client.request(request).await.map_err(|error| format!("{asked}: {error:?}"))?;
            let (head, body) = response.into_parts();
            let bytes = body.collect().await.map_err(|error| format!("{asked}: {error:?}"))?.to_bytes();
            let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            Ok(Answer {
                status: head.status.as_u16(),
                headers: head.headers,
                json,
                bytes,
                asked: asked.clone(),
            })
        };
        match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(result) => result.map_err(Unanswered),
            Err(_) => Err(Unanswered(format!("{asked}: no answer within {PATIENCE:?}"))),
        }
    }

    /// The complete address of a path, which may be one of the short ones (see the head of the harness).
    fn uri(&self, path: &str) -> Uri {
        let short = ["/v1/", "/v3/", "/r0/", "/unstable/"].iter().any(|version| path.starts_with(version));
        let below = if short { "/_matrix/client" } else { "" };
        // A room or event id in a path is only a problem if it holds one of these, and then it must be encoded.
        let path = path.replace('#', "%23").replace(' ', "%20");
        format!("{}{below}{path}", self.base)
            .parse()
            .unwrap_or_else(|error| panic!("{path} is no path: {error}"))
    }
}

impl Answer {
    /// The JSON body of an answer whose status must be `status`.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{} answered {}", self.asked, self.text());
        self.json
    }

    /// That the answer is the Matrix error `errcode` with `status`, and has an `error` for people.
    #[track_caller]
    pub(crate) fn expect_error(self, status: u16, errcode: &str) -> Value {
        let json = self.expect(status);
        assert_eq!(json["errcode"], errcode, "{json}");
        assert!(
            json["error"].as_str().is_some_and(|text| !text.is_empty()),
            "an error says what to do: {json}"
        );
        json
    }

    /// A header as text; `None` if it's absent or not text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}
