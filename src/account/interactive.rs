//! Interactive authentication ("User-Interactive Authentication API"): a request that has to be proved anew, in stages.
//!
//! A session belongs to one operation of one user, with one body: what was proved for one thing never opens another. It
//! ends with the operation that it allowed. Sessions live in memory only, in bounded number and for a bounded time; a
//! client that lost its session begins a new one.

use lru::LruCache;
use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::{Accounts, Error, name::meant_by};
use crate::environment::Environment;

/// How long a session lives: time enough to look up a password.
const LIFE_MS: i64 = 30 * 60 * 1000;

/// Sessions at a time; the one that was used least lately goes first.
const SESSIONS: usize = 8_192;

const SESSION_LENGTH: usize = 24;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Password,
    Dummy,
    RegistrationToken,
}

impl Stage {
    const ALL: [Self; 3] = [Self::Password, Self::Dummy, Self::RegistrationToken];

    pub fn name(self) -> &'static str {
        match self {
            Self::Password => "m.login.password",
            Self::Dummy => "m.login.dummy",
            Self::RegistrationToken => "m.login.registration_token",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.name() == name)
    }
}

/// What somebody wants to do and has to authenticate for.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Names the kind of operation.
    pub name: &'static str,
    /// Whose account it is about; `None`: nobody's yet.
    pub recipient: Option<i64>,
    /// Stands for everything else in the request. `None`: the request may change between stages.
    pub digest: Option<[u8; 32]>,
    /// Ways to authenticate: each a list of stages to go through in order.
    pub flows: &'static [&'static [Stage]],
}

/// What still has to be done.
#[derive(Clone, Debug)]
pub struct Challenge {
    pub session: String,
    pub flows: &'static [&'static [Stage]],
    pub completed: Vec<Stage>,
    /// Why the last attempt failed: an errcode and a sentence.
    pub refused: Option<(&'static str, String)>,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum InteractiveError {
    #[error("further authentication is needed")]
    Challenge(Challenge),
    #[error(transparent)]
    Failed(#[from] Error),
}

/// The operation may go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorised {
    /// The registration token that was shown, to be used up by what follows.
    pub registration_token: Option<String>,
}

struct State {
    name: &'static str,
    recipient: Option<i64>,
    digest: Option<[u8; 32]>,
    flows: &'static [&'static [Stage]],
    completed: Vec<Stage>,
    registration_token: Option<String>,
    begun_ts: i64,
}

impl State {
    fn is_about(&self, operation: &Operation) -> bool {
        self.name == operation.name
            && self.recipient == operation.recipient
            && self.digest == operation.digest
            && self.flows == operation.flows
    }

    /// Whether a stage's turn has come in some flow.
    fn is_open(&self, stage: Stage) -> bool {
        self.flows.iter().any(|flow| {
            let turn = flow.iter().position(|other| *other == stage);
            turn.is_some_and(|turn| flow[..turn].iter().all(|before| self.completed.contains(before)))
        })
    }

    fn is_complete(&self) -> bool {
        self.flows.iter().any(|flow| flow.iter().all(|stage| self.completed.contains(stage)))
    }
}

pub(super) struct Interactive {
    environment: Environment,
    sessions: Mutex<LruCache<String, State>>,
}

impl Interactive {
    pub(super) fn new(environment: Environment) -> Self {
        Self { environment, sessions: Mutex::new(LruCache::unbounded()) }
    }

    fn begin(&self, operation: &Operation) -> String {
        let id = self.environment.entropy.token(SESSION_LENGTH);
        let state = State {
            name: operation.name,
            recipient: operation.recipient,
            digest: operation.digest,
            flows: operation.flows,
            completed: Vec::new(),
            registration_token: None,
            begun_ts: self.environment.clock.now_ms(),
        };
        let mut sessions = self.sessions.lock();
        if sessions.len() >= SESSIONS {
            sessions.pop_lru();
        }
        sessions.put(id.clone(), state);
        id
    }

    /// Looks at a living session.
    fn with<T>(&self, id: &str, look: impl FnOnce(&mut State) -> T) -> Option<T> {
        let now = self.environment.clock.now_ms();
        let mut sessions = self.sessions.lock();
        if sessions.peek(id).is_some_and(|state| now - state.begun_ts >= LIFE_MS) {
            sessions.pop(id);
        }
        sessions.get_mut(id).map(look)
    }

    fn complete(&self, id: &str, stage: Stage, token: Option<String>) {
        self.with(id, |state| {
            if !state.completed.contains(&stage) {
                state.completed.push(stage);
            }
            if token.is_some() {
                state.registration_token = token;
            }
        });
    }

    /// Ends a session all of whose stages are done. Only one of several that ask at once is told so.
    fn finish(&self, id: &str) -> Option<Authorised> {
        let mut sessions = self.sessions.lock();
        sessions.peek(id).filter(|state| state.is_complete())?;
        let state = sessions.pop(id)?;
        Some(Authorised { registration_token: state.registration_token })
    }

    fn challenge(&self, id: String, refused: Option<(&'static str, String)>) -> InteractiveError {
        let known = self.with(&id, |state| (state.flows, state.completed.clone()));
        let (flows, completed) = known.unwrap_or_default();
        InteractiveError::Challenge(Challenge { session: id, flows, completed, refused })
    }
}

impl Accounts {
    /// Lets an operation pass whose `auth` (the key of the request's body) completes a flow; tells what is missing
    /// otherwise.
    pub async fn authorise(
        &self,
        operation: &Operation,
        auth: Option<&Value>,
    ) -> Result<Authorised, InteractiveError> {
        let interactive = &self.interactive;
        let nothing = Map::new();
        let auth = auth.and_then(Value::as_object).unwrap_or(&nothing);
        let text = |key: &str| auth.get(key).and_then(Value::as_str);
        let kind = text("type");

        let id = match text("session") {
            Some(id) if interactive.with(id, |state| state.is_about(operation)) == Some(true) => {
                id.to_owned()
            }
            Some(_) => {
                let refused = ("M_FORBIDDEN", "this session is over, or was for something else".to_owned());
                return Err(interactive.challenge(interactive.begin(operation), Some(refused)));
            }
            None => interactive.begin(operation),
        };
        if let Some(kind) = kind {
            let stage = Stage::named(kind)
                .filter(|stage| interactive.with(&id, |state| state.is_open(*stage)) == Some(true));
            let Some(stage) = stage else {
                let refused = ("M_UNRECOGNIZED", format!("{kind:.64} is not the next stage of any flow"));
                return Err(interactive.challenge(id, Some(refused)));
            };
            let done = interactive.with(&id, |state| state.completed.contains(&stage)) == Some(true);
            if !done {
                if let Err(refused) = self.attempt(operation, stage, auth).await? {
                    return Err(interactive.challenge(id, Some(refused)));
                }
                let token = (stage == Stage::RegistrationToken).then(|| text("token").map(str::to_owned));
                interactive.complete(&id, stage, token.flatten());
            }
        }
        interactive.finish(&id).ok_or_else(|| interactive.challenge(id, None))
    }

    /// Whether a stage is passed, or why not.
    async fn attempt(
        &self,
        operation: &Operation,
        stage: Stage,
        auth: &Map<String, Value>,
    ) -> Result<Result<(), (&'static str, String)>, Error> {
        let text = |key: &str| auth.get(key).and_then(Value::as_str);
        match stage {
            Stage::Dummy => Ok(Ok(())),
            Stage::RegistrationToken => {
                let valid = self.is_registration_token(text("token").unwrap_or_default()).await?;
                let refused = ("M_UNAUTHORIZED", Error::BadRegistrationToken.to_string());
                Ok(if valid { Ok(()) } else { Err(refused) })
            }
            Stage::Password => {
                let identifier = auth.get("identifier");
                // From before identifiers: `user` beside the password.
                let user = identifier
                    .and_then(|identifier| identifier.get("user"))
                    .and_then(Value::as_str)
                    .or_else(|| text("user"));
                let (Some(user), Some(password)) = (user, text("password")) else {
                    return Ok(Err(("M_MISSING_PARAM", "identifier and password are needed".to_owned())));
                };
                let named = match meant_by(user, &self.server_name) {
                    Some(user_id) => self.recipient(&user_id).await?,
                    None => None,
                };
                // Nobody learns here whether a password of somebody else is right.
                if named.is_none() || named != operation.recipient {
                    return Err(Error::NotAllowed("nobody can authenticate for somebody else"));
                }
                match self.check_password(user, password.to_owned()).await {
                    Ok(_) => Ok(Ok(())),
                    Err(Error::BadCredentials | Error::Deactivated) => {
                        Ok(Err(("M_FORBIDDEN", Error::BadCredentials.to_string())))
                    }
                    Err(cause) => Err(cause),
                }
            }
        }
    }

    /// A stage was passed on the fallback page, outside of the request itself. Whether it counts.
    pub async fn complete_on_page(
        &self,
        session: &str,
        stage: Stage,
        token: Option<&str>,
    ) -> Result<bool, Error> {
        let open = self.interactive.with(session, |state| state.is_open(stage)) == Some(true);
        let passed = match stage {
            Stage::Dummy => true,
            Stage::RegistrationToken => self.is_registration_token(token.unwrap_or_default()).await?,
            // A password belongs to the client's own form.
            Stage::Password => false,
        };
        if open && passed {
            self.interactive.complete(session, stage, token.map(str::to_owned));
        }
        Ok(open && passed)
    }
}
