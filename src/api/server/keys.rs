//! [Retrieving server keys](https://spec.matrix.org/v1.19/server-server-api/#retrieving-server-keys): this server's own, and
//! those of others, for which it vouches as a notary.

use std::collections::BTreeMap;

use axum::extract::State;
use http::{Method, StatusCode};
use ruma::{MilliSecondsSinceUnixEpoch, OwnedServerName, ServerName};
use serde::Deserialize;

use crate::{
    api::bare::{Bare, Get, Post},
    app::App,
    http::{Anonymous, Caller as _, MatrixError, Routes, Whole, json_response},
    limits::{Activity, Class, Place},
};

/// Servers that one request may ask for: each may have to be asked first.
const MOST_SERVERS: usize = 100;

pub(super) fn routes() -> Routes {
    Routes::default()
        .mount(Method::GET, "/_matrix/key/v2/server", own)
        .limited_alias(Class::Default, "/_matrix/key/v2/query/{serverName}", of_server)
        .limited_alias(Class::Default, "/_matrix/key/v2/query", of_servers)
}

fn whole(body: String) -> Whole {
    Whole(json_response(StatusCode::OK, body))
}

async fn own(State(app): State<App>) -> axum::response::Response {
    json_response(StatusCode::OK, app.peers.document().to_string())
}

/// Others may have to be asked, who may take their time.
fn place(app: &App, caller: &Anonymous) -> Result<Option<Place>, MatrixError> {
    app.limits.enter(Activity::Notary, caller.limit_key()).map_err(MatrixError::limit_exceeded)
}

async fn of_server(app: App, caller: Anonymous, request: Bare<Get>) -> Result<Whole, MatrixError> {
    let _place = place(&app, &caller)?;
    let [server] = request.parameters()?;
    let server = ServerName::parse(server).map_err(|cause| MatrixError::invalid_param(cause.to_string()))?;
    let minimum = request.query("minimum_valid_until_ts").map(|time| time.parse::<u64>());
    let minimum = minimum
        .transpose()
        .map_err(|_| MatrixError::invalid_param("`minimum_valid_until_ts` is a time in milliseconds"))?;
    let minimum = minimum.map(|time| MilliSecondsSinceUnixEpoch(ruma::UInt::new_saturating(time)));
    Ok(whole(app.peers.vouch([(server, Vec::new(), minimum)]).await))
}

#[derive(Deserialize)]
struct Query {
    server_keys: BTreeMap<OwnedServerName, BTreeMap<String, Criteria>>,
}

#[derive(Deserialize)]
struct Criteria {
    minimum_valid_until_ts: Option<MilliSecondsSinceUnixEpoch>,
}

async fn of_servers(app: App, caller: Anonymous, request: Bare<Post, Query>) -> Result<Whole, MatrixError> {
    let _place = place(&app, &caller)?;
    let asked = request.content.server_keys;
    if asked.len() > MOST_SERVERS {
        let text = format!("one request may ask for {MOST_SERVERS} servers at most");
        return Err(MatrixError::invalid_param(text));
    }
    let asked = asked.into_iter().map(|(server, keys)| {
        let minimum = keys.values().filter_map(|criteria| criteria.minimum_valid_until_ts).max();
        (server, keys.into_keys().collect(), minimum)
    });
    Ok(whole(app.peers.vouch(asked).await))
}
