//! Messages to a device in an answer: those after the place that the device was at, as many as fit; the token of the answer
//! says how far that is. So a full mailbox holds up nothing else, and the next request is answered at once (TD-06).

use bytes::Bytes;

use super::{
    body::SyncBody,
    syncs::{Error, Place, Syncs, Wanted},
};
use crate::{
    account::Session,
    keys::to_device::{PAGE, Page},
    queue::Token,
};

/// How an answer begins: its first field is its token.
const BEGINNING: &str = "{\"next_batch\":\"";

impl Syncs {
    /// Adds the messages between two places and the token after them. `has_mail`: there may be some.
    pub(super) async fn add_mail(
        &self,
        device: i64,
        body: &mut SyncBody,
        from: Place,
        to: Place,
        has_mail: bool,
    ) -> Result<(), Error> {
        let mut to = to;
        if has_mail {
            let page = self.to_device.page(device, from.mail, to.position, PAGE).await?;
            to.mail = page.up_to;
            body.to_device = page.messages.into();
        }
        body.next_batch = self.token(to);
        Ok(())
    }

    /// An answer with all state, for a device that was at a place.
    pub(super) async fn whole(
        &self,
        session: &Session,
        wanted: &Wanted,
        from: Place,
        to: Place,
    ) -> Result<SyncBody, Error> {
        let mut body = self.all(session, wanted, Some(from), to).await?;
        self.add_mail(session.device, &mut body, from, to, true).await?;
        Ok(body)
    }

    /// A first answer with all messages that wait, as they are now: the answer itself may be from before.
    pub(super) async fn with_mail(&self, device: i64, body: Bytes) -> Result<Bytes, Error> {
        let text = body.strip_prefix(BEGINNING.as_bytes()).ok_or(Error::Gone)?;
        let end = text.iter().position(|byte| *byte == b'"').ok_or(Error::Gone)?;
        let token = std::str::from_utf8(&text[..end]).map_err(|_| Error::Gone)?;
        let mut place = self.place(Some(token.parse::<Token>()?)).ok_or(Error::Gone)?;
        let Page { messages, up_to } = self.to_device.page(device, 0, place.position, PAGE).await?;
        if messages.is_empty() {
            return Ok(body);
        }
        place.mail = up_to;
        let mut whole =
            format!("{BEGINNING}{}\",\"to_device\":{{\"events\":", self.token(place)).into_bytes();
        serde_json::to_writer(&mut whole, &messages)?;
        whole.push(b'}');
        // What is left of the body begins with a comma: counts of keys are always in it.
        whole.extend_from_slice(&text[end + 1..]);
        Ok(whole.into())
    }
}
