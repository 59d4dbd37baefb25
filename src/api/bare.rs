//! Requests that ruma has no definition of, or one of an older form: the parameters of a path, a query and a JSON body.

use std::marker::PhantomData;

use http::Method;
use ruma::api::{
    IncomingRequest, Metadata, auth_scheme::NoAccessToken, client::discovery::get_supported_versions,
    error::DeserializationError, path_builder::SinglePath,
};
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::http::MatrixError;

/// The method of a request, as a type.
pub trait Verb: Send + 'static {
    const METHOD: Method;
}

macro_rules! verbs {
    ($($name:ident = $method:ident),*) => {$(
        pub struct $name;

        impl Verb for $name {
            const METHOD: Method = Method::$method;
        }
    )*};
}
verbs!(Get = GET, Put = PUT, Post = POST, Delete = DELETE);

/// A request to a path that is given where it is mounted (`Routes::limited_alias`).
pub struct Bare<V, B = IgnoredAny> {
    /// The parameters of the path, decoded.
    path: Vec<String>,
    query: Option<String>,
    pub content: B,
    verb: PhantomData<fn() -> V>,
}

impl<V, B> Bare<V, B> {
    /// The path's parameters, of which there have to be `N`.
    pub fn parameters<const N: usize>(&self) -> Result<[&str; N], MatrixError> {
        let parameters: Vec<&str> = self.path.iter().map(String::as_str).collect();
        parameters.try_into().map_err(|_| MatrixError::invalid_param("the path is incomplete"))
    }

    /// All values of a parameter of the query, decoded.
    pub fn queries(&self, name: &str) -> Vec<String> {
        let pairs = form_urlencoded::parse(self.query.as_deref().unwrap_or_default().as_bytes());
        pairs.filter(|(key, _)| key == name).map(|(_, value)| value.into_owned()).collect()
    }

    /// The first value of a parameter of the query, decoded.
    pub fn query(&self, name: &str) -> Option<String> {
        value_of(self.query.as_deref(), name)
    }
}

/// The first value of a parameter of a query, decoded.
pub fn value_of(query: Option<&str>, name: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query?.as_bytes());
    pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

impl<V: Verb, B> Metadata for Bare<V, B> {
    const METHOD: Method = V::METHOD;
    const RATE_LIMITED: bool = true;
    type Authentication = NoAccessToken;
    type PathBuilder = SinglePath;
    const PATH_BUILDER: SinglePath = SinglePath::new("/");
}

impl<V: Verb, B: DeserializeOwned> IncomingRequest for Bare<V, B> {
    // Neither is looked at: handlers answer with types of their own.
    type EndpointError = <get_supported_versions::Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = get_supported_versions::Response;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path: &[&str],
    ) -> Result<Self, DeserializationError> {
        let body: &[u8] = if request.body().is_empty() { b"{}" } else { request.body() };
        Ok(Self {
            path: path.iter().map(|&part| part.to_owned()).collect(),
            query: request.uri().query().map(str::to_owned),
            content: serde_json::from_slice(body)?,
            verb: PhantomData,
        })
    }
}
