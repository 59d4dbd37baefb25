//! Looking for people ("User Directory"), and the rooms that one has in common with somebody ("Mutual Rooms").

use std::collections::HashSet;

use ruma::{OwnedRoomId, UserId};
use serde_json::json;

use super::{Accounts, Error};

/// People whose names are compared, at most: the closest.
const CANDIDATES: i64 = 2_000;
/// People who are asked for at a time.
const STRIDE: usize = 100;
/// The longest text that is looked for, in characters; longer ones are cut.
const LONGEST: usize = 256;
/// Rooms of a page.
const ROOMS: i64 = 100;

/// Somebody who was found.
#[derive(Clone, Debug)]
pub struct Person {
    pub user_id: String,
    pub display_name: Option<String>,
    pub avatar_url: Option<String>,
}

pub struct MutualRooms {
    pub rooms: Vec<OwnedRoomId>,
    pub count: i64,
    pub next_batch: Option<String>,
}

impl Accounts {
    /// UD-01: at most `limit` people whose id or name has all words of `term`, and whether there are more. Only those whom
    /// the searcher may know of, unless `everybody` is open to all.
    pub async fn find_people(
        &self,
        searcher: &UserId,
        term: &str,
        limit: usize,
        everybody: bool,
    ) -> Result<(Vec<Person>, bool), Error> {
        let term: String = term.chars().take(LONGEST).collect::<String>().to_lowercase();
        let words: Vec<&str> = term.split_whitespace().collect();
        // All of them as one text is the closest; a name may also have them apart.
        let whole = words.join(" ");
        let Some(longest) = words.iter().max_by_key(|word| word.len()) else {
            return Ok((Vec::new(), false));
        };
        let mut candidates = self.store.people(&whole, CANDIDATES).await?;
        if words.len() > 1 {
            let known: HashSet<String> = candidates.iter().map(|one| one.user_id.clone()).collect();
            let others = self.store.people(longest, CANDIDATES).await?.into_iter();
            candidates.extend(others.filter(|one| !known.contains(&one.user_id)));
        }
        candidates.retain(|one| {
            // That people are of this server says nothing about them.
            let id = if whole.contains([':', '@']) {
                one.user_id.as_str()
            } else {
                one.user_id.split(':').next().unwrap_or_default()
            };
            let name = one.name.as_deref().unwrap_or_default();
            one.user_id != searcher.as_str()
                && words.iter().all(|word| id.contains(word) || name.contains(word))
        });
        let mut found = Vec::new();
        for candidates in candidates.chunks(STRIDE) {
            let ids: Vec<&str> = candidates.iter().map(|one| one.user_id.as_str()).collect();
            let known: HashSet<String> = if everybody {
                ids.iter().map(|&id| id.to_owned()).collect()
            } else {
                let ids = json!(ids).to_string();
                self.store.acquaintances(searcher.as_str(), ids).await?.into_iter().collect()
            };
            for id in ids.into_iter().filter(|id| known.contains(*id)) {
                if found.len() == limit {
                    return Ok((found, true));
                }
                found.push(self.person(id).await?);
            }
        }
        Ok((found, false))
    }

    /// PF-04: whether somebody may know of another, who shares a room with them or is in one that is open to strangers.
    pub async fn may_know(&self, user_id: &UserId, other: &UserId) -> Result<bool, Error> {
        let others = json!([other]).to_string();
        Ok(user_id == other || !self.store.acquaintances(user_id.as_str(), others).await?.is_empty())
    }

    async fn person(&self, id: &str) -> Result<Person, Error> {
        let profile = match <&UserId>::try_from(id) {
            Ok(user_id) => self.member_profile(user_id).await?,
            Err(_) => super::profile::MemberProfile::default(),
        };
        Ok(Person {
            user_id: id.to_owned(),
            display_name: profile.displayname,
            avatar_url: profile.avatar_url,
        })
    }

    /// MR-01: a page of the rooms that two users are both in. Of somebody unknown there are none.
    pub async fn mutual_rooms(
        &self,
        one: &UserId,
        other: &UserId,
        from: Option<&str>,
    ) -> Result<MutualRooms, Error> {
        if one == other {
            return Err(Error::Invalid("`user_id` is your own".to_owned()));
        }
        let after = match from {
            None => 0,
            Some(token) => {
                let number = token.strip_prefix('m').and_then(|number| number.parse().ok());
                number.ok_or_else(|| Error::Invalid("`from` is not a token of this list".to_owned()))?
            }
        };
        let (one, other) = (one.as_str(), other.as_str());
        let mut rows = self.store.mutual_rooms(one, other, after, ROOMS + 1).await?;
        let more = rows.len() > ROOMS as usize;
        rows.truncate(ROOMS as usize);
        let next_batch = rows.last().filter(|_| more).map(|(number, _)| format!("m{number}"));
        let rooms = rows.into_iter().filter_map(|(_, room_id)| OwnedRoomId::try_from(room_id).ok()).collect();
        Ok(MutualRooms { rooms, count: self.store.mutual_count(one, other).await?, next_batch })
    }
}
