//! Requests whose body is read by a type of ours, because ruma's would refuse or lose something that it should not.

use std::marker::PhantomData;

use http::Method;
use ruma::api::{IncomingRequest, Metadata, error::DeserializationError};
use serde::de::DeserializeOwned;

use crate::http::MatrixError;

/// A request to the endpoint of `R`, with its body read as a `B`.
pub struct Body<R, B> {
    /// The parameters of the path, decoded.
    path: Vec<String>,
    pub content: B,
    endpoint: PhantomData<fn() -> R>,
}

impl<R, B> Body<R, B> {
    /// The path's parameters, of which there have to be `N`.
    pub fn parameters<const N: usize>(&self) -> Result<[&str; N], MatrixError> {
        let parameters: Option<Vec<&str>> =
            (0..N).map(|index| self.path.get(index).map(String::as_str)).collect();
        let parameters = parameters.and_then(|parameters| parameters.try_into().ok());
        parameters.ok_or_else(|| MatrixError::invalid_param("the path is incomplete"))
    }
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
            content: serde_json::from_slice(request.body())?,
            endpoint: PhantomData,
        })
    }
}
