//! Work that is finished whether the client that asked for it waits or not.

use crate::http::MatrixError;

/// Does something in a task of its own. What another server has taken, a join, an invite, has to be done here too, and
/// what is stored has to reach those whom it concerns; a handler is dropped when its client hangs up.
pub(super) async fn finished<T: Send + 'static>(
    work: impl Future<Output = Result<T, MatrixError>> + Send + 'static,
) -> Result<T, MatrixError> {
    tokio::spawn(work).await.map_err(|cause| MatrixError::internal(&cause))?
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use http::{Method, Request, StatusCode, header};
    use serde_json::{Value, json};
    use tempfile::TempDir;

    use crate::testing::{hanging_up::until_wait, server::Server};

    /// A server with one user.
    struct World {
        server: Server,
        token: String,
        /// Where sliding sync is.
        pos: String,
        _dir: TempDir,
    }

    impl World {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let configuration = format!(
                r#"
                data_dir = "{}"
                registration.mode = "open"
                limits.enabled = false
                federation.enabled = false
                "#,
                dir.path().display(),
            );
            let server = Server::start(&configuration).await.unwrap();
            let mut world = Self { server, token: String::new(), pos: String::new(), _dir: dir };
            let password = "correct horse battery staple";
            let auth = json!({ "type": "m.login.dummy" });
            let body = json!({ "username": "alice", "password": password, "auth": auth });
            world.token = text(&world.done(Method::POST, "v3/register", &body).await["access_token"]);
            world
        }

        async fn ask(&self, method: Method, path: &str, body: &Value) -> (StatusCode, Value) {
            let mut request = Request::builder().method(method).uri(format!("/_matrix/client/{path}"));
            if !self.token.is_empty() {
                request = request.header(header::AUTHORIZATION, format!("Bearer {}", self.token));
            }
            let answer = self.server.answer(request.body(body.to_string().into()).unwrap()).await;
            (answer.status(), serde_json::from_slice(answer.body()).unwrap())
        }

        /// What must succeed.
        async fn done(&self, method: Method, path: &str, body: &Value) -> Value {
            let (status, answer) = self.ask(method, path, body).await;
            assert_eq!(status, StatusCode::OK, "{path}: {answer}");
            answer
        }

        async fn room(&self, body: &Value) -> String {
            text(&self.done(Method::POST, "v3/createRoom", body).await["room_id"])
        }

        /// What was to be written before is written then.
        async fn written(&self, number: usize) {
            let account_data = "v3/user/@alice:localhost/account_data/org.example";
            self.done(Method::PUT, account_data, &json!({ "number": number })).await;
        }

        /// The rooms in the user's list.
        async fn listed(&mut self) -> Value {
            let list = json!({ "ranges": [[0, 19]], "timeline_limit": 1, "required_state": [] });
            let path = format!("unstable/org.matrix.simplified_msc3575/sync?timeout=0{}", self.pos);
            let answer = self.done(Method::POST, &path, &json!({ "lists": { "all": list } })).await;
            self.pos = format!("&pos={}", text(&answer["pos"]));
            answer["lists"]["all"]["count"].clone()
        }
    }

    fn text(value: &Value) -> String {
        value.as_str().unwrap().to_owned()
    }

    async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_mins(1);
        while !condition().await {
            assert!(Instant::now() < deadline, "{what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// AL-04
    #[tokio::test]
    async fn a_removed_alias_is_not_named_any_more_though_nobody_waits() {
        let world = World::new().await;
        for wait in 1.. {
            let name = format!("a{wait}");
            let room = world.room(&json!({ "room_alias_name": name })).await;
            let state = format!("v3/rooms/{room}/state/m.room.canonical_alias");
            world.done(Method::PUT, &state, &json!({ "alias": format!("#{name}:localhost") })).await;
            let alias = format!("v3/directory/room/%23{name}:localhost");
            let done = until_wait(wait, world.ask(Method::DELETE, &alias, &json!({}))).await;
            world.written(wait).await;
            eventually("the room has the alias that it names, or neither", async || {
                let (status, _) = world.ask(Method::GET, &alias, &json!({})).await;
                let names = world.done(Method::GET, &state, &json!({})).await.get("alias").is_some();
                names == (status == StatusCode::OK)
            })
            .await;
            if let Some((status, _)) = done {
                assert_eq!(status, StatusCode::OK);
                break;
            }
        }
    }

    #[tokio::test]
    async fn a_forgotten_room_is_in_no_list_any_more_though_nobody_waits() {
        let mut world = World::new().await;
        let filter = "%7B%22room%22:%7B%22include_leave%22:true%7D%7D";
        let sync = format!("v3/sync?timeout=0&filter={filter}");
        for wait in 1.. {
            let room = world.room(&json!({})).await;
            assert_eq!(world.listed().await, 1);
            world.done(Method::POST, &format!("v3/rooms/{room}/leave"), &json!({})).await;
            assert_eq!(world.listed().await, 1, "it was seen");
            let forget = format!("v3/rooms/{room}/forget");
            let done = until_wait(wait, world.ask(Method::POST, &forget, &json!({}))).await;
            world.written(wait).await;
            eventually("it is in the list for as long as it isn't forgotten", async || {
                let sync = world.done(Method::GET, &sync, &json!({})).await;
                let is_kept = sync["rooms"]["leave"].get(&room).is_some();
                (world.listed().await == 1) == is_kept
            })
            .await;
            world.done(Method::POST, &forget, &json!({})).await;
            if let Some((status, _)) = done {
                assert_eq!(status, StatusCode::OK);
                break;
            }
        }
    }
}
