//! Public keys of devices and users ("End-to-end encryption").

use std::{collections::BTreeMap, time::Duration};

use ruma::{
    OwnedDeviceId,
    api::client::keys::{
        claim_keys::v3 as claim, get_keys::v3 as query, upload_keys::v3 as upload,
        upload_signatures::v3 as sign, upload_signing_keys::v3 as set_keys,
    },
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{body::Body, interactive::Interactive};
use crate::{
    account::{Operation, Session, Stage},
    app::App,
    http::{Json, MatrixError, Routes},
    keys::{self, Holder, SigningKeys, Upload, WantedDevices, WantedKeys},
    limits::Class,
};

/// Users in a query, and devices in a claim.
const MOST: usize = 10_000;

/// Whoever replaces a user's keys is believed to be them: a session alone is not enough.
const FLOWS: &[&[Stage]] = &[&[Stage::Password]];

/// How often it is begun anew when a user's keys are changed at the same time.
const ATTEMPTS: usize = 4;

pub(super) fn routes() -> Routes {
    Routes::default()
        .limited::<Interactive<Body<set_keys::Request, Set>>, _, _, _, _>(Class::Login, set_keys)
        .add::<Body<sign::Request, Signed>, _, _, _, _>(sign)
        .add::<Body<upload::Request, Published>, _, _, _, _>(upload)
        .add::<Body<query::Request, Query>, _, _, _, _>(query)
        .add::<Body<claim::Request, Claim>, _, _, _, _>(claim)
}

// The fields are named as the specification names them.
#[expect(clippy::struct_field_names)]
#[derive(Deserialize)]
struct Published {
    device_keys: Option<Map<String, Value>>,
    one_time_keys: Option<BTreeMap<String, Value>>,
    fallback_keys: Option<BTreeMap<String, Value>>,
    /// The same by an older name. There are clients that send both.
    #[serde(rename = "org.matrix.msc2732.fallback_keys")]
    old_fallback_keys: Option<BTreeMap<String, Value>>,
}

async fn upload(
    app: App,
    session: Session,
    request: Body<upload::Request, Published>,
) -> Result<Json<Value>, MatrixError> {
    let holder = Holder {
        user_id: &session.user_id,
        device_id: &session.device_id,
        recipient: session.recipient,
        device: session.device,
    };
    let published = request.content;
    let upload = Upload {
        device_keys: published.device_keys,
        one_time_keys: published.one_time_keys.unwrap_or_default(),
        fallback_keys: published.fallback_keys.or(published.old_fallback_keys).unwrap_or_default(),
    };
    let counts = app.keys.upload(holder, upload).await?;
    Ok(Json(json!({ "one_time_key_counts": counts })))
}

#[derive(Deserialize)]
struct Query {
    device_keys: BTreeMap<String, Vec<OwnedDeviceId>>,
    /// For other servers to answer, in milliseconds.
    timeout: Option<u64>,
}

/// Names that can't be anybody's are passed over: one of them in a room shall not keep the keys of all others away.
pub fn wanted_devices(asked: BTreeMap<String, Vec<OwnedDeviceId>>) -> Result<WantedDevices, MatrixError> {
    if asked.len() > MOST {
        return Err(MatrixError::too_large(format!("`device_keys` has more than {MOST} users")));
    }
    let known = asked.into_iter().filter_map(|(user_id, devices)| Some((user_id.try_into().ok()?, devices)));
    Ok(known.collect())
}

async fn query(
    app: App,
    session: Session,
    request: Body<query::Request, Query>,
) -> Result<Json<Value>, MatrixError> {
    let wanted = wanted_devices(request.content.device_keys)?;
    let patience = request.content.timeout.map_or(keys::PATIENCE, Duration::from_millis);
    let asked = app.keys_everywhere.query(&session.user_id, &wanted, patience);
    let (found, failures) = Box::pin(asked).await?;
    let mut answer = serde_json::to_value(found).map_err(|cause| MatrixError::internal(&cause))?;
    answer["failures"] = json!(failures);
    Ok(Json(answer))
}

#[derive(Deserialize)]
struct Claim {
    one_time_keys: BTreeMap<String, BTreeMap<OwnedDeviceId, String>>,
    /// For other servers to answer, in milliseconds.
    timeout: Option<u64>,
}

/// As [`wanted_devices`].
pub fn wanted_keys(
    asked: BTreeMap<String, BTreeMap<OwnedDeviceId, String>>,
) -> Result<WantedKeys, MatrixError> {
    if asked.values().map(BTreeMap::len).sum::<usize>() > MOST {
        return Err(MatrixError::too_large(format!("`one_time_keys` has more than {MOST} devices")));
    }
    let known = asked.into_iter().filter_map(|(user_id, devices)| Some((user_id.try_into().ok()?, devices)));
    Ok(known.collect())
}

async fn claim(
    app: App,
    _: Session,
    request: Body<claim::Request, Claim>,
) -> Result<Json<Value>, MatrixError> {
    let wanted = wanted_keys(request.content.one_time_keys)?;
    let patience = request.content.timeout.map_or(keys::PATIENCE, Duration::from_millis);
    let (claimed, failures) = Box::pin(app.keys_everywhere.claim(&wanted, patience)).await?;
    Ok(Json(json!({ "one_time_keys": claimed, "failures": failures })))
}

// The fields are named as the specification names them.
#[expect(clippy::struct_field_names)]
#[derive(Deserialize)]
struct Set {
    master_key: Option<Map<String, Value>>,
    self_signing_key: Option<Map<String, Value>>,
    user_signing_key: Option<Map<String, Value>>,
}

/// OK-09
async fn set_keys(
    app: App,
    session: Session,
    Interactive { request, auth, digest }: Interactive<Body<set_keys::Request, Set>>,
) -> Result<Json<Value>, MatrixError> {
    let (user_id, recipient) = (&session.user_id, session.recipient);
    let Set { master_key, self_signing_key, user_signing_key } = request.content;
    let keys = SigningKeys { master_key, self_signing_key, user_signing_key };
    let mut authorised = false;
    for _ in 0..ATTEMPTS {
        let change = app.keys.check_signing_keys(user_id, recipient, &keys).await?;
        if change.replaces() && !authorised {
            let name = "set signing keys";
            let operation =
                Operation { name, recipient: Some(recipient), digest: Some(digest), flows: FLOWS };
            app.accounts.authorise(&operation, auth.as_ref()).await?;
            authorised = true;
        }
        if app.keys.change_signing_keys(user_id, recipient, &change).await? {
            return Ok(Json(json!({})));
        }
    }
    Err(MatrixError::internal(&"signing keys change all the time"))
}

#[derive(Deserialize)]
#[serde(transparent)]
struct Signed(keys::ByKey<Value>);

async fn sign(
    app: App,
    session: Session,
    request: Body<sign::Request, Signed>,
) -> Result<Json<Value>, MatrixError> {
    let signed = request.content.0;
    let failures = app.keys.upload_signatures(&session.user_id, session.recipient, &signed).await?;
    let mut answer = Map::new();
    for (user_id, keys) in failures {
        let keys: Map<String, Value> =
            keys.into_iter().map(|(key, cause)| (key, MatrixError::from(cause).into_body())).collect();
        answer.insert(user_id, keys.into());
    }
    Ok(Json(json!({ "failures": answer })))
}
