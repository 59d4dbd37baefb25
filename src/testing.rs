//! What the programs that test Hearth from inside take hold of: fuzzers, simulations, counts of instructions. No
//! interface to build on; it changes with the code.

pub mod reading;
pub mod server;
pub mod simulation;
