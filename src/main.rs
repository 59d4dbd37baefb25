//! The program.

use std::process::ExitCode;

// Long-lived servers of many small allocations fragment with the system's allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    hearth::run()
}
