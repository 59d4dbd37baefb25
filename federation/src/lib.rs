//! The signed protocol between Matrix servers.
//!
//! What an event is in each room version, how it is hashed, signed, verified and authorised: functions of their arguments.
//! And how one server asks another for something: where it is, its keys, a request. No database, and no state of a server
//! that has rooms and users.
//!
//! - A local event: [`Draft::auth_types`] says which state allows it, [`Draft::build`] makes it, [`authorize_built`] judges it.
//! - An event from elsewhere: [`Received::parse`], [`Received::verify`] with the keys it asked for, [`authorize_received`],
//!   [`authorize_by_state`].
//! - A room whose history forks: [`resolve`], for whose events [`Wanted`] asks.
//! - A member event of a room that others keep: [`Template::read`], [`Template::build`], [`Pdu::cosigned`].
//! - A stored event: [`Pdu::from_stored`].
//! - A request from another server: [`Authorization::parse`], [`Authorization::verify`].
//! - A request to another server: [`FederationClient::send`], which finds it ([`Discovery`]), connects ([`Connector`]) and
//!   signs ([`SignedRequest`]). [`FederationClient::over`] puts one together on [`SystemDns`].
//! - The keys for all of these: gather [`Wants`], [`KeyRing::find`] them, give [`FoundKeys::for_event`] to
//!   [`Received::verify`] and [`FoundKeys::for_request`] to [`Authorization::verify`]. The ring fetches by [`KeyFetch`], which
//!   the client is, and keeps what it learns in a [`KeyStore`]: a [`KnownKeys`] for each server.
//! - Keys published: [`own_server_keys`], and as a notary [`KeyRing::document`] in a [`notary_answer`].
//! - What is wrong with a server: [`Discovery::explain`] for each step to it, [`Connector::probe`] for each of its addresses,
//!   [`KeyRing::problem`] for its keys.
//!
//! - What users sign: [`is_signature`], of the text that [`json`] makes.
//!
//! What is hashed, signed, stored and served is one text, which [`json`] decides.

use std::{pin::Pin, sync::Arc};

use ruma::MilliSecondsSinceUnixEpoch;

mod auth;
mod builder;
mod client;
mod cosign;
mod discovery;
mod hash;
pub mod json;
mod key_ring;
mod limits;
mod owned_state;
mod pdu;
mod power_levels;
mod redaction;
mod request;
mod resolve;
mod server_keys;
mod shown;
mod signature;
mod signing_key;
mod template;
mod verify;
mod version;

pub use auth::{Rejected, auth_types, authorize, authorize_built, authorize_by_state, authorize_received};
pub use builder::{BuildError, Draft, Position};
pub use client::{
    ClientError, ClientSettings, ClientSetupError, ConnectError, Connector, FederationClient, HttpsWeb,
    Response, ServerRequest, is_public,
};
pub use discovery::{
    Destination, Discovery, DiscoveryError, Dns, DnsAnswer, DnsError, Explanation, MAX_WELL_KNOWN_BYTES,
    NoDelegation, Service, Step, SystemDns, Web, WebAnswer,
};
pub use key_ring::{FoundKeys, KeyFetch, KeyRing, KeyRingSettings, KeyStore, Wants};
pub use limits::{Limits, MAX_AUTH_EVENTS, MAX_FIELD_BYTES, MAX_PDU_BYTES, MAX_PREV_EVENTS};
pub use pdu::{Pdu, PduError};
pub use request::{Authorization, AuthorizationError, SCHEME, SignedRequest};
pub use resolve::{MAX_EVENTS, ResolveError, StateEvent, StateMap, Wanted, conflicted, resolve};
pub use server_keys::{
    BlockedKeys, KnownKeys, MAX_KEYS, MAX_KEYS_BYTES, MAX_NOTARY_BYTES, MAX_VALIDITY, OWN_KEYS_REMADE,
    OWN_KEYS_VALIDITY, OldKey, PublicKey, Purpose, ServerKeys, ServerKeysError, notary_answer,
    own_server_keys, read_notary_answer,
};
pub use signature::is_signature;
pub use signing_key::{SigningKey, SigningKeyError};
pub use template::{MAX_TEMPLATE_BYTES, Template, TemplateError};
pub use verify::{MAX_RECEIVED_BYTES, Received, References, Verified, VerifyError};
pub use version::{UnsupportedVersion, rules, supported_versions};

/// What an asynchronous method of a trait returns, for that trait to be used by `dyn`.
pub type Task<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The time, passed in so that tests can own it.
pub type Clock = Arc<dyn Fn() -> MilliSecondsSinceUnixEpoch + Send + Sync>;

/// Random numbers, passed in so that tests can own them.
pub type Random = Arc<dyn Fn() -> u64 + Send + Sync>;
