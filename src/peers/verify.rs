//! Events from other servers: their form, signatures and hashes checked, whatever brought them.

use hearth_federation::{Pdu, Received, References, Verified, VerifyError, Wants};
use ruma::RoomVersionId;

use super::Peers;

impl Peers {
    /// Each of these events of a room, verified (the first three checks on receipt), or why it is dropped. In their order;
    /// each server is asked for its keys once at most.
    pub async fn verified(
        &self,
        version: &RoomVersionId,
        events: &[&str],
        references: References,
    ) -> Vec<Result<Pdu, VerifyError>> {
        let received = events.iter().map(|event| Received::parse(event, version, references)).collect();
        self.verify(received).await
    }

    /// [`Self::verified`], for who has looked at the events before.
    pub async fn verify(
        &self,
        received: Vec<Result<Received<'_>, VerifyError>>,
    ) -> Vec<Result<Pdu, VerifyError>> {
        let mut wants = Wants::default();
        received.iter().flatten().for_each(|event| wants.add_event(event));
        let found = self.keys.find(&wants).await;
        let verified = received.into_iter().map(|event| {
            let event = event?;
            let keys = found.for_event(&event);
            match event.verify(keys)? {
                Verified::Intact(pdu) | Verified::Redacted(pdu) => Ok(pdu),
            }
        });
        verified.collect()
    }
}
