//! What carries requests to other servers. A test may stand in for all of them.

use hearth_federation::{ClientError, FederationClient, Response, ServerRequest, Task};
use ruma::ServerName;

pub trait Wire: Send + Sync {
    fn send<'a>(
        &'a self,
        server: &'a ServerName,
        request: ServerRequest,
    ) -> Task<'a, Result<Response, ClientError>>;
}

impl Wire for FederationClient {
    fn send<'a>(
        &'a self,
        server: &'a ServerName,
        request: ServerRequest,
    ) -> Task<'a, Result<Response, ClientError>> {
        Box::pin(FederationClient::send(self, server, request))
    }
}
