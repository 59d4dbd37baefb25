//! HTTP: listeners, the way from a request to a handler, and Matrix errors. It knows nothing of rooms.

mod caller;
mod error;
mod limits;
mod route;

pub use self::{
    caller::{Anonymous, Caller, Origin, Peer, Visitor},
    error::MatrixError,
    limits::{Class, LimitKey, Limits},
    route::{Json, Reply, Routes, Whole, json_response, read},
};
