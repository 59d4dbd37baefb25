//! The stream: opening its socket, and what each of its methods does. A method is the request of the REST API that has the
//! same checks, errors and limits, made without a connection.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::Response,
};
use futures_util::future::BoxFuture;
use http::{Method, StatusCode, header};
use http_body_util::BodyExt as _;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use ruma::{OwnedEventId, OwnedRoomId};
use serde::Deserialize;
use serde_json::{
    json,
    value::{RawValue, to_raw_value},
};
use tower_service::Service as _;
use tracing::{Instrument as _, error_span};

use crate::{
    account::Session,
    app::App,
    http::{
        Attached, Caller as _, MatrixError, Routes, caught, open_socket, origin, token, unrecognized_path,
    },
    live::{
        self,
        stream::{Answered, Methods, SUBPROTOCOL},
    },
};

const PATH: &str = "/_matrix/client/unstable/hearth/v1/stream";

pub(super) fn routes() -> Routes {
    // Filled by the first socket: the requests need the services, which a list of routes doesn't have.
    let twins = Arc::new(OnceLock::<Arc<Twins>>::new());
    let open = move |State(app): State<App>, request: Request| {
        let twins = Arc::clone(twins.get_or_init(|| Arc::new(Twins::new(&app))));
        open(app, twins, request)
    };
    Routes::default().mount(Method::GET, PATH, open)
}

async fn open(app: App, twins: Arc<Twins>, request: Request) -> Result<Response, MatrixError> {
    let (parts, body) = request.into_parts();
    let origin = origin(&parts);
    let opener = match token(&parts) {
        // Tokens in addresses end up in logs.
        Some(_) if !parts.headers.contains_key(header::AUTHORIZATION) => {
            let text = "the access token belongs into the first frame, or the header Authorization";
            return Err(MatrixError::invalid_param(text));
        }
        Some(_) => Some(Session::identify(&app, &parts).await?),
        None => None,
    };
    let newcomer = app.streams.admit().ok_or_else(|| {
        let text = "too many sockets are being opened; try again in a moment";
        MatrixError::new(StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN", text)
    })?;
    let request = Request::from_parts(parts, body);
    let (answer, socket) = open_socket(request, SUBPROTOCOL, app.streams.options()).await?;
    app.streams.serve(newcomer, socket, opener, origin, twins);
    Ok(answer)
}

/// A method and the request that it is.
struct Twin {
    name: &'static str,
    method: Method,
    /// Below `/_matrix/client/v3/`. In braces: a parameter, `{id}` that of the frame, `{me}` the user's.
    path: &'static [&'static str],
    content: Content,
}

/// What the body of a request is made of.
enum Content {
    /// One parameter, whole.
    Param(&'static str),
    /// An object of those of these parameters that there are.
    Params(&'static [&'static str]),
}

const TWINS: [Twin; 8] = [
    Twin {
        name: "send",
        method: Method::PUT,
        path: &["rooms", "{room_id}", "send", "{type}", "{id}"],
        content: Content::Param("content"),
    },
    Twin {
        name: "state",
        method: Method::PUT,
        path: &["rooms", "{room_id}", "state", "{type}", "{state_key}"],
        content: Content::Param("content"),
    },
    Twin {
        name: "redact",
        method: Method::PUT,
        path: &["rooms", "{room_id}", "redact", "{event_id}", "{id}"],
        content: Content::Params(&["reason"]),
    },
    Twin {
        name: "typing",
        method: Method::PUT,
        path: &["rooms", "{room_id}", "typing", "{me}"],
        content: Content::Params(&["typing", "timeout"]),
    },
    Twin {
        name: "receipt",
        method: Method::POST,
        path: &["rooms", "{room_id}", "receipt", "{type}", "{event_id}"],
        content: Content::Params(&["thread_id"]),
    },
    Twin {
        name: "read_markers",
        method: Method::POST,
        path: &["rooms", "{room_id}", "read_markers"],
        content: Content::Params(&["m.fully_read", "m.read", "m.read.private"]),
    },
    Twin {
        name: "presence",
        method: Method::PUT,
        path: &["presence", "{me}", "status"],
        content: Content::Params(&["presence", "status_msg"]),
    },
    Twin {
        name: "to_device",
        method: Method::PUT,
        path: &["sendToDevice", "{type}", "{id}"],
        content: Content::Params(&["messages"]),
    },
];

type Params<'a> = BTreeMap<&'a str, &'a RawValue>;

impl Twin {
    fn request(&self, session: &Session, id: &str, params: &RawValue) -> Result<Request, MatrixError> {
        let params: Params<'_> = serde_json::from_str(params.get())
            .map_err(|cause| MatrixError::bad_json(format!("`params`: {cause}")))?;
        let mut path = "/_matrix/client/v3".to_owned();
        for segment in self.path {
            path.push('/');
            let Some(name) = segment.strip_prefix('{').and_then(|name| name.strip_suffix('}')) else {
                path.push_str(segment);
                continue;
            };
            let value = match name {
                "id" => id.to_owned(),
                "me" => session.user_id.to_string(),
                name => text(&params, name)?,
            };
            path.extend(utf8_percent_encode(&value, NON_ALPHANUMERIC));
        }
        let body = match self.content {
            Content::Param(name) => {
                let missing = || MatrixError::missing_param(format!("`{name}` is missing"));
                params.get(name).ok_or_else(missing)?.get().to_owned()
            }
            Content::Params(names) => {
                let content: Params<'_> =
                    params.into_iter().filter(|(name, _)| names.contains(name)).collect();
                serde_json::to_string(&content).map_err(|cause| MatrixError::internal(&cause))?
            }
        };
        // A slash at the end means nothing: that state has no key.
        let uri = path
            .trim_end_matches('/')
            .parse()
            .map_err(|_| MatrixError::invalid_param("a parameter is too long"))?;
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri;
        request.extensions_mut().insert(Attached(session.clone()));
        Ok(request)
    }
}

/// A parameter that belongs into the path.
fn text(params: &Params<'_>, name: &str) -> Result<String, MatrixError> {
    let Some(value) = params.get(name) else {
        // Most state has no key.
        return match name {
            "state_key" => Ok(String::new()),
            name => Err(MatrixError::missing_param(format!("`{name}` is missing"))),
        };
    };
    serde_json::from_str(value.get())
        .map_err(|_| MatrixError::bad_json(format!("`{name}` has to be a string")))
}

/// The methods, over the requests that they are.
struct Twins {
    app: App,
    router: Router,
}

/// The methods of sockets that no request opened.
pub fn methods(app: &App) -> Arc<dyn Methods> {
    Arc::new(Twins::new(app))
}

impl Twins {
    fn new(app: &App) -> Self {
        let routes = [
            super::send::routes(),
            super::typing::routes(),
            super::receipts::routes(),
            super::presence::routes(),
            super::to_device::routes(),
        ];
        let router = routes.into_iter().fold(Routes::default(), Routes::merge).into_router();
        let router = router.fallback(unrecognized_path);
        Self { app: Arc::clone(app), router: router.with_state(Arc::clone(app)) }
    }
}

impl Methods for Twins {
    fn names(&self) -> Vec<&'static str> {
        TWINS.iter().map(|twin| twin.name).collect()
    }

    fn call(
        &self,
        session: &Session,
        method: &str,
        id: &str,
        params: &RawValue,
    ) -> Option<BoxFuture<'static, Answered>> {
        let twin = TWINS.iter().find(|twin| twin.name == method)?;
        let request = twin.request(session, id, params);
        let room = (twin.name == "send").then(|| params.to_owned());
        let (app, mut router) = (Arc::clone(&self.app), self.router.clone());
        // What a request by HTTP has in the log, and whose it is: there is no other line to find it by.
        let span = error_span!("request", id, method, user_id = %session.user_id);
        let work = async move {
            let response = caught(router.call(request.map_err(json)?)).await;
            let answer = answer(response).await?;
            match room {
                Some(params) => with_seq(&app, &params, answer).await.map_err(json),
                None => Ok(answer),
            }
        };
        Some(Box::pin(work.instrument(span)))
    }

    fn explain(&self, cause: live::Error) -> Box<RawValue> {
        json(cause.into())
    }
}

async fn answer(response: Response) -> Answered {
    let status = response.status();
    let lost = |cause: &dyn std::fmt::Display| json(MatrixError::internal(cause));
    let body = response.into_body().collect().await.map_err(|cause| lost(&cause))?.to_bytes();
    let body: Box<RawValue> = serde_json::from_slice(&body).map_err(|cause| lost(&cause))?;
    if status.is_success() { Ok(body) } else { Err(body) }
}

/// Adds the place that an event has in its room's log.
async fn with_seq(app: &App, params: &RawValue, sent: Box<RawValue>) -> Result<Box<RawValue>, MatrixError> {
    #[derive(Deserialize)]
    struct Place {
        room_id: OwnedRoomId,
    }
    #[derive(Deserialize)]
    struct Sent {
        event_id: OwnedEventId,
    }
    let internal = |cause: serde_json::Error| MatrixError::internal(&cause);
    let place: Place = serde_json::from_str(params.get()).map_err(internal)?;
    let sent: Sent = serde_json::from_str(sent.get()).map_err(internal)?;
    let room = app.rooms.of_acquaintance(&place.room_id).await?;
    let seq = app.rooms.event(&room, &sent.event_id).await?.seq;
    to_raw_value(&json!({ "event_id": sent.event_id, "seq": seq })).map_err(internal)
}

fn json(error: MatrixError) -> Box<RawValue> {
    // Of strings and numbers alone: it can't fail.
    to_raw_value(&error.into_body()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;
    use crate::{
        api,
        app::Hearth,
        config::{Api, Config},
        environment::Environment,
        http::Peer,
    };

    #[tokio::test]
    async fn many_sockets_that_have_not_said_who_they_are_keep_more_out_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            r#"
            server_name = "example.org"
            data_dir = "{}"
            federation.enabled = false
            "#,
            folder.path().display()
        );
        let config = Config::parse(&config, "", std::iter::empty()).unwrap();
        let (app, _) = Hearth::start(config, Environment::real()).await.unwrap();
        let router = api::router(Arc::clone(&app), &[Api::Client].into(), None);
        let open = async || {
            let mut request = Request::get(PATH).body(Body::empty()).unwrap();
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
            request.extensions_mut().insert(Peer { address, secure: true });
            router.clone().call(request).await.unwrap().status()
        };
        let mut newcomers: Vec<_> = std::iter::from_fn(|| app.streams.admit()).take(10_000).collect();
        assert_eq!(newcomers.len(), 4096);
        for _ in 0..2 {
            assert_eq!(open().await, StatusCode::SERVICE_UNAVAILABLE);
        }
        newcomers.pop();
        // No socket, for there is no connection; but there was a place.
        for _ in 0..2 {
            assert_eq!(open().await, StatusCode::UPGRADE_REQUIRED);
        }
    }
}
