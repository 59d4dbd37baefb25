//! `hearth doctor`: it says what is wrong, where, and what to do.

use std::process::Output;

use serde_json::Value;
use toml::{Table, toml};

use crate::common::federating::{Authority, Federating};

#[track_caller]
fn assert_says(output: &Output, code: i32, parts: &[&str]) {
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    for part in parts {
        assert!(said.contains(part), "should say {part:?}: {said}{errors}");
    }
    assert_eq!(output.status.code(), Some(code), "{said}{errors}");
    assert!(errors.is_empty(), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_that_reach_each_other_are_well() {
    let authority = Authority::new();
    let here = Federating::start(&authority, Table::new()).await;
    let there = Federating::start(&authority, Table::new()).await;

    let output = here.run(&["doctor", &there.name]);

    let key = there.key();
    let parts = [
        there.name.as_str(),
        "the name is the address",
        "✓ 127.0.0.1:",
        "a good certificate for 127.0.0.1",
        key.id().as_str(),
        "✓ it answers: Hearth",
        "✓ it believes the signature of this server",
        "Nothing is wrong.",
    ];
    assert_says(&output, 0, &parts);
    assert!(!String::from_utf8_lossy(&output.stdout).contains('✗'));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_looks_at_itself() {
    let authority = Authority::new();
    let mut here = Federating::start(&authority, Table::new()).await;
    let output = here.run(&["doctor"]);
    let parts = ["✓ they are the key of this server's data folder", "Nothing is wrong."];
    assert_says(&output, 0, &parts);

    here.server.stop().await;
    let output = here.run(&["doctor"]);
    assert_says(&output, 1, &["✗ 127.0.0.1:", "refused", "→ nothing listens there", "is wrong."]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_name_or_authority_is_told() {
    let (authority, other) = (Authority::new(), Authority::new());
    let here = Federating::start(&authority, Table::new()).await;
    let mut there = Federating::start(&authority, Table::new()).await;

    there.server.stop().await;
    authority.certify("matrix.example.org", &there.folder());
    there.start_again().await;
    let output = here.run(&["doctor", &there.name]);
    assert_says(&output, 1, &["✗", "matrix.example.org", "→ the certificate has to be for 127.0.0.1"]);

    there.server.stop().await;
    other.certify("127.0.0.1", &there.folder());
    there.start_again().await;
    let output = here.run(&["doctor", &there.name]);
    assert_says(
        &output,
        1,
        &["✗", "UnknownIssuer", "the whole chain", "`federation.ca_file`", "One thing is wrong."],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_without_tls_is_told() {
    let authority = Authority::new();
    let here = Federating::start(&authority, Table::new()).await;
    let name = format!("127.0.0.1:{}", here.server.port());
    let output = here.run(&["doctor", &name]);
    assert_says(&output, 1, &["✗", "doesn't speak TLS"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_keys_cannot_be_had_is_not_believed() {
    let authority = Authority::new();
    let mut here = Federating::start(&authority, Table::new()).await;
    let there = Federating::start(&authority, Table::new()).await;
    here.server.stop().await;

    let output = here.run(&["doctor", &there.name]);

    let parts = [
        "✗ it doesn't believe the signature of this server",
        "→ it has to be able to fetch this server's keys",
    ];
    assert_says(&output, 1, &parts);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_on_either_side_are_told() {
    let authority = Authority::new();
    let closed = Federating::start(&authority, toml! { allow = ["example.org"] }).await;
    let open = Federating::start(&authority, Table::new()).await;

    let output = closed.run(&["doctor", &open.name]);
    assert_says(&output, 1, &["✗ the lists of the configuration keep", "`federation.allow`"]);

    let output = open.run(&["doctor", &closed.name]);
    assert_says(&output, 1, &["✗ it refuses to speak to this server", "→ its operator has lists"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn private_networks_and_names_that_nobody_finds_are_told() {
    let authority = Authority::new();
    let here = Federating::start(&authority, Table::new()).await;
    let there = Federating::start(&authority, Table::new()).await;
    here.configure(|config| {
        config["federation"]["allow_private_networks"] = false.into();
    });
    let output = here.run(&["doctor", &there.name]);
    assert_says(
        &output,
        1,
        &["✗ 127.0.0.1 is not an address of the internet", "`federation.allow_private_networks = true`"],
    );
    let output = here.run(&["doctor"]);
    assert_says(
        &output,
        1,
        &["✗ no other server can find the name 127.0.0.1", "→ a server keeps its name for ever"],
    );
    let output = here.run(&["doctor", "nobody.invalid"]);
    assert_says(&output, 1, &["✗ `nobody.invalid` has no address"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_read_json() {
    let authority = Authority::new();
    let here = Federating::start(&authority, Table::new()).await;
    let there = Federating::start(&authority, Table::new()).await;
    for (name, ok) in [(there.name.as_str(), true), ("127.0.0.1:1", false)] {
        let output = here.run(&["doctor", name, "--json"]);
        let whole: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&whole["server"], &whole["ok"]), (&name.into(), &ok.into()), "{whole}");
        let findings = whole["findings"].as_array().unwrap();
        assert_eq!(findings.iter().all(|finding| finding["verdict"] != "bad"), ok, "{whole}");
        assert!(findings.iter().all(|finding| finding["part"].is_string() && finding["text"].is_string()));
        assert_eq!(output.status.success(), ok);
    }
}
