//! Asking policy servers.

use std::time::Duration;

use hearth_federation::{ClientError, ServerRequest, Task};
use ruma::ServerName;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Peers;
use crate::room::{AskPolicy, Refusal};

/// A message waits for it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an answer, which is a signature.
const MAX_ANSWER: usize = 64 * 1024;

impl AskPolicy for Peers {
    fn ask<'a>(&'a self, via: &'a ServerName, event: &'a RawValue) -> Task<'a, Result<String, Refusal>> {
        #[derive(Deserialize)]
        struct OfServer {
            #[serde(rename = "ed25519:policy_server")]
            signature: String,
        }
        let silence = |error: String| Refusal { errcode: "M_UNKNOWN".to_owned(), error, is_silence: true };
        Box::pin(async move {
            let request = ServerRequest::post("/_matrix/policy/v1/sign", event.get());
            let answer = self.send(via, request.limit(MAX_ANSWER).timeout(PATIENCE)).await;
            let answer = answer.map_err(|cause| match cause {
                ClientError::Refused { status, errcode, message, .. } if status.is_client_error() => {
                    Refusal { errcode, error: message, is_silence: status.as_u16() == 429 }
                }
                cause => silence(cause.to_string()),
            })?;
            let mut signatures: std::collections::BTreeMap<String, Box<RawValue>> =
                serde_json::from_slice(&answer.body).map_err(|cause| silence(cause.to_string()))?;
            let of_server = signatures.remove(via.as_str());
            let signature = of_server.and_then(|own| serde_json::from_str::<OfServer>(own.get()).ok());
            signature
                .map(|own| own.signature)
                .ok_or_else(|| silence("it answers without a signature".to_owned()))
        })
    }
}
