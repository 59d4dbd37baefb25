//! What a client needs to name a room that has no name ("Room summary" of `/sync`).

use ruma::{
    OwnedUserId, UserId,
    events::{StateEventType, room::member::MembershipState},
};

use super::Snapshot;

/// The most members that a name is made of.
const HEROES: usize = 5;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// In the order of the room's log.
    pub heroes: Vec<OwnedUserId>,
    pub joined: usize,
    pub invited: usize,
}

/// SY-12: the first five joined or invited members, never the reader; of a room without others, those who left.
pub fn summary(room: &Snapshot, reader: &UserId) -> Summary {
    let (mut present, mut gone) = (Vec::new(), Vec::new());
    for (user_id, event) in room.state.of_type(&StateEventType::RoomMember) {
        if user_id == reader.as_str() {
            continue;
        }
        match event.pdu.membership() {
            Some(MembershipState::Join | MembershipState::Invite) => present.push((event.seq, user_id)),
            Some(MembershipState::Leave | MembershipState::Ban) => gone.push((event.seq, user_id)),
            _ => {}
        }
    }
    let mut heroes = if present.is_empty() { gone } else { present };
    heroes.sort_unstable();
    heroes.truncate(HEROES);
    let heroes = heroes.into_iter().filter_map(|(_, user_id)| user_id.try_into().ok()).collect();
    Summary { heroes, joined: room.joined, invited: room.invited }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hearth_federation::Pdu;
    use ruma::{RoomVersionId, owned_room_id, user_id};
    use serde_json::json;

    use super::*;
    use crate::room::Event;

    fn room(members: &[(&str, &str)]) -> Snapshot {
        let room_id = owned_room_id!("!room:localhost");
        let mut room = Snapshot::empty(1, room_id.clone(), RoomVersionId::V11).unwrap();
        for (seq, (name, membership)) in (1..).zip(members) {
            let user_id = format!("@{name}:localhost");
            let pdu = json!({
                "auth_events": [], "content": { "membership": membership }, "depth": seq,
                "origin_server_ts": 1, "prev_events": [], "room_id": room_id, "sender": user_id,
                "state_key": user_id, "type": "m.room.member",
            });
            let id = format!("${seq}:localhost").try_into().unwrap();
            let pdu = Pdu::from_stored(id, pdu.to_string(), &RoomVersionId::V11).unwrap();
            room.follow(&Arc::new(Event::new(seq, pdu, None)), None);
        }
        room
    }

    fn names(summary: &Summary) -> Vec<&str> {
        summary.heroes.iter().map(|user_id| user_id.localpart()).collect()
    }

    /// SY-12
    #[test]
    fn the_first_five_who_are_there_name_a_room() {
        let members = [
            ("zoe", "join"),
            ("me", "join"),
            ("left", "leave"),
            ("bob", "invite"),
            ("amy", "join"),
            ("kim", "knock"),
            ("dan", "join"),
            ("eve", "join"),
            ("fay", "join"),
        ];
        let summary = summary(&room(&members), user_id!("@me:localhost"));
        assert_eq!(names(&summary), ["zoe", "bob", "amy", "dan", "eve"]);
        assert_eq!((summary.joined, summary.invited), (6, 1));
    }

    /// SY-12
    #[test]
    fn those_who_left_name_an_empty_room() {
        let summary = summary(
            &room(&[("me", "join"), ("bob", "leave"), ("amy", "ban"), ("kim", "knock")]),
            user_id!("@me:localhost"),
        );
        assert_eq!(names(&summary), ["bob", "amy"]);
        assert_eq!((summary.joined, summary.invited), (1, 0));
    }
}
