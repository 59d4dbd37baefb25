//! The tokens that clients hold, as text: opaque to them, and accepted wherever a token is.
//!
//! - `s<epoch>_<position>_<boot>_<fading>`: a place in a queue (`next_batch`). The position may be `<position>.<mail>`: of
//!   messages to the device those after `mail` are still to be handed out. With `_<number>` behind it, the `pos` of sliding
//!   sync: the same place, and which answer named it.
//! - `r<seq>`: a place in a room's log, between event `seq` and the one after it (`prev_batch`, `start`, `end`).
//!
//! The epoch belongs to the database: positions of one mean nothing in another. A token of another epoch, or of a future
//! that this database has not reached (it may be a restored backup), is answered as if there were none.

use std::{fmt, str::FromStr};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// `mail` is the position up to which messages to the device were handed out, never above `position`.
    Queue {
        epoch: u64,
        position: i64,
        mail: i64,
        boot: u64,
        fading: u64,
    },
    Room {
        seq: i64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not a token of this server")]
pub struct TokenError;

impl fmt::Display for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queue { epoch, position, mail, boot, fading } if mail == position => {
                write!(out, "s{epoch}_{position}_{boot}_{fading}")
            }
            Self::Queue { epoch, position, mail, boot, fading } => {
                write!(out, "s{epoch}_{position}.{mail}_{boot}_{fading}")
            }
            Self::Room { seq } => write!(out, "r{seq}"),
        }
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        if let Some(seq) = text.strip_prefix('r') {
            return seq.parse().map(|seq| Self::Room { seq }).map_err(|_| TokenError);
        }
        let mut parts = text.strip_prefix('s').ok_or(TokenError)?.split('_');
        let mut next = || parts.next().ok_or(TokenError);
        let (epoch, position, boot, fading) = (next()?, next()?, next()?, next()?);
        let number = |text: &str| text.parse::<u64>().map_err(|_| TokenError);
        // The number of an answer is for sliding sync alone.
        parts.next().map(number).transpose()?;
        if parts.next().is_some() {
            return Err(TokenError);
        }
        let signed = |text: &str| i64::try_from(number(text)?).map_err(|_| TokenError);
        let (position, mail) = position.split_once('.').unwrap_or((position, position));
        let (position, mail) = (signed(position)?, signed(mail)?);
        if mail > position {
            return Err(TokenError);
        }
        Ok(Self::Queue {
            epoch: number(epoch)?,
            position,
            mail,
            boot: number(boot)?,
            fading: number(fading)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_as_they_went_out() {
        for token in [
            Token::Queue { epoch: 7, position: 123, mail: 123, boot: 4, fading: 5 },
            Token::Queue { epoch: 7, position: 123, mail: 0, boot: 4, fading: 5 },
            Token::Room { seq: -3 },
            Token::Room { seq: 0 },
        ] {
            assert_eq!(token.to_string().parse(), Ok(token));
        }
    }

    #[test]
    fn garbage_is_no_token() {
        for text in [
            "",
            "s",
            "r",
            "s1",
            "s1_2_3",
            "s1_-2_3_4",
            "s1_2._3_4",
            "s1_2.-1_3_4",
            "s1_2.3_3_4",
            "s1_2.1.1_3_4",
            "s1_2_3_4_",
            "s1_2_3_4_5_6",
            "rx",
            "t12",
            "s1_99999999999999999999_1_1",
        ] {
            assert_eq!(text.parse::<Token>(), Err(TokenError), "{text}");
        }
    }
}
