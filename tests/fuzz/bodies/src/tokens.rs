//! Tokens of sync, pages and sliding sync: a text is a token exactly if it is what a token is written as.

use hearth::testing::reading::Token;

pub(crate) fn run(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        read(text);
    }
    // The same bytes as numbers: whatever is written is read again.
    let mut numbers = data.chunks(8).map(|chunk| {
        let mut bytes = [0; 8];
        bytes[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(bytes)
    });
    let mut number = || numbers.next().unwrap_or_default();
    let position = (number() >> 1) as i64;
    let mail = (number() >> 1) as i64 % position.saturating_add(1).max(1);
    let queue = Token::Queue { epoch: number(), position, mail, boot: number(), fading: number() };
    let room = Token::Room { seq: number() as i64 };
    for token in [queue, room] {
        assert_eq!(Token::with_answer(&token.to_string()), Ok((token, None)), "{token}");
    }
    let answer = number();
    assert_eq!(Token::with_answer(&format!("{queue}_{answer}")), Ok((queue, Some(answer))));
    assert!(Token::with_answer(&format!("{room}_{answer}")).is_err());
}

fn read(text: &str) {
    let ours = Token::with_answer(text);
    assert_eq!(ours.is_ok(), is_token(text), "{text:?} is read as {ours:?}");
    assert_eq!(text.parse::<Token>().ok(), ours.ok().map(|(token, _)| token));
    if let Ok((token, answer)) = ours {
        let answer = answer.map_or_else(String::new, |answer| format!("_{answer}"));
        assert_eq!(format!("{token}{answer}"), text);
    }
}

/// The grammar of tokens, word by word.
fn is_token(text: &str) -> bool {
    let within = |digits: &str, most: u128| {
        let canonical = digits == "0" || !digits.starts_with('0');
        let digits_only = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits_only
            && canonical
            && digits.len() < 30
            && digits.parse::<u128>().is_ok_and(|value| value <= most)
    };
    let unsigned = |digits: &str| within(digits, u64::MAX.into());
    let positive = |digits: &str| within(digits, i64::MAX as u128);
    if let Some(seq) = text.strip_prefix('r') {
        return match seq.strip_prefix('-') {
            Some(digits) => digits != "0" && within(digits, 1 << 63),
            None => positive(seq),
        };
    }
    let Some(fields) = text.strip_prefix('s') else { return false };
    let fields: Vec<&str> = fields.split('_').collect();
    if !(4..=5).contains(&fields.len()) {
        return false;
    }
    let place = match fields[1].split_once('.') {
        None => positive(fields[1]),
        Some((position, mail)) => {
            positive(position)
                && positive(mail)
                && mail.parse::<u64>().unwrap() < position.parse::<u64>().unwrap()
        }
    };
    place && [fields[0], fields[2], fields[3]].into_iter().chain(fields.get(4).copied()).all(unsigned)
}
