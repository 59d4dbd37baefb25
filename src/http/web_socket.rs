//! The opening handshake of a WebSocket (RFC 6455, 4.2).

use std::collections::BTreeSet;

use axum::{
    body::Body,
    extract::{FromRequestParts as _, Request},
    response::Response,
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use yawc::{IncomingUpgrade, Options};

use super::MatrixError;
use crate::live::stream::Socket;

/// What a client may say of the window that it compresses with (RFC 7692, 7.1.2.2).
const WINDOW_BITS: [&str; 8] = ["8", "9", "10", "11", "12", "13", "14", "15"];

/// Agrees to a WebSocket with this subprotocol. The socket is there once the answer has been sent; `None` if the client is
/// gone by then.
pub async fn open_socket(
    request: Request,
    subprotocol: &'static str,
    options: Options,
) -> Result<(Response, impl Future<Output = Option<Socket>> + Send + 'static), MatrixError> {
    let (mut parts, _) = request.into_parts();
    match compression(&parts.headers) {
        Some(offer) => drop(parts.headers.insert(header::SEC_WEBSOCKET_EXTENSIONS, offer)),
        None => drop(parts.headers.remove(header::SEC_WEBSOCKET_EXTENSIONS)),
    }
    let upgraded = parts.extensions.get::<OnUpgrade>().cloned();
    let (Some(upgraded), Ok(upgrade)) =
        (upgraded, IncomingUpgrade::from_request_parts(&mut parts, &()).await)
    else {
        let text = "this is for WebSockets (version 13, over HTTP/1.1)";
        return Err(MatrixError::new(StatusCode::UPGRADE_REQUIRED, "M_UNKNOWN", text));
    };
    if !offers(&parts.headers, subprotocol) {
        let text = format!("offer the subprotocol {subprotocol} in Sec-WebSocket-Protocol");
        return Err(MatrixError::invalid_param(text));
    }
    let (answer, _) = upgrade.upgrade(options.clone()).map_err(|cause| MatrixError::internal(&cause))?;
    let mut answer = answer.map(Body::new);
    answer.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
    let extensions = answer.headers().get(header::SEC_WEBSOCKET_EXTENSIONS).cloned();
    let socket = async move {
        let connected = Box::new(TokioIo::new(upgraded.await.ok()?));
        let extensions = extensions.as_ref().and_then(|extensions| extensions.to_str().ok());
        Socket::open(connected, extensions, options).ok()
    };
    Ok((answer, socket))
}

fn offers(headers: &HeaderMap, subprotocol: &str) -> bool {
    let offers = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let mut offers = offers.filter_map(|offers| offers.to_str().ok()).flat_map(|offers| offers.split(','));
    offers.any(|offer| offer.trim() == subprotocol)
}

/// The first offer of compression that can be kept to the letter: any other has to be declined (RFC 7692, 7.1), and yawc
/// takes any. It compresses with a window of one size.
fn compression(headers: &HeaderMap) -> Option<HeaderValue> {
    let offers = headers.get_all(header::SEC_WEBSOCKET_EXTENSIONS).iter();
    let offers = offers.filter_map(|offers| offers.to_str().ok()).flat_map(|offers| offers.split(','));
    let offer = offers.map(str::trim).find(|offer| can_be_kept(offer))?;
    HeaderValue::from_str(&offer.split_whitespace().collect::<String>()).ok()
}

fn can_be_kept(offer: &str) -> bool {
    let mut params = offer.split(';').map(str::trim);
    let mut names = BTreeSet::new();
    params.next() == Some("permessage-deflate")
        && params.all(|param| {
            let (name, value) = match param.split_once('=') {
                Some((name, value)) => (name.trim_end(), Some(value.trim_start())),
                None => (param, None),
            };
            let known = match name {
                "server_no_context_takeover" | "client_no_context_takeover" => value.is_none(),
                "client_max_window_bits" => value.is_none_or(|bits| WINDOW_BITS.contains(&bits)),
                _ => false,
            };
            known && names.insert(name)
        })
}
