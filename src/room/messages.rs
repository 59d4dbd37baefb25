//! Messages as everybody gets them who was in the room all the time: what most deliveries are made of.

use std::sync::Arc;

use ruma::UserId;

use super::{Event, Room, Rooms, last_after_hole};

impl Rooms {
    /// These events of a room (by their `seq`, in order, at least one), if nothing has to be found out to show them to
    /// `reader` as they are: messages which the reader was there for, not redacted and without relations to tell of,
    /// in a timeline without breaks. `None` says nothing about them: whoever asks has to go the long way.
    pub fn messages(
        &self,
        number: i64,
        seqs: &[i64],
        reader: &UserId,
    ) -> Option<(Arc<Room>, Vec<Arc<Event>>)> {
        let (first, last) = (*seqs.first()?, *seqs.last()?);
        let room = self.in_memory(number)?;
        let snapshot = room.snapshot();
        let broken = snapshot.last_hole(first, last).is_some() || last_after_hole(first, last).is_some();
        if broken || snapshot.last_silent >= first || self.core.lifetime(&snapshot).is_some() {
            return None;
        }
        let member = snapshot.member(reader)?;
        if member.seq >= first || !snapshot.is_joined(reader) {
            return None;
        }
        let (events, missing) = self.core.events.get(number, seqs);
        let as_they_are = events.iter().all(|event| {
            !event.pdu.is_state()
                && event.redacted_by.is_none()
                && event.pdu.redacts.is_none()
                && event.is_visible()
                && !snapshot.may_have_children(event, &self.core.server_name)
        });
        (missing.is_empty() && as_they_are).then_some((room, events))
    }
}
