//! Users: accounts, devices, sessions, profiles and account data.

mod session;

pub use self::session::{Session, Sessions};

pub struct Accounts;
