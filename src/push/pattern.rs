//! Patterns of `event_match`: globs, matched without regard to case.
//!
//! A pattern is matched from star to star, each part where it first fits, so no text makes it try again from the start.
//! What the search costs is counted, and ends it when it is too much: both pattern and text are somebody else's.

use std::cell::Cell;

/// A text in lower case. At the end of a word a sigma has a form of its own, but where a pattern's star cuts a word it doesn't
/// end.
pub(super) fn lower(text: &str) -> String {
    let lower = text.to_lowercase();
    if lower.contains('ς') { lower.replace('ς', "σ") } else { lower }
}

/// What matching may still cost, in comparisons of characters.
#[derive(Debug)]
pub(super) struct Budget(Cell<u64>);

impl Budget {
    pub(super) fn new(steps: u64) -> Self {
        Self(Cell::new(steps))
    }

    /// Whether that much was left.
    fn take(&self, steps: usize) -> bool {
        let left = self.0.get().checked_sub(steps as u64);
        self.0.set(left.unwrap_or(0));
        left.is_some()
    }
}

/// A glob: `*` stands for any characters, `?` for one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Pattern {
    /// In lower case. There is at least one; between two of them is a star.
    parts: Vec<Part>,
}

/// What is between two stars.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Part {
    Text(String),
    /// `None` is any character.
    Holes(Vec<Option<char>>),
}

impl Part {
    fn new(text: &str) -> Self {
        if text.contains('?') {
            Self::Holes(text.chars().map(|character| (character != '?').then_some(character)).collect())
        } else {
            Self::Text(text.to_owned())
        }
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::Text(text) if text.is_empty())
    }

    /// Where it ends if it begins at `start`.
    fn at(&self, text: &str, start: usize, budget: &Budget) -> Option<usize> {
        match self {
            Self::Text(part) => text[start..].starts_with(part.as_str()).then_some(start + part.len()),
            Self::Holes(part) => {
                let mut rest = text[start..].chars();
                for (count, wanted) in part.iter().enumerate() {
                    let fits = rest.next().is_some_and(|found| wanted.is_none_or(|wanted| wanted == found));
                    if !fits {
                        budget.take(count + 1);
                        return None;
                    }
                }
                budget.take(part.len()).then(|| text.len() - rest.as_str().len())
            }
        }
    }

    /// Where it first begins and ends, at `from` or later.
    fn find(&self, text: &str, from: usize, budget: &Budget) -> Option<(usize, usize)> {
        match self {
            Self::Text(part) => {
                let found = text[from..].find(part.as_str());
                // Searching for text is much faster than comparing character by character.
                let passed = found.unwrap_or(text.len() - from);
                budget.take(passed / 16 + 1).then_some(())?;
                found.map(|at| (from + at, from + at + part.len()))
            }
            Self::Holes(_) => {
                let starts = text[from..].char_indices().map(|(at, _)| from + at);
                for start in starts {
                    if let Some(end) = self.at(text, start, budget) {
                        return Some((start, end));
                    }
                    budget.take(1).then_some(())?;
                }
                None
            }
        }
    }

    /// Whether the text from `from` on ends with it.
    fn ends(&self, text: &str, from: usize, budget: &Budget) -> bool {
        match self {
            Self::Text(part) => text[from..].ends_with(part.as_str()),
            Self::Holes(part) => {
                let start = text[from..].char_indices().rev().nth(part.len() - 1);
                start.is_some_and(|(at, _)| self.at(text, from + at, budget).is_some())
            }
        }
    }
}

impl Pattern {
    pub(super) fn new(glob: &str) -> Self {
        Self { parts: lower(glob).split('*').map(Part::new).collect() }
    }

    /// Nothing in `text` stands for anything else.
    pub(super) fn literal(text: &str) -> Self {
        Self { parts: vec![Part::Text(lower(text))] }
    }

    /// The text, in lower case, that alone it stands for.
    pub(super) fn exact(&self) -> Option<&str> {
        match &self.parts[..] {
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Whether all of a text is like it. `text` is in lower case.
    pub(super) fn matches(&self, text: &str, budget: &Budget) -> bool {
        let [first, rest @ ..] = &self.parts[..] else { return false };
        let Some(mut at) = first.at(text, 0, budget) else { return false };
        let [middle @ .., last] = rest else { return at == text.len() };
        for part in middle {
            match part.find(text, at, budget) {
                Some((_, end)) => at = end,
                None => return false,
            }
        }
        last.ends(text, at, budget)
    }

    /// Whether words of a text are like it: a part of the text between two boundaries of words. `text` is in lower case.
    pub(super) fn matches_words(&self, text: &str, budget: &Budget) -> bool {
        let [first, rest @ ..] = &self.parts[..] else { return false };
        let [middle @ .., last] = rest else {
            return !first.is_empty() && between_boundaries(first, text, 0, true, budget).is_some();
        };
        // A star at the start or the end reaches as far as the text does.
        let mut at = 0;
        if !first.is_empty() {
            match between_boundaries(first, text, 0, false, budget) {
                Some(end) => at = end,
                None => return false,
            }
        }
        for part in middle {
            match part.find(text, at, budget) {
                Some((_, end)) => at = end,
                None => return false,
            }
        }
        last.is_empty() || ends_at_boundary(last, text, at, budget)
    }
}

/// The first end of a part that begins where a word does, and ends so if `closed`.
fn between_boundaries(part: &Part, text: &str, from: usize, closed: bool, budget: &Budget) -> Option<usize> {
    let mut at = from;
    while let Some((start, end)) = part.find(text, at, budget) {
        if is_boundary(text, start) && (!closed || is_boundary(text, end)) {
            return Some(end);
        }
        at = after(text, start)?;
    }
    None
}

fn ends_at_boundary(part: &Part, text: &str, from: usize, budget: &Budget) -> bool {
    let mut at = from;
    while let Some((start, end)) = part.find(text, at, budget) {
        if is_boundary(text, end) {
            return true;
        }
        let Some(next) = after(text, start) else { return false };
        at = next;
    }
    false
}

/// The place behind the character at `at`.
fn after(text: &str, at: usize) -> Option<usize> {
    text[at..].chars().next().map(|character| at + character.len_utf8())
}

/// Whether words can begin or end here: at either end of the text, and beside anything that isn't part of a word.
fn is_boundary(text: &str, at: usize) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = text.as_bytes();
    at == 0 || at == bytes.len() || !is_word(bytes[at - 1]) || !is_word(bytes[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plenty() -> Budget {
        Budget::new(1_000_000)
    }

    #[test]
    fn pu_03_a_glob_is_like_the_whole_text() {
        for (glob, text, fits) in [
            ("abc", "abc", true),
            ("ABC", "abc", true),
            ("abc", "abcd", false),
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "anything\nat all", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c", "ac", true),
            ("ab*ba", "aba", false),
            ("a?c", "aßc", true),
            ("a?c", "ac", false),
            ("?*?", "a", false),
            ("?*?", "ab", true),
            ("*?*?*", "a", false),
            ("*?b", "aab", true),
            ("m.room.*", "m.room.message", true),
            ("*.??", "x.yz", true),
            ("a*b*c", "axxbxxbxc", true),
            ("a*b*c", "axxcxxb", false),
            ("ΑΣ*", "ΑΣΑ", true),
            ("ας", "ΑΣ", true),
        ] {
            let text = &lower(text);
            assert_eq!(Pattern::new(glob).matches(text, &plenty()), fits, "{glob} {text}");
        }
    }

    #[test]
    fn pu_03_in_a_body_it_is_like_words() {
        for (glob, text, fits) in [
            ("cake", "cake", true),
            ("cake", "a cake!", true),
            ("cake", "cupcake", false),
            ("cake", "cakes", false),
            ("cake", "cupcake and cake", true),
            ("cake", "ücake", true),
            ("cake", "_cake", false),
            ("cake*lie", "the cake is a lie", true),
            ("cake*lie", "cupcake is a lie", false),
            ("cake*lie", "a cake for liesel", false),
            ("cake*lie", "a cake for liesel, no lie", true),
            ("ca?e", "some cafe there", true),
            ("ca?e", "escapes", false),
            ("*cake", "cupcake", true),
            ("cake*", "cakes", true),
            ("*cake", "cupcakes", false),
            ("cup*", "a buttercup", false),
            ("*", "", true),
            ("", "a", false),
            ("@room", "hey @room", true),
            ("a b", "x a b y", true),
        ] {
            assert_eq!(Pattern::new(glob).matches_words(text, &plenty()), fits, "{glob} {text}");
        }
    }

    /// CVE-2021-29471; and texts of many words, on which a search word by word would recurse.
    #[test]
    fn hostile_globs_end() {
        let stars = Pattern::new(&"*?".repeat(256));
        assert!(stars.matches(&"a".repeat(100_000), &plenty()));
        let nearly = Pattern::new(&format!("{}b", "*a".repeat(255)));
        assert!(!nearly.matches(&"a".repeat(100_000), &plenty()));
        assert!(!nearly.matches_words(&"a".repeat(100_000), &plenty()));
        assert!(!Pattern::new("ab").matches_words(&"xab ".repeat(25_000), &plenty()));
        let budget = Budget::new(10_000);
        let holes = Pattern::new(&format!("*{}b", "a?".repeat(250)));
        assert!(!holes.matches_words(&"a".repeat(100_000), &budget));
        assert!(!budget.take(1), "the budget ended it");
        assert!(!Pattern::new("a?b*").matches("acb", &Budget::new(0)), "nothing fits without a budget");
    }
}
