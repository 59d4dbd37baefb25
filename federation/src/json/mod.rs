//! JSON as Matrix hashes it: parsed from untrusted text, written canonically.
//!
//! Owns the one decision of what an event's bytes *are*: text from outside is parsed here once, and what is written
//! back is what gets hashed, signed, stored and served, so that the four can't disagree.
//!
//! - **Duplicate keys**: the last one wins, everywhere. Refusing them would split rooms from servers that accept them,
//!   and any server that relays such an event relays it in the form we hash.
//! - **Numbers** keep their text until they are written. Room versions 6 and later allow integers in ±(2^53 − 1) only
//!   ([`Value::check_integers`]); earlier ones never said how to write the rest, so it stays as its author wrote it.
//! - **Nesting** is at most [`MAX_DEPTH`], which is also what `serde_json` can read again.
//!
//! It never reads types out of the JSON: that is serde's work, on the canonical text.
//!
//! Specification: [Canonical JSON](https://spec.matrix.org/v1.19/appendices/#canonical-json).

mod parse;
mod write;

use std::borrow::Cow;

pub use parse::{MAX_DEPTH, parse, parse_bytes, parse_object};
pub(crate) use write::write_string;

/// The largest integer canonical JSON may hold, 2^53 − 1; the smallest is its negative.
pub const MAX_SAFE_INTEGER: i64 = (1 << 53) - 1;

/// Why text isn't JSON that we take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not JSON (RFC 8259). `at` is a byte offset.
    #[error("not JSON: {what} at byte {at}")]
    Syntax {
        /// What was wrong.
        what: &'static str,
        /// Where, in bytes from the start.
        at: usize,
    },
    /// Arrays and objects nested deeper than [`MAX_DEPTH`].
    #[error("JSON is nested more than {MAX_DEPTH} levels deep")]
    TooDeep,
    /// The bytes aren't UTF-8.
    #[error("JSON is not UTF-8")]
    NotUtf8,
    /// JSON, but not an object where only an object makes sense.
    #[error("expected a JSON object")]
    NotAnObject,
    /// A number that canonical JSON can't hold: a fraction, an exponent, `-0`, or outside ±(2^53 − 1).
    #[error("`{0}` is not an integer between -(2^53 - 1) and 2^53 - 1")]
    NotAnInteger(String),
}

/// A JSON value that borrows from the text it came from where it can.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, as text.
    Number(Number<'a>),
    /// A string, unescaped.
    String(Cow<'a, str>),
    /// An array.
    Array(Vec<Value<'a>>),
    /// An object.
    Object(Object<'a>),
}

/// A number as its author wrote it.
#[derive(Debug, Clone, PartialEq)]
pub struct Number<'a>(Cow<'a, str>);

/// An object, its entries sorted by key in code point order, each key once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Object<'a> {
    entries: Vec<(Cow<'a, str>, Value<'a>)>,
}

impl<'a> Value<'a> {
    /// The string, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(string) => Some(string),
            _ => None,
        }
    }

    /// The integer, if it is a number written as one that fits.
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Number(number) => number.as_integer(),
            _ => None,
        }
    }

    /// The items, if it is an array.
    pub fn as_array(&self) -> Option<&[Value<'a>]> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }

    /// The object, if it is one.
    pub fn as_object(&self) -> Option<&Object<'a>> {
        match self {
            Self::Object(object) => Some(object),
            _ => None,
        }
    }

    /// Cut the fractions off all numbers, exponents applied. Says whether there were any.
    pub(crate) fn truncate_numbers(&mut self) -> bool {
        match self {
            Self::Number(number) => number.truncate(),
            // Not `any`, which would stop at the first.
            Self::Array(items) => items.iter_mut().fold(false, |cut, item| item.truncate_numbers() | cut),
            Self::Object(object) => {
                object.entries.iter_mut().fold(false, |cut, (_, value)| value.truncate_numbers() | cut)
            }
            Self::Null | Self::Bool(_) | Self::String(_) => false,
        }
    }

    /// Put `null` in the place of every string that begins with two plus signs. Says whether there were any.
    pub(crate) fn null_double_plus(&mut self) -> bool {
        match self {
            Self::String(text) if text.trim_start().starts_with("++") => {
                *self = Self::Null;
                true
            }
            Self::Array(items) => items.iter_mut().fold(false, |found, item| item.null_double_plus() | found),
            Self::Object(object) => {
                object.entries.iter_mut().fold(false, |found, (_, value)| value.null_double_plus() | found)
            }
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::String(_) => false,
        }
    }

    /// Whether every number in it is one that canonical JSON allows.
    pub fn check_integers(&self) -> Result<(), JsonError> {
        match self {
            Self::Number(number) if number.is_canonical() => Ok(()),
            Self::Number(number) => {
                // The text is an attacker's and may be long; an error message needn't be.
                let shown = number.0.chars().take(40).collect();
                Err(JsonError::NotAnInteger(shown))
            }
            Self::Array(items) => items.iter().try_for_each(Value::check_integers),
            Self::Object(object) => object.check_integers(),
            Self::Null | Self::Bool(_) | Self::String(_) => Ok(()),
        }
    }
}

impl Number<'_> {
    /// The value, if it was written as an integer and fits.
    fn as_integer(&self) -> Option<i64> {
        self.0.parse().ok()
    }

    /// Make it an integer if it isn't written as one and has a value that fits; say whether that changed it.
    fn truncate(&mut self) -> bool {
        if !self.0.contains(['.', 'e', 'E']) {
            return false;
        }
        let Ok(value) = self.0.parse::<f64>() else { return false };
        if value.abs() > MAX_SAFE_INTEGER as f64 {
            return false;
        }
        self.0 = Cow::Owned((value as i64).to_string());
        true
    }

    /// Whether canonical JSON writes it exactly so. The parser has made sure of the grammar of numbers.
    fn is_canonical(&self) -> bool {
        self.0 != "-0"
            && self.as_integer().is_some_and(|value| (-MAX_SAFE_INTEGER..=MAX_SAFE_INTEGER).contains(&value))
    }
}

impl<'a> Object<'a> {
    /// From entries in any order; of equal keys the last one stays.
    fn from_entries(mut entries: Vec<(Cow<'a, str>, Value<'a>)>) -> Self {
        if !entries.is_sorted_by(|a, b| a.0 < b.0) {
            // Stable, so that equal keys keep their order; UTF-8 sorts as code points do.
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            entries.reverse();
            entries.dedup_by(|later, kept| later.0 == kept.0);
            entries.reverse();
        }
        Self { entries }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value<'a>> {
        let found = self.position(key).ok()?;
        self.entries.get(found).map(|(_, value)| value)
    }

    /// Set a key, whatever it was before.
    pub fn insert(&mut self, key: &'a str, value: Value<'a>) {
        match self.position(key) {
            Ok(found) => self.entries[found].1 = value,
            Err(place) => self.entries.insert(place, (Cow::Borrowed(key), value)),
        }
    }

    /// Take a key out.
    pub fn remove(&mut self, key: &str) -> Option<Value<'a>> {
        let found = self.position(key).ok()?;
        Some(self.entries.remove(found).1)
    }

    /// Keep only the entries that `keep` wants; it may change their values.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &mut Value<'a>) -> bool) {
        self.entries.retain_mut(|(key, value)| keep(key, value));
    }

    /// Drop all entries.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// The entries, sorted by key.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value<'a>)> {
        self.entries.iter().map(|(key, value)| (&**key, value))
    }

    /// Whether every number in it is one that canonical JSON allows.
    pub fn check_integers(&self) -> Result<(), JsonError> {
        self.entries.iter().try_for_each(|(_, value)| value.check_integers())
    }

    fn position(&self, key: &str) -> Result<usize, usize> {
        self.entries.binary_search_by(|(candidate, _)| (**candidate).cmp(key))
    }
}

/// Any JSON text in canonical form. Numbers that canonical JSON can't hold stay as they are: see [`Value`].
pub fn canonical(text: &str) -> Result<String, JsonError> {
    let value = parse(text)?;
    let mut out = String::with_capacity(text.len());
    value.write(&mut out);
    Ok(out)
}

/// As [`canonical`], but refuses what canonical JSON can't hold (room versions 6 and later).
pub fn strictly_canonical(text: &str) -> Result<String, JsonError> {
    let value = parse(text)?;
    value.check_integers()?;
    let mut out = String::with_capacity(text.len());
    value.write(&mut out);
    Ok(out)
}
