//! Requests of which more counts than ruma knows.

use ruma::{
    api::{IncomingRequest, Metadata, error::DeserializationError},
    serde::JsonObject,
};

/// A request, and all that its body says.
pub(super) struct Whole<R> {
    pub(super) request: R,
    pub(super) body: JsonObject,
}

impl<R: Metadata> Metadata for Whole<R> {
    const METHOD: http::Method = R::METHOD;
    const RATE_LIMITED: bool = R::RATE_LIMITED;
    type Authentication = R::Authentication;
    type PathBuilder = R::PathBuilder;
    const PATH_BUILDER: R::PathBuilder = R::PATH_BUILDER;
}

impl<R: IncomingRequest> IncomingRequest for Whole<R> {
    type EndpointError = R::EndpointError;
    type OutgoingResponse = R::OutgoingResponse;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path: &[&str],
    ) -> Result<Self, DeserializationError> {
        let body = serde_json::from_slice(request.body())?;
        Ok(Self { body, request: R::try_from_http_request_inner(request, path)? })
    }
}
