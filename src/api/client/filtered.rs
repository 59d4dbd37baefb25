//! Requests with a filter that may say more than ruma's filters know of.

use http::Method;
use ruma::api::{IncomingRequest, Metadata, error::DeserializationError};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{http::MatrixError, room::RelationFilter};

/// A request, and the JSON of the filter in its query.
pub struct Filtered<R> {
    pub request: R,
    pub filter: Option<String>,
}

impl<R> Filtered<R> {
    /// What a `RoomEventFilter` asks of relations.
    pub fn relations(&self) -> Result<RelationFilter, MatrixError> {
        let Some(filter) = self.filter.as_deref() else { return Ok(RelationFilter::default()) };
        serde_json::from_str(filter).map_err(|cause| MatrixError::bad_json(format!("`filter`: {cause}")))
    }
}

impl<R: Metadata> Metadata for Filtered<R> {
    const METHOD: Method = R::METHOD;
    const RATE_LIMITED: bool = R::RATE_LIMITED;
    type Authentication = R::Authentication;
    type PathBuilder = R::PathBuilder;
    const PATH_BUILDER: R::PathBuilder = R::PATH_BUILDER;
}

impl<R: IncomingRequest> IncomingRequest for Filtered<R> {
    type EndpointError = R::EndpointError;
    type OutgoingResponse = R::OutgoingResponse;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path: &[&str],
    ) -> Result<Self, DeserializationError> {
        let query = request.uri().query().unwrap_or_default();
        let filter = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "filter");
        // Anything else is the id of a stored filter (FI-01), or nothing.
        let filter = filter.map(|(_, filter)| filter.into_owned()).filter(|text| text.starts_with('{'));
        Ok(Self { request: R::try_from_http_request_inner(request, path)?, filter })
    }
}

/// A request, and what else is read of its body.
pub struct With<R, B> {
    pub request: R,
    pub more: B,
}

impl<R: Metadata, B> Metadata for With<R, B> {
    const METHOD: Method = R::METHOD;
    const RATE_LIMITED: bool = R::RATE_LIMITED;
    type Authentication = R::Authentication;
    type PathBuilder = R::PathBuilder;
    const PATH_BUILDER: R::PathBuilder = R::PATH_BUILDER;
}

impl<R: IncomingRequest, B: DeserializeOwned> IncomingRequest for With<R, B> {
    type EndpointError = R::EndpointError;
    type OutgoingResponse = R::OutgoingResponse;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path: &[&str],
    ) -> Result<Self, DeserializationError> {
        let more = serde_json::from_slice(request.body())?;
        Ok(Self { request: R::try_from_http_request_inner(request, path)?, more })
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
