//! What the virtual users say: text of the length of a chat message, different each time, so that neither a page of the
//! database nor a log of it compresses better than real talk would.

const WORDS: [&str; 32] = [
    "about", "after", "again", "bread", "bring", "could", "doors", "early", "every", "first", "garden",
    "hearth", "house", "kettle", "later", "letter", "light", "meeting", "morning", "never", "other",
    "people", "quiet", "reading", "river", "second", "should", "table", "today", "tomorrow", "water",
    "winter",
];

/// The content of message `number` of a sender: some twenty words, about 130 characters. `seed` tells senders apart.
pub(crate) fn message(seed: u64, number: usize) -> String {
    let mut state =
        seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (number as u64).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    let mut text = String::with_capacity(220);
    text.push_str(r#"{"msgtype":"m.text","body":""#);
    for index in 0..20 {
        if index > 0 {
            text.push(' ');
        }
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(WORDS[(state >> 59) as usize]);
    }
    text.push_str(r#"","bench.n":"#);
    text.push_str(&number.to_string());
    text.push('}');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_json_and_differ() {
        let first: serde_json::Value = serde_json::from_str(&message(1, 7)).unwrap();
        assert_eq!(first["bench.n"], 7);
        assert_ne!(first["body"], serde_json::from_str::<serde_json::Value>(&message(1, 8)).unwrap()["body"]);
        assert_ne!(first["body"], serde_json::from_str::<serde_json::Value>(&message(2, 7)).unwrap()["body"]);
    }
}
