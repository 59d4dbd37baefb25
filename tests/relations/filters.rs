//! Filters by how events relate to others (MSC3874), and by what relates to them (`related_by_rel_types` and
//! `related_by_senders`, "Server-side aggregation of m.thread relationships").

use super::*;
use std::collections::BTreeSet;

/// A room with each kind of relation, and the ids of what is in it.
struct Told {
    room: String,
    plain: String,
    root: String,
    reply: String,
    edited: String,
    edit: String,
    liked: String,
    like: String,
}

impl Told {
    async fn new(alice: &User, bob: &User, room: String) -> Self {
        let plain = alice.send_text(&room, "cake plain").await;
        let root = alice.send_text(&room, "cake root").await;
        let edited = alice.send_text(&room, "cake edited").await;
        let liked = alice.send_text(&room, "cake liked").await;
        let reply = bob.reply(&room, &root, "cake reply").await;
        let edit = alice.edit(&room, &edited, "cake changed").await;
        let like = bob.react(&room, &liked, "👍").await;
        Self { room, plain, root, reply, edited, edit, liked, like }
    }

    /// What a filter lets through of the messages and reactions, by `/messages`.
    async fn messages(&self, user: &User, filter: &Value) -> BTreeSet<String> {
        let path = format!("/v3/rooms/{}/messages?dir=b&limit=100&filter={}", self.room, encoded(filter));
        let page = user.get(&path).await.expect(200);
        self.of(&page["chunk"])
    }

    fn of(&self, events: &Value) -> BTreeSet<String> {
        let all = [&self.plain, &self.root, &self.reply, &self.edited, &self.edit, &self.liked, &self.like];
        let ids = events.as_array().into_iter().flatten().filter_map(|event| event["event_id"].as_str());
        ids.filter(|id| all.iter().any(|one| one == id)).map(str::to_owned).collect()
    }
}

fn encoded(json: &Value) -> String {
    form_urlencoded::byte_serialize(json.to_string().as_bytes()).collect()
}

fn set(ids: &[&String]) -> BTreeSet<String> {
    ids.iter().map(|id| (*id).clone()).collect()
}

#[tokio::test]
async fn msc3874_events_are_filtered_by_the_type_of_their_relation() {
    let (_server, alice, bob, room) = two().await;
    let told = Told::new(&alice, &bob, room).await;
    let by = |filter: Value| {
        let (told, bob) = (&told, &bob);
        async move { told.messages(bob, &filter).await }
    };
    let threads = json!({ "org.matrix.msc3874.rel_types": ["m.thread"] });
    assert_eq!(by(threads).await, set(&[&told.reply]));
    let several = json!({ "org.matrix.msc3874.rel_types": ["m.thread", "m.annotation"] });
    assert_eq!(by(several).await, set(&[&told.reply, &told.like]));
    let without = json!({ "org.matrix.msc3874.not_rel_types": ["m.thread", "m.replace"] });
    assert_eq!(by(without).await, set(&[&told.plain, &told.root, &told.edited, &told.liked, &told.like]));
    // FI-02: what is excluded stays out.
    let both = json!({ "org.matrix.msc3874.rel_types": ["m.thread"], "org.matrix.msc3874.not_rel_types": ["m.thread"] });
    assert_eq!(by(both).await, set(&[]));
    assert_eq!(by(json!({ "org.matrix.msc3874.rel_types": [] })).await, set(&[]));
}

#[tokio::test]
async fn events_are_filtered_by_what_relates_to_them() {
    let (_server, alice, bob, room) = two().await;
    let told = Told::new(&alice, &bob, room).await;
    let by = |filter: Value| {
        let (told, bob) = (&told, &bob);
        async move { told.messages(bob, &filter).await }
    };
    assert_eq!(by(json!({ "related_by_rel_types": ["m.thread"] })).await, set(&[&told.root]));
    let any = json!({ "related_by_rel_types": ["m.thread", "m.annotation"] });
    assert_eq!(by(any).await, set(&[&told.root, &told.liked]));
    assert_eq!(by(json!({ "related_by_senders": [bob.user_id] })).await, set(&[&told.root, &told.liked]));
    let both = json!({ "related_by_senders": [alice.user_id], "related_by_rel_types": ["m.thread"] });
    assert_eq!(by(both).await, set(&[]), "by one child, not by several");
    let both = json!({ "related_by_senders": [alice.user_id], "related_by_rel_types": ["m.replace"] });
    assert_eq!(by(both).await, set(&[&told.edited]));
    assert_eq!(by(json!({ "related_by_senders": [] })).await, set(&[]));

    // RL-05, IG-01: what isn't shown relates to nothing.
    bob.redact(&told.room, &told.reply).await;
    assert_eq!(by(json!({ "related_by_rel_types": ["m.thread"] })).await, set(&[]));
    alice.ignore(&[&bob.user_id]).await;
    let likes = json!({ "related_by_rel_types": ["m.annotation"] });
    assert_eq!(told.messages(&alice, &likes).await, set(&[]));
    assert_eq!(told.messages(&bob, &likes).await, set(&[&told.liked]));
}

#[tokio::test]
async fn they_work_wherever_a_filter_does() {
    let (_server, alice, bob, room) = two().await;
    let before = bob.sync(None, 0).await["next_batch"].as_str().expect("a token").to_owned();
    let told = Told::new(&alice, &bob, room).await;
    let related = json!({ "related_by_rel_types": ["m.thread"] });
    let threads = json!({ "org.matrix.msc3874.rel_types": ["m.thread"] });

    for (filter, expected) in [(&related, &told.root), (&threads, &told.reply)] {
        let whole = json!({ "room": { "timeline": filter } });
        for since in ["", &format!("&since={before}")] {
            let answer = bob.get(&format!("/v3/sync?filter={}{since}", encoded(&whole))).await.expect(200);
            let timeline = &answer["rooms"]["join"][&told.room]["timeline"]["events"];
            assert_eq!(told.of(timeline), set(&[expected]), "{filter} {since}");
        }
        let stored = bob.post(&format!("/v3/user/{}/filter", bob.user_id), whole).await.expect(200);
        let id = stored["filter_id"].as_str().expect("an id");
        let answer = bob.get(&format!("/v3/sync?filter={id}")).await.expect(200);
        let timeline = &answer["rooms"]["join"][&told.room]["timeline"]["events"];
        assert_eq!(told.of(timeline), set(&[expected]), "stored {filter}");

        let path =
            format!("/v3/rooms/{}/context/{}?limit=100&filter={}", told.room, told.plain, encoded(filter));
        let context = bob.get(&path).await.expect(200);
        assert_eq!(told.of(&context["events_after"]), set(&[expected]), "{filter}");

        let criteria = json!({ "search_term": "cake", "filter": filter });
        let body = json!({ "search_categories": { "room_events": criteria } });
        let found = bob.post("/v3/search", body).await.expect(200);
        let results = &found["search_categories"]["room_events"]["results"];
        let results = results.as_array().into_iter().flatten().map(|found| found["result"].clone());
        assert_eq!(told.of(&Value::Array(results.collect())), set(&[expected]), "{filter}");
    }
    for nonsense in
        [json!({ "related_by_rel_types": 5 }), json!({ "org.matrix.msc3874.rel_types": "m.thread" })]
    {
        let path = format!("/v3/rooms/{}/messages?dir=b&filter={}", told.room, encoded(&nonsense));
        bob.get(&path).await.expect_error(400, "M_BAD_JSON");
        let whole = json!({ "room": { "timeline": nonsense } });
        bob.get(&format!("/v3/sync?filter={}", encoded(&whole))).await.expect_error(400, "M_BAD_JSON");
    }
}

/// RL-05, I10: children that somebody may not see, that were redacted, or whose sender they ignore tell nothing.
#[tokio::test]
async fn rl_05_no_hidden_child_makes_an_event_match() {
    let server = server().await;
    let (alice, bob, carol) =
        (server.register("alice").await, server.register("bob").await, server.register("carol").await);
    let state =
        json!([{ "type": "m.room.history_visibility", "content": { "history_visibility": "joined" } }]);
    let room = alice.create_room(json!({ "preset": "public_chat", "initial_state": state })).await;
    bob.join(&room).await;
    carol.join(&room).await;
    let mut parents = Vec::new();
    for body in ["unseen", "unwanted", "redacted"] {
        parents.push(alice.send_text(&room, body).await);
    }
    let [unseen, unwanted, redacted] = &parents[..] else { unreachable!() };
    carol.reply(&room, unwanted, "reply").await;
    let child = alice.reply(&room, redacted, "reply").await;
    bob.post(&format!("/v3/rooms/{room}/leave"), json!({})).await.expect(200);
    alice.reply(&room, unseen, "reply").await;
    bob.join(&room).await;

    let filter = encoded(&json!({ "related_by_rel_types": ["m.thread"] }));
    let found = async |user: &User| {
        let path = format!("/v3/rooms/{room}/messages?dir=f&limit=100&filter={filter}");
        let page = user.get(&path).await.expect(200);
        ids(&page["chunk"]).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(found(&alice).await, parents);
    assert_eq!(found(&bob).await, [unwanted.clone(), redacted.clone()]);
    bob.ignore(&[&carol.user_id]).await;
    assert_eq!(found(&bob).await, std::slice::from_ref(redacted));
    alice.redact(&room, &child).await;
    assert_eq!(found(&bob).await, Vec::<String>::new());
    assert_eq!(found(&alice).await, [unseen.clone(), unwanted.clone()]);
}
