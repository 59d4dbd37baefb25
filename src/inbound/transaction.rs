//! What a transaction is on the wire: two short lists of things that are looked at one by one.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// TX-01
pub const MOST_PDUS: usize = 50;
pub const MOST_EDUS: usize = 100;

/// A list of raw JSON values, of which there may be so many. A longer one is refused when it is read, before it takes any
/// memory.
pub struct Few<const MOST: usize>(pub Vec<Box<RawValue>>);

impl<const MOST: usize> Default for Few<MOST> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, const MOST: usize> Deserialize<'de> for Few<MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<const MOST: usize>(PhantomData<()>);
        impl<'de, const MOST: usize> Visitor<'de> for Items<MOST> {
            type Value = Few<MOST>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "a list of {MOST} at most")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(item) = items.next_element::<Box<RawValue>>()? {
                    if all.len() == MOST {
                        return Err(A::Error::custom(format!("there are more than {MOST}")));
                    }
                    all.push(item);
                }
                Ok(Few(all))
            }
        }
        deserializer.deserialize_seq(Items(PhantomData))
    }
}

/// Events of rooms (PDUs) and other data (EDUs) of another server.
#[derive(Default, Deserialize)]
pub struct Transaction {
    #[serde(default)]
    pub pdus: Few<MOST_PDUS>,
    #[serde(default)]
    pub edus: Few<MOST_EDUS>,
}
