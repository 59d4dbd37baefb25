//! More signatures on an event that is made already: an invited user's server signs the invite, and the server that vouches
//! for a restricted join signs the join.
//!
//! Specification: [Inviting to a room](https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room), [Restricted
//! rooms](https://spec.matrix.org/v1.19/server-server-api/#restricted-rooms).

use ruma::{RoomVersionId, ServerName};
use serde_json::value::RawValue;

use crate::{
    hash::signed_text,
    json::{self, Object, Value},
    limits::MAX_PDU_BYTES,
    pdu::{Pdu, PduError},
    signature::{is_signature, may_be_signature},
    signing_key::SigningKey,
    verify::Received,
    version::rules,
};

/// Signatures of one server that are taken over from elsewhere, each by another of its keys.
const MOST_SIGNATURES: usize = 10;

impl Received<'_> {
    /// The text of the event, signed by `server` too. It isn't verified yet.
    pub fn cosigned(&self, server: &ServerName, key: &SigningKey) -> String {
        let signature = Value::String(key.sign(self.signed().as_bytes()).into());
        let mut event = self.event().clone();
        sign(&mut event, server, [(key.id().as_str(), signature)]);
        event.to_canonical()
    }
}

impl Pdu {
    /// The same event, signed by `server` too.
    pub fn cosigned(
        &self,
        version: &RoomVersionId,
        server: &ServerName,
        key: &SigningKey,
    ) -> Result<Self, PduError> {
        let event = json::parse_object(self.json.get())?;
        let text = signed_text(&event, &self.kind.to_string(), &rules(version)?);
        let signature = Value::String(key.sign(text.as_bytes()).into());
        self.with_signatures(event, version, server, [(key.id().as_str(), signature)])
    }

    /// The same event with the signatures of `server` that it has in `other`, which is its text from elsewhere. They aren't
    /// verified, but have the form of signatures, and nothing else is taken from there (PS-06: nor are other servers'
    /// signatures).
    pub fn with_signatures_of(
        &self,
        version: &RoomVersionId,
        server: &ServerName,
        other: &str,
    ) -> Result<Self, PduError> {
        let other = json::parse_object(other)?;
        let signatures = other.get("signatures").and_then(Value::as_object);
        let signatures = signatures.and_then(|all| all.get(server.as_str())).and_then(Value::as_object);
        let signatures: Vec<(String, String)> = signatures
            .into_iter()
            .flat_map(Object::iter)
            .filter_map(|(id, signature)| Some((id.to_owned(), signature.as_str()?.to_owned())))
            .collect();
        if signatures.len() > MOST_SIGNATURES || !signatures.iter().all(|(_, text)| may_be_signature(text)) {
            return Err(PduError::Signatures(server.to_owned()));
        }
        let signatures =
            signatures.iter().map(|(id, signature)| (&**id, Value::String(signature.clone().into())));
        self.with_signatures(json::parse_object(self.json.get())?, version, server, signatures)
    }

    fn with_signatures<'t>(
        &self,
        mut event: Object<'t>,
        version: &RoomVersionId,
        server: &'t ServerName,
        signatures: impl IntoIterator<Item = (&'t str, Value<'t>)>,
    ) -> Result<Self, PduError> {
        sign(&mut event, server, signatures);
        let json = event.to_canonical();
        // An event of a room that doesn't federate may be larger from the start.
        if json.len() > MAX_PDU_BYTES.max(self.json.get().len()) {
            return Err(PduError::TooLarge { size: json.len(), limit: MAX_PDU_BYTES });
        }
        let json = RawValue::from_string(json)?;
        Self::with_rules(self.event_id.clone(), json, &rules(version)?)
            .map(|pdu| pdu.with_rejected(self.rejected))
    }
}

/// Adds signatures of a server to those that an event has.
fn sign<'t>(
    event: &mut Object<'t>,
    server: &'t ServerName,
    signatures: impl IntoIterator<Item = (&'t str, Value<'t>)>,
) {
    let mut all = match event.remove("signatures") {
        Some(Value::Object(all)) => all,
        _ => Object::default(),
    };
    let mut of_server = match all.remove(server.as_str()) {
        Some(Value::Object(of_server)) => of_server,
        _ => Object::default(),
    };
    for (id, signature) in signatures {
        of_server.insert(id, signature);
    }
    all.insert(server.as_str(), Value::Object(of_server));
    event.insert("signatures", Value::Object(all));
}

impl Pdu {
    /// Whether it has a right signature of `server` by this key. For keys that no server publishes, such as that of a room's
    /// policy server (PS-05).
    pub fn is_signed_with(
        &self,
        version: &RoomVersionId,
        server: &ServerName,
        key_id: &str,
        public_key: &[u8; 32],
    ) -> bool {
        let (Ok(event), Ok(rules)) = (json::parse_object(self.json.get()), rules(version)) else {
            return false;
        };
        let of_server = event.get("signatures").and_then(Value::as_object);
        let of_server = of_server.and_then(|all| all.get(server.as_str())).and_then(Value::as_object);
        let signature = of_server.and_then(|all| all.get(key_id)).and_then(Value::as_str);
        let text = || signed_text(&event, &self.kind.to_string(), &rules);
        signature.is_some_and(|signature| is_signature(signature, public_key, &text()))
    }

    /// The same event with one more signature, which isn't verified. Those that it has stay (PS-06).
    pub fn with_signature(
        &self,
        version: &RoomVersionId,
        server: &ServerName,
        key_id: &str,
        signature: &str,
    ) -> Result<Self, PduError> {
        let event = json::parse_object(self.json.get())?;
        self.with_signatures(event, version, server, [(key_id, Value::String(signature.into()))])
    }
}
