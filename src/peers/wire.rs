//! What carries requests to other servers. A test may stand in for all of them.

use hearth_federation::{ClientError, FederationClient, KeyFetch, Response, ServerRequest, Task};
use ruma::ServerName;

pub trait Wire: Send + Sync {
    fn send<'a>(
        &'a self,
        server: &'a ServerName,
        request: ServerRequest,
    ) -> Task<'a, Result<Response, ClientError>>;
}

/// What carries requests for keys as well.
pub trait Network: Wire + KeyFetch {}

impl<T: Wire + KeyFetch> Network for T {}

impl Wire for FederationClient {
    fn send<'a>(
        &'a self,
        server: &'a ServerName,
        request: ServerRequest,
    ) -> Task<'a, Result<Response, ClientError>> {
        Box::pin(FederationClient::send(self, server, request))
    }
}
