//! What is not Matrix: a page for people who open the server's address in a browser, and a sign of life for machines.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{Method, header};

use crate::{app::App, http::Routes};

pub(super) fn routes() -> Routes {
    Routes::default().mount(Method::GET, "/", landing)
}

/// The server answers, so it is well: what it can't do without ends the process when it fails.
pub(super) async fn health() -> &'static str {
    "OK\n"
}

async fn landing(State(app): State<App>) -> Response {
    // A server name has no character that means anything in HTML.
    let page =
        PAGE.replace("{name}", app.server_name.as_str()).replace("{version}", env!("CARGO_PKG_VERSION"));
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"),
    ];
    (headers, page).into_response()
}

const PAGE: &str = "\
<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width\">
<title>{name}</title>
<style>
  body { font: 1.1rem/1.5 system-ui, sans-serif; max-width: 34rem; margin: 12vh auto; padding: 0 1rem; color-scheme: light dark }
  code { font-size: 0.95em }
</style>
<h1>{name}</h1>
<p>This is a <a href=\"https://matrix.org\">Matrix</a> homeserver, and it works.</p>
<p>To chat here, open a <a href=\"https://matrix.org/ecosystem/clients/\">Matrix client</a> and give
<code>{name}</code> (or the address of this page) as its homeserver.</p>
<p><small>Hearth {version}</small></p>
</html>
";
