//! The answer to a reader for whom nothing has come but messages of one room, written straight as text.
//!
//! It is what [`Syncs::changes`] makes of the same span, which has to ask more of everything; a test holds the two against each
//! other. Nearly all that is ever delivered is of this kind, and is delivered to each member of a room.

use std::io::Write as _;

use serde::Serialize;

use super::{
    body::{Events, UnreadBody},
    syncs::{Error, Place, Syncs, Wanted},
};
use crate::{
    account::Session,
    queue::{Tail, Token},
    room::Reader,
};

impl Syncs {
    /// Appends the answer from one place to another to `out`. `next` is the token of the latter. `false`, and nothing is
    /// appended: it takes [`Syncs::changes`] to find out what there is.
    pub(super) async fn brief(
        &self,
        session: &Session,
        wanted: &Wanted,
        tail: &Tail,
        (from, to): (Place, Place),
        next: &str,
        out: &mut Vec<u8>,
    ) -> Result<bool, Error> {
        let filter = &wanted.filter;
        let plain = !from.has_mail() && !to.has_mail() && from.fading == to.fading && filter.shows_messages();
        if wanted.full_state || !plain {
            return Ok(false);
        }
        let Some((number, seqs, unread)) = tail.messages(from.position, to.position) else {
            return Ok(false);
        };
        if seqs.len() > filter.timeline_limit() || (filter.threads() && !unread.threads.is_empty()) {
            return Ok(false);
        }
        let Some((room, events)) = self.rooms.messages(number, &seqs, &session.user_id) else {
            return Ok(false);
        };
        let ignored = self.accounts.ignored_users(session.recipient).await?;
        let reader = Reader::of(session);
        let span = (from.position, to.position);
        // The long way tells of members under the same condition.
        let introduces =
            |sender| filter.lazy_members() && self.lazy.is_news(session.device, number, sender, span);
        let as_it_is = filter.room(&room.room_id)
            && events.iter().all(|event| {
                let sender = &event.pdu.sender;
                !ignored.contains(sender)
                    && filter.timeline(event)
                    && !event.was_delayed_by(reader)
                    && !introduces(sender)
            });
        if !as_it_is {
            return Ok(false);
        }
        let left = self.keys.left(session.device).await?;

        let now_ms = self.rooms.now_ms();
        let start = out.len();
        out.extend_from_slice(b"{\"next_batch\":\"");
        out.extend_from_slice(next.as_bytes());
        out.extend_from_slice(b"\",\"rooms\":{\"join\":{");
        serde_json::to_writer(&mut *out, &room.room_id)?;
        out.extend_from_slice(b":{\"timeline\":{\"events\":[");
        for (at, event) in events.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            event.write_message(reader, now_ms, out)?;
        }
        let before = Token::Room { seq: events.first().map_or(0, |first| first.seq) - 1 };
        // Writing to memory can't fail.
        let _ = write!(out, "],\"limited\":false,\"prev_batch\":\"{before}\"}},");
        write_fields(&wanted.state.body(Events::default()), out)?;
        out.extend_from_slice(b",\"unread_notifications\":");
        let (shown, threads) = if filter.threads() {
            (unread.main, ",\"unread_thread_notifications\":{}")
        } else {
            (unread.total(), "")
        };
        serde_json::to_writer(&mut *out, &UnreadBody::from(shown))?;
        out.extend_from_slice(threads.as_bytes());
        out.extend_from_slice(b"}}},");
        write_fields(&*left, out)?;
        out.push(b'}');
        debug_assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&out[start..]).is_ok());
        Ok(true)
    }
}

/// The fields of something that is an object as JSON, without its braces.
fn write_fields(value: &impl Serialize, out: &mut Vec<u8>) -> Result<(), Error> {
    let brace = out.len();
    serde_json::to_writer(&mut *out, value)?;
    out.pop();
    out.remove(brace);
    Ok(())
}
