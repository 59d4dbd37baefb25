//! This server, as others see it.

use hearth_federation::{KeyFetch as _, is_public};
use ruma::ServerName;

use super::{examine, report::Report};
use crate::{app::App, config::Api};

pub(super) async fn examine(app: &App, report: &mut Report) {
    let server = &app.server_name;
    report.part("Configuration");
    examine::enabled(app, report);
    named(app, report);
    if !app.config.listener.iter().any(|listener| listener.serve.contains(&Api::Federation)) {
        let remedy = "add \"federation\" to `serve` of the listener that others reach";
        report.bad("no listener serves other servers", remedy);
    }

    let Some((delegate, destination)) = examine::found(app, server, report).await else { return };
    delegated(server, app.config.federation.address.as_deref(), delegate.as_deref(), report);
    if !examine::connected(app, &destination, report).await {
        return;
    }
    if let Some(keys) = examine::keys(app, server, report).await {
        let own = app.peers.own_key();
        let published = keys.keys.get(own.id().as_str());
        if published.is_some_and(|key| !key.is_old() && key.bytes() == own.public_key()) {
            report.good("they are the key of this server's data folder");
        } else {
            report.bad(
                format!("{} of this server's data folder isn't among them", own.id()),
                "another server answers under this name, or this one has to be started again since its key was \
                 changed",
            );
        }
    }
    report.part("Requests");
    examine::version(app, server, report).await;
    from_outside(app, report).await;
}

fn named(app: &App, report: &mut Report) {
    let server: &ServerName = &app.server_name;
    let host = server.host();
    // An operator who lets private networks in has names of their own.
    let lonely = match host.trim_matches(['[', ']']).parse() {
        Ok(address) => !is_public(address),
        Err(_) => !host.contains('.') || host.ends_with(".localhost"),
    };
    if lonely && !app.config.federation.allow_private_networks {
        report.bad(
            format!("no other server can find the name {server}"),
            "a server keeps its name for ever: for one that others find, set `server_name` to a domain of yours, with a \
             new `data_dir`",
        );
    } else {
        report.good(format!("users are called @name:{server}"));
    }
}

/// Whether `/.well-known/matrix/server` says what the configuration has.
fn delegated(server: &ServerName, address: Option<&str>, delegate: Option<&str>, report: &mut Report) {
    let remedy = || {
        format!(
            "let the web server of https://{} pass `/.well-known/matrix/server` on to Hearth, or answer there itself \
             with {{\"m.server\": \"{}\"}}",
            server.host(),
            address.unwrap_or_default(),
        )
    };
    match (address, delegate) {
        (None, _) => {}
        (Some(address), Some(delegate)) if address == delegate => {
            report.good("that is `federation.address`");
        }
        // Such a name isn't looked up: nobody asks.
        (Some(_), None) if server.port().is_some() || server.is_ip_literal() => {
            report.note("`federation.address` isn't asked for: the name has a port, or is an address");
        }
        (Some(address), Some(_)) => {
            report.bad(format!("`federation.address` is {address}, and others are told another"), &remedy());
        }
        (Some(address), None) => {
            report.bad(format!("`federation.address` is {address}, and others aren't told"), &remedy());
        }
    }
}

/// Everything above was seen from this machine. Whether others see it too, others know.
async fn from_outside(app: &App, report: &mut Report) {
    let notaries: Vec<_> =
        app.config.federation.notaries.iter().filter(|notary| **notary != app.server_name).collect();
    if notaries.is_empty() {
        return;
    }
    report.part("From outside");
    let own = app.peers.own_key();
    let (id, now) = (own.id().to_string(), app.environment.clock.now());
    for notary in notaries {
        let asked = app.peers.client.ask_notary(notary, &app.server_name, std::slice::from_ref(&id), now);
        match asked.await {
            Ok(answer) if has_key(&answer, &app.server_name, &id) => {
                report.good(format!("{notary} has got the key of this server"));
            }
            Ok(_) => report.bad(
                format!("{notary} can't get the key of this server"),
                "if all above is good, this machine sees another network than others do: look at the firewall, and at \
                 what DNS says elsewhere",
            ),
            Err(error) => report.note(format!("{notary} can't be asked: {error}")),
        }
    }
}

/// Only for the operator's eyes: whose signature is below it doesn't matter.
fn has_key(answer: &str, server: &ServerName, id: &str) -> bool {
    let answer: serde_json::Value = serde_json::from_str(answer).unwrap_or_default();
    let documents = answer["server_keys"].as_array().map(Vec::as_slice).unwrap_or_default();
    documents.iter().any(|document| {
        document["server_name"].as_str() == Some(server.as_str()) && document["verify_keys"][id].is_object()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::report::Verdict;

    fn delegation(server: &str, address: Option<&str>, delegate: Option<&str>) -> Vec<(Verdict, String)> {
        let mut report = Report::new(server, true);
        delegated(<&ServerName>::try_from(server).unwrap(), address, delegate, &mut report);
        report.told()
    }

    #[test]
    fn what_others_are_told_is_held_against_the_configuration() {
        let (server, address) = ("example.org", Some("matrix.example.org:443"));
        assert_eq!(delegation(server, None, None), []);
        assert_eq!(delegation(server, None, Some("elsewhere.example")), []);
        assert_eq!(delegation(server, address, address)[0].0, Verdict::Good);
        for delegate in [None, Some("matrix.example.org")] {
            let told = delegation(server, address, delegate);
            assert_eq!((told.len(), told[0].0), (1, Verdict::Bad));
            for part in ["https://example.org pass", r#"{"m.server": "matrix.example.org:443"}"#] {
                assert!(told[0].1.contains(part), "{told:?}");
            }
        }
        for server in ["example.org:8448", "192.0.2.1"] {
            assert_eq!(delegation(server, address, None)[0].0, Verdict::Note, "nobody asks for that");
        }
    }

    #[test]
    fn a_notary_has_the_key_or_not() {
        let server = <&ServerName>::try_from("example.org").unwrap();
        let answer =
            r#"{"server_keys":[{"server_name":"example.org","verify_keys":{"ed25519:a":{"key":"x"}}}]}"#;
        assert!(has_key(answer, server, "ed25519:a"));
        assert!(!has_key(answer, server, "ed25519:b"));
        assert!(!has_key(answer, <&ServerName>::try_from("example.com").unwrap(), "ed25519:a"));
        assert!(!has_key(r#"{"server_keys":[]}"#, server, "ed25519:a"));
        assert!(!has_key("nonsense", server, "ed25519:a"));
    }
}
