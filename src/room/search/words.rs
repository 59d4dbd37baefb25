//! Which words a text has for a search, and what a question asks for.
//!
//! What can be searched for is the text of messages, names and topics. An event whose content is encrypted has none. Of
//! an edit it is the new text. Writing that isn't divided into words is cut into pairs of characters, so that any part of it
//! is found.

use hearth_federation::Pdu;
use serde::Deserialize;
use serde_json::Value;

use crate::store::search::Word;

/// Begins the words that say where an event is; taken out of what people write.
const MARK: char = '\u{e000}';

/// Words of a question that count, and characters of it.
const WORDS: usize = 32;
const TERM: usize = 1024;
/// Shorter beginnings of words would find nearly everything.
const SHORTEST_PREFIX: usize = 3;

/// The text of an event, under the key that it has it.
fn text(kind: &str, content: &Value) -> Option<(&'static str, String)> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match kind {
        "m.room.message" => {
            let edited = content.get("m.new_content").and_then(|content| content.get("body"));
            let is_edit = content["m.relates_to"]["rel_type"] == "m.replace";
            let body = edited.filter(|_| is_edit).unwrap_or(&content["body"]);
            Some(("content.body", text(body)?))
        }
        "m.room.name" => Some(("content.name", text(&content["name"])?)),
        "m.room.topic" => {
            let plain = text(&content["topic"]).unwrap_or_default();
            let rich = content["m.topic"]["m.text"].as_array().into_iter().flatten();
            let rich: Vec<&str> = rich.filter_map(|text| text["body"].as_str()).collect();
            Some(("content.topic", format!("{plain} {}", rich.join(" "))))
        }
        _ => None,
    }
}

/// Whether there is something to search for in events of this type.
pub(in crate::room) fn has_text(pdu: &Pdu) -> bool {
    matches!(pdu.kind.to_string().as_str(), "m.room.message" | "m.room.name" | "m.room.topic")
}

/// The words of an event as they are in the index.
pub(in crate::room) fn words_of(room: i64, pdu: &Pdu) -> Option<String> {
    let content: Value = pdu.content_as().ok()?;
    index_words(room, &pdu.kind.to_string(), &content)
}

pub(super) fn words_of_stored(room: i64, pdu: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Stored {
        #[serde(rename = "type")]
        kind: String,
        content: Value,
    }
    let stored: Stored = serde_json::from_str(pdu).ok()?;
    index_words(room, &stored.kind, &stored.content)
}

fn index_words(room: i64, kind: &str, content: &Value) -> Option<String> {
    let (key, text) = text(kind, content)?;
    let mut words = format!("{} {}", room_word(room), key_word(key)?);
    for word in split(&text) {
        match word {
            Piece::Word(word) => {
                words.push(' ');
                words.push_str(word);
            }
            Piece::Undivided(run) => {
                let characters: Vec<char> = run.chars().collect();
                for at in 0..characters.len() {
                    words.push(' ');
                    words.extend(&characters[at..characters.len().min(at + 2)]);
                }
            }
        }
    }
    Some(words)
}

pub(super) fn room_word(room: i64) -> String {
    format!("{MARK}r{room}")
}

pub(super) fn key_word(key: &str) -> Option<String> {
    let letter = match key {
        "content.body" => 'b',
        "content.name" => 'n',
        "content.topic" => 't',
        _ => return None,
    };
    Some(format!("{MARK}k{letter}"))
}

pub(super) fn key_of(pdu: &Pdu) -> Option<String> {
    let key = match pdu.kind.to_string().as_str() {
        "m.room.message" => "content.body",
        "m.room.name" => "content.name",
        "m.room.topic" => "content.topic",
        _ => return None,
    };
    key_word(key)
}

/// A part of a text.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    Word(&'a str),
    /// Writing without spaces between words: Chinese, Japanese and their like.
    Undivided(&'a str),
}

fn split(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let words = text
        .split(|character: char| !(character.is_alphanumeric() || is_mark(character)) || character == MARK);
    words.filter(|word| !word.is_empty()).flat_map(|word| {
        let mut pieces = Vec::new();
        let mut rest = word;
        while let Some(first) = rest.chars().next() {
            let undivided = is_undivided(first);
            let end = rest.find(|character| is_undivided(character) != undivided).unwrap_or(rest.len());
            let (piece, after) = rest.split_at(end);
            pieces.push(if undivided { Piece::Undivided(piece) } else { Piece::Word(piece) });
            rest = after;
        }
        pieces
    })
}

/// Marks that combine with the letter before them.
fn is_mark(character: char) -> bool {
    matches!(character, '\u{300}'..='\u{36f}' | '\u{483}'..='\u{487}' | '\u{591}'..='\u{5bd}' | '\u{610}'..='\u{61a}'
        | '\u{64b}'..='\u{65f}' | '\u{900}'..='\u{903}' | '\u{93a}'..='\u{94f}' | '\u{e31}' | '\u{e34}'..='\u{e3a}')
}

fn is_undivided(character: char) -> bool {
    matches!(character, '\u{2e80}'..='\u{2fdf}' | '\u{3040}'..='\u{30ff}' | '\u{3105}'..='\u{312f}'
        | '\u{31a0}'..='\u{31bf}' | '\u{31f0}'..='\u{31ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}' | '\u{e00}'..='\u{e7f}' | '\u{20000}'..='\u{3ffff}')
}

/// The words that an event has to have.
pub(super) fn question(term: &str) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut add = |text: String, prefix| {
        let word = Word { text, prefix };
        if words.len() < WORDS && !words.contains(&word) {
            words.push(word);
        }
    };
    for piece in split(shortened(term)) {
        match piece {
            Piece::Word(word) => add(word.to_owned(), false),
            Piece::Undivided(run) => {
                let characters: Vec<char> = run.chars().collect();
                match &characters[..] {
                    // A character is the beginning of the pair that it is in.
                    [single] => add(single.to_string(), true),
                    _ => characters.windows(2).for_each(|pair| add(pair.iter().collect(), false)),
                }
            }
        }
    }
    words
}

/// The same question, with the last word as the beginning of one.
pub(super) fn beginning(mut words: Vec<Word>) -> Option<Vec<Word>> {
    let last = words.last_mut()?;
    if last.prefix || last.text.chars().count() < SHORTEST_PREFIX {
        return None;
    }
    last.prefix = true;
    Some(words)
}

pub(super) fn highlights(term: &str) -> Vec<String> {
    let mut words: Vec<String> = split(shortened(term))
        .map(|piece| match piece {
            Piece::Word(text) | Piece::Undivided(text) => text.to_lowercase(),
        })
        .collect();
    words.sort_unstable();
    words.dedup();
    words.truncate(WORDS);
    words
}

fn shortened(term: &str) -> &str {
    let end = term.char_indices().nth(TERM).map_or(term.len(), |(at, _)| at);
    &term[..end]
}

/// How much of a text is what was asked for: short texts that say it often come first.
pub(super) fn rank(pdu: &Pdu, words: &[Word]) -> f64 {
    let content: Value = pdu.content_as().unwrap_or_default();
    let Some((_, text)) = text(&pdu.kind.to_string(), &content) else { return 0.0 };
    let text = text.to_lowercase();
    let length = split(&text).count().max(1) as f64;
    let wanted: Vec<String> = words
        .iter()
        .filter(|word| !word.text.starts_with(MARK))
        .map(|word| word.text.to_lowercase())
        .collect();
    let said: f64 =
        wanted.iter().map(|word| text.matches(word.as_str()).count() as f64).map(|n| n / (n + 1.0)).sum();
    said / (1.0 + length.ln())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        question(text).into_iter().map(|word| word.text + if word.prefix { "*" } else { "" }).collect()
    }

    #[test]
    fn texts_are_cut_into_words_and_undivided_writing_into_pairs() {
        assert_eq!(words("Hello, wörld! don't 42"), ["Hello", "wörld", "don", "t", "42"]);
        assert_eq!(words("東京都に行く"), ["東京", "京都", "都に", "に行", "行く"]);
        assert_eq!(words("Rust言語"), ["Rust", "言語"]);
        assert_eq!(words("語"), ["語*"]);
        assert_eq!(words("\" OR * NEAR(a b) \u{e000}r1"), ["OR", "NEAR", "a", "b", "r1"]);
        assert_eq!(words("  ?! "), Vec::<String>::new());
    }

    #[test]
    fn a_question_is_bounded() {
        let many: Vec<String> = (0..10_000).map(|number| format!("w{number}")).collect();
        assert_eq!(question(&many.join(" ")).len(), WORDS);
        let long: usize = question(&"x".repeat(100_000)).iter().map(|word| word.text.len()).sum();
        assert_eq!(long, TERM);
    }

    #[test]
    fn only_the_last_word_can_be_a_beginning_and_not_a_short_one() {
        let last = |text| beginning(question(text)).map(|words| words.last().map(|word| word.text.clone()));
        assert_eq!(last("big cak"), Some(Some("cak".to_owned())));
        assert_eq!(last("big ca"), None);
        assert_eq!(last(""), None);
    }

    #[test]
    fn an_edit_is_its_new_text() {
        let content = serde_json::json!({
            "body": "* new", "m.new_content": { "body": "new" }, "m.relates_to": { "rel_type": "m.replace", "event_id": "$a" },
        });
        assert_eq!(text("m.room.message", &content), Some(("content.body", "new".to_owned())));
        assert_eq!(text("m.room.encrypted", &content), None);
    }
}
