//! Invites of people who were known by an address alone, once an identity server knows who they are.

use hearth_federation::SigningKey;
use http::Method;
use serde_json::{Value, json};
use toml::Table;

use crate::common::{
    Answer, User, eventually,
    federating::{Authority, Federating},
};

const ADDRESS: &str = "somebody@example.org";
const TOKEN: &str = "abc123";

/// A room that alice is in, and into which she invited an address.
struct Meant {
    identity: SigningKey,
    alice: User,
    room: String,
}

impl Meant {
    async fn new(alice: User) -> Self {
        let identity = SigningKey::new("0", [5; 32]).unwrap();
        let room = alice.create_room(json!({ "preset": "private_chat", "name": "Meant" })).await;
        let url = "https://identity.example/_matrix/identity/v2/pubkey/isvalid";
        let key = identity.public_key_text();
        let invite = json!({
            "display_name": "some...@exam...", "key_validity_url": url, "public_key": key,
            "public_keys": [{ "key_validity_url": url, "public_key": key }],
        });
        let path = format!("/v3/rooms/{room}/state/m.room.third_party_invite/{TOKEN}");
        alice.put(&path, invite).await.expect(200);
        Self { identity, alice, room }
    }

    /// An identity server tells the server of a user that the address is theirs, as signed by some key.
    async fn bind(&self, server: &Federating, user: &User, key: &SigningKey) -> Answer {
        let mxid = &user.user_id;
        let signature = key.sign(json!({ "mxid": mxid, "token": TOKEN }).to_string().as_bytes());
        let signed = json!({
            "mxid": mxid, "token": TOKEN,
            "signatures": { "identity.example": { key.id().as_str(): signature } },
        });
        let invite = json!({
            "medium": "email", "address": ADDRESS, "mxid": mxid, "room_id": self.room,
            "sender": self.alice.user_id, "signed": signed,
        });
        let body = json!({ "medium": "email", "address": ADDRESS, "mxid": mxid, "invites": [invite] });
        let path = "/_matrix/federation/v1/3pid/onbind";
        server.with_headers(Method::PUT, path, &[], body.to_string()).await
    }

    /// The content of a user's membership, as alice sees it.
    async fn member(&self, user: &User) -> Value {
        let path = format!("/v3/rooms/{}/state/m.room.member/{}", self.room, user.user_id);
        self.alice.get(&path).await.json
    }

    async fn is_invited(&self, user: &User) {
        eventually("the invite is there", || async {
            let invites = user.sync(None, 0).await["rooms"]["invite"].clone();
            invites.as_object()?.contains_key(&self.room).then_some(())
        })
        .await;
        let member = self.member(user).await;
        assert_eq!(member["membership"], "invite");
        assert_eq!(member["third_party_invite"]["display_name"], "some...@exam...");
        assert_eq!(member["third_party_invite"]["signed"]["token"], TOKEN);
    }
}

/// JN-17: the server of whoever was meant asks that of the inviter, which makes the invite.
#[tokio::test(flavor = "multi_thread")]
async fn jn_17_an_invite_by_address_is_fulfilled_on_another_server() {
    let authority = Authority::new();
    let here = Federating::start(&authority, Table::new()).await;
    let there = Federating::start(&authority, Table::new()).await;
    let meant = Meant::new(here.server.register("alice").await).await;
    let bob = there.server.register("bob").await;

    // What another key signed is no word of the identity server.
    let forger = SigningKey::new("0", [6; 32]).unwrap();
    meant.bind(&there, &bob, &forger).await.expect(200);
    assert_eq!(meant.member(&bob).await["errcode"], "M_NOT_FOUND");

    meant.bind(&there, &bob, &meant.identity).await.expect(200);
    meant.is_invited(&bob).await;
    bob.post(&format!("/v3/join/{}?via={}", meant.room, here.name), json!({})).await.expect(200);
    eventually("bob is in", || async { (meant.member(&bob).await["membership"] == "join").then_some(()) })
        .await;
    // Nobody else gets in by it.
    let eve = there.server.register("eve").await;
    meant.bind(&there, &eve, &forger).await.expect(200);
    assert_eq!(meant.member(&eve).await["errcode"], "M_NOT_FOUND");
}

/// JN-17: whoever was meant may be of the same server.
#[tokio::test(flavor = "multi_thread")]
async fn jn_17_an_invite_by_address_is_fulfilled_here() {
    let here = Federating::start(&Authority::new(), Table::new()).await;
    let meant = Meant::new(here.server.register("alice").await).await;
    let carol = here.server.register("carol").await;
    meant.bind(&here, &carol, &SigningKey::new("0", [6; 32]).unwrap()).await.expect(200);
    assert_eq!(meant.member(&carol).await["errcode"], "M_NOT_FOUND");
    meant.bind(&here, &carol, &meant.identity).await.expect(200);
    meant.is_invited(&carol).await;
}
