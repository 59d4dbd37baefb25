//! A write or a question to the database as data: a text shared by all databases and its arguments.
//!
//! Because it is data, the writer can put the writes of many callers into one transaction, and no caller ever holds one
//! open.

use std::{borrow::Cow, sync::Arc};

use sqlx::{
    FromRow, Sqlite,
    query::QueryAs,
    sqlite::{SqliteArguments, SqliteRow},
};

/// A row that every supported database can produce.
pub trait Record: for<'r> FromRow<'r, SqliteRow> + Send + Unpin {}

impl<T> Record for T where T: for<'r> FromRow<'r, SqliteRow> + Send + Unpin {}

/// An argument of a statement.
#[derive(Clone, Debug)]
pub enum Arg {
    Int(Option<i64>),
    Text(Option<Cow<'static, str>>),
    Shared(Arc<str>),
    Bool(bool),
    /// The position that the writer gives to the write's step of that number, known only inside the transaction.
    Position(u32),
}

/// How many rows a statement has to touch; anything else undoes the whole batch with [`super::Error::Conflict`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Any,
    Rows(u64),
}

#[derive(Clone, Debug)]
pub struct Statement {
    pub text: &'static str,
    pub args: Vec<Arg>,
    pub expect: Expect,
}

impl Statement {
    /// Undo the batch unless exactly `rows` rows are touched.
    pub fn expecting(mut self, rows: u64) -> Self {
        self.expect = Expect::Rows(rows);
        self
    }
}

/// `statement!("… WHERE a = $1 AND b = $2", a, b)`
macro_rules! statement {
    ($text:expr $(, $arg:expr)* $(,)?) => {
        $crate::store::Statement {
            text: $text,
            args: vec![$($crate::store::Arg::from($arg)),*],
            expect: $crate::store::Expect::Any,
        }
    };
}
pub(crate) use statement;

macro_rules! arg_from {
    ($($from:ty => |$value:ident| $arg:expr;)*) => {
        $(impl From<$from> for Arg {
            fn from($value: $from) -> Self {
                $arg
            }
        })*
    };
}

arg_from! {
    i64 => |value| Self::Int(Some(value));
    Option<i64> => |value| Self::Int(value);
    bool => |value| Self::Bool(value);
    &str => |value| Self::Text(Some(Cow::Owned(value.to_owned())));
    String => |value| Self::Text(Some(Cow::Owned(value)));
    &String => |value| Self::Text(Some(Cow::Owned(value.clone())));
    Option<String> => |value| Self::Text(value.map(Cow::Owned));
    Option<&str> => |value| Self::Text(value.map(|text| Cow::Owned(text.to_owned())));
    Arc<str> => |value| Self::Shared(value);
}

/// A question as sqlx wants it.
pub(super) fn bind_as<T: Record>(statement: &Statement) -> QueryAs<'_, Sqlite, T, SqliteArguments> {
    statement.args.iter().fold(sqlx::query_as(statement.text), |query, arg| match arg {
        Arg::Int(value) => query.bind(*value),
        Arg::Text(value) => query.bind(value.as_deref()),
        Arg::Shared(value) => query.bind(&**value),
        Arg::Bool(value) => query.bind(*value),
        // Only writes have positions.
        Arg::Position(step) => query.bind(i64::from(*step)),
    })
}
