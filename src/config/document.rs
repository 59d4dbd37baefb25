//! The commented default, written from the declarations of the keys.

use std::fmt::Write as _;

use toml::{Table, Value};

use super::{
    Config,
    setting::{Key, Section as _, Setting as _, Shape, join},
};

const HEAD: &str = "\
# The configuration of Hearth. Every key is shown with its default; a line that begins with `# ` and a key shows one that
# has none. Leave out whatever you don't change. An environment variable overrides each key: HEARTH__SERVER_NAME,
# HEARTH__ROOMS__MAX_MEMBERS (sections and keys in capitals, two underscores between them; lists are written as here).
";

pub(super) fn default_document() -> String {
    let mut text = HEAD.to_owned();
    if let Some(Value::Table(defaults)) = Config::default().write() {
        keys(&mut text, Config::KEYS, &defaults, "", "");
    }
    text
}

/// Writes values first and sections after them: in TOML a value below `[section]` belongs to that section.
fn keys(text: &mut String, keys: &'static [Key], defaults: &Table, path: &str, mark: &str) {
    let (values, sections): (Vec<_>, Vec<_>) = keys.iter().partition(|key| matches!(key.shape, Shape::Value));
    for key in values {
        text.push_str(if path.is_empty() { "\n" } else { "" });
        comment(text, key);
        match (defaults.get(key.name), key.example) {
            (Some(value), None) => line(text, mark, &format!("{} = {value}", key.name)),
            (_, Some(example)) => line(text, "# ", &format!("{} = {example}", key.name)),
            (None, None) => {}
        }
    }
    for key in sections {
        section(text, key, defaults.get(key.name), path, mark);
    }
}

fn section(text: &mut String, key: &'static Key, default: Option<&Value>, path: &str, mark: &str) {
    let name = join(path, key.name);
    text.push('\n');
    comment(text, key);
    match (key.shape, default) {
        (Shape::Section(below), Some(Value::Table(table))) => {
            line(text, mark, &format!("[{name}]"));
            keys(text, below, table, &name, mark);
        }
        (Shape::Section(below), _) => {
            line(text, "# ", &format!("[{name}]"));
            keys(text, below, &Table::new(), &name, "# ");
        }
        (Shape::List(below), Some(Value::Array(items))) if !items.is_empty() => {
            for table in items.iter().filter_map(Value::as_table) {
                line(text, mark, &format!("[[{name}]]"));
                keys(text, below, table, &name, mark);
            }
        }
        (Shape::List(below), _) => {
            line(text, "# ", &format!("[[{name}]]"));
            keys(text, below, &defaults_of(below), &name, "# ");
        }
        (Shape::Value, _) => {}
    }
}

/// A list that is empty by default still shows what an item of it may hold.
fn defaults_of(keys: &'static [Key]) -> Table {
    let shown = keys.iter().filter(|key| key.example.is_none());
    shown.filter_map(|key| Some((key.name.to_owned(), (key.default)()?))).collect()
}

fn comment(text: &mut String, key: &Key) {
    for doc in key.doc {
        let _ = writeln!(text, "#{}", doc.trim_end());
    }
}

fn line(text: &mut String, mark: &str, content: &str) {
    let _ = writeln!(text, "{mark}{content}");
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;
    use crate::config::setting;

    const REFERENCE: &str = "\
# Configuration

Hearth needs no configuration to start. `hearth config default > hearth.toml` writes this file, of which you keep what you
change; `hearth config check` says whether it is right. `hearth serve` reads `hearth.toml` in the folder that it is started
in, or the file given by `--config`.

";

    #[test]
    fn the_commented_default_is_the_default() {
        let text = default_document();
        let config = Config::parse(&text, "default", std::iter::empty())
            .unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(config, Config::default());
    }

    /// `UPDATE=1 cargo test reference` writes it anew.
    #[test]
    fn the_reference_in_the_documentation_is_the_commented_default() {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
        let reference = format!("{REFERENCE}```toml\n{}```\n", default_document());
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &reference).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), reference, "{} is out of date", path.display());
    }

    #[test]
    fn the_commented_default_shows_every_key_with_its_documentation() {
        let text = default_document();
        for (name, key) in setting::all(Config::KEYS, "") {
            let last = name.rsplit('.').next().unwrap_or_default();
            assert!(!key.doc.is_empty(), "{name} has no documentation");
            let shown = match key.shape {
                Shape::Value => format!("{last} = "),
                Shape::Section(_) => format!("[{name}]"),
                Shape::List(_) => format!("[[{name}]]"),
            };
            assert!(text.contains(&shown), "{name} isn't shown:\n{text}");
        }
    }

    #[test]
    fn the_examples_are_valid() {
        let document = default_document();
        let examples = document.lines().filter_map(|line| {
            // Lines such as `# key = value` and `# [section]` are examples; prose isn't TOML.
            let content = line.strip_prefix("# ").unwrap_or(line);
            content.parse::<Table>().is_ok().then(|| format!("{content}\n"))
        });
        let text: String = examples.collect();
        let config = Config::parse(&text, "examples", std::iter::empty())
            .unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert!(config.listener[0].tls.is_some() && config.database.url.is_some(), "{text}");
        assert!(!config.support.contact.is_empty(), "{text}");
    }
}
