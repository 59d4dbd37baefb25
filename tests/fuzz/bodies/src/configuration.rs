//! Configuration documents: what is read can be written and read again, and what isn't is explained. Lines that begin with
//! `HEARTH__` are variables of the environment.

use hearth::testing::reading::{configuration, configuration_keys};

pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (variables, lines): (Vec<&str>, Vec<&str>) =
        text.lines().partition(|line| line.starts_with("HEARTH__"));
    let variables: Vec<(String, String)> = variables
        .into_iter()
        .map(|line| line.split_once('=').unwrap_or((line, "")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let document = lines.join("\n");
    match configuration(&document, &variables) {
        Ok(written) => {
            let again = configuration(&written, &[]);
            assert_eq!(again.as_ref(), Ok(&written), "{document}");
        }
        Err(cause) => {
            assert!(!cause.trim().is_empty());
            // Where a key is wrong it is one that there is, or it is said that there is none.
            if let Some(unknown) = cause.strip_prefix("there is no key `") {
                let named = unknown.split('`').next().unwrap_or_default();
                let place = named.split('[').next().unwrap_or_default();
                assert!(
                    named.contains('[') || !configuration_keys().iter().any(|key| key == place),
                    "{cause}"
                );
            }
        }
    }
}
