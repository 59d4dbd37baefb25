//! Why sockets are closed, and what their clients are told of it (the table of close codes in `api-spec/stream.md`).

use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{account, live::syncs::Error};

/// Why a socket is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Close {
    /// The other side is no longer there, or has closed it.
    Gone,
    /// It doesn't speak WebSocket as it should.
    Protocol(u16, String),
    Internal,
    UnknownMethods,
    NotAFrame(String),
    NoIntroduction,
    /// With the errcode.
    SessionEnded(String),
    PositionUnusable,
    TooSlow,
    TooMany(Duration),
    Draining,
    SoftLogout,
}

impl Close {
    /// Code and reason, of at most 123 bytes (RFC 6455, 5.5.1).
    pub(super) fn told(self) -> Option<(u16, String)> {
        let (code, reason) = match self {
            Self::Gone => return None,
            Self::Protocol(code, reason) => (code, reason),
            Self::Internal => (4000, "the server failed; resume".to_owned()),
            Self::UnknownMethods => (4001, "too many requests for methods that don't exist".to_owned()),
            Self::NotAFrame(reason) => (4002, reason),
            Self::NoIntroduction => (4003, "no `auth` came in time".to_owned()),
            Self::SessionEnded(errcode) => (4004, errcode),
            Self::PositionUnusable => (4007, "`since` is not usable: sync afresh".to_owned()),
            Self::TooSlow => (4008, "syncs were not read or not acknowledged in time; resume".to_owned()),
            Self::TooMany(wait) => (4010, format!("{}", wait.as_millis().max(1))),
            Self::Draining => (4011, "this node is about to stop".to_owned()),
            Self::SoftLogout => (4013, "the access token has expired: refresh it".to_owned()),
        };
        let end = (0..=reason.len().min(123)).rev().find(|end| reason.is_char_boundary(*end));
        Some((code, reason[..end.unwrap_or_default()].to_owned()))
    }
}

/// How a socket ends whose session has an error like this; not at all for errors of the request alone.
pub(super) fn ended(cause: &Error) -> Option<Close> {
    match cause {
        Error::Account(account::Error::UnknownToken { soft_logout: true }) => Some(Close::SoftLogout),
        Error::Account(
            account::Error::UnknownToken { .. } | account::Error::Locked | account::Error::Deactivated,
        ) => Some(Close::SessionEnded(String::new())),
        _ => None,
    }
}

pub(super) fn with_errcode(close: Close, error: &RawValue) -> Close {
    #[derive(Deserialize)]
    struct Errcode {
        errcode: String,
    }
    match close {
        Close::SessionEnded(_) => {
            let errcode = serde_json::from_str::<Errcode>(error.get()).map(|error| error.errcode);
            Close::SessionEnded(errcode.unwrap_or_default())
        }
        close => close,
    }
}
