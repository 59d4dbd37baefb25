//! What the server answers: every endpoint, by the API that it belongs to. Handlers parse, call one function of a
//! service and shape its answer.

mod bare;
mod client;
#[cfg(test)]
mod endpoints;
mod error;
mod landing;
mod server;

pub use self::client::{explain_delayed, methods, sliding_request};

use std::collections::BTreeSet;

use axum::{Router, extract::State};
use http::Method;

use crate::{
    app::App,
    config::Api,
    http::{Recorder, Routes, unrecognized_method, unrecognized_path},
};

/// Everything that a listener with these APIs answers.
pub fn routes(apis: &BTreeSet<Api>, recorder: Option<&Recorder>) -> Routes {
    let mut routes = Routes::default().mount(Method::GET, "/health", landing::health);
    if apis.contains(&Api::Client) {
        routes = routes.merge(client::routes()).merge(landing::routes());
    }
    if apis.contains(&Api::Federation) {
        routes = routes.merge(server::routes());
    }
    if apis.contains(&Api::Metrics)
        && let Some(recorder) = recorder.cloned()
    {
        let answer = move |State(app): State<App>| {
            let text = recorder.render() + &app.outbound.metrics();
            async move { ([(http::header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text) }
        };
        routes = routes.mount(Method::GET, "/metrics", answer);
    }
    routes
}

/// The same as a router, which has a Matrix error for everything else.
pub fn router(app: App, apis: &BTreeSet<Api>, recorder: Option<&Recorder>) -> Router {
    let mut apis = apis.clone();
    if !app.config.federation.enabled {
        // As if there were no such thing.
        apis.remove(&Api::Federation);
    }
    routes(&apis, recorder)
        .into_router()
        .fallback(unrecognized_path)
        .method_not_allowed_fallback(unrecognized_method)
        .with_state(app)
}
