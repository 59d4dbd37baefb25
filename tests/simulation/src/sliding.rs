//! A device that reads by sliding sync (MSC4186, in the form from before it was merged): one list of all rooms, with all of
//! their state. A connection that the server doesn't know any more is begun anew.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    client::encoded,
    device::{Device, View, ids, list, text},
};

impl Device {
    /// One answer, if there is one, and whether there is anything in it.
    pub(crate) async fn slide(&mut self, wait: u64) -> Option<bool> {
        let mut body = json!({
            "lists": { "all": {
                "ranges": [[0, 99]], "timeline_limit": self.limit, "required_state": [["*", "*"]],
            } },
            "extensions": {
                "account_data": { "enabled": true }, "receipts": { "enabled": true }, "to_device": { "enabled": true },
            },
        });
        if let Some(since) = &self.mail_since {
            body["extensions"]["to_device"]["since"] = json!(since);
        }
        let pos = self.since.as_ref().map(|pos| format!("&pos={}", encoded(pos))).unwrap_or_default();
        let path = format!("/unstable/org.matrix.simplified_msc3575/sync?timeout={wait}{pos}");
        let answer = self.client.once("POST", &path, Some(&body), Duration::from_millis(wait)).await?;
        if answer.text("errcode") == "M_UNKNOWN_POS" {
            self.since = None;
            // What it isn't told of anew isn't there.
            self.told.clear();
            self.rooms.values_mut().for_each(|view| view.joined = false);
            self.invites.clear();
            return Some(true);
        }
        if !answer.is_ok() {
            self.wrong(&format!("sliding sync is refused: {answer:?}"));
            return None;
        }
        let answer = answer.json;
        let rooms = answer["rooms"].as_object().cloned().unwrap_or_default();
        for (room, part) in &rooms {
            self.told.insert(room.clone());
            self.slide_room(room, part).await;
        }
        let extensions = &answer["extensions"];
        for event in list(&extensions["account_data"]["global"]) {
            self.account_data.insert(text(&event["type"]), event["content"].clone());
        }
        for (room, receipts) in extensions["receipts"]["rooms"].as_object().into_iter().flatten() {
            self.rooms.entry(room.clone()).or_default().read(&receipts["content"]);
        }
        let mail = list(&extensions["to_device"]["events"]);
        self.get_mail(mail);
        if let Some(since) = extensions["to_device"]["next_batch"].as_str() {
            self.mail_since = Some(since.to_owned());
        }
        self.listed = answer["lists"]["all"]["count"].as_u64();
        self.since = Some(text(&answer["pos"]));
        Some(!rooms.is_empty() || !mail.is_empty())
    }

    async fn slide_room(&mut self, room: &str, part: &Value) {
        if part.get("invite_state").is_some() {
            self.rooms.entry(room.to_owned()).or_default().joined = false;
            self.invites.insert(room.to_owned());
            return;
        }
        self.invites.remove(room);
        let (timeline, state) = (list(&part["timeline"]), list(&part["required_state"]));
        let user_id = self.user_id.clone();
        let own = |event: &&Value| event["type"] == "m.room.member" && event["state_key"] == user_id.as_str();
        let membership = state.iter().rfind(own).or_else(|| timeline.iter().rfind(own));
        let membership = membership.map(|event| text(&event["content"]["membership"]));
        self.see(room, timeline);
        if membership.is_some_and(|membership| membership != "join") {
            self.rooms.entry(room.to_owned()).or_default().joined = false;
            return;
        }
        let new = part["initial"] == true;
        if !new && !self.rooms.get(room).is_some_and(|view| view.joined) {
            self.wrong(&format!("{room} changes, in which it isn't: {part}"));
            return;
        }
        // What was left out of an answer may be given unasked, together with what the device has.
        let mut news = timeline;
        if !new && part["unstable_expanded_timeline"] == true {
            let log = self.rooms.get(room).map(|view| &*view.log).unwrap_or_default();
            let has = |event: &Value| log.contains(&text(&event["event_id"]));
            news = &timeline[timeline.iter().rposition(has).map_or(0, |at| at + 1)..];
        }
        let gap = if !new && part["limited"] == true && news.len() == timeline.len() {
            self.gap(room, &text(&part["prev_batch"]), None).await
        } else {
            Vec::new()
        };
        let view = self.rooms.entry(room.to_owned()).or_default();
        if new {
            let receipts = std::mem::take(&mut view.receipts);
            *view = View { joined: true, receipts, ..View::default() };
        }
        view.apply(state);
        view.log.extend(gap);
        view.log.extend(ids(news));
        if let Some(count) = part["notification_count"].as_u64() {
            view.unread = count;
        }
    }
}
