//! The client-server API: one file per module of the specification.

mod admin_register;
mod body;
mod capabilities;
mod create_room;
mod device;
mod directory;
mod history;
mod interactive;
mod login;
mod membership;
mod password;
mod receipts;
mod register;
mod send;
mod session;
mod state;
mod sync;
mod typing;
mod versions;
mod well_known;

use crate::http::Routes;

pub(super) fn routes() -> Routes {
    [
        admin_register::routes(),
        capabilities::routes(),
        create_room::routes(),
        device::routes(),
        directory::routes(),
        history::routes(),
        interactive::routes(),
        login::routes(),
        membership::routes(),
        password::routes(),
        receipts::routes(),
        register::routes(),
        send::routes(),
        session::routes(),
        state::routes(),
        sync::routes(),
        typing::routes(),
        versions::routes(),
        well_known::routes(),
    ]
    .into_iter()
    .fold(Routes::default(), Routes::merge)
}
