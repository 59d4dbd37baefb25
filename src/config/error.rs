//! What is wrong with a configuration, in the words of whoever has to mend it: the key, its value and the remedy.

use std::fmt;

use super::{Config, setting};
use crate::config::setting::Section as _;

/// The first thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(Box<Details>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Details {
    /// The full name of the key; empty if it is about the whole file.
    key: String,
    problem: Problem,
    /// The environment variable that the value came from.
    variable: Option<String>,
    /// What the key is for.
    about: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    Unknown { nearest: Option<String> },
    Value { value: String, cause: String },
    Missing,
    PartOfList { list: String, key: String },
    File { path: String, cause: String },
}

impl Error {
    /// A value that is a secret, or has one in it, isn't told.
    pub(super) fn new(key: &str, problem: Problem) -> Self {
        let problem = match problem {
            Problem::Value { value, cause } if holds_secret(key, &value) => {
                // `invalid type: integer `12345`, expected a string`.
                let expected =
                    cause.rsplit_once(", expected ").map(|(_, kind)| format!("{kind} is expected"));
                Problem::Value { value: "…".to_owned(), cause: expected.unwrap_or(cause) }
            }
            problem => problem,
        };
        Self(Box::new(Details { key: key.to_owned(), problem, variable: None, about: None }))
    }

    /// A value that is well-formed but can't be used.
    pub(super) fn value(key: &str, value: impl fmt::Display, cause: impl Into<String>) -> Self {
        Self::new(key, Problem::Value { value: value.to_string(), cause: cause.into() })
    }

    /// A file that isn't TOML. The line where it isn't is shown, unless it may be part of a secret.
    pub(super) fn syntax(file: &str, text: &str, cause: &toml::de::Error) -> Self {
        let start = cause.span().map_or(text.len(), |span| span.start);
        let (before, after) = text.split_at_checked(start).unwrap_or((text, ""));
        let (line, rest) = (before.matches('\n').count() + 1, after.lines().next().unwrap_or_default());
        // A text of several lines may have begun long before.
        let secret = secrets().find(|name| before.contains(last(name)) || rest.contains(last(name)));
        let cause = match secret {
            Some(name) => {
                let cause = cause.message();
                format!("line {line}: {cause}; the line isn't shown, for `{name}` may be in it")
            }
            None => cause.to_string(),
        };
        Self::new("", Problem::File { path: file.to_owned(), cause })
    }

    pub(super) fn unknown(key: &str) -> Self {
        Self::new(key, Problem::Unknown { nearest: nearest(key) })
    }

    /// Adds the documentation of the key, unless a deeper key has added its own.
    pub(super) fn explained(mut self, doc: &[&str]) -> Self {
        if self.0.about.is_none() && !matches!(self.0.problem, Problem::Unknown { .. }) {
            self.0.about = Some(doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" "));
        }
        self
    }

    pub(super) fn key(&self) -> &str {
        &self.0.key
    }

    pub(super) fn with_variable(mut self, variable: &str) -> Self {
        self.0.variable = Some(variable.to_owned());
        self
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.0.key;
        match &self.0.problem {
            Problem::Unknown { nearest } => {
                write!(f, "there is no key `{key}`")?;
                self.write_variable(f)?;
                match nearest {
                    Some(nearest) => write!(f, "; did you mean `{nearest}`?")?,
                    None => write!(f, ";")?,
                }
                write!(f, " `hearth config default` shows all keys")
            }
            Problem::Value { value, cause } => {
                write!(f, "`{key} = {value}`")?;
                self.write_variable(f)?;
                write!(f, " can't be used: {cause}")?;
                self.write_about(f)
            }
            Problem::Missing => {
                write!(f, "`{key}` is missing")?;
                self.write_about(f)
            }
            Problem::PartOfList { list, key: part } => {
                write!(f, "`{key}`")?;
                self.write_variable(f)?;
                write!(
                    f,
                    " is set in each item of a list: set the list whole, as in {list}='[{{ {part} = … }}]'"
                )
            }
            Problem::File { path, cause } => write!(f, "{path}: {cause}"),
        }
    }
}

impl Error {
    fn write_variable(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.variable.as_ref().map_or(Ok(()), |name| write!(f, " (from {name})"))
    }

    fn write_about(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.about.as_ref().map_or(Ok(()), |about| write!(f, "\n  `{}`: {about}", self.0.key))
    }
}

/// Whether what a key was given is a secret, or has one in it. Whoever writes `[[registration]]` gives a list of tables.
fn holds_secret(key: &str, value: &str) -> bool {
    let key = without_indexes(key);
    secrets().any(|name| {
        let part_of =
            |one: &str, other: &str| one.strip_prefix(other).is_some_and(|rest| rest.starts_with('.'));
        name == key || part_of(&name, &key) || part_of(&key, &name) || value.contains(last(&name))
    })
}

/// The full names of the keys that hold secrets.
fn secrets() -> impl Iterator<Item = String> {
    setting::all(Config::KEYS, "").into_iter().filter_map(|(name, key)| key.secret.then_some(name))
}

/// `registration.mode` → `mode`.
fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or_default()
}

/// The key that was most likely meant: near in spelling, or of the same name in another section.
fn nearest(key: &str) -> Option<String> {
    let key = without_indexes(key);
    let likeness = |candidate: &str| {
        let whole = strsim::normalized_damerau_levenshtein(&key, candidate);
        // The right name in the wrong section is a good guess, the right name in the right section a better one.
        let name = strsim::normalized_damerau_levenshtein(last(&key), last(candidate)) * 0.9;
        whole.max(name)
    };
    let candidates = setting::all(Config::KEYS, "").into_iter().map(|(name, _)| (likeness(&name), name));
    let (likeness, name) = candidates.max_by(|(one, _), (other, _)| one.total_cmp(other))?;
    (likeness > 0.6).then_some(name)
}

/// `listener[1].bind` → `listener.bind`.
fn without_indexes(key: &str) -> String {
    key.split('.').map(|part| part.split('[').next().unwrap_or_default()).collect::<Vec<_>>().join(".")
}
