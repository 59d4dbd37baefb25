//! The canonical writer.

use std::borrow::Cow;

use super::{MAX_SAFE_INTEGER, Number, Object, Value};

impl Value<'_> {
    /// Append its canonical form.
    pub fn write(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(true) => out.push_str("true"),
            Self::Bool(false) => out.push_str("false"),
            Self::Number(number) => out.push_str(&number.normal()),
            Self::String(string) => write_string(out, string),
            Self::Array(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    item.write(out);
                }
                out.push(']');
            }
            Self::Object(object) => object.write(out),
        }
    }
}

impl Object<'_> {
    /// Append its canonical form.
    pub fn write(&self, out: &mut String) {
        self.write_without(&[], out);
    }

    /// Append its canonical form, less some of its own keys.
    pub fn write_without(&self, left_out: &[&str], out: &mut String) {
        out.push('{');
        let mut first = true;
        for (key, value) in self.iter() {
            if left_out.contains(&key) {
                continue;
            }
            if !first {
                out.push(',');
            }
            first = false;
            write_string(out, key);
            out.push(':');
            value.write(out);
        }
        out.push('}');
    }

    /// Its canonical form.
    pub fn to_canonical(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }
}

impl Number<'_> {
    /// The text to write. `-0` is `0`, and an exponent whose value is an integer in range is written out, as the
    /// specification's vectors have it; every other text stays as its author's server wrote and hashed it.
    fn normal(&self) -> Cow<'_, str> {
        if self.0 == "-0" {
            return Cow::Borrowed("0");
        }
        if self.0.contains(['e', 'E'])
            && let Ok(value) = self.0.parse::<f64>()
            && value.fract() == 0.0
            && value.abs() <= MAX_SAFE_INTEGER as f64
        {
            return Cow::Owned((value as i64).to_string());
        }
        Cow::Borrowed(&self.0)
    }
}

/// Append a string with the shortest escapes.
pub(crate) fn write_string(out: &mut String, string: &str) {
    out.push('"');
    let mut start = 0;
    for (at, byte) in string.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        // The escaped bytes are ASCII, so both ends are character boundaries.
        out.push_str(&string[start..at]);
        start = at + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            0x08 => out.push_str("\\b"),
            b'\t' => out.push_str("\\t"),
            b'\n' => out.push_str("\\n"),
            0x0c => out.push_str("\\f"),
            b'\r' => out.push_str("\\r"),
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.push_str("\\u00");
                out.push(char::from(HEX[usize::from(byte >> 4)]));
                out.push(char::from(HEX[usize::from(byte & 15)]));
            }
        }
    }
    out.push_str(&string[start..]);
    out.push('"');
}
