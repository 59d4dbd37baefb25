//! The devices of the caller ("Device Management").

use ruma::{
    MilliSecondsSinceUnixEpoch, UInt,
    api::client::device::{
        Device, delete_device::v3 as delete, delete_devices::v3 as delete_many, get_device::v3 as get,
        get_devices::v3 as list, update_device::v3 as update,
    },
};

use super::interactive::Interactive;
use crate::{
    account::{DeviceInfo, Operation, Session, Stage},
    app::App,
    http::{MatrixError, Routes},
    limits::Class,
};

/// A thief of an access token shall not be able to lock its owner out.
const FLOWS: &[&[Stage]] = &[&[Stage::Password]];

pub fn routes() -> Routes {
    Routes::default()
        .add(list)
        .add(get)
        .add(update)
        .limited::<Interactive<delete::Request>, _, _, _, _>(Class::Login, delete)
        .limited::<Interactive<delete_many::Request>, _, _, _, _>(Class::Login, delete_many)
}

async fn list(app: App, session: Session, _: list::Request) -> Result<list::Response, MatrixError> {
    let devices = app.accounts.devices(session.recipient).await?;
    Ok(list::Response::new(devices.into_iter().map(describe).collect()))
}

async fn get(app: App, session: Session, request: get::Request) -> Result<get::Response, MatrixError> {
    let device = app.accounts.device(session.recipient, &request.device_id).await?;
    Ok(get::Response::new(describe(device)))
}

async fn update(
    app: App,
    session: Session,
    request: update::Request,
) -> Result<update::Response, MatrixError> {
    app.accounts.rename_device(session.recipient, &request.device_id, request.display_name).await?;
    Ok(update::Response::new())
}

async fn delete(
    app: App,
    session: Session,
    Interactive { request, auth, digest }: Interactive<delete::Request>,
) -> Result<delete::Response, MatrixError> {
    let recipient = session.recipient;
    let operation =
        Operation { name: "delete device", recipient: Some(recipient), digest: Some(digest), flows: FLOWS };
    app.accounts.authorise(&operation, auth.as_ref()).await?;
    app.accounts.delete_devices(recipient, &[request.device_id]).await?;
    Ok(delete::Response::new())
}

async fn delete_many(
    app: App,
    session: Session,
    Interactive { request, auth, digest }: Interactive<delete_many::Request>,
) -> Result<delete_many::Response, MatrixError> {
    let recipient = session.recipient;
    let operation =
        Operation { name: "delete devices", recipient: Some(recipient), digest: Some(digest), flows: FLOWS };
    app.accounts.authorise(&operation, auth.as_ref()).await?;
    app.accounts.delete_devices(recipient, &request.devices).await?;
    Ok(delete_many::Response::new())
}

fn describe(info: DeviceInfo) -> Device {
    let mut device = Device::new(info.device_id);
    device.display_name = info.display_name;
    device.last_seen_ip = info.last_seen_ip;
    device.last_seen_ts =
        info.last_seen_ts.and_then(|at| UInt::try_from(at).ok()).map(MilliSecondsSinceUnixEpoch);
    device
}
