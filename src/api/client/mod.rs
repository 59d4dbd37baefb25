//! The client-server API: one file per module of the specification.

mod admin_register;
mod body;
mod capabilities;
mod device;
mod interactive;
mod login;
mod password;
mod register;
mod session;
mod versions;
mod well_known;

use crate::http::Routes;

pub(super) fn routes() -> Routes {
    [
        admin_register::routes(),
        capabilities::routes(),
        device::routes(),
        interactive::routes(),
        login::routes(),
        password::routes(),
        register::routes(),
        session::routes(),
        versions::routes(),
        well_known::routes(),
    ]
    .into_iter()
    .fold(Routes::default(), Routes::merge)
}
