//! What can go wrong with accounts.

use crate::store;

#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("this user name is taken")]
    UserInUse,
    #[error("{0}")]
    InvalidUsername(String),
    #[error("{0}")]
    WeakPassword(String),
    #[error("registration is closed on this server")]
    RegistrationClosed,
    #[error("this server takes no guests; its operator can set `registration.guests`")]
    NoGuests,
    #[error("the MAC is wrong")]
    BadMac,
    #[error("this registration token is not valid, or no longer")]
    BadRegistrationToken,
    /// Unknown user or wrong password: nobody is told which.
    #[error("the user name or the password is wrong")]
    BadCredentials,
    #[error("this account has been deactivated")]
    Deactivated,
    #[error("this account is locked")]
    Locked,
    /// `soft_logout`: the device is still there, and its client may refresh the token or log in again.
    #[error("this token is not known, or no longer")]
    UnknownToken { soft_logout: bool },
    #[error("there is no such {0}")]
    NotFound(&'static str),
    #[error("{what} is larger than the limit of {limit}")]
    TooLarge { what: &'static str, limit: usize },
    #[error("the profile would be larger than the limit of {0} bytes")]
    ProfileTooLarge(usize),
    #[error("the name of a profile field has at most {0} bytes")]
    KeyTooLarge(usize),
    #[error("{0}")]
    NotAllowed(&'static str),
    #[error("you have unsubscribed from the thread since that event")]
    ConflictingUnsubscription,
    #[error("{0}")]
    Invalid(String),
    #[error("{0} is managed by the server and can't be set here")]
    Managed(&'static str),
    #[error("password hashing: {0}")]
    Hashing(String),
    #[error(transparent)]
    Store(#[from] store::Error),
}
