//! People who encrypt, with the clients that they use: each play is one program with many devices on two servers, or one, and
//! asks for a server to be killed and started in the middle. `tests/clients/README.md` has the plays; `tests/setup.sh` installs them.
//!
//! A program ends well only if every device could decrypt whatever was for it, and nothing else.

#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../federation/synapse.rs"]
#[allow(dead_code)]
mod synapse;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use tokio::task::block_in_place;

use self::{
    common::{
        PASSWORD,
        federating::{Authority, Federating},
    },
    synapse::Synapse,
};

/// A server that may be killed for a while.
enum Home {
    Hearth(Federating),
    Synapse(Synapse),
}

impl Home {
    async fn hearth(authority: &Authority) -> Self {
        Self::Hearth(Federating::start(authority, toml::Table::new()).await)
    }

    async fn synapse(authority: &Authority) -> Self {
        Self::Synapse(Synapse::start(authority).await)
    }

    fn url(&self) -> String {
        match self {
            Self::Hearth(hearth) => hearth.server.url().to_owned(),
            Self::Synapse(synapse) => synapse.http.base().to_owned(),
        }
    }

    async fn kill(&mut self) {
        match self {
            Self::Hearth(hearth) => hearth.server.kill().await,
            Self::Synapse(synapse) => synapse.kill(),
        }
    }

    async fn start_again(&mut self) {
        match self {
            Self::Hearth(hearth) => hearth.start_again().await,
            Self::Synapse(synapse) => synapse.start_again().await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn matrix_js_sdk_encrypts_on_one_server() {
    let authority = Authority::new();
    let mut home = [Home::hearth(&authority).await];
    play(matrix_js_sdk(&["--dehydrated"]), &mut home).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn matrix_js_sdk_encrypts_between_two_servers() {
    let authority = Authority::new();
    let mut homes = [Home::hearth(&authority).await, Home::hearth(&authority).await];
    play(matrix_js_sdk(&["--dehydrated"]), &mut homes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn matrix_js_sdk_encrypts_from_this_server_to_synapse() {
    let authority = Authority::new();
    let mut homes = [Home::hearth(&authority).await, Home::synapse(&authority).await];
    play(matrix_js_sdk(&[]), &mut homes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn matrix_js_sdk_encrypts_from_synapse_to_this_server() {
    let authority = Authority::new();
    let mut homes = [Home::synapse(&authority).await, Home::hearth(&authority).await];
    play(matrix_js_sdk(&["--dehydrated"]), &mut homes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn matrix_nio_encrypts_between_two_servers() {
    let authority = Authority::new();
    let mut homes = [Home::hearth(&authority).await, Home::hearth(&authority).await];
    play(matrix_nio(), &mut homes).await;
}

/// As Element X does it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes to build: `make test-more` plays it"]
async fn matrix_sdk_encrypts_between_two_servers() {
    let authority = Authority::new();
    let mut homes = [Home::hearth(&authority).await, Home::hearth(&authority).await];
    play(matrix_sdk(), &mut homes).await;
}

/// The plays themselves, on servers of somebody else: when one of the above fails, these say whether that is new.
mod on_synapse {
    use super::*;

    async fn comes_true(program: Command) {
        let authority = Authority::new();
        let mut homes = [Home::synapse(&authority).await, Home::synapse(&authority).await];
        play(program, &mut homes).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "tests the play, not this server"]
    async fn the_play_of_matrix_js_sdk() {
        comes_true(matrix_js_sdk(&[])).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "tests the play, not this server"]
    async fn the_play_of_matrix_nio() {
        comes_true(matrix_nio()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "tests the play, not this server"]
    async fn the_play_of_matrix_sdk() {
        comes_true(matrix_sdk()).await;
    }
}

fn matrix_js_sdk(more: &[&str]) -> Command {
    let mut command = Command::new(installed(root().join(".cache/node")));
    command.arg(root().join("tests/clients/encryption_js.mjs")).args(more);
    command
}

fn matrix_nio() -> Command {
    let mut command = Command::new(installed(root().join(".cache/venv/bin/python")));
    command.arg(root().join("tests/clients/encryption_nio.py"));
    command
}

fn matrix_sdk() -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.args(["run", "--quiet", "--locked", "--bin", "encryption-play", "--manifest-path"]);
    command.arg(root().join("tests/clients-rust/Cargo.toml")).arg("--").env("RUST_BACKTRACE", "0");
    command
}

/// Runs a program to its end, which must be a good one. For `@stop here` and its like on its standard output it kills or starts
/// a server, and writes a line to its standard input.
async fn play(mut program: Command, homes: &mut [Home]) {
    let (here, there) = (homes[0].url(), homes.last().unwrap().url());
    let mut program = Running(
        program
            .args(["--here", &here, "--there", &there, "--password", PASSWORD])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut stdin = program.0.stdin.take().unwrap();
    let mut stderr = program.0.stderr.take().unwrap();
    let complaints = thread::spawn(move || {
        let mut text = Vec::new();
        // What is lost is what it had no time to say.
        let _ = stderr.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    let mut lines = BufReader::new(program.0.stdout.take().unwrap()).lines();
    while let Some(line) = block_in_place(|| lines.next()) {
        match line.unwrap().as_str() {
            "@stop here" => homes.first_mut().unwrap().kill().await,
            "@start here" => homes.first_mut().unwrap().start_again().await,
            "@stop there" => homes.last_mut().unwrap().kill().await,
            "@start there" => homes.last_mut().unwrap().start_again().await,
            _ => continue,
        }
        // One that has ended says why below.
        let _ = stdin.write_all(b"done\n");
    }
    let status = block_in_place(|| program.0.wait()).unwrap();
    let complaints = complaints.join().unwrap();
    assert!(status.success(), "{status}\n{complaints}");
    // Kept by the test harness unless it fails, or is told otherwise.
    println!("{complaints}");
}

/// A program that doesn't outlive the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already, and nobody is left to tell if it can't be killed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A path that `tests/setup.sh` makes.
fn installed(path: PathBuf) -> PathBuf {
    assert!(path.exists(), "{} is missing: run tests/setup.sh, or `make test`", path.display());
    path
}
