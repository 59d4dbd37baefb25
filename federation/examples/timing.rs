//! How long an event takes: `cargo run --release -p hearth-federation --example timing`.
//!
//! Prints microseconds an event for each step of its life, on one thread.

use std::{error::Error, hint::black_box, time::Instant};

use hearth_federation::{Draft, Limits, Pdu, Position, Received, References, SigningKey, authorize_built};
use ruma::{
    MilliSecondsSinceUnixEpoch, RoomVersionId, events::StateEventType, owned_event_id, owned_room_id,
    owned_user_id, server_name,
};
use serde_json::{json, value::to_raw_value};

const EVENTS: u32 = 20_000;

fn main() -> Result<(), Box<dyn Error>> {
    let version = RoomVersionId::V12;
    let key = SigningKey::new("timing", [7; 32])?;
    let server = server_name!("example.org");
    let draft = Draft {
        room_id: Some(owned_room_id!("!rrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrr")),
        sender: owned_user_id!("@alice:example.org"),
        kind: "m.room.message".into(),
        state_key: None,
        content: to_raw_value(
            &json!({ "msgtype": "m.text", "body": "Shall we meet at the bridge? ".repeat(4) }),
        )?,
        redacts: None,
    };
    let position = Position::new(
        vec![owned_event_id!("$ppppppppppppppppppppppppppppppppppppppppppp")],
        vec![
            owned_event_id!("$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
            owned_event_id!("$bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"),
        ],
        1_000,
        MilliSecondsSinceUnixEpoch::now(),
    );
    let build = || draft.clone().build(&version, position.clone(), server, &key, Limits::FEDERATED);
    let pdu = build()?;
    let text = pdu.json.get();
    println!("an event of {} bytes", text.len());

    let public_key = key.public_key();
    time("build", || build().is_ok());
    time("sign alone", || !key.sign(text.as_bytes()).is_empty());

    let state = [
        built("m.room.create", "", &json!({ "room_version": "12" }), &version, &key)?,
        built("m.room.member", "@alice:example.org", &json!({ "membership": "join" }), &version, &key)?,
        built("m.room.power_levels", "", &json!({ "users": { "@bob:example.org": 50 } }), &version, &key)?,
    ];
    let fetch_state = |kind: &StateEventType, state_key: &str| {
        state.iter().find(|pdu| {
            pdu.kind.to_string() == kind.to_string() && pdu.state_key.as_deref() == Some(state_key)
        })
    };
    time("authorise", || authorize_built(&version, &pdu, fetch_state).is_ok());
    time("read from store", || Pdu::from_stored(pdu.event_id.clone(), text.to_owned(), &version).is_ok());
    time("parse as received", || Received::parse(text, &version, References::Limited).is_ok());
    time("parse and verify", || {
        Received::parse(text, &version, References::Limited)
            .is_ok_and(|received| received.verify(|_, _| Some(public_key)).is_ok())
    });
    Ok(())
}

/// A state event by Alice, whatever it follows.
fn built(
    kind: &str,
    state_key: &str,
    content: &serde_json::Value,
    version: &RoomVersionId,
    key: &SigningKey,
) -> Result<Pdu, Box<dyn Error>> {
    let is_create = kind == "m.room.create";
    let draft = Draft {
        room_id: (!is_create).then(|| owned_room_id!("!rrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrr")),
        sender: owned_user_id!("@alice:example.org"),
        kind: kind.into(),
        state_key: Some(state_key.to_owned()),
        content: to_raw_value(content)?,
        redacts: None,
    };
    let position = Position::new(Vec::new(), Vec::new(), 1, MilliSecondsSinceUnixEpoch::now());
    Ok(draft.build(version, position, server_name!("example.org"), key, Limits::FEDERATED)?)
}

fn time(what: &str, mut step: impl FnMut() -> bool) {
    let start = Instant::now();
    let succeeded = (0..EVENTS).filter(|_| black_box(step())).count();
    let each = start.elapsed().as_secs_f64() * 1e6 / f64::from(EVENTS);
    println!("{what:>18}: {each:6.1} µs ({succeeded} of {EVENTS} succeeded)");
}
