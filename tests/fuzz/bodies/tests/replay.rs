//! Every input that was ever found worth keeping, through the body of its target: what `make fuzz` starts from, and what it
//! once found wrong. And a little of what a fuzzer would do with them, which needs no instrumented code.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

use hearth_fuzz_bodies::{Body, TARGETS};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

/// The inputs in a folder, in the order of their names.
fn inputs(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.display().to_string(), fs::read(&path).unwrap())).collect()
}

/// `many` where `HEARTH_TEST_MORE` is set.
fn rounds(few: usize, many: usize) -> usize {
    if std::env::var_os("HEARTH_TEST_MORE").is_some() { many } else { few }
}

/// Each target in a thread, whose name a failure carries; `HEARTH_FUZZ_TARGET` names the only one.
fn for_each_target(work: impl Fn(&str, Body) + Copy + Send + 'static) {
    let only = std::env::var("HEARTH_FUZZ_TARGET").ok();
    let threads: Vec<_> = TARGETS
        .iter()
        .filter(|(name, _)| only.as_deref().is_none_or(|only| only == *name))
        .map(|(name, body)| {
            let thread = thread::Builder::new().name((*name).to_owned());
            thread.spawn(move || work(name, *body)).unwrap()
        })
        .collect();
    let failed: Vec<_> = threads
        .into_iter()
        .filter_map(|thread| {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            thread.join().is_err().then_some(name)
        })
        .collect();
    assert!(failed.is_empty(), "wrong: {failed:?}");
}

/// Says which input it was, before the panic is told.
fn run(body: Body, name: &str, input: &[u8]) {
    struct Named<'a>(&'a str, &'a [u8]);

    impl Drop for Named<'_> {
        fn drop(&mut self) {
            if thread::panicking() {
                eprintln!("the input was {}: {:?}", self.0, String::from_utf8_lossy(self.1));
            }
        }
    }

    let _named = Named(name, input);
    body(input);
}

#[test]
fn what_was_once_found_wrong_stays_right() {
    for_each_target(|target, body| {
        for (name, input) in inputs(&folder("regressions").join(target)) {
            run(body, &name, &input);
        }
    });
}

#[test]
fn every_input_of_the_corpora_is_right_and_so_are_its_neighbours() {
    for_each_target(|target, body| {
        let inputs = inputs(&folder("corpus").join(target));
        assert!(!inputs.is_empty(), "{target} has no corpus");
        let mut random = Random(1);
        // A whole server takes its time.
        let many = if ["api", "stream", "transactions"].contains(&target) {
            rounds(1, 100)
        } else {
            rounds(20, 2_000)
        };
        for (name, input) in &inputs {
            run(body, name, input);
            for _ in 0..many {
                let other = &inputs[random.below(inputs.len())].1;
                run(body, name, &random.changed(input, other));
            }
        }
    });
}

#[test]
fn nothing_at_all_is_an_input() {
    for_each_target(|_, body| {
        for input in [&b""[..], b"\0", b"\n", b"\xff\xff\xff\xff", b"{}", b"\0{}"] {
            run(body, "of the test itself", input);
        }
    });
}

/// `make fuzz` builds the same targets as these tests replay.
#[test]
fn every_target_has_its_program() {
    let manifest = fs::read_to_string(folder("Cargo.toml")).unwrap();
    for (name, _) in TARGETS {
        assert!(
            manifest.contains(&format!("\nname = \"{name}\"\n")),
            "{name} is not in tests/fuzz/Cargo.toml"
        );
        let program = fs::read_to_string(folder("targets").join(format!("{name}.rs"))).unwrap();
        assert!(program.contains(&format!("\"{name}\"")), "{name}");
    }
    let programs = fs::read_dir(folder("targets")).unwrap().count();
    assert_eq!(programs, TARGETS.len());
}

/// The same numbers in every run (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }

    /// The input with some of its bytes changed, doubled, gone, or from another input.
    fn changed(&mut self, input: &[u8], other: &[u8]) -> Vec<u8> {
        let mut changed = input.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(changed.len() + 1);
            match self.below(5) {
                0 => changed.truncate(at),
                1 => changed.insert(at, self.below(256) as u8),
                2 if at < changed.len() => changed[at] ^= 1 << self.below(8),
                3 if at < changed.len() => drop(changed.remove(at)),
                _ => {
                    let from = self.below(other.len());
                    let to = (from + self.below(32)).min(other.len());
                    changed.splice(at..at, other[from..to].iter().copied());
                }
            }
        }
        changed
    }
}
