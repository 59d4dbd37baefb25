//! What a message and the sync that brings it cost, in pages of the database that are read: as much in a room with a long
//! history as in a young one (I11). A scan of something that grows with the room would be seen.

use std::{path::Path, sync::Arc, time::Duration};

use rand::{SeedableRng as _, rngs::StdRng};
use serde_json::json;
use tokio::time::sleep;

use crate::{
    client::{Answer, Client, encoded},
    disk::Loss,
    host::Host,
    network::Net,
    story::{SETTINGS, person},
    world::World,
};

/// How many messages a young room has, and how many an old one has in addition.
const YOUNG: usize = 200;
const MORE: usize = 2000;
/// What may be added where a tree has become a level deeper, for each of those that are looked into.
const DEEPER: u64 = 12;

/// Pages that are read for a message and for the sync that brings it: right after a start, and when all is in memory that
/// will be.
type Costs = [(&'static str, u64); 4];

struct Talk {
    host: Arc<Host>,
    room: String,
    speaker: Client,
    listener: Client,
    since: Option<String>,
    said: usize,
}

/// What is wrong.
pub(crate) async fn judge(dir: &Path) -> Vec<String> {
    let costs = async {
        let mut talk = Talk::begin(dir).await?;
        talk.go_on(YOUNG).await?;
        let young = talk.costs().await?;
        talk.go_on(MORE).await?;
        Ok::<_, String>((young, talk.costs().await?))
    };
    match costs.await {
        Err(cause) => vec![cause],
        Ok((young, old)) => {
            println!("pages read, in a young room: {young:?}\nin an old one: {old:?}");
            let pairs = young.into_iter().zip(old).filter(|((_, young), (_, old))| *old > young + DEEPER);
            pairs
                .map(|((what, young), (_, old))| {
                    format!("I11: {what} reads {old} pages, and {young} at first")
                })
                .collect()
        }
    }
}

impl Talk {
    async fn begin(dir: &Path) -> Result<Self, String> {
        let net = Net::new(1);
        let host = Host::new(0, "alpha", &net, dir.join("alpha"), 1, 0);
        host.prepare(SETTINGS)?;
        host.start().await?;
        let world = World::new(1, net, vec![Arc::clone(&host)]);
        let mut chance = StdRng::seed_from_u64(1);
        let mut clients = Vec::new();
        for number in 0..2 {
            let person = person(&world, &host, number, &mut chance).await?;
            clients.push(Client::new(&world, &host, person.user_id, Some(person.token)));
        }
        let (Some(mut listener), Some(mut speaker)) = (clients.pop(), clients.pop()) else {
            return Err("nobody is there".to_owned());
        };
        let body = json!({ "preset": "public_chat" });
        let room = ok(speaker.ask("POST", "/v3/createRoom", Some(&body)).await)?.text("room_id");
        let path = format!("/v3/join/{}", encoded(&room));
        ok(listener.ask("POST", &path, Some(&json!({}))).await)?;
        Ok(Self { host, room, speaker, listener, since: None, said: 0 })
    }

    async fn say(&mut self) -> Result<(), String> {
        self.said += 1;
        let path = format!("/v3/rooms/{}/send/m.room.message/{}", encoded(&self.room), self.said);
        let body = json!({ "msgtype": "m.text", "body": format!("word{} and more", self.said) });
        ok(self.speaker.ask("PUT", &path, Some(&body)).await).map(drop)
    }

    async fn hear(&mut self) -> Result<(), String> {
        let since = self.since.as_ref().map(|since| format!("?since={since}")).unwrap_or_default();
        let answer = ok(self.listener.get(&format!("/v3/sync{since}")).await)?;
        self.since = Some(answer.text("next_batch"));
        Ok(())
    }

    async fn go_on(&mut self, messages: usize) -> Result<(), String> {
        for number in 0..messages {
            self.say().await?;
            if number % 20 == 19 {
                self.hear().await?;
            }
        }
        Ok(())
    }

    /// The least of some, for now and then something is put in order meanwhile.
    async fn costs(&mut self) -> Result<Costs, String> {
        let what = ["a message after a start", "a sync after a start", "a message", "a sync"];
        let mut costs = what.map(|what| (what, u64::MAX));
        for _ in 0..3 {
            self.host.crash(Loss::Nothing);
            self.host.start().await?;
            sleep(Duration::from_mins(1)).await;
            for number in 0..6 {
                let first = if number == 0 { 0 } else { 2 };
                let begin = self.host.disk.reads();
                self.say().await?;
                let said = self.host.disk.reads();
                self.hear().await?;
                let heard = self.host.disk.reads();
                costs[first].1 = costs[first].1.min(said - begin);
                costs[first + 1].1 = costs[first + 1].1.min(heard - said);
            }
        }
        Ok(costs)
    }
}

fn ok(answer: Option<Answer>) -> Result<Answer, String> {
    match answer {
        Some(answer) if answer.is_ok() => Ok(answer),
        other => Err(format!("it is refused: {other:?}")),
    }
}
