//! Profiles of users of other servers, as these gave them a moment ago: clients ask for the same ones again and again.

use std::{num::NonZeroUsize, time::Duration};

use lru::LruCache;
use parking_lot::Mutex;
use ruma::{MilliSecondsSinceUnixEpoch, OwnedUserId, UserId};
use serde_json::{Map, Value};

/// How long one is kept.
const LASTS: Duration = Duration::from_mins(5);
/// How many are, and the most bytes of one.
const MOST: NonZeroUsize = NonZeroUsize::new(2_000).unwrap();
const LONGEST: usize = 8 * 1024;

type Profile = Map<String, Value>;

/// By user and, if it is a field alone, its name. What doesn't have to be asked for again is kept, the rest isn't.
pub(super) struct Profiles(Mutex<LruCache<(OwnedUserId, Option<String>), Kept>>);

struct Kept {
    profile: Profile,
    at: u64,
}

impl Default for Profiles {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MOST)))
    }
}

impl Profiles {
    /// What a user's server said of them, or of a field; the whole has all its fields.
    pub(super) fn get(
        &self,
        user_id: &UserId,
        field: Option<&str>,
        now: MilliSecondsSinceUnixEpoch,
    ) -> Option<Profile> {
        let mut kept = self.0.lock();
        let mut find = |field: Option<&str>| {
            let kept = kept.get(&(user_id.to_owned(), field.map(str::to_owned)))?;
            let age = u64::from(now.get()).checked_sub(kept.at);
            age.is_some_and(|age| Duration::from_millis(age) < LASTS).then(|| kept.profile.clone())
        };
        if let Some(profile) = find(None) {
            let wanted = |name: &str| field.is_none_or(|field| name == field);
            return Some(profile.into_iter().filter(|(name, _)| wanted(name)).collect());
        }
        find(Some(field?))
    }

    pub(super) fn put(
        &self,
        user_id: &UserId,
        field: Option<&str>,
        profile: &Profile,
        now: MilliSecondsSinceUnixEpoch,
    ) {
        if serde_json::to_string(profile).is_ok_and(|text| text.len() <= LONGEST) {
            let kept = Kept { profile: profile.clone(), at: now.get().into() };
            self.0.lock().put((user_id.to_owned(), field.map(str::to_owned)), kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::{UInt, user_id};
    use serde_json::json;

    use super::*;

    fn at(ms: u64) -> MilliSecondsSinceUnixEpoch {
        MilliSecondsSinceUnixEpoch(UInt::new(ms).unwrap())
    }

    fn profile(value: Value) -> Profile {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn profiles_are_known_for_some_minutes() {
        let (profiles, zoe) = (Profiles::default(), user_id!("@zoe:elsewhere"));
        let whole = profile(json!({ "displayname": "Zoe", "m.tz": "UTC" }));
        assert_eq!(profiles.get(zoe, None, at(1_000)), None);
        profiles.put(zoe, None, &whole, at(1_000));
        let end = 1_000 + LASTS.as_millis() as u64;
        assert_eq!(profiles.get(zoe, None, at(end - 1)), Some(whole));
        assert_eq!(profiles.get(zoe, Some("m.tz"), at(end - 1)), Some(profile(json!({ "m.tz": "UTC" }))));
        assert_eq!(profiles.get(zoe, None, at(end)), None);
        assert_eq!(profiles.get(zoe, None, at(999)), None, "a clock that goes back");
        assert_eq!(profiles.get(user_id!("@yan:elsewhere"), None, at(1_000)), None);
    }

    #[test]
    fn a_field_is_no_whole_profile_and_what_is_large_is_not_kept() {
        let (profiles, zoe) = (Profiles::default(), user_id!("@zoe:elsewhere"));
        let name = profile(json!({ "displayname": "Zoe" }));
        profiles.put(zoe, Some("displayname"), &name, at(1));
        assert_eq!(profiles.get(zoe, Some("displayname"), at(1)), Some(name));
        assert_eq!(profiles.get(zoe, None, at(1)), None);
        assert_eq!(profiles.get(zoe, Some("avatar_url"), at(1)), None);
        profiles.put(zoe, None, &profile(json!({ "x": "y".repeat(LONGEST) })), at(1));
        assert_eq!(profiles.get(zoe, None, at(1)), None);
    }
}
