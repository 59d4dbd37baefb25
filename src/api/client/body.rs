//! Requests whose body is read by a type of ours, because ruma's would refuse or lose something that it should not.

use std::marker::PhantomData;

use http::Method;
use ruma::api::{IncomingRequest, Metadata, error::DeserializationError};
use serde::de::DeserializeOwned;

/// A request to the endpoint of `R`, with its body read as a `B`.
pub struct Body<R, B> {
    /// The parameters of the path, decoded.
    pub path: Vec<String>,
    pub query: Option<String>,
    pub content: B,
    endpoint: PhantomData<fn() -> R>,
}

impl<R: Metadata, B> Metadata for Body<R, B> {
    const METHOD: Method = R::METHOD;
    const RATE_LIMITED: bool = R::RATE_LIMITED;
    type Authentication = R::Authentication;
    type PathBuilder = R::PathBuilder;
    const PATH_BUILDER: R::PathBuilder = R::PATH_BUILDER;
}

impl<R: IncomingRequest, B: DeserializeOwned> IncomingRequest for Body<R, B> {
    type EndpointError = R::EndpointError;
    type OutgoingResponse = R::OutgoingResponse;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path: &[&str],
    ) -> Result<Self, DeserializationError> {
        Ok(Self {
            path: path.iter().map(|&part| part.to_owned()).collect(),
            query: request.uri().query().map(str::to_owned),
            content: serde_json::from_slice(request.body())?,
            endpoint: PhantomData,
        })
    }
}
