//! What users say about themselves ("Profiles"): their name and picture, and fields of anybody's choice.

use ruma::UserId;
use serde_json::{Map, Value, json};

use super::{Accounts, Error};
use crate::{
    queue::{Kind, pointer},
    store::{
        self, Batch, Statement,
        profile::{delete_profile_field, set_profile_field},
        user_directory::{delete_name, set_name},
    },
};

/// Bytes of the whole profile, as JSON.
const MAX_PROFILE: usize = 64 * 1024;
/// Bytes of a field's name.
const MAX_KEY: usize = 255;
/// Of a display name, in characters; it is in every member event.
const MAX_NAME: usize = 256;
/// Bytes of the URL of a picture, which is there too.
const MAX_URL: usize = 1_000;

const NAME: &str = "displayname";
const AVATAR: &str = "avatar_url";
const TIME_ZONE: &str = "m.tz";

/// What a user's member events say of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberProfile {
    pub displayname: Option<String>,
    pub avatar_url: Option<String>,
}

/// What a change of a profile means for the user's rooms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum ProfileChange {
    /// Those member events that say something else have to be sent anew. So they may if nothing was changed: who tries again
    /// may have been cut short before.
    Member,
    Nothing,
}

impl ProfileChange {
    fn of(field: &str) -> Self {
        if [NAME, AVATAR].contains(&field) { Self::Member } else { Self::Nothing }
    }
}

impl Accounts {
    /// What the member events of a user say. Nothing of somebody unknown.
    pub async fn member_profile(&self, user_id: &UserId) -> Result<MemberProfile, store::Error> {
        let mut profile = MemberProfile::default();
        let Some(account) = self.store.account_of(user_id.as_str()).await? else { return Ok(profile) };
        for (field, value) in self.store.profile(account.recipient).await? {
            // Only what was checked is stored.
            let text = || serde_json::from_str::<String>(&value).ok();
            match field.as_str() {
                NAME => profile.displayname = text(),
                AVATAR => profile.avatar_url = text(),
                _ => {}
            }
        }
        Ok(profile)
    }

    /// All fields of a local user.
    pub async fn profile(&self, user_id: &UserId) -> Result<Map<String, Value>, Error> {
        let account = self.store.account_of(user_id.as_str()).await?;
        let account = account.filter(|account| account.deactivated_ts.is_none());
        self.fields(account.ok_or(Error::NotFound("profile"))?.recipient).await
    }

    async fn fields(&self, recipient: i64) -> Result<Map<String, Value>, Error> {
        let rows = self.store.profile(recipient).await?;
        Ok(rows
            .into_iter()
            .filter_map(|(field, value)| Some((field, serde_json::from_str(&value).ok()?)))
            .collect())
    }

    /// Sets a field of one's own profile. A name or picture that is empty or null is none.
    pub async fn set_profile_field(
        &self,
        recipient: i64,
        field: &str,
        value: Value,
    ) -> Result<ProfileChange, Error> {
        check_key(field)?;
        let is_member = ProfileChange::of(field) == ProfileChange::Member;
        if is_member && (value.is_null() || value == json!("")) {
            return self.delete_profile_field(recipient, field).await;
        }
        check_value(field, &value)?;
        let _turn = self.turns.of(recipient).await;
        let mut profile = self.fields(recipient).await?;
        if profile.get(field) == Some(&value) {
            return Ok(ProfileChange::of(field));
        }
        let text = value.to_string();
        let name = value.as_str().filter(|_| field == NAME).map(str::to_owned);
        profile.insert(field.to_owned(), value);
        if Value::Object(profile).to_string().len() > MAX_PROFILE {
            return Err(Error::ProfileTooLarge(MAX_PROFILE));
        }
        self.write_profile(recipient, |step| {
            let name = name.as_deref().map(|name| set_name(recipient, name));
            std::iter::once(set_profile_field(recipient, field, &text, step)).chain(name).collect()
        })
        .await?;
        Ok(ProfileChange::of(field))
    }

    /// Takes a field away, if it is there.
    pub async fn delete_profile_field(&self, recipient: i64, field: &str) -> Result<ProfileChange, Error> {
        check_key(field)?;
        let _turn = self.turns.of(recipient).await;
        if !self.fields(recipient).await?.contains_key(field) {
            return Ok(ProfileChange::of(field));
        }
        self.write_profile(recipient, |step| {
            let name = (field == NAME).then(|| delete_name(recipient));
            delete_profile_field(recipient, field, step).into_iter().chain(name).collect()
        })
        .await?;
        Ok(ProfileChange::of(field))
    }

    /// Writes a change, whose rows carry the position of a step, and tells of it all here who share a room with the user.
    async fn write_profile(
        &self,
        recipient: i64,
        change: impl Fn(u32) -> Vec<Statement>,
    ) -> Result<(), Error> {
        let account = self.store.account(recipient).await?.ok_or(Error::NotFound("account"))?;
        let mut told = self.store.recipients_near(&account.user_id, false).await?;
        loop {
            let mut batch = Batch::new();
            let step = batch.step();
            for statement in change(step) {
                batch.push(statement);
            }
            batch.deliver(pointer(told.iter().copied(), step, Kind::Profile, 0));
            self.store.commit(batch).await?;
            // Whoever came meanwhile may have read the profile as it was.
            let near = self.store.recipients_near(&account.user_id, false).await?;
            if near.iter().all(|recipient| told.binary_search(recipient).is_ok()) {
                return Ok(());
            }
            told = near;
        }
    }
}

/// The known fields, and names in somebody's namespace: `com.example.field`.
fn check_key(field: &str) -> Result<(), Error> {
    if field.len() > MAX_KEY {
        return Err(Error::KeyTooLarge(MAX_KEY));
    }
    let mut parts = field.split('.');
    let is_part = |part: &str| {
        part.bytes().next().is_some_and(|first| first.is_ascii_lowercase())
            && part
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte))
    };
    if [NAME, AVATAR].contains(&field) || (field.contains('.') && parts.all(is_part)) {
        Ok(())
    } else {
        Err(Error::Invalid("a profile field is displayname, avatar_url or a namespaced name".to_owned()))
    }
}

fn check_value(field: &str, value: &Value) -> Result<(), Error> {
    let text = || value.as_str().ok_or_else(|| Error::Invalid(format!("{field} has to be a string")));
    match field {
        NAME if text()?.chars().count() > MAX_NAME => {
            Err(Error::TooLarge { what: "the display name in characters", limit: MAX_NAME })
        }
        AVATAR if text()?.len() > MAX_URL => {
            Err(Error::TooLarge { what: "the avatar's URL", limit: MAX_URL })
        }
        AVATAR if !text()?.starts_with("mxc://") => {
            Err(Error::Invalid("avatar_url has to be an mxc:// URL".to_owned()))
        }
        // The list of zones changes with politics, so their form is all that is checked.
        TIME_ZONE
            if text()?.is_empty()
                || text()?.len() > 64
                || !text()?.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-+/".contains(&byte)) =>
        {
            Err(Error::Invalid("m.tz has to be a time zone of the IANA database".to_owned()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pf_02_keys_are_known_or_namespaced() {
        for key in ["displayname", "avatar_url", "m.tz", "com.example.field", "us.cloke.msc4175.tz"] {
            assert!(check_key(key).is_ok(), "{key}");
        }
        for key in ["", "name", "Com.example", "com..x", ".com", "com.", "com.ex ample", "com.é"] {
            assert!(matches!(check_key(key), Err(Error::Invalid(_))), "{key}");
        }
        let long = format!("com.{}", "a".repeat(252));
        assert!(matches!(check_key(&long), Err(Error::KeyTooLarge(255))));
    }
}
