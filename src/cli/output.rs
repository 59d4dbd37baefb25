//! What commands say on the standard output. That it can't be written is a failure like any other, but for a reader that has
//! read enough (`| head`): that ends a command with success, for whatever it was to do is done.

use std::{
    fmt,
    io::{self, Write as _},
};

use super::Failure;

/// As `println!`, with a [`Failure`] in place of a panic.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::cli::output::write(format_args!("{}\n", format_args!($($text)*)))
    };
}
pub(super) use say;

/// Writes text that ends with a line.
pub(super) fn write(text: fmt::Arguments<'_>) -> Result<(), Failure> {
    match io::stdout().write_all(text.to_string().as_bytes()) {
        Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => Err(Failure::silent(0)),
        other => other.map_err(|cause| lost(&cause, "")),
    }
}

/// Writes what nobody else has, such as a new password. If that can't be done, the failure says what has become of it.
pub(super) fn write_secret(text: fmt::Arguments<'_>, what_then: &str) -> Result<(), Failure> {
    io::stdout()
        .write_all(text.to_string().as_bytes())
        .map_err(|cause| lost(&cause, &format!("; {what_then}")))
}

fn lost(cause: &io::Error, what_then: &str) -> Failure {
    Failure::new(format!("the output can't be written: {cause}{what_then}"))
}
