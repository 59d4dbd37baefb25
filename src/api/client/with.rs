//! Requests of which more is read than ruma's types know of.

use http::Method;
use ruma::api::{IncomingRequest, Metadata, error::DeserializationError};
use serde::{Deserialize, de::DeserializeOwned};

use crate::api::bare::value_of;
use crate::{http::MatrixError, room::RelationFilter};

/// A request, and what else is read of it.
pub struct With<R, P> {
    pub request: R,
    pub more: P,
}

/// What else can be read of a request.
pub trait Part: Sized {
    fn read(request: &http::Request<&[u8]>) -> Result<Self, DeserializationError>;
}

impl<R: Metadata, P> Metadata for With<R, P> {
    const METHOD: Method = R::METHOD;
    const RATE_LIMITED: bool = R::RATE_LIMITED;
    type Authentication = R::Authentication;
    type PathBuilder = R::PathBuilder;
    const PATH_BUILDER: R::PathBuilder = R::PATH_BUILDER;
}

impl<R: IncomingRequest, P: Part> IncomingRequest for With<R, P> {
    type EndpointError = R::EndpointError;
    type OutgoingResponse = R::OutgoingResponse;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path: &[&str],
    ) -> Result<Self, DeserializationError> {
        let more = P::read(&request)?;
        Ok(Self { request: R::try_from_http_request_inner(request, path)?, more })
    }
}

/// The JSON of the filter in the query, which may say more than ruma's filters know of.
pub struct Filter(pub Option<String>);

impl Part for Filter {
    fn read(request: &http::Request<&[u8]>) -> Result<Self, DeserializationError> {
        let filter = value_of(request.uri().query(), "filter");
        // Anything else is the id of a stored filter (FI-01), or nothing.
        Ok(Self(filter.filter(|text| text.starts_with('{'))))
    }
}

impl Filter {
    /// What a `RoomEventFilter` asks of relations.
    pub fn relations(&self) -> Result<RelationFilter, MatrixError> {
        let Some(filter) = self.0.as_deref() else { return Ok(RelationFilter::default()) };
        serde_json::from_str(filter).map_err(|cause| MatrixError::bad_json(format!("`filter`: {cause}")))
    }
}

/// `org.matrix.msc4140.delay` of the query, as it came: the event is to be sent later.
pub struct Delay(pub Option<String>);

impl Part for Delay {
    fn read(request: &http::Request<&[u8]>) -> Result<Self, DeserializationError> {
        Ok(Self(value_of(request.uri().query(), "org.matrix.msc4140.delay")))
    }
}

/// `batch_token` of the query: what `from` was called while "Mutual Rooms" was a proposal.
pub struct BatchToken(pub Option<String>);

impl Part for BatchToken {
    fn read(request: &http::Request<&[u8]>) -> Result<Self, DeserializationError> {
        Ok(Self(value_of(request.uri().query(), "batch_token")))
    }
}

/// Another reading of the body.
pub struct Also<B>(pub B);

impl<B: DeserializeOwned> Part for Also<B> {
    fn read(request: &http::Request<&[u8]>) -> Result<Self, DeserializationError> {
        Ok(Self(serde_json::from_slice(request.body())?))
    }
}

/// The filter in the body of a search, as far as it is about relations.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct OfSearch {
    search_categories: Categories,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Categories {
    room_events: Option<Criteria>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Criteria {
    filter: RelationFilter,
}

impl OfSearch {
    pub fn relations(self) -> RelationFilter {
        self.search_categories.room_events.unwrap_or_default().filter
    }
}
