//! `GET /sync` ("Syncing").

use std::{sync::Arc, time::Duration};

use http::request::Parts;
use ruma::api::client::sync::sync_events::v3;

use super::with::{self, With};
use crate::{
    account::Session,
    app::App,
    http::{Caller, MatrixError, Routes, Whole, json_response},
    limits::LimitKey,
    live::{self, StateForm, SyncFilter, Wanted},
    presence::State,
};

pub(super) fn routes() -> Routes {
    Routes::default().add::<With<v3::Request, with::Filter>, Syncer, _, _, _>(sync)
}

/// A session, and whether the request asks for the state after the timeline by the name from before 1.16.
struct Syncer {
    session: Session,
    early_state_after: bool,
}

impl Caller for Syncer {
    async fn identify(app: &App, parts: &Parts) -> Result<Self, MatrixError> {
        let query = parts.uri.query().unwrap_or_default();
        let early_state_after =
            query.split('&').any(|pair| pair == "org.matrix.msc4222.use_state_after=true");
        Ok(Self { session: Session::identify(app, parts).await?, early_state_after })
    }

    fn limit_key(&self) -> LimitKey {
        self.session.limit_key()
    }
}

/// A filter as the request gives it.
enum Filter {
    Inline(Arc<SyncFilter>),
    Stored(String),
}

/// Not an `async fn`: that would keep the whole request in memory for as long as it waits.
fn sync(
    app: App,
    caller: Syncer,
    request: With<v3::Request, with::Filter>,
) -> impl Future<Output = Result<Whole, MatrixError>> + Send {
    let With { request, more: with::Filter(filter) } = request;
    let filter = match (request.filter, filter) {
        (Some(v3::Filter::FilterDefinition(definition)), Some(json)) => {
            let filter = SyncFilter::of(definition, &json).map(|filter| Filter::Inline(Arc::new(filter)));
            filter.map_err(|cause| MatrixError::bad_json(format!("`filter`: {cause}")))
        }
        (Some(v3::Filter::FilterDefinition(definition)), None) => {
            Ok(Filter::Inline(Arc::new(SyncFilter::new(definition))))
        }
        (Some(v3::Filter::FilterId(id)), _) => Ok(Filter::Stored(id)),
        (Some(_) | None, _) => Ok(Filter::Inline(SyncFilter::everything())),
    };
    let since = request.since.filter(|since| !since.is_empty()).map(|since| since.parse()).transpose();
    let timeout = request.timeout.unwrap_or(Duration::ZERO);
    let full_state = request.full_state;
    let state = match (request.use_state_after, caller.early_state_after) {
        (true, _) => StateForm::After,
        (false, true) => StateForm::EarlyAfter,
        (false, false) => StateForm::Before,
    };
    let session = caller.session;
    let seen_as = State::from_name(request.set_presence.as_str());
    async move {
        let since = since.map_err(|_| MatrixError::invalid_param("`since` is not a token of this server"))?;
        let filter = match filter? {
            Filter::Inline(filter) => filter,
            Filter::Stored(id) => Box::pin(app.syncs.stored_filter(session.recipient, id)).await?,
        };
        let wanted = Wanted { filter, full_state, state };
        let seen_as = seen_as.ok_or_else(|| MatrixError::invalid_param("`set_presence` is no presence"))?;
        // For as long as the request waits (SY-16).
        let _held = app.presence.hold(&session, seen_as).await;
        let request = live::Request { since, timeout, wanted };
        let body = app.syncs.sync(session, request).await?;
        Ok(Whole(json_response(http::StatusCode::OK, body)))
    }
}

impl From<live::Error> for MatrixError {
    fn from(cause: live::Error) -> Self {
        match cause {
            live::Error::Token(cause) => Self::invalid_param(cause.to_string()),
            live::Error::Account(cause) => cause.into(),
            live::Error::Keys(cause) => cause.into(),
            live::Error::UnknownPos => {
                Self::new(http::StatusCode::BAD_REQUEST, "M_UNKNOWN_POS", cause.to_string())
            }
            live::Error::UnknownMethod => {
                Self::new(http::StatusCode::NOT_FOUND, "M_UNRECOGNIZED", cause.to_string())
            }
            live::Error::Store(cause) => cause.into(),
            live::Error::Room(_) | live::Error::Encoding(_) | live::Error::Gone => Self::internal(&cause),
            live::Error::Shared(cause) => match Arc::try_unwrap(cause) {
                Ok(cause) => cause.into(),
                Err(cause) => Self::internal(&cause),
            },
        }
    }
}
