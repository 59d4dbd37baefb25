//! Public keys of devices and users ("End-to-end encryption").

use std::{collections::BTreeMap, time::Duration};

use ruma::{
    OwnedDeviceId,
    api::client::keys::{claim_keys::v3 as claim, get_keys::v3 as query},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::Body;
use crate::{
    account::Session,
    app::App,
    http::{Json, MatrixError, Routes},
    keys::{self, WantedDevices, WantedKeys},
};

/// Users in a query, and devices in a claim.
const MOST: usize = 10_000;

pub(super) fn routes() -> Routes {
    Routes::default()
        .add::<Body<query::Request, Query>, _, _, _, _>(query)
        .add::<Body<claim::Request, Claim>, _, _, _, _>(claim)
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
