//! HTTP: listeners, the way from a request to a handler, and Matrix errors. It knows nothing of rooms.
//!
//! A connection is accepted by a [`Listener`], each of its requests goes through the [`Site`] to a route of [`Routes`],
//! whose handler gets its [`Caller`] and its parsed request, and answers with a [`Reply`] or a [`MatrixError`].

mod caller;
mod error;
mod listener;
mod metrics;
mod openness;
mod origin;
mod route;
mod service;
mod tls;
mod web_socket;

pub use self::{
    caller::{Anonymous, Attached, Caller, Peer, Visitor, base_url, origin, token},
    error::MatrixError,
    listener::{Ending, Listener, announce},
    metrics::Recorder,
    openness::check as check_open,
    origin::Origin,
    route::{Json, Reply, Routes, Whole, json_response, read, read_up_to},
    service::{Site, caught, unrecognized_method, unrecognized_path},
    tls::Certificate,
    web_socket::open_socket,
};
