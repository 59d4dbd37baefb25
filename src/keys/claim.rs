//! Handing out one-time keys: each once, in the order in which they were uploaded, and then fallback keys.
//!
//! That a key is gone is durable before anybody is told of it. All claims that come while others are being written are
//! answered together: the keys are chosen for all of them, and one commit takes them. So nobody loses a race for a key, and
//! a hundred claims of one device's keys cost little more than one.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{Error, Keys, query::list};
use crate::{
    queue::{Kind, pointer},
    store::{
        self, Batch,
        one_time_key::{HandoutRow, NamedDevice, claim, use_fallback},
    },
};

/// Of which devices a key is wanted, and of which algorithm.
pub type WantedKeys = BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, String>>;

/// The keys of devices, one each: by `<algorithm>:<key id>`, as they were uploaded.
pub type ClaimedKeys = BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, BTreeMap<String, Value>>>;

/// How often it is begun anew when devices go, or change their keys, in the meantime.
const ATTEMPTS: usize = 8;

/// Claims that are answered at once.
const AT_ONCE: usize = 256;

#[derive(Default)]
pub(super) struct Claims {
    waiting: Mutex<VecDeque<Job>>,
    /// Held by the one who answers.
    turn: tokio::sync::Mutex<()>,
}

struct Job {
    wanted: Arc<WantedKeys>,
    done: oneshot::Sender<Result<ClaimedKeys, Error>>,
}

/// What there is of an algorithm for the devices of a group of claims.
type Supply = HashMap<(i64, String), VecDeque<Offer>>;

struct Offer {
    row: HandoutRow,
    fallback: bool,
}

impl Keys {
    /// Takes a key of each of these devices of users of this server; others are passed over, and so are devices that have
    /// none left.
    pub async fn claim_local(self: &Arc<Self>, wanted: &WantedKeys) -> Result<ClaimedKeys, Error> {
        let here = wanted.iter().filter(|(user_id, devices)| self.is_local(user_id) && !devices.is_empty());
        let here: WantedKeys = here.map(|(user_id, devices)| (user_id.clone(), devices.clone())).collect();
        if here.is_empty() {
            return Ok(ClaimedKeys::new());
        }
        let (done, answer) = oneshot::channel();
        self.claims.waiting.lock().push_back(Job { wanted: Arc::new(here), done });
        // On its own: a caller that goes away takes nobody's answer with it.
        tokio::spawn(Arc::clone(self).answer_claims());
        answer.await.map_err(|_| Error::Store(store::Error::Closed))?
    }

    /// Answers those who wait; somebody else may have done it already.
    async fn answer_claims(self: Arc<Self>) {
        let _turn = self.claims.turn.lock().await;
        let jobs: Vec<Job> = {
            let mut waiting = self.claims.waiting.lock();
            // Who has gone by now needs no key.
            waiting.retain(|job| !job.done.is_closed());
            let some = waiting.len().min(AT_ONCE);
            waiting.drain(..some).collect()
        };
        if jobs.is_empty() {
            return;
        }
        let wanted: Vec<Arc<WantedKeys>> = jobs.iter().map(|job| Arc::clone(&job.wanted)).collect();
        match self.hand_out(&wanted).await {
            Ok(answers) => {
                for (job, answer) in jobs.into_iter().zip(answers) {
                    // Who is gone has lost the keys: they may have been seen.
                    let _ = job.done.send(Ok(answer));
                }
            }
            Err(cause) => {
                for job in jobs {
                    let _ = job.done.send(Err(cause.clone()));
                }
            }
        }
    }

    async fn hand_out(&self, wanted: &[Arc<WantedKeys>]) -> Result<Vec<ClaimedKeys>, Error> {
        let mut attempt = 1;
        loop {
            let (answers, batch) = self.choose(wanted).await?;
            if batch.is_empty() {
                return Ok(answers);
            }
            match self.store.commit(batch).await {
                // A device went, or has another fallback key.
                Err(store::Error::Conflict) if attempt < ATTEMPTS => attempt += 1,
                Err(cause) => return Err(cause.into()),
                Ok(_) => return Ok(answers),
            }
        }
    }

    /// Who gets which key, and what has to be written before they are told.
    async fn choose(&self, wanted: &[Arc<WantedKeys>]) -> Result<(Vec<ClaimedKeys>, Batch), Error> {
        let users = list(wanted.iter().flat_map(|wanted| wanted.keys()));
        let devices = self.store.devices_of(&users).await?;
        let mut named: HashMap<(&str, &str), &NamedDevice> = HashMap::with_capacity(devices.len());
        named.extend(devices.iter().map(|device| ((&*device.user_id, &*device.device_id), device)));
        let find = |user_id: &OwnedUserId, device_id: &DeviceId| {
            named.get(&(user_id.as_str(), device_id.as_str())).copied()
        };
        let mut demand: BTreeMap<&str, BTreeMap<i64, i64>> = BTreeMap::new();
        for (user_id, of_user) in wanted.iter().flat_map(|wanted| wanted.iter()) {
            for (device_id, algorithm) in of_user {
                if let Some(device) = find(user_id, device_id) {
                    *demand.entry(algorithm).or_default().entry(device.device).or_default() += 1;
                }
            }
        }
        let mut supply = self.supply(&demand).await?;

        let mut batch = Batch::new();
        let mut answers = Vec::with_capacity(wanted.len());
        let mut fewer: BTreeMap<i64, i64> = BTreeMap::new();
        let mut used: BTreeSet<(i64, &str)> = BTreeSet::new();
        for wanted in wanted {
            let mut answer = ClaimedKeys::new();
            for (user_id, of_user) in &**wanted {
                for (device_id, algorithm) in of_user {
                    let Some(device) = find(user_id, device_id) else { continue };
                    let Some(offers) = supply.get_mut(&(device.device, algorithm.clone())) else { continue };
                    // The last is a fallback key, which stays.
                    let key = match offers.front() {
                        None => continue,
                        Some(offer) if offer.fallback => {
                            if !offer.row.used && used.insert((device.device, algorithm)) {
                                batch.push(use_fallback(device.device, algorithm, &offer.row.key_id));
                                fewer.insert(device.device, device.recipient);
                            }
                            offer.row.clone()
                        }
                        Some(_) => {
                            let Some(offer) = offers.pop_front() else { continue };
                            batch.push(claim(&offer.row, algorithm));
                            fewer.insert(device.device, device.recipient);
                            offer.row
                        }
                    };
                    let name = format!("{algorithm}:{}", key.key_id);
                    let of_user = answer.entry(user_id.clone()).or_default();
                    let of_device = of_user.entry(device_id.clone()).or_default();
                    of_device.insert(name, serde_json::from_str(&key.key)?);
                }
            }
            answers.push(answer);
        }
        for (device, recipient) in &fewer {
            let step = batch.step();
            batch.deliver(pointer([*recipient], step, Kind::OneTimeKeys, *device));
        }
        self.counts.forget_on_commit(&mut batch, fewer.into_keys().collect());
        Ok((answers, batch))
    }

    /// As many keys as are wanted of each device and algorithm, if there are, and then the fallback key.
    async fn supply(&self, demand: &BTreeMap<&str, BTreeMap<i64, i64>>) -> Result<Supply, Error> {
        let mut supply = Supply::new();
        for (algorithm, devices) in demand {
            let (one, several): (Vec<_>, Vec<_>) = devices.iter().partition(|(_, wanted)| **wanted == 1);
            let one = json!(one.into_iter().map(|(device, _)| device).collect::<Vec<_>>()).to_string();
            let mut rows = self.store.next_one_time_key(&one, algorithm).await?;
            for (device, wanted) in several {
                rows.extend(self.store.next_one_time_keys(*device, algorithm, *wanted).await?);
            }
            let mut lacking = devices.clone();
            for row in rows {
                if let Some(lack) = lacking.get_mut(&row.device) {
                    *lack -= 1;
                }
                let offers = supply.entry((row.device, (*algorithm).to_owned())).or_default();
                offers.push_back(Offer { row, fallback: false });
            }
            lacking.retain(|_, lack| *lack > 0);
            if lacking.is_empty() {
                continue;
            }
            let lacking = json!(lacking.into_keys().collect::<Vec<_>>()).to_string();
            for row in self.store.fallback_keys(&lacking, algorithm).await? {
                let offers = supply.entry((row.device, (*algorithm).to_owned())).or_default();
                offers.push_back(Offer { row, fallback: true });
            }
        }
        Ok(supply)
    }
}

#[cfg(test)]
mod tests {
    use ruma::{device_id, owned_server_name, owned_user_id};

    use super::*;
    use crate::{
        room::tests::World,
        store::{
            device::add_device,
            one_time_key::{PlacedKey, add_one_time_key, forget_one_time_keys},
        },
    };

    const ALICE: &str = "@alice:localhost";

    /// alice's server, on which she has a device.
    struct Claimed {
        world: World,
        keys: Arc<Keys>,
        device: i64,
    }

    impl Claimed {
        async fn new() -> Self {
            let world = World::new(&[ALICE]).await;
            world.store.commit(Vec::from(add_device(ALICE, "A", None, 0))).await.unwrap();
            let device = world.store.last_device().await.unwrap();
            let lists = world.sessions.device_lists().clone();
            let keys = Arc::new(Keys::new(world.store.clone(), owned_server_name!("localhost"), lists));
            Self { world, keys, device }
        }

        /// Adds keys: their ids and what they are.
        fn add(&self, batch: &mut Batch, keys: &[(&str, &str)]) {
            let step = batch.step();
            for (place, (key_id, key)) in keys.iter().enumerate() {
                let (device, place, key) = (self.device, place as i64, json!(key).to_string());
                add_one_time_key(
                    batch,
                    PlacedKey { device, algorithm: "m", key_id, step, place, key },
                    false,
                );
            }
        }

        async fn claim(&self) -> Value {
            let mut claimed = self.keys.claim_local(&wanted()).await.unwrap();
            let of_user = claimed.remove(&owned_user_id!("@alice:localhost")).unwrap_or_default();
            json!(of_user.get(device_id!("A")))
        }
    }

    fn wanted() -> WantedKeys {
        let of_user = BTreeMap::from([(device_id!("A").to_owned(), "m".to_owned())]);
        WantedKeys::from([(owned_user_id!("@alice:localhost"), of_user)])
    }

    /// OK-01: a device that begins anew counts its keys from the start.
    #[tokio::test]
    async fn ok_01_another_key_that_has_got_the_name_of_the_chosen_one_meanwhile_stays() {
        let claimed = Claimed::new().await;
        let store = &claimed.world.store;
        let mut batch = Batch::new();
        claimed.add(&mut batch, &[("K", "old")]);
        store.commit(batch).await.unwrap();
        let (_, chosen) = claimed.keys.choose(&[Arc::new(wanted())]).await.unwrap();
        let mut anew = Batch::from(forget_one_time_keys(claimed.device));
        claimed.add(&mut anew, &[("K", "new")]);
        store.commit(anew).await.unwrap();
        assert!(matches!(store.commit(chosen).await, Err(store::Error::Conflict)));
        assert_eq!(claimed.claim().await, json!({ "m:K": "new" }));
    }

    #[tokio::test]
    async fn whoever_is_gone_before_their_turn_takes_no_key() {
        let claimed = Claimed::new().await;
        let mut batch = Batch::new();
        claimed.add(&mut batch, &[("K", "first"), ("L", "second")]);
        claimed.world.store.commit(batch).await.unwrap();
        let turn = claimed.keys.claims.turn.lock().await;
        let keys = Arc::clone(&claimed.keys);
        let gone = tokio::spawn(async move { keys.claim_local(&wanted()).await.map(drop) });
        while claimed.keys.claims.waiting.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        gone.abort();
        assert!(gone.await.is_err());
        drop(turn);
        assert_eq!(claimed.claim().await, json!({ "m:K": "first" }));
    }
}
