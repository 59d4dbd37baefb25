//! Connections over a planned restart: what clients have been told is written down when the server stops and read when it
//! starts, so that they go on where they were. A server that is killed has written nothing, and they begin anew.
//!
//! What is read is deleted at once: a run that is killed later must not leave what its clients are past.

use std::{collections::HashMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    Sliding,
    connection::{Connection, Draft, Known, Rest, Sent, told},
    request::{Config, Fields, Wishes},
};
use crate::{
    live::syncs::Place,
    store::{
        self, Batch,
        sliding::{delete_connections, insert_connection},
    },
};

/// Rooms of all connections together that are written down, of those that were used last: some ten megabytes.
const MOST_ROOMS: usize = 200_000;
/// Connections that are written at a time.
const AT_A_TIME: usize = 200;

/// A connection on paper.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// Each once; what rooms have refers to these.
    configs: Vec<Config>,
    known: Told,
    number: Option<u64>,
    pending: Option<(u64, Told, i64)>,
}

/// What a client has, or has if an answer has reached it.
#[derive(Serialize, Deserialize)]
struct Told {
    position: i64,
    mail: i64,
    /// Room, `seq`, limit, configuration, [`told`], whether it is a direct chat, whether the user was in it.
    rooms: Vec<(i64, i64, usize, usize, u8, bool, bool)>,
    wishes: Wishes,
    account_data: bool,
    threads: bool,
    device_lists: Option<i64>,
    profiles: Option<Fields>,
}

impl Told {
    fn new(
        place: Place,
        rooms: &HashMap<i64, Sent>,
        rest: &Rest,
        configs: &mut Vec<Config>,
        numbers: &mut HashMap<*const Config, usize>,
    ) -> Self {
        let room = |(room, sent): (&i64, &Sent)| {
            let config = *numbers.entry(Arc::as_ptr(&sent.config)).or_insert_with(|| {
                configs.push(Config::clone(&sent.config));
                configs.len() - 1
            });
            // Who types is known to the run alone that heard it.
            let told = sent.told & !told::TYPING;
            (*room, sent.seq, sent.limit, config, told, sent.dm, sent.joined)
        };
        Self {
            position: place.position,
            mail: place.mail,
            rooms: rooms.iter().map(room).collect(),
            wishes: Wishes::clone(&rest.wishes),
            account_data: rest.account_data,
            threads: rest.threads,
            device_lists: rest.device_lists,
            profiles: rest.profiles.clone(),
        }
    }

    /// What fades, and the order of rooms, began anew with the run.
    fn parts(self, configs: &[Arc<Config>]) -> Option<(Place, HashMap<i64, Sent>, Rest)> {
        let place = Place { position: self.position, mail: self.mail, fading: 0 };
        let rooms = self.rooms.into_iter().map(|(room, seq, limit, config, told, dm, joined)| {
            let config = Arc::clone(configs.get(config)?);
            Some((room, Sent { seq, limit, config, told, dm, joined }))
        });
        let rest = Rest {
            wishes: Arc::new(self.wishes),
            account_data: self.account_data,
            threads: self.threads,
            device_lists: self.device_lists,
            profiles: self.profiles,
            ..Rest::default()
        };
        Some((place, rooms.collect::<Option<_>>()?, rest))
    }
}

impl Kept {
    fn new(known: &Known, number: Option<u64>, pending: Option<&(u64, Draft)>) -> Self {
        let (mut configs, mut numbers) = (Vec::new(), HashMap::new());
        let mut told = |place, rooms, rest| Told::new(place, rooms, rest, &mut configs, &mut numbers);
        let known = told(known.place, &known.rooms, &known.rest);
        let pending = pending
            .map(|(number, draft)| (*number, told(draft.place, &draft.rooms, &draft.rest), draft.mail));
        Self { configs, known, number, pending }
    }

    fn connection(self, conn_id: String, key: i64) -> Option<Connection> {
        let configs: Vec<Arc<Config>> = self.configs.into_iter().map(Arc::new).collect();
        let (place, rooms, rest) = self.known.parts(&configs)?;
        let known = Known { place, rooms, rest };
        let pending = match self.pending {
            Some((number, told, mail)) => {
                let (place, rooms, rest) = told.parts(&configs)?;
                Some((number, Draft { place, rooms, rest, mail }))
            }
            None => None,
        };
        Some(Connection::resumed(conn_id, key, known, self.number, pending, configs))
    }
}

impl Sliding {
    /// Writes down what clients have been told. Nobody is answered any more.
    pub async fn hand_over(&self) -> Result<(), store::Error> {
        let mut left = MOST_ROOMS;
        let mut rows = Vec::new();
        for (device, connection) in self.connections.latest() {
            let Some(rest) = left.checked_sub(connection.rooms()) else { break };
            left = rest;
            let kept = connection.with_state(Kept::new);
            let kept =
                serde_json::to_string(&kept).map_err(|cause| store::Error::Encoding(cause.to_string()))?;
            rows.push(insert_connection(device, connection.conn_id(), kept));
        }
        while !rows.is_empty() {
            let mut batch = Batch::new();
            rows.drain(..rows.len().min(AT_A_TIME)).for_each(|row| batch.push(row));
            self.syncs.store.commit(batch).await?;
        }
        Ok(())
    }

    /// Goes on where the run before has stopped. To be called once, before anybody is answered.
    pub async fn take_over(&self) -> Result<(), store::Error> {
        let rows = self.syncs.store.sliding_connections().await?;
        if rows.is_empty() {
            return Ok(());
        }
        self.syncs.store.commit(delete_connections()).await?;
        for row in rows {
            // What another version has written may mean nothing to this one.
            let Ok(kept) = serde_json::from_str::<Kept>(&row.state) else { continue };
            self.connections.restore(row.device, |key| kept.connection(row.conn_id, key));
        }
        Ok(())
    }
}
