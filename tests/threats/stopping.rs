//! The end of a server that is busy.

use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use crate::{
    common::{
        eventually,
        history::{ids, whole_log},
    },
    server,
};

/// I1: what was acknowledged is there; what wasn't may be sent again, and is then there once.
#[tokio::test(flavor = "multi_thread")]
async fn i1_sigterm_amid_sends_loses_nothing_and_ends_with_success() {
    let mut server = server().await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    for round in 0..3 {
        let count = Arc::<AtomicUsize>::default();
        let ended = Arc::<AtomicBool>::default();
        let senders: Vec<_> = (0..8)
            .map(|sender| {
                let (alice, room) = (alice.clone(), room.clone());
                let (count, ended) = (Arc::clone(&count), Arc::clone(&ended));
                tokio::spawn(async move {
                    let mut acknowledged = Vec::new();
                    for number in 0.. {
                        if ended.load(Ordering::SeqCst) {
                            break;
                        }
                        let path = format!("/v3/rooms/{room}/send/m.room.message/{round}-{sender}-{number}");
                        let body = json!({ "msgtype": "m.text", "body": path });
                        let token = Some(alice.access_token.as_str());
                        match alice.http.try_request(Method::PUT, &path, token, Some(body)).await {
                            Ok(answer) if answer.status == 200 => {
                                let id = answer.json["event_id"].as_str().expect("an id").to_owned();
                                acknowledged.push((path, id));
                                count.fetch_add(1, Ordering::SeqCst);
                            }
                            // Either the server says that it can't, or it is gone.
                            Ok(answer) => assert!(answer.status >= 500, "{}", answer.text()),
                            Err(_) => break,
                        }
                    }
                    acknowledged
                })
            })
            .collect();
        eventually("messages are sent", || {
            let sent = count.load(Ordering::SeqCst);
            async move { (sent >= 50 * (round + 1)).then_some(()) }
        })
        .await;
        server.signal(Signal::TERM);
        let status = server.ended().await;
        ended.store(true, Ordering::SeqCst);
        assert_eq!(status.code(), Some(0), "{}", server.log());
        server.start_again().await;
        let mut acknowledged = Vec::new();
        for sender in senders {
            acknowledged.extend(sender.await.expect("a sender"));
        }
        let log = ids(&Value::Array(whole_log(&alice, &room).await));
        for (path, id) in &acknowledged {
            assert_eq!(log.iter().filter(|there| *there == id).count(), 1, "{path} is there once");
        }
        let (path, id) = acknowledged.last().expect("many");
        let body = json!({ "msgtype": "m.text", "body": path });
        assert_eq!(alice.put(path, body).await.expect(200)["event_id"], id.as_str(), "I3");
    }
}
