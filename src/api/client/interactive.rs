//! Requests that need further authentication, and the fallback pages on which clients without a form of their own go
//! through a stage ("User-Interactive Authentication API").

use axum::{
    body::Body,
    extract::{Path, Request, State},
    response::Response,
};
use http::{HeaderValue, Method, StatusCode, header};
use ruma::api::{IncomingRequest, Metadata, error::DeserializationError};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::{
    account::Stage,
    app::App,
    http::{MatrixError, Routes, read},
};

/// A request together with the `auth` of its body, and with what tells it from other requests of its kind.
///
/// `R` itself is parsed without `auth`: what it holds is for the authentication alone to judge.
pub struct Interactive<R> {
    pub request: R,
    pub auth: Option<Value>,
    /// Of the path and the body, `auth` left out.
    pub digest: [u8; 32],
}

impl<R: Metadata> Metadata for Interactive<R> {
    const METHOD: Method = R::METHOD;
    const RATE_LIMITED: bool = R::RATE_LIMITED;
    type Authentication = R::Authentication;
    type PathBuilder = R::PathBuilder;
    const PATH_BUILDER: R::PathBuilder = R::PATH_BUILDER;
}

impl<R: IncomingRequest> IncomingRequest for Interactive<R> {
    type EndpointError = R::EndpointError;
    type OutgoingResponse = R::OutgoingResponse;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path: &[&str],
    ) -> Result<Self, DeserializationError> {
        let (parts, body) = request.into_parts();
        let mut body: Map<String, Value> = serde_json::from_slice(body)?;
        let auth = body.remove("auth");
        // Keys are sorted, so that their order in the request makes no difference.
        let body = serde_json::to_vec(&body)?;
        let mut digest = Sha256::new();
        for part in path {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        digest.update(&body);
        let request =
            R::try_from_http_request_inner(http::Request::from_parts(parts, body.as_slice()), path)?;
        Ok(Self { request, auth, digest: digest.finalize().into() })
    }
}

pub fn routes() -> Routes {
    const PATHS: [&str; 2] = [
        "/_matrix/client/v3/auth/{auth_type}/fallback/web",
        "/_matrix/client/r0/auth/{auth_type}/fallback/web",
    ];
    PATHS.into_iter().fold(Routes::default(), |routes, path| {
        routes.mount(Method::GET, path, show).mount(Method::POST, path, submit)
    })
}

async fn show(Path(kind): Path<String>, request: Request) -> Result<Response, MatrixError> {
    let stage = stage(&kind)?;
    let query = request.uri().query().unwrap_or_default().as_bytes();
    let session = field(query, "session").ok_or_else(|| MatrixError::missing_param("session is missing"))?;
    Ok(page(&form(stage, &session, "")))
}

async fn submit(
    State(app): State<App>,
    Path(kind): Path<String>,
    request: Request,
) -> Result<Response, MatrixError> {
    let stage = stage(&kind)?;
    let (parts, body) = request.into_parts();
    let body = read(&parts, body).await?;
    let session = field(&body, "session").ok_or_else(|| MatrixError::missing_param("session is missing"))?;
    let token = field(&body, "token");
    let passed = app.accounts.complete_on_page(&session, stage, token.as_deref()).await?;
    Ok(page(&if passed {
        DONE.to_owned()
    } else {
        form(stage, &session, "That didn't work. Please try again.")
    }))
}

fn stage(kind: &str) -> Result<Stage, MatrixError> {
    let stage = Stage::named(kind).filter(|stage| *stage != Stage::Password);
    stage.ok_or_else(|| {
        MatrixError::new(StatusCode::NOT_FOUND, "M_UNRECOGNIZED", "there is no page for this stage")
    })
}

/// A field of a query or of a submitted form (`application/x-www-form-urlencoded`).
fn field(form: &[u8], name: &str) -> Option<String> {
    form_urlencoded::parse(form).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

const DONE: &str = "<p>Thank you. You may close this window.</p>\
    <script>if (window.onAuthDone) { window.onAuthDone(); } \
    else if (window.opener && window.opener.postMessage) { window.opener.postMessage('authDone', '*'); }</script>";

fn form(stage: Stage, session: &str, notice: &str) -> String {
    let field = match stage {
        Stage::RegistrationToken => {
            "<p><label>Registration token <input name=\"token\" autocomplete=\"off\" required></label></p>"
        }
        Stage::Dummy | Stage::Password => "",
    };
    format!(
        "<form method=\"post\"><p>{notice}</p><input type=\"hidden\" name=\"session\" value=\"{}\">{field}\
         <p><button>Continue</button></p></form>",
        escape(session)
    )
}

fn escape(text: &str) -> String {
    text.chars().fold(String::new(), |mut escaped, character| {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            character => escaped.push(character),
        }
        escaped
    })
}

fn page(content: &str) -> Response {
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>Authentication</title></head><body>{content}</body></html>"
    );
    let mut response = Response::new(Body::from(html));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}
