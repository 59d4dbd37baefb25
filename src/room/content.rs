//! What this server refuses to send for its own users, whatever the rules of the room: content that would confuse
//! clients or other servers, and texts over its limit. Pure functions; events of other servers never come here.

use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

use super::Error;

/// GN-13: a message has a type and a text that every client can show.
pub(super) fn check_message(content: &RawValue) -> Result<(), Error> {
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        msgtype: Option<&'a RawValue>,
        #[serde(borrow)]
        body: Option<&'a RawValue>,
    }
    let bad = |cause: &str| Error::BadJson(format!("not a message: {cause}"));
    let message: Message<'_> =
        serde_json::from_str(content.get()).map_err(|cause| bad(&cause.to_string()))?;
    for (name, value) in [("msgtype", message.msgtype), ("body", message.body)] {
        match value {
            Some(value) if value.get().starts_with('"') => {}
            Some(_) => return Err(bad(&format!("`{name}` is not a text"))),
            None => return Err(bad(&format!("`{name}` is missing"))),
        }
    }
    Ok(())
}

/// The longest text that this server takes, in characters, plain or formatted, of a message or of an edit of one.
pub(super) fn check_text(content: &RawValue, limit: usize) -> Result<(), Error> {
    // A text over the limit has at least that many bytes: short ones need no look.
    if content.get().len() <= limit {
        return Ok(());
    }
    let content = object(content)?;
    let edit = content.get("m.new_content").and_then(Value::as_object);
    for (place, content) in [("", Some(&content)), ("m.new_content.", edit)] {
        for name in ["body", "formatted_body"] {
            let text = content.and_then(|content| content.get(name)).and_then(Value::as_str);
            let size = text.map_or(0, |text| text.chars().count());
            if size > limit {
                return Err(Error::TooLarge(format!(
                    "`{place}{name}` has {size} characters, more than the {limit} that this server allows"
                )));
            }
        }
    }
    Ok(())
}

/// RV-21: power levels are integers, also where the version of the room would read texts as such.
pub(super) fn check_power_levels(content: &RawValue) -> Result<(), Error> {
    const LEVELS: [&str; 7] =
        ["ban", "events_default", "invite", "kick", "redact", "state_default", "users_default"];
    let content = object(content)?;
    let single = content.iter().filter(|(key, _)| LEVELS.contains(&key.as_str()));
    for (key, level) in single {
        check_level(key, level)?;
    }
    for key in ["events", "notifications", "users"] {
        match content.get(key) {
            None => {}
            Some(Value::Object(levels)) => {
                for (name, level) in levels {
                    check_level(name, level)?;
                }
            }
            Some(_) => return Err(Error::BadJson(format!("power levels: `{key}` is not an object"))),
        }
    }
    Ok(())
}

fn check_level(name: &str, level: &Value) -> Result<(), Error> {
    if level.is_i64() || level.is_u64() {
        return Ok(());
    }
    Err(Error::BadJson(format!("power levels: the level of `{name}` is not an integer")))
}

/// The content of an event as an object.
pub(super) fn object(content: &RawValue) -> Result<Map<String, Value>, Error> {
    serde_json::from_str(content.get()).map_err(|cause| Error::BadJson(cause.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn gn_13_a_message_needs_a_type_and_a_text() {
        for good in [
            r#"{"msgtype":"m.text","body":"hi"}"#,
            r#"{"body":"","msgtype":"org.example.own","more":[1]}"#,
            r#"{"body":"a \"quoted\" \u00e4","msgtype":"m.text"}"#,
        ] {
            assert!(check_message(&raw(good)).is_ok(), "{good}");
        }
        for bad in [
            "{}",
            r#"{"body":"hi"}"#,
            r#"{"msgtype":"m.text"}"#,
            r#"{"msgtype":"m.text","body":1}"#,
            r#"{"msgtype":["m.text"],"body":"hi"}"#,
            r#"{"msgtype":"m.text","body":null}"#,
        ] {
            assert!(matches!(check_message(&raw(bad)), Err(Error::BadJson(_))), "{bad}");
        }
    }

    #[test]
    fn texts_are_measured_in_characters() {
        let text = |length: usize| raw(&format!(r#"{{"msgtype":"m.text","body":"{}"}}"#, "ä".repeat(length)));
        assert!(check_text(&text(1000), 1000).is_ok());
        let refused = check_text(&text(1001), 1000).unwrap_err().to_string();
        assert!(refused.contains("1001") && refused.contains("1000"), "{refused}");
        let long = "ä".repeat(1001);
        for content in [
            // Nothing beside a text hides it.
            format!(r#"{{"msgtype":"m.text","body":"{long}","formatted_body":5}}"#),
            format!(r#"{{"msgtype":"m.text","body":"short","body":"{long}"}}"#),
            format!(r#"{{"msgtype":"m.text","body":"","m.new_content":{{"body":"{long}"}}}}"#),
            format!(
                r#"{{"msgtype":"m.text","body":"","m.new_content":{{"body":5,"formatted_body":"{long}"}}}}"#
            ),
        ] {
            assert!(matches!(check_text(&raw(&content), 1000), Err(Error::TooLarge(_))), "{content}");
        }
    }

    #[test]
    fn rv_21_power_levels_are_integers() {
        assert!(check_power_levels(&raw(r#"{"ban":50,"users":{"@a:b":-1},"custom":"x"}"#)).is_ok());
        for bad in [
            r#"{"ban":"50"}"#,
            r#"{"users":{"@a:b":"100"}}"#,
            r#"{"users":{"@a:b":1.5}}"#,
            r#"{"events":{"m.room.name":null}}"#,
            r#"{"notifications":{"room":"50"}}"#,
            r#"{"users":[]}"#,
        ] {
            assert!(matches!(check_power_levels(&raw(bad)), Err(Error::BadJson(_))), "{bad}");
        }
    }
}
