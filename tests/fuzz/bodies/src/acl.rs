//! Access control lists of rooms: the name of a server, a line end, the event's content.

use hearth::testing::reading::acl_allows;
use ruma::ServerName;
use serde_json::Value;

use crate::{
    glob::{characters, matches},
    words::parts,
};

pub(crate) fn run(data: &[u8]) {
    let Some([server, content]) = parts(data) else { return };
    let Ok(server) = ServerName::parse(server) else { return };
    let Ok(value) = serde_json::from_str::<Value>(content) else { return };
    // Once through a map: of equal keys one stays.
    let content = value.to_string();
    assert_eq!(acl_allows(&content, &server), allows(&value, &server), "{server} and {content}");
}

fn allows(content: &Value, server: &ServerName) -> bool {
    let Some(content) = content.as_object() else { return false };
    if content.get("allow_ip_literals") == Some(&Value::Bool(false)) && server.is_ip_literal() {
        return false;
    }
    let host = characters(&server.host().to_ascii_lowercase());
    let on = |list: &str| {
        let patterns = content.get(list).and_then(Value::as_array).into_iter().flatten();
        patterns
            .filter_map(Value::as_str)
            .any(|pattern| matches(&characters(&pattern.to_ascii_lowercase()), &host, true))
    };
    !on("deny") && on("allow")
}
