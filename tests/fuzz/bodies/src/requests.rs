//! `X-Matrix` headers, read as RFC 9110 says and as old servers write them.
//!
//! What the oracle takes we take, with the same values; what it doesn't take we don't. It is stricter than what
//! `ruma::XMatrix` reads in one thing and laxer in another: a parameter given twice is refused, and values without quotes
//! may hold colons and more.

use hearth_federation::{Authorization, SignedRequest, SigningKey};
use ruma::{OwnedServerName, ServerName, server_name};

pub(crate) fn run(data: &[u8]) {
    let Ok(header) = std::str::from_utf8(data) else { return };
    let ours = Authorization::parse(header).ok();
    let theirs = read(header);
    assert_eq!(ours, theirs, "{header:?}");
    if let Some(read) = ours {
        // Printed and read again it is the same.
        let mut text = format!(
            "X-Matrix origin={},key={},sig={}",
            read.origin,
            quoted(&read.key_id),
            quoted(&read.signature)
        );
        if let Some(destination) = &read.destination {
            text.push_str(",destination=");
            text.push_str(&quoted(destination.as_str()));
        }
        if text.len() <= 4096 {
            assert_eq!(Authorization::parse(&text).as_ref(), Ok(&read), "{text}");
        }
        let us = server_name!("us.example");
        let verdict = read.verify(us, "GET", "/", None, &[9; 32]);
        assert!(verdict.is_err(), "nobody has signed it");
    }
    body(data);
}

/// A request with any body: what is signed is read and verified, and what isn't JSON is never signed.
fn body(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let key = SigningKey::new("a_1", [7; 32]).expect("it is a key");
    let (origin, destination) = (server_name!("a.example:1"), server_name!("[::1]"));
    let request = SignedRequest { method: "PUT", uri: "/x?y", origin, destination, content: Some(text) };
    let is_json = serde_json::from_str::<serde_json::Value>(text).is_ok();
    match request.sign(&key) {
        Ok(header) => {
            assert!(is_json);
            let read = Authorization::parse(&header).expect("what we write we read");
            read.verify(destination, "PUT", "/x?y", Some(text), &key.public_key()).expect("it is signed");
            assert!(read.verify(destination, "PUT", "/x", Some(text), &key.public_key()).is_err());
        }
        Err(_) => assert!(!is_json),
    }
}

fn quoted(value: &str) -> String {
    let mut text = String::from('"');
    for character in value.chars() {
        if matches!(character, '"' | '\\') {
            text.push('\\');
        }
        text.push(character);
    }
    text + "\""
}

/// Character by character.
fn read(header: &str) -> Option<Authorization> {
    if header.len() > 4096 {
        return None;
    }
    let characters: Vec<char> = header.chars().collect();
    let scheme: Vec<char> = "x-matrix".chars().collect();
    let lower: Vec<char> = characters.iter().take(8).map(char::to_ascii_lowercase).collect();
    if lower != scheme || characters.get(8) != Some(&' ') {
        return None;
    }
    let mut found: Vec<(String, String)> = Vec::new();
    let mut at = 9;
    let is_space = |at: usize| matches!(characters.get(at), Some(' ' | '\t'));
    loop {
        while is_space(at) || characters.get(at) == Some(&',') {
            at += 1;
        }
        if at >= characters.len() {
            break;
        }
        let mut name = String::new();
        while let Some(character) = characters.get(at).filter(|character| is_token(**character)) {
            name.push(character.to_ascii_lowercase());
            at += 1;
        }
        while is_space(at) {
            at += 1;
        }
        if name.is_empty() || characters.get(at) != Some(&'=') {
            return None;
        }
        at += 1;
        while is_space(at) {
            at += 1;
        }
        let mut value = String::new();
        if characters.get(at) == Some(&'"') {
            at += 1;
            loop {
                match characters.get(at)? {
                    '"' => break,
                    '\\' => {
                        value.push(*characters.get(at + 1)?);
                        at += 1;
                    }
                    character => value.push(*character),
                }
                at += 1;
            }
            at += 1;
        } else {
            while let Some(character) =
                characters.get(at).filter(|character| !matches!(character, ' ' | '\t' | ','))
            {
                if !character.is_ascii_graphic() || *character == '"' {
                    return None;
                }
                value.push(*character);
                at += 1;
            }
            if value.is_empty() {
                return None;
            }
        }
        while is_space(at) {
            at += 1;
        }
        if at < characters.len() && characters[at] != ',' {
            return None;
        }
        let name = if name == "signature" { "sig".to_owned() } else { name };
        let known = ["origin", "destination", "key", "sig"].contains(&name.as_str());
        if known && found.iter().any(|(other, _)| *other == name) {
            return None;
        }
        found.push((name, value));
    }
    let value = |name: &str| found.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone());
    let server = |text: String| -> Option<OwnedServerName> { ServerName::parse(text).ok() };
    let destination = match value("destination") {
        Some(destination) => Some(server(destination)?),
        None => None,
    };
    let key_id = value("key").filter(|id| id.starts_with("ed25519:") && id.len() <= 255)?;
    Some(Authorization { origin: server(value("origin")?)?, destination, key_id, signature: value("sig")? })
}

fn is_token(character: char) -> bool {
    character.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(character)
}
