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
        // The number of an answer is for sliding sync alone.
        Self::with_answer(text).map(|(token, _)| token)
    }
}

impl Token {
    /// A token, and the number of the answer that it came with if it is a `pos` of sliding sync. Each has one text: any
    /// other that would mean the same was made up by somebody.
    pub fn with_answer(text: &str) -> Result<(Self, Option<u64>), TokenError> {
        let read = Self::read(text).ok_or(TokenError)?;
        let written = match read {
            (token, None) => token.to_string(),
            (token, Some(number)) => format!("{token}_{number}"),
        };
        if written == text { Ok(read) } else { Err(TokenError) }
    }

    fn read(text: &str) -> Option<(Self, Option<u64>)> {
        if let Some(seq) = text.strip_prefix('r') {
            return Some((Self::Room { seq: seq.parse().ok()? }, None));
        }
        let mut parts = text.strip_prefix('s')?.split('_');
        let mut number = || parts.next()?.parse().ok();
        let epoch = number()?;
        let position = parts.next()?;
        let mut number = || parts.next()?.parse().ok();
        let (boot, fading) = (number()?, number()?);
        let answer = parts.next().map(str::parse).transpose().ok()?;
        if parts.next().is_some() {
            return None;
        }
        let (position, mail) = position.split_once('.').unwrap_or((position, position));
        let (position, mail): (i64, i64) = (position.parse().ok()?, mail.parse().ok()?);
        let token = Self::Queue { epoch, position, mail, boot, fading };
        (0 <= mail && mail <= position).then_some((token, answer))
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
    fn the_number_of_an_answer_is_told_from_the_rest() {
        let token = Token::Queue { epoch: 7, position: 123, mail: 0, boot: 4, fading: 5 };
        assert_eq!(Token::with_answer(&token.to_string()), Ok((token, None)));
        assert_eq!(Token::with_answer(&format!("{token}_6")), Ok((token, Some(6))));
        assert_eq!(format!("{token}_6").parse(), Ok(token));
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
            // Numbers have one text.
            "s+1_2_3_4",
            "s01_2_3_4",
            "s1_2.2_3_4",
            "s1_2_3_4_+5",
            "r+1",
            "r-0",
            "r007",
        ] {
            assert_eq!(text.parse::<Token>(), Err(TokenError), "{text}");
        }
    }
}
