//! How a key of the configuration is declared, read and written.
//!
//! [`section!`] turns one declaration (name, documentation, type, default) into the struct that the server reads, the
//! parser that fills it and the entry of the commented default. So no key has a second description that could differ.

use std::{net::SocketAddr, path::PathBuf};

use ruma::{OwnedServerName, OwnedUserId, RoomVersionId};
use serde::Deserialize;
use toml::Value;

use super::{Error, error::Problem};

/// What a key holds.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    /// One value, or an array of values.
    Value,
    /// A table with keys of its own: `[name]`.
    Section(&'static [Key]),
    /// Any number of such tables: `[[name]]`.
    List(&'static [Key]),
}

/// One key, as `hearth config default` shows it.
pub(super) struct Key {
    pub(super) name: &'static str,
    /// The lines of its documentation.
    pub(super) doc: &'static [&'static str],
    pub(super) shape: Shape,
    /// TOML for a key that has no default.
    pub(super) example: Option<&'static str>,
    /// Whether nobody may read it, in errors either.
    pub(super) secret: bool,
    /// What the key holds when it isn't set.
    pub(super) default: fn() -> Option<Value>,
    /// Whether the key could hold this value.
    pub(super) accepts: fn(&Value) -> bool,
}

/// Anything that a key can hold.
pub(super) trait Setting: Sized {
    const SHAPE: Shape;

    /// Reads what the file or the environment has for `path`. Keys of a section that aren't there come from `default`,
    /// or from the section's own default.
    fn read(value: Value, path: &str, default: Option<&Self>) -> Result<Self, Error>;

    /// `None` if there is nothing to write: the key is absent.
    fn write(&self) -> Option<Value>;
}

/// A setting with keys of its own.
pub(super) trait Section: Setting + Default {
    const KEYS: &'static [Key];
}

/// Reads a single value with serde: [`Setting::read`] of a single value.
pub(super) fn read_value<T: for<'de> Deserialize<'de>>(value: &Value, path: &str) -> Result<T, Error> {
    T::deserialize(value.clone()).map_err(|cause| {
        // toml's messages go on over several lines for values inside of arrays.
        let cause = cause.to_string().lines().collect::<Vec<_>>().join(", ");
        Error::new(path, Problem::Value { value: value.to_string(), cause })
    })
}

macro_rules! value {
    ($($type:ty),* $(,)?) => {$(
        impl $crate::config::setting::Setting for $type {
            const SHAPE: $crate::config::setting::Shape = $crate::config::setting::Shape::Value;

            fn read(value: toml::Value, path: &str, _: Option<&Self>) -> Result<Self, $crate::config::Error> {
                $crate::config::setting::read_value(&value, path)
            }

            fn write(&self) -> Option<toml::Value> {
                toml::Value::try_from(self).ok()
            }
        }
    )*};
}
pub(super) use value;

value!(bool, u32, u64, f64, String, PathBuf, OwnedServerName, OwnedUserId, RoomVersionId);

impl Setting for SocketAddr {
    const SHAPE: Shape = Shape::Value;

    fn read(value: Value, path: &str, _: Option<&Self>) -> Result<Self, Error> {
        let address = value.as_str().and_then(|text| text.parse().ok());
        let cause = "write an IP address and a port, such as \"127.0.0.1:8008\" or \"[::]:8008\"";
        address.ok_or_else(|| Error::value(path, value, cause))
    }

    fn write(&self) -> Option<Value> {
        Some(Value::String(self.to_string()))
    }
}

impl<T: Setting> Setting for Option<T> {
    const SHAPE: Shape = T::SHAPE;

    fn read(value: Value, path: &str, default: Option<&Self>) -> Result<Self, Error> {
        T::read(value, path, default.and_then(Option::as_ref)).map(Some)
    }

    fn write(&self) -> Option<Value> {
        self.as_ref().and_then(Setting::write)
    }
}

impl<T: Setting> Setting for Vec<T> {
    const SHAPE: Shape = match T::SHAPE {
        Shape::Section(keys) => Shape::List(keys),
        _ => Shape::Value,
    };

    fn read(value: Value, path: &str, _: Option<&Self>) -> Result<Self, Error> {
        let Value::Array(items) = value else {
            let cause = "this key takes a list".to_owned();
            return Err(Error::new(path, Problem::Value { value: value.to_string(), cause }));
        };
        let items = items.into_iter().enumerate();
        items.map(|(index, item)| T::read(item, &format!("{path}[{index}]"), None)).collect()
    }

    fn write(&self) -> Option<Value> {
        Some(Value::Array(self.iter().filter_map(Setting::write).collect()))
    }
}

/// Declares a section: a struct, its keys with documentation, type and default, and an example for keys that have no
/// default; a key that holds a secret says so. A blank line in the documentation stays one in the commented default.
macro_rules! section {
    (
        $(#[doc = $about:literal])*
        pub struct $name:ident {
            $(
                $(#[doc = $doc:literal])*
                pub $key:ident: $type:ty = $default:expr $(, example $example:literal)? $(, secret = $secret:literal)?;
            )*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $($(#[doc = $doc])* pub $key: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($key: $default,)* }
            }
        }

        impl $crate::config::setting::Section for $name {
            const KEYS: &'static [$crate::config::setting::Key] = &[$(
                $crate::config::setting::Key {
                    name: stringify!($key),
                    doc: &[$($doc),*],
                    shape: <$type as $crate::config::setting::Setting>::SHAPE,
                    example: [$(Some($example),)? None][0],
                    secret: [$($secret,)? false][0],
                    default: || <$type as $crate::config::setting::Setting>::write(&$default),
                    accepts: |value| {
                        <$type as $crate::config::setting::Setting>::read(value.clone(), "", None).is_ok()
                    },
                },
            )*];
        }

        impl $crate::config::setting::Setting for $name {
            const SHAPE: $crate::config::setting::Shape =
                $crate::config::setting::Shape::Section(<Self as $crate::config::setting::Section>::KEYS);

            fn read(
                value: toml::Value,
                path: &str,
                default: Option<&Self>,
            ) -> Result<Self, $crate::config::Error> {
                let usual = Self::default();
                let default = default.unwrap_or(&usual);
                let mut table = $crate::config::setting::table(value, path)?;
                let section = Self {
                    $($key: match table.remove(stringify!($key)) {
                        Some(value) => {
                            let path = $crate::config::setting::join(path, stringify!($key));
                            $crate::config::setting::Setting::read(value, &path, Some(&default.$key))
                                .map_err(|error| error.explained(&[$($doc),*]))?
                        }
                        None => default.$key.clone(),
                    },)*
                };
                $crate::config::setting::nothing_left(&table, path)?;
                Ok(section)
            }

            fn write(&self) -> Option<toml::Value> {
                let mut table = toml::Table::new();
                $(
                    if let Some(value) = $crate::config::setting::Setting::write(&self.$key) {
                        table.insert(stringify!($key).to_owned(), value);
                    }
                )*
                Some(toml::Value::Table(table))
            }
        }
    };
}
pub(super) use section;

pub(super) fn table(value: Value, path: &str) -> Result<toml::Table, Error> {
    match value {
        Value::Table(table) => Ok(table),
        value => {
            let cause = format!("this is a section with keys of its own: write `[{path}]`");
            Err(Error::new(path, Problem::Value { value: value.to_string(), cause }))
        }
    }
}

pub(super) fn nothing_left(table: &toml::Table, path: &str) -> Result<(), Error> {
    match table.keys().next() {
        Some(key) => Err(Error::unknown(&join(path, key))),
        None => Ok(()),
    }
}

pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Every key with its full name, sections before their keys.
pub(super) fn all(keys: &'static [Key], path: &str) -> Vec<(String, &'static Key)> {
    let mut found = Vec::new();
    for key in keys {
        let name = join(path, key.name);
        found.push((name.clone(), key));
        if let Shape::Section(keys) | Shape::List(keys) = key.shape {
            found.extend(all(keys, &name));
        }
    }
    found
}
