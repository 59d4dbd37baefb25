//! What the programs that test Hearth from inside take hold of: fuzzers, simulations, counts of instructions. No
//! interface to build on; it changes with the code.

#[cfg(test)]
pub(crate) mod hanging_up;
pub mod reading;
pub mod server;
pub mod simulation;
