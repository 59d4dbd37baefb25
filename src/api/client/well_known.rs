//! `/.well-known/matrix/…` ("Server Discovery"): where clients find the server, and users help.

use axum::extract::State;
use http::Method;
use serde_json::{Map, Value, json};

use crate::{
    app::App,
    http::{Json, MatrixError, Routes},
};

pub(super) fn routes() -> Routes {
    Routes::default()
        .mount(Method::GET, "/.well-known/matrix/client", client)
        .mount(Method::GET, "/.well-known/matrix/server", server)
        .mount(Method::GET, "/.well-known/matrix/support", support)
}

/// Without `federation.address` other servers find this one under its name. With federation off, they needn't.
async fn server(State(app): State<App>) -> Result<Json<Value>, MatrixError> {
    let federation = &app.config.federation;
    match federation.address.as_ref().filter(|_| federation.enabled) {
        Some(address) => Ok(Json(json!({ "m.server": address }))),
        None => Err(MatrixError::not_found("this server has no federation.address")),
    }
}

/// Without `public_base_url` the server doesn't know its own address; clients take the one they were given then. Element Web
/// leaves dehydrated devices only where this says that it may (MSC3814).
async fn client(State(app): State<App>) -> Result<Json<Value>, MatrixError> {
    match &app.config.public_base_url {
        Some(url) => Ok(Json(json!({ "m.homeserver": { "base_url": url }, "org.matrix.msc3814": true }))),
        None => Err(MatrixError::not_found("this server has no public_base_url")),
    }
}

async fn support(State(app): State<App>) -> Result<Json<Value>, MatrixError> {
    let support = &app.config.support;
    let contacts = support.contact.iter().map(|contact| {
        let mut json = Map::new();
        json.insert("role".to_owned(), json!(contact.role));
        if let Some(id) = &contact.matrix_id {
            json.insert("matrix_id".to_owned(), json!(id));
        }
        if let Some(address) = &contact.email_address {
            json.insert("email_address".to_owned(), json!(address));
        }
        Value::Object(json)
    });
    let contacts: Vec<Value> = contacts.collect();
    let mut answer = Map::new();
    if !contacts.is_empty() {
        answer.insert("contacts".to_owned(), Value::Array(contacts));
    }
    if let Some(page) = &support.page {
        answer.insert("support_page".to_owned(), json!(page));
    }
    // At least one of the two is required.
    if answer.is_empty() {
        return Err(MatrixError::not_found("this server names no contact"));
    }
    Ok(Json(Value::Object(answer)))
}
