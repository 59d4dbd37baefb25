//! Any server, step by step in the order in which a request goes: found, connected to, its keys, an answer.

use std::net::{IpAddr, SocketAddr};

use hearth_federation::{
    BlockedKeys, ClientError, ConnectError, Destination, DiscoveryError, KeyFetch as _, ServerKeys,
    ServerRequest, Step,
};
use http::StatusCode;
use ruma::ServerName;

use super::report::Report;
use crate::{app::App, cli::span};

/// Keys that are valid for less are about to be gone.
const SOON_MS: u64 = 60 * 60 * 1000;

/// Another server.
pub(super) async fn other(app: &App, server: &ServerName, report: &mut Report) {
    report.part("Configuration");
    enabled(app, report);
    if app.peers.client.allows(server) {
        report.good("`federation.allow` and `federation.deny` let this server speak to it");
    } else {
        let remedy = "change `federation.allow` or `federation.deny`, if that isn't meant to be";
        report.bad(format!("the lists of the configuration keep {server} out"), remedy);
        return;
    }
    remembered(app, server, report).await;
    let Some((_, destination)) = found(app, server, report).await else { return };
    if !connected(app, &destination, report).await {
        return;
    }
    let keys = keys(app, server, report).await;
    report.part("Requests");
    version(app, server, report).await;
    if keys.is_some() {
        signed(app, server, report).await;
    }
}

/// What came of sending to it until now.
async fn remembered(app: &App, server: &ServerName, report: &mut Report) {
    let Ok(rows) = app.store.destinations().await else { return };
    let Some(row) = rows.into_iter().find(|row| row.server == server.as_str() && row.failures > 0) else {
        return;
    };
    let error = row.error.unwrap_or_default();
    let wait = (row.retry_ts - app.environment.clock.now_ms()).max(0) as u64;
    let text = format!("attempts to send to it that failed: {} in a row, the last by: {error}", row.failures);
    report.note(format!("{text}; the next is in {}", span(wait)));
}

pub(super) fn enabled(app: &App, report: &mut Report) {
    if !app.config.federation.enabled {
        let remedy = "set `federation.enabled = true`, if it should speak to others";
        report.bad("federation is off: this server speaks to no other", remedy);
    }
    if !app.config.federation.verify_tls {
        let remedy =
            "take `federation.verify_tls` out; for authorities of your own there is `federation.ca_file`";
        report.bad("certificates of other servers aren't verified: anybody on the way can read and change everything", remedy);
    }
}

/// Where it is, and the name that its host delegates to.
pub(super) async fn found(
    app: &App,
    server: &ServerName,
    report: &mut Report,
) -> Option<(Option<String>, Destination)> {
    report.part("Finding it");
    let explanation = app.peers.client.discovery().explain(server).await;
    let mut delegate = None;
    for step in &explanation.steps {
        match step {
            Step::Addresses { forbidden_alias: true, .. } => {
                let remedy = "let the SRV record name the host that has the addresses, not an alias (CNAME) of it: \
                              some servers refuse these";
                report.bad(step.to_string(), remedy);
            }
            step if step.is_ok() => report.good(step.to_string()),
            // Each of these may be missing: the next one is tried.
            step => report.note(step.to_string()),
        }
        if let Step::WellKnown { outcome: Ok(name), .. } = step {
            delegate = Some(name.clone());
        }
    }
    match explanation.outcome {
        Ok(destination) => Some((delegate, destination)),
        Err(error) => {
            let remedy = match &error {
                DiscoveryError::Name(_) => {
                    "`m.server` of its `/.well-known/matrix/server` has to be a host, or host:port"
                }
                DiscoveryError::NotOffered(_) => {
                    "take the SRV record out, or let it name the host and port of the server"
                }
                DiscoveryError::NoAddress { .. } => {
                    "give the host an A or AAAA record, or serve `/.well-known/matrix/server` with the name of one \
                     that has; if other names can't be looked up either, look at this machine's resolver"
                }
            };
            report.bad(error.to_string(), remedy);
            None
        }
    }
}

/// Whether any of its addresses can be connected to.
pub(super) async fn connected(app: &App, destination: &Destination, report: &mut Report) -> bool {
    report.part("Connections");
    let outcomes = app.peers.client.connector().probe(destination).await;
    let any = outcomes.iter().any(|(_, outcome)| outcome.is_ok());
    let name = match &destination.tls_name {
        rustls_pki_types::ServerName::DnsName(name) => name.as_ref().to_owned(),
        rustls_pki_types::ServerName::IpAddress(address) => IpAddr::from(*address).to_string(),
        _ => destination.host.clone(),
    };
    for (address, outcome) in outcomes {
        match outcome {
            Ok(()) => report.good(format!("{address} has a good certificate for {name}")),
            Err(error) if any && is_a_lack_of_ours(address, &error) => {
                report.note(format!("{error}: this machine has no way there"));
            }
            Err(error) => {
                let remedy = remedy_for(&error, &name);
                let text = match &error {
                    ConnectError::TimedOut => format!("{address}: {error}"),
                    _ => error.to_string(),
                };
                report.bad(text, &remedy);
            }
        }
    }
    any
}

/// Machines without IPv6 are many, and no fault of the other side.
fn is_a_lack_of_ours(address: SocketAddr, error: &ConnectError) -> bool {
    matches!(error, ConnectError::Tcp { cause, .. } if address.is_ipv6() && cause.contains("unreachable"))
}

fn remedy_for(error: &ConnectError, name: &str) -> String {
    match error {
        ConnectError::Forbidden(_) => "if the server is in your own network, set \
                                       `federation.allow_private_networks = true`; otherwise its DNS records are wrong"
            .to_owned(),
        ConnectError::Tcp { cause, .. } if cause.contains("refused") => {
            "nothing listens there: start the server or the proxy before it, open the port, or name the right port in \
             `/.well-known/matrix/server`"
                .to_owned()
        }
        ConnectError::Tcp { .. } | ConnectError::TimedOut => {
            "a firewall drops it, or the address isn't the server's any more: look at its DNS records".to_owned()
        }
        ConnectError::Tls { cause, .. } => {
            let says = |word: &str| cause.contains(word);
            if says("not valid for name") {
                format!(
                    "the certificate has to be for {name}, which is the name that `/.well-known/matrix/server` gives, \
                     or without it the server's own"
                )
            } else if says("expired") {
                "renew the certificate; if it was renewed, whatever has the port still shows the old one".to_owned()
            } else if says("not valid yet") {
                "one of the two machines has a wrong clock".to_owned()
            } else if says("UnknownIssuer") || says("BadSignature") {
                "let it send the whole chain (fullchain.pem, not cert.pem), of an authority that everybody knows; for \
                 one of your own, set `federation.ca_file`"
                    .to_owned()
            } else if says("InvalidContentType") || says("corrupt message") {
                "what listens there doesn't speak TLS: put the certificate there, or name the port that has one"
                    .to_owned()
            } else {
                "look at what has that port, and at its certificate".to_owned()
            }
        }
    }
}

/// What it says its keys are.
pub(super) async fn keys(app: &App, server: &ServerName, report: &mut Report) -> Option<ServerKeys> {
    report.part("Keys");
    let document = match app.peers.client.ask_server(server).await {
        Ok(document) => document,
        Err(error) => {
            let remedy =
                "`/_matrix/key/v2/server` has to lead to the homeserver: look at the proxy before it";
            report.bad(format!("its keys can't be had: {error}"), remedy);
            return None;
        }
    };
    let now = app.environment.clock.now();
    match ServerKeys::read(&document, server, now, &BlockedKeys::default()) {
        Ok(keys) => {
            let current = keys.keys.iter().filter(|(_, key)| !key.is_old());
            let current: Vec<&str> = current.map(|(id, _)| id.as_str()).collect();
            let left = span(u64::from(keys.valid_until.get()).saturating_sub(now.get().into()));
            let text = format!("{}, signed by itself, good for {left}", current.join(", "));
            if u64::from(keys.valid_until.get()) < u64::from(now.get()) + SOON_MS {
                report.bad(
                    text,
                    "it should publish keys that are valid for longer, or one of the clocks is wrong",
                );
            } else {
                report.good(text);
            }
            let old = keys.keys.len() - current.len();
            if old > 0 {
                report.note(format!("{old} of before, for what they signed then"));
            }
            Some(keys)
        }
        Err(error) => {
            let remedy = "what answers there isn't this server, or its clock or this one's is wrong";
            report.bad(format!("its keys aren't to be believed: {error}"), remedy);
            None
        }
    }
}

/// Who answers.
pub(super) async fn version(app: &App, server: &ServerName, report: &mut Report) {
    let request = ServerRequest::get("/_matrix/federation/v1/version").unsigned().limit(64 * 1024);
    match app.peers.client.send(server, request).await {
        Ok(response) => {
            let answer: serde_json::Value = serde_json::from_slice(&response.body).unwrap_or_default();
            let word = |key: &str| {
                let word = answer["server"][key].as_str().unwrap_or_default();
                word.chars().take(100).collect::<String>()
            };
            let who = format!("{} {}", word("name"), word("version"));
            match who.trim() {
                "" => report.note("it answers, and doesn't say what it is"),
                who => report.good(format!("it answers: {who}")),
            }
        }
        Err(error) => {
            let remedy = "`/_matrix/federation` has to lead to the homeserver: look at the proxy before it";
            report.bad(format!("it doesn't answer: {error}"), remedy);
        }
    }
}

/// Whether it believes our signature: by a question whose answer is that there is no such thing.
async fn signed(app: &App, server: &ServerName, report: &mut Report) {
    let alias = format!("#hearth-doctor-{}:{server}", app.environment.entropy.token(12));
    let query: String = form_urlencoded::byte_serialize(alias.as_bytes()).collect();
    let request = ServerRequest::get(format!("/_matrix/federation/v1/query/directory?room_alias={query}"));
    let Err(error) = app.peers.client.send(server, request.limit(64 * 1024)).await else {
        report.good("it believes the signature of this server");
        return;
    };
    match &error {
        ClientError::Refused { status, errcode, message, .. } => match *status {
            StatusCode::NOT_FOUND if errcode != "M_UNRECOGNIZED" => {
                report.good("it believes the signature of this server");
            }
            StatusCode::UNAUTHORIZED => report.bad(
                format!("it doesn't believe the signature of this server: {message}"),
                "it has to be able to fetch this server's keys: `hearth doctor`, without a name, says whether others \
                 can; if the key was changed, it may remember the one of before for some minutes",
            ),
            StatusCode::FORBIDDEN => report.bad(
                format!("it refuses to speak to this server: {message}"),
                "its operator has lists, as this one has: ask there",
            ),
            StatusCode::NOT_FOUND | StatusCode::TOO_MANY_REQUESTS => {
                report.note(format!("whether it believes the signature of this server is unknown: {error}"));
            }
            _ => report.bad(format!("a signed request fails: {error}"), ""),
        },
        error => report.bad(format!("a signed request fails: {error}"), ""),
    }
}
