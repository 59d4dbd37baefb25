//! One `hearth` process: its configuration, its data, its log, its life and death.

use super::{Http, PATIENCE, User, eventually};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::{
    fs::{self, File, OpenOptions},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU16, Ordering},
    },
};
use tempfile::TempDir;
use tokio::net::{TcpSocket, TcpStream};
use toml::{Table, Value};

/// The password of every account that [`Server::register`] makes.
pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// A running server, or one that a test has stopped. Restarts keep the port, the configuration and the data.
pub(crate) struct Server {
    port: u16,
    process: Option<Child>,
    http: Http,
    /// Words before the commands that are run from now on, such as `env NAME=value`.
    pub(crate) prefix: Vec<String>,
    dir: TempDir,
}

impl Server {
    /// Starts a server and waits until its port is open.
    ///
    /// Its configuration is this, with `overrides` laid over it table by table (a value or an array replaces):
    ///
    /// ```toml
    /// server_name = "localhost"
    /// data_dir = "<a new temporary directory>/data"
    /// [[listener]]
    /// bind = "127.0.0.1:<a free port>"
    /// serve = ["client", "metrics"]
    /// [registration]
    /// mode = "open"
    /// [limits]
    /// enabled = false
    /// ```
    ///
    /// # Panics
    /// If the process ends before its port is open, with its log.
    pub(crate) async fn start(overrides: Table) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("hearth-test-")
            .tempdir()
            .expect("a temporary directory can be made");
        let port = free_port();
        let bind = format!("127.0.0.1:{port}");
        let data_dir = dir.path().join("data").to_str().expect("temporary paths are UTF-8").to_owned();
        let mut config = toml::toml! {
            server_name = "localhost"
            [registration]
            mode = "open"
            [limits]
            enabled = false
        };
        config.insert("data_dir".to_owned(), Value::String(data_dir));
        let listener = Table::from_iter([
            ("bind".to_owned(), Value::String(bind.clone())),
            ("serve".to_owned(), Value::Array(["client", "metrics"].map(Value::from).to_vec())),
        ]);
        config.insert("listener".to_owned(), Value::Array(vec![Value::Table(listener)]));
        lay_over(&mut config, overrides);
        let text = toml::to_string(&config).expect("a table is a TOML document");
        fs::write(dir.path().join("hearth.toml"), text).expect("the temporary directory can be written");

        let http = Http::new(format!("http://{bind}"));
        let mut server = Self { port, process: None, http, prefix: Vec::new(), dir };
        server.start_again().await;
        server
    }

    /// `http://127.0.0.1:<port>`.
    pub(crate) fn url(&self) -> &str {
        self.http.base()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The client that speaks to this server.
    pub(crate) fn http(&self) -> &Http {
        &self.http
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn config_path(&self) -> PathBuf {
        self.dir.path().join("hearth.toml")
    }

    /// The process id of the running server.
    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().expect("the server runs").id()
    }

    /// All that the server has written to its standard output and error, over all its starts.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    /// SIGTERM, the end of the process with status 0, and a new start.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.start_again().await;
    }

    /// SIGTERM, and the end of the process with status 0.
    pub(crate) async fn stop(&mut self) {
        self.signal(Signal::TERM);
        let status = self.ended().await;
        assert!(status.success(), "SIGTERM should end the server with 0, it was: {status}");
    }

    /// SIGKILL: what the machine does when the power goes. Follow with [`Server::start_again`].
    pub(crate) async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.ended().await;
    }

    /// Sends a signal and doesn't wait for what it does.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().cast_signed()).expect("a process has a positive id");
        kill_process(pid, signal).expect("the server still runs");
    }

    /// Waits for the process to end by itself or by a signal that was sent.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("the server runs");
        eventually("the server ends", || {
            let status = process.try_wait().expect("a child can be waited for");
            async move { status }
        })
        .await
    }

    /// Starts a stopped or killed server on what it left, and waits until its port is open.
    pub(crate) async fn start_again(&mut self) {
        self.spawn();
        if let Err(status) = self.opened().await {
            panic!("the server ended before its port was open, {status}:\n{}", self.log());
        }
    }

    /// Starts a stopped or killed server on what it left, and doesn't wait for anything.
    pub(crate) fn spawn(&mut self) {
        assert!(self.process.is_none(), "the server still runs");
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .expect("the log can be written");
        let mut command = self.command(&["serve"]);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle can be copied"))
            .stderr(log);
        self.process = Some(command.spawn().expect("the hearth binary can be started"));
    }

    /// Waits until the port of a server that was spawned is open, or the server has ended: how.
    pub(crate) async fn opened(&mut self) -> Result<(), ExitStatus> {
        let process = self.process.as_mut().expect("the server was spawned");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let ended = eventually("the server opens its port", || {
            let ended = process.try_wait().expect("a child can be waited for");
            async move {
                if ended.is_some() {
                    return Some(ended);
                }
                TcpStream::connect(address).await.is_ok().then_some(None)
            }
        })
        .await;
        ended.map_or(Ok(()), |status| {
            self.process = None;
            Err(status)
        })
    }

    /// Runs another subcommand on this server's configuration, such as `["token", "create"]`, and waits for its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).stdin(Stdio::null()).output().expect("the hearth binary can be started")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        // A benchmark measures a release build.
        let binary = std::env::var_os("HEARTH_BINARY").unwrap_or(env!("CARGO_BIN_EXE_hearth").into());
        let mut command = match &*self.prefix {
            [] => Command::new(binary),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(binary);
                command
            }
        };
        command.args(arguments).arg("--config").arg(self.config_path()).current_dir(self.dir.path());
        // What a developer has set for their own server isn't the test's business.
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HEARTH__"))
        {
            command.env_remove(name);
        }
        command
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("hearth.log")
    }

    /// Makes the account `@name:localhost` with the password [`PASSWORD`], and its first device.
    pub(crate) async fn register(&self, name: &str) -> User {
        let body = json!({ "username": name, "password": PASSWORD, "auth": { "type": "m.login.dummy" } });
        let answer = self.http.post("/v3/register", None, body).await.expect(200);
        User::new(self.http.clone(), &answer)
    }

    /// Logs `@name:localhost` in with the password [`PASSWORD`], on a new device.
    pub(crate) async fn login(&self, name: &str) -> User {
        let identifier = json!({ "type": "m.id.user", "user": name });
        let body = json!({ "type": "m.login.password", "identifier": identifier, "password": PASSWORD });
        let answer = self.http.post("/v3/login", None, body).await.expect(200);
        User::new(self.http.clone(), &answer)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended already, and nobody is left to tell if it can't be killed.
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            eprintln!(
                "--- log of the server on port {} ---\n{}--- end of the log ---",
                self.port,
                self.log()
            );
        }
    }
}

/// Lays `over` over `base`: tables by key, anything else replaces.
fn lay_over(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => lay_over(below, above),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// A port that nothing listens on, and that nobody else takes while the server is down between two starts: neither the system
/// for an outgoing connection, for it is below 32768, where those begin, nor another test binary that runs at the same time,
/// for each port has a file that whoever uses it has locked until the process ends.
pub(crate) fn free_port() -> u16 {
    const FIRST: u16 = 16_384;
    const COUNT: u16 = 16_000;
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    static LOCKS: Mutex<Vec<File>> = Mutex::new(Vec::new());
    let folder = std::env::temp_dir().join("hearth-test-ports");
    fs::create_dir_all(&folder).expect("the temporary folder can be written");
    let start = (std::process::id().wrapping_mul(499) % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let port = FIRST + (start + TAKEN.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
        let lock = File::create(folder.join(port.to_string())).expect("the temporary folder can be written");
        if lock.try_lock().is_ok() && is_free(port) {
            LOCKS.lock().expect("nobody panics here").push(lock);
            return port;
        }
    }
    panic!("no port from {FIRST} on is free");
}

/// Whether nothing listens on a port. It isn't opened for that, not for a moment: another thread may be starting a process,
/// which has the socket too until it has become its program, and so long whoever waits for the server that gets this port
/// would find it open, and be cut off.
pub(crate) fn is_free(port: u16) -> bool {
    let socket = TcpSocket::new_v4().expect("a socket can be made");
    // As the server itself does: connections of earlier runs that fade away don't matter.
    socket.set_reuseaddr(true).expect("a socket has this option");
    socket.bind((Ipv4Addr::LOCALHOST, port).into()).is_ok()
}
