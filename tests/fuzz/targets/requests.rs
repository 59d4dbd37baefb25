#![no_main]

use std::sync::LazyLock;

use hearth_fuzz_bodies::{Body, body};
use libfuzzer_sys::fuzz_target;

static BODY: LazyLock<Body> = LazyLock::new(|| body("requests"));

fuzz_target!(|data: &[u8]| BODY(data));
