//! A Synapse that federates on loopback: `localhost:<port>`, with a certificate of the tests' authority.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use serde_json::json;
use tempfile::TempDir;

use crate::common::{Http, PASSWORD, User, eventually, federating::Authority, free_port};

pub(crate) struct Synapse {
    pub(crate) name: String,
    pub(crate) http: Http,
    process: Option<Child>,
    port: u16,
    federation: u16,
    dir: TempDir,
}

impl Synapse {
    pub(crate) async fn start(authority: &Authority) -> Self {
        Self::start_behind(authority, None).await
    }

    /// One that others reach by way of another port.
    pub(crate) async fn start_behind(authority: &Authority, reached: Option<u16>) -> Self {
        let dir = tempfile::Builder::new().prefix("synapse-test-").tempdir().unwrap();
        let (port, federation) = (free_port(), free_port());
        let (certificate, key) = authority.certify("localhost", dir.path());
        // The two lists of forbidden addresses are spelled as they always were: under their newer names they are passed
        // over, and every peer on this machine is refused. A peer that was down is tried again soon.
        let more = format!(
            "listeners:
  - {{port: {port}, bind_addresses: ['127.0.0.1'], type: http, tls: false, resources: [{{names: [client]}}]}}
  - {{port: {federation}, bind_addresses: ['127.0.0.1'], type: http, tls: true, resources: [{{names: [federation]}}]}}
tls_certificate_path: '{}'
tls_private_key_path: '{}'
federation_custom_ca_list: ['{}']
ip_range_blacklist: []
federation_ip_range_blacklist: []
allow_public_rooms_over_federation: true
allow_public_rooms_without_auth: true
room_list_publication_rules: [{{user_id: '*', alias: '*', room_id: '*', action: allow}}]
presence: {{enabled: true}}
federation_rr_transactions_per_room_per_second: 10000
rc_federation: {{window_size: 1000, sleep_limit: 100000, sleep_delay: 0, reject_limit: 100000, concurrent: 100}}
federation:
  client_timeout: 20s
  max_short_retry_delay: 1s
  max_long_retry_delay: 2s
  max_short_retries: 2
  max_long_retries: 2
  destination_min_retry_interval: 1s
  destination_retry_multiplier: 1
  destination_max_retry_interval: 2s
",
            certificate.display(),
            key.display(),
            authority.file().display(),
        );
        fs::write(dir.path().join("more.yaml"), more).unwrap();
        let http = Http::new(format!("http://127.0.0.1:{port}"));
        let name = format!("localhost:{}", reached.unwrap_or(federation));
        let mut synapse = Self { name, http, process: None, port, federation, dir };
        synapse.start_again().await;
        synapse
    }

    /// Starts it on what it left, and waits until it answers.
    pub(crate) async fn start_again(&mut self) {
        let log = fs::File::create(self.log()).unwrap();
        let process = Command::new("tests/peers/synapse.sh")
            .args(["run", &self.port.to_string()])
            .arg(self.dir.path())
            .env("SERVER_NAME", &self.name)
            .env("EXTRA", self.dir.path().join("more.yaml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(process);
        let http = self.http.clone();
        eventually("Synapse answers", || async {
            let answer = http.try_request(http::Method::GET, "/_matrix/client/versions", None, None).await;
            answer.is_ok_and(|answer| answer.status == 200).then_some(())
        })
        .await;
    }

    /// The port that speaks to servers.
    pub(crate) fn federation_port(&self) -> u16 {
        self.federation
    }

    /// The process id of the running server.
    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    pub(crate) async fn register(&self, name: &str) -> User {
        let body = json!({ "username": name, "password": PASSWORD, "auth": { "type": "m.login.dummy" } });
        User::new(self.http.clone(), &self.http.post("/v3/register", None, body).await.expect(200))
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("output")
    }
}

impl Drop for Synapse {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.kill();
        }
    }
}
