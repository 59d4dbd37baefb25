//! What reads bytes that strangers write, as far as no server is needed for it.

pub use crate::{
    account::meant_by,
    api::sliding_request,
    live::{
        SyncFilter,
        sliding::{Config as SlidingConfig, Filters, Form, Key, List, Request as SlidingRequest, Required},
    },
    push::{Facts, Named, Outcome, RuleSet, Sound},
    queue::{Token, TokenError},
    room::{Event, acl_allows, type_matches},
};

use ruma::{OwnedUserId, ServerName};

use crate::{account, config::Config};

/// The id of a new account, from what somebody typed.
pub fn new_user_id(localpart: &str, server: &ServerName) -> Option<OwnedUserId> {
    account::new_user_id(localpart, server).ok()
}

/// What a configuration comes to, written as a document of every key; or why it isn't one.
pub fn configuration(text: &str, environment: &[(String, String)]) -> Result<String, String> {
    let config = Config::parse(text, "fuzz.toml", environment.iter().cloned());
    config.map(|config| config.to_document()).map_err(|error| error.to_string())
}

/// The document with every key and its default.
pub fn default_configuration() -> String {
    configuration("", &[]).unwrap_or_default()
}

/// The names of all keys.
pub fn configuration_keys() -> Vec<String> {
    Config::key_names()
}
