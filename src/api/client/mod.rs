//! The client-server API: one file per module of the specification.

mod account_data;
mod admin;
mod admin_register;

mod body;
mod capabilities;
mod create_room;
mod dehydrated_device;
mod delayed_events;
mod device;
mod directory;
mod events;
mod filter;
mod finished;
mod gateway;
mod history;
mod interactive;
mod key_backup;
mod key_changes;
mod keys;
mod login;
mod membership;
mod notifications;
mod openid;
mod own;
mod password;
mod people;
mod presence;
mod profile;
mod push_rules;
mod receipts;
mod register;
mod relations;
mod rendezvous;
mod reports;
mod retention;
mod room_summary;
mod search;
mod send;
mod server_notices;
mod session;
mod sliding_sync;
mod spaces;
mod state;
mod stream;
mod sync;
mod tags;
mod thread_subscriptions;
mod threads;
mod to_device;
mod typing;
mod upgrade;
mod versions;
mod well_known;
mod with;

pub use self::{
    delayed_events::explain as explain_delayed,
    keys::{wanted_devices, wanted_keys},
    sliding_sync::sliding_request,
    stream::methods,
};
use crate::http::Routes;

pub(super) fn routes() -> Routes {
    [
        account_data::routes(),
        admin::routes(),
        admin_register::routes(),
        capabilities::routes(),
        create_room::routes(),
        dehydrated_device::routes(),
        delayed_events::routes(),
        device::routes(),
        directory::routes(),
        events::routes(),
        filter::routes(),
        gateway::routes(),
        history::routes(),
        interactive::routes(),
        key_backup::routes(),
        key_changes::routes(),
        keys::routes(),
        login::routes(),
        membership::routes(),
        notifications::routes(),
        openid::routes(),
        password::routes(),
        people::routes(),
        presence::routes(),
        profile::routes(),
        push_rules::routes(),
        receipts::routes(),
        register::routes(),
        relations::routes(),
        rendezvous::routes(),
        reports::routes(),
        retention::routes(),
        room_summary::routes(),
        search::routes(),
        send::routes(),
        server_notices::routes(),
        session::routes(),
        sliding_sync::routes(),
        spaces::routes(),
        state::routes(),
        stream::routes(),
        sync::routes(),
        tags::routes(),
        thread_subscriptions::routes(),
        threads::routes(),
        to_device::routes(),
        typing::routes(),
        upgrade::routes(),
        versions::routes(),
        well_known::routes(),
    ]
    .into_iter()
    .fold(Routes::default(), Routes::merge)
}
