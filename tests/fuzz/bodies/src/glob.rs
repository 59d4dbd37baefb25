//! Globs by dynamic programming: what every matcher of ours is held against.

/// Whether all of `text` is like `glob`, in which `*` stands for any characters, and `?` for one if `holes`.
pub(crate) fn matches(glob: &[char], text: &[char], holes: bool) -> bool {
    // `fits[n]`: whether what was read of the glob is like the first `n` characters.
    let mut fits: Vec<bool> = (0..=text.len()).map(|length| length == 0).collect();
    for wanted in glob {
        let before = fits.clone();
        for length in 0..=text.len() {
            fits[length] = match wanted {
                '*' => before[..=length].iter().any(|fits| *fits),
                '?' if holes => length > 0 && before[length - 1],
                wanted => length > 0 && before[length - 1] && text[length - 1] == *wanted,
            };
        }
    }
    fits[text.len()]
}

pub(crate) fn characters(text: &str) -> Vec<char> {
    text.chars().collect()
}

/// In lower case, every form of a letter alike: a sigma at the end of a word is a sigma.
pub(crate) fn folded(text: &str) -> Vec<char> {
    text.chars().flat_map(char::to_lowercase).map(|letter| if letter == 'ς' { 'σ' } else { letter }).collect()
}
