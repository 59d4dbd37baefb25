//! Some seeds of the simulation, and that it is to be trusted: a run can be repeated, and what is broken is found.

use std::process::{Command, Output};

fn simulation(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hearth-simulation")).args(arguments).output().expect("it starts")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn seeds(arguments: &[&str]) {
    let played = simulation(arguments);
    assert!(played.status.success(), "{}", text(&played));
}

/// I1 to I5, I9, I10: one server, whose clients lose answers, which crashes, and whose disk fails.
#[test]
fn one_server_keeps_its_promises_whatever_goes_wrong() {
    seeds(&["--servers", "1", "--seeds", "12", "--from", "1000"]);
}

/// The same for several, between which the network does what it likes; and they agree in the end.
#[test]
fn servers_agree_whatever_goes_wrong() {
    seeds(&["--seeds", "12", "--from", "2000"]);
}

/// A run is its seed: the same things happen at the same times, and others for another seed.
#[test]
fn a_seed_is_the_same_run_each_time() {
    let run = |seed: &str| text(&simulation(&["--seed", seed, "--servers", "3"]));
    assert_eq!(run("7"), run("7"));
    assert_ne!(run("7"), run("8"));
}

/// What was acknowledged and isn't on the disk is missed, if a crash takes it.
#[test]
fn a_disk_that_lies_about_syncs_is_found_out() {
    let found = simulation(&["--seeds", "12", "--servers", "1", "--lying-disks"]);
    assert!(!found.status.success(), "{}", text(&found));
}

/// I8: whoever panics at the transaction of another server is found out, though that server does no more than send it again.
#[test]
fn i8_a_panic_that_nobody_waits_for_is_found_out() {
    let found = simulation(&["--seeds", "3", "--servers", "2", "--no-crashes", "--panics"]);
    assert!(!found.status.success() && text(&found).contains("I8: panicked"), "{}", text(&found));
}

/// I11: what a message and a sync read doesn't grow with the history of their room.
#[test]
fn i11_a_message_and_a_sync_read_as_much_in_an_old_room_as_in_a_young_one() {
    seeds(&["--costs"]);
}
