//! Users: accounts, devices, sessions, interactive authentication, profiles and account data.
//!
//! [`Accounts`] is the service that handlers and the command line call; [`Sessions`] stands on the way of every request
//! and knows nothing but tokens. Neither knows rooms: what a change means for them is returned to the caller.

mod carried;
mod data;
mod devices;
mod directory;
mod error;
mod filters;
mod guests;
mod ignored;
mod interactive;
mod invites;
mod kept;
mod login;
mod moderation;
mod name;
mod openid;
mod password;
mod profile;
mod push_rules;
mod registration;
mod session;
mod shared_secret;
#[cfg(test)]
mod tests;
mod thread_subscriptions;

use std::sync::Arc;

use ruma::{OwnedServerName, OwnedUserId, ServerName, UserId};

pub use self::{
    data::Turns,
    devices::{DeviceInfo, LogOut},
    error::Error,
    ignored::IgnoredUsers,
    interactive::{Challenge, InteractiveError, Operation, Stage},
    invites::{InvitePermissions, InviteVerdict},
    login::{DeviceRequest, Login, checked_display_name},
    moderation::{Measure, OwnLimit},
    name::{meant_by, new_user_id},
    openid::OPENID_LIFETIME_MS,
    profile::{MemberProfile, ProfileChange},
    push_rules::RuleChange,
    registration::{NewAccount, Registered},
    session::{Origin, Session, Sessions},
    shared_secret::SharedSecretRequest,
};
use self::{interactive::Interactive, kept::Kept, password::Passwords, shared_secret::Nonces};
pub use crate::store::account_data::GLOBAL;
use crate::{
    config::RegistrationMode,
    environment::Environment,
    push::{RuleSet, RuleSets},
    store::{Store, account::AccountRow},
};

/// What the operator decides about accounts.
#[derive(Clone, Debug)]
pub struct Settings {
    pub server_name: OwnedServerName,
    pub registration: RegistrationMode,
    /// Whether anybody gets an account of a guest.
    pub guests: bool,
    /// Who knows it can make accounts, whatever `registration` says.
    pub shared_secret: Option<String>,
    /// A name that nobody can take: the server itself speaks under it.
    pub reserved: Option<OwnedUserId>,
}

pub struct Accounts {
    store: Store,
    environment: Environment,
    sessions: Sessions,
    passwords: Passwords,
    interactive: Interactive,
    nonces: Nonces,
    push_rules: Arc<Kept<Arc<RuleSet>>>,
    rule_sets: RuleSets,
    ignored: Arc<Kept<IgnoredUsers>>,
    invites: Arc<Kept<InvitePermissions>>,
    turns: Turns,
    server_name: OwnedServerName,
    registration: RegistrationMode,
    guests: bool,
    shared_secret: Option<String>,
    reserved: Option<OwnedUserId>,
}

impl Accounts {
    pub fn new(settings: Settings, store: Store, sessions: Sessions, environment: Environment) -> Self {
        Self {
            store,
            sessions,
            passwords: Passwords::new(environment.clone()),
            interactive: Interactive::new(environment.clone()),
            nonces: Nonces::new(environment.clone()),
            push_rules: Arc::default(),
            rule_sets: RuleSets::default(),
            ignored: Arc::default(),
            invites: Arc::default(),
            turns: Turns::default(),
            environment,
            server_name: settings.server_name,
            registration: settings.registration,
            guests: settings.guests,
            shared_secret: settings.shared_secret,
            reserved: settings.reserved,
        }
    }

    pub fn server_name(&self) -> &ServerName {
        &self.server_name
    }

    fn user_id(account: &AccountRow) -> Result<OwnedUserId, Error> {
        UserId::parse(&account.user_id)
            .map_err(|cause| Error::Invalid(format!("the stored user id {}: {cause}", account.user_id)))
    }
}
