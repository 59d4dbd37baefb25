//! Reading a configuration: file, environment, and whether the values make sense together.

use std::{collections::BTreeMap, fs, path::Path, path::PathBuf};

use toml::{Table, Value};

use super::{
    Config, Error, Retention,
    error::Problem,
    setting::{Key, Section as _, Setting as _, Shape},
};
use crate::{account::new_user_id, limits::Class};

/// A thousand years: times in milliseconds stay numbers that JSON can hold.
const LONGEST_SECONDS: u64 = 1000 * 366 * 24 * 60 * 60;

/// What the names of environment variables begin with: `HEARTH__SECTION__KEY`.
const PREFIX: &str = "HEARTH__";

impl Config {
    /// Reads a file, or takes the defaults if there is none, and lays the environment's variables over it.
    pub fn load(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Error> {
        let text = match file {
            Some(path) => fs::read_to_string(path).map_err(|cause| {
                let path = path.display().to_string();
                Error::new("", Problem::File { path, cause: cause.to_string() })
            })?,
            None => String::new(),
        };
        let name = file.map_or_else(String::new, |path| path.display().to_string());
        Self::parse(&text, &name, environment)
    }

    /// From the text of a file of that name.
    pub fn parse(
        text: &str,
        file: &str,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Error> {
        let mut table: Table = text.parse().map_err(|cause| Error::syntax(file, text, &cause))?;
        // Sorted, so that a section's variable comes before those of its keys and errors are always the same.
        let variables: BTreeMap<String, String> =
            environment.filter(|(name, _)| name.starts_with(PREFIX)).collect();
        let mut origins = BTreeMap::new();
        for (name, text) in variables {
            let path: Vec<String> = name[PREFIX.len()..].split("__").map(str::to_lowercase).collect();
            let key = path.join(".");
            lay_over(&mut table, Config::KEYS, &path, &key, &text)
                .map_err(|error| error.with_variable(&name))?;
            origins.insert(key, name);
        }
        let config = Config::read(Value::Table(table), "", None);
        config.and_then(Config::checked).map_err(|error| match origins.get(error.key()) {
            Some(variable) => error.with_variable(variable),
            None => error,
        })
    }

    /// What no single value shows.
    fn checked(self) -> Result<Self, Error> {
        if self.data_dir.as_os_str().is_empty() {
            let cause =
                "name a folder, such as \"./hearth-data\"; \".\" is the one that the server is started in";
            return Err(Error::value("data_dir", "\"\"", cause));
        }
        self.checked_listeners()?;
        if let Some(url) = &self.database.url
            && sqlite_path(url).is_none()
        {
            let cause = if url.starts_with("postgres:") || url.starts_with("postgresql:") {
                "PostgreSQL isn't supported yet: use \"sqlite:PATH\", or leave the key out"
            } else {
                "the only form is \"sqlite:PATH\""
            };
            return Err(Error::value("database.url", url, cause));
        }
        if self.registration.shared_secret.as_deref() == Some("") {
            let cause = "an empty secret is known to everybody: leave the key out, or set a long random text";
            return Err(Error::value("registration.shared_secret", "\"\"", cause));
        }
        if self.rooms.default_version.rules().is_none() {
            let cause = "the room versions are \"1\" to \"12\"";
            return Err(Error::value("rooms.default_version", &self.rooms.default_version, cause));
        }
        self.retention.checked()?;
        self.checked_federation()?;
        if let Some(localpart) = &self.server_notices.localpart
            && let Err(cause) = new_user_id(localpart, &self.server_name)
        {
            return Err(Error::value("server_notices.localpart", localpart, cause.to_string()));
        }
        if let Some(url) = &self.server_notices.avatar_url
            && !url.starts_with("mxc://")
        {
            return Err(Error::value("server_notices.avatar_url", url, "a picture is an mxc:// URL"));
        }
        for class in Class::LIMITED {
            let (name, rate) = (class.name(), self.limits.of(class));
            let key = |part: &str| format!("limits.{name}.{part}");
            let cause = "nothing would ever be let in; `limits.enabled = false` turns limits off";
            if rate.burst == 0 {
                return Err(Error::value(&key("burst"), rate.burst, cause));
            }
            if rate.per_second == 0.0 {
                return Err(Error::value(&key("per_second"), rate.per_second, cause));
            }
            if !(0.001..=1_000_000.0).contains(&rate.per_second) {
                let cause = "a rate is between 0.001 and 1000000";
                return Err(Error::value(&key("per_second"), rate.per_second, cause));
            }
        }
        for (key, minimum, value) in [
            ("rooms.max_members", 1, self.rooms.max_members),
            ("rooms.max_text_chars", 1, self.rooms.max_text_chars),
            ("presence.idle_after_ms", 100, self.presence.idle_after_ms),
            ("presence.offline_after_ms", 100, self.presence.offline_after_ms),
            ("stream.heartbeat_ms", 100, self.stream.heartbeat_ms),
            ("stream.patience_ms", 100, self.stream.patience_ms),
        ] {
            if value < minimum {
                return Err(Error::value(key, value, format!("the least is {minimum}")));
            }
        }
        for (key, url) in [("public_base_url", &self.public_base_url), ("support.page", &self.support.page)] {
            if let Some(url) = url
                && !is_web_address(url)
            {
                return Err(Error::value(key, url, "an address begins with https:// or http:// and a host"));
            }
        }
        if let Some(url) = &self.public_base_url
            && (url.ends_with("/_matrix") || url.contains("/_matrix/"))
        {
            let cause = "clients add /_matrix and what follows by themselves: leave it out";
            return Err(Error::value("public_base_url", url, cause));
        }
        for (index, contact) in self.support.contact.iter().enumerate() {
            if contact.matrix_id.is_none() && contact.email_address.is_none() {
                let key = format!("support.contact[{index}].matrix_id");
                return Err(Error::new(&key, Problem::Missing));
            }
        }
        self.log.checked()?;
        Ok(self)
    }
}

impl Retention {
    fn checked(&self) -> Result<(), Error> {
        let (default, longest) = (self.default_lifetime_seconds, self.longest_lifetime_seconds);
        for (name, value) in [
            ("default_lifetime_seconds", default),
            ("shortest_lifetime_seconds", Some(self.shortest_lifetime_seconds)),
            ("longest_lifetime_seconds", longest),
            ("purge_interval_seconds", Some(self.purge_interval_seconds)),
        ] {
            if let Some(value) = value.filter(|value| !(1..=LONGEST_SECONDS).contains(value)) {
                let cause = format!("a time is between 1 and {LONGEST_SECONDS} seconds");
                return Err(Error::value(&format!("retention.{name}"), value, cause));
            }
        }
        let shortest = self.shortest_lifetime_seconds;
        if let Some(longest) = longest.filter(|longest| *longest < shortest) {
            let cause = format!("the longest time is no shorter than the shortest, {shortest} seconds");
            return Err(Error::value("retention.longest_lifetime_seconds", longest, cause));
        }
        let bounds = shortest..=longest.unwrap_or(LONGEST_SECONDS);
        if let Some(default) = default.filter(|default| !bounds.contains(default)) {
            let cause = format!(
                "rooms that say nothing have what a room may ask for, {} to {} seconds",
                bounds.start(),
                bounds.end()
            );
            return Err(Error::value("retention.default_lifetime_seconds", default, cause));
        }
        Ok(())
    }
}

/// Puts a variable's value into the table at its path.
fn lay_over(
    table: &mut Table,
    keys: &'static [Key],
    path: &[String],
    name: &str,
    text: &str,
) -> Result<(), Error> {
    let (first, rest) = path.split_first().ok_or_else(|| Error::unknown(name))?;
    let key = keys.iter().find(|key| key.name == first.as_str()).ok_or_else(|| Error::unknown(name))?;
    if rest.is_empty() {
        table.insert(first.clone(), value_of(key, text));
        return Ok(());
    }
    let keys = match key.shape {
        Shape::Section(keys) => keys,
        Shape::List(keys) if keys.iter().any(|key| rest.first().is_some_and(|first| first == key.name)) => {
            return Err(part_of_list(name, rest));
        }
        _ => return Err(Error::unknown(name)),
    };
    let below = table.entry(first.clone()).or_insert_with(|| Value::Table(Table::new()));
    let Value::Table(below) = below else {
        // The file has a plain value here; reading it gives the better message.
        return Ok(());
    };
    lay_over(below, keys, rest, name, text)
}

/// For a variable that names a key of a list's items, `rest`: there may be any number of them.
fn part_of_list(name: &str, rest: &[String]) -> Error {
    let parts: Vec<&str> = name.split('.').collect();
    let list = parts[..parts.len().saturating_sub(rest.len())].join("__").to_uppercase();
    let key = rest.first().cloned().unwrap_or_default();
    Error::new(name, Problem::PartOfList { list: format!("{PREFIX}{list}"), key })
}

/// The text itself if the key takes it, what it says as TOML if it doesn't.
fn value_of(key: &Key, text: &str) -> Value {
    let plain = Value::String(text.to_owned());
    if (key.accepts)(&plain) {
        return plain;
    }
    let parsed = format!("value = {text}").parse::<Table>().ok();
    parsed.and_then(|mut table| table.remove("value")).unwrap_or(plain)
}

/// The path of `sqlite:PATH` or `sqlite://PATH`.
pub(super) fn sqlite_path(url: &str) -> Option<PathBuf> {
    let path = url.strip_prefix("sqlite:")?;
    let path = path.strip_prefix("//").unwrap_or(path);
    (!path.is_empty() && !path.starts_with(':') && !path.contains('?')).then(|| PathBuf::from(path))
}

fn is_web_address(url: &str) -> bool {
    url.parse::<http::Uri>().is_ok_and(|url| {
        matches!(url.scheme_str(), Some("https" | "http")) && url.host().is_some_and(|host| !host.is_empty())
    })
}

/// What is to be said of variables that would set a key if two underscores stood where one does.
pub(super) fn ignored_variables(names: impl Iterator<Item = String>) -> Vec<String> {
    let keys: Vec<String> = self::names();
    let said = names.filter_map(|name| {
        let rest = name.strip_prefix("HEARTH_").filter(|rest| !rest.starts_with('_'))?;
        let rest = rest.replace("__", "_").to_lowercase();
        let meant = keys.iter().find(|key| key.replace('.', "_") == rest)?;
        let meant = meant.replace('.', "__").to_uppercase();
        Some(format!("the variable {name} is ignored: did you mean {PREFIX}{meant}?"))
    });
    said.collect()
}

/// The names of all keys, in full.
pub(super) fn names() -> Vec<String> {
    super::setting::all(Config::KEYS, "").into_iter().map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::*, *};

    fn parse(text: &str) -> Result<Config, String> {
        with(text, &[])
    }

    fn with(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::parse(text, "hearth.toml", variables).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn assert_says(result: Result<Config, String>, parts: &[&str]) {
        let error = result.expect_err("the configuration is wrong");
        for part in parts {
            assert!(error.contains(part), "{error:?} should say {part:?}");
        }
    }

    #[test]
    fn no_configuration_at_all_works() {
        let config = parse("").unwrap();
        assert_eq!(config, Config::default());
        assert_eq!(config.server_name, "localhost");
        assert_eq!(config.listener[0].bind.to_string(), "127.0.0.1:8008");
        assert_eq!(config.database_path(), PathBuf::from("./hearth-data/hearth.db"));
    }

    #[test]
    fn an_unknown_key_is_named_in_full_with_the_nearest_known_one() {
        assert_says(parse("[rooms]\nmax_member = 3"), &["`rooms.max_member`", "`rooms.max_members`"]);
        assert_says(parse("max_members = 3"), &["`max_members`", "`rooms.max_members`"]);
        assert_says(parse("[[listener]]\nbnid = \"x\""), &["`listener[0].bnid`", "`listener.bind`"]);
        assert_says(
            parse("[limits.message]\nbrust = 1"),
            &["`limits.message.brust`", "`limits.message.burst`"],
        );
        assert_says(parse("zzzz = 3"), &["there is no key `zzzz`", "hearth config default"]);
    }

    #[test]
    fn a_wrong_value_is_named_with_its_key_and_a_remedy() {
        assert_says(
            parse("[rooms]\nmax_members = \"many\""),
            &["rooms.max_members", "\"many\"", "The most members"],
        );
        assert_says(parse("[registration]\nmode = \"opne\""), &["registration.mode", "opne", "`open`"]);
        assert_says(parse("server_name = \"no spaces\""), &["server_name", "no spaces", "behind the colon"]);
        assert_says(
            parse("[limits.login]\nper_second = 0"),
            &["limits.login.per_second", "0", "limits.enabled"],
        );
        assert_says(parse("rooms = 3"), &["rooms", "3", "[rooms]"]);
        assert_says(parse("[rooms]\ndefault_version = \"99\""), &["rooms.default_version", "99", "\"12\""]);
        assert_says(parse("[log]\nfilter = \"hearth=loud\""), &["log.filter", "hearth=loud"]);
        assert_says(
            parse("[[listener]]\nserve = [\"everything\"]"),
            &["listener[0].serve[0]", "everything", "`client`"],
        );
        assert_says(parse("listener = []"), &["listener", "at least one port"]);
        assert_says(parse("[[listener]]\ntls = {certificate = \"a\"}"), &["listener[0].tls.key", "missing"]);
        assert_says(parse("server_name ="), &["hearth.toml"]);
    }

    #[test]
    fn an_empty_folder_is_refused() {
        assert_says(parse("data_dir = \"\""), &["`data_dir = \"\"`", "./hearth-data", "\".\""]);
        parse("data_dir = \".\"").unwrap();
    }

    #[test]
    fn an_address_for_clients_ends_before_what_they_add() {
        for url in
            ["https://a.example/_matrix", "https://a.example/_matrix/", "https://a.example/x/_matrix/client"]
        {
            assert_says(
                parse(&format!("public_base_url = {url:?}")),
                &["public_base_url", url, "leave it out"],
            );
        }
        parse("public_base_url = \"https://a.example/x\"").unwrap();
        parse("public_base_url = \"https://_matrix.example\"").unwrap();
    }

    #[test]
    fn secrets_are_not_in_errors() {
        #[track_caller]
        fn hides(result: Result<Config, String>, parts: &[&str]) {
            let error = result.expect_err("the configuration is wrong");
            for secret in ["topsecret", "12345"] {
                assert!(!error.contains(secret), "{error:?} should hide {secret:?}");
            }
            for part in parts {
                assert!(error.contains(part), "{error:?} should say {part:?}");
            }
        }
        hides(
            parse("[[registration]]\nshared_secret = \"topsecret\""),
            &["`registration = …`", "[registration]"],
        );
        hides(parse("[[rooms]]\nshared_secret = \"topsecret\""), &["`rooms = …`", "[rooms]"]);
        for wrong in ["12345", "[\"topsecret\"]", "{ a = \"topsecret\" }"] {
            let text = format!("[registration]\nshared_secret = {wrong}");
            hides(parse(&text), &["registration.shared_secret", "a string is expected"]);
        }
        let broken = ("HEARTH__REGISTRATION", "{ shared_secret = \"topsecret\"");
        hides(with("", &[broken]), &["HEARTH__REGISTRATION", "[registration]"]);
        for (line, text) in [
            ("line 2", "[registration]\nshared_secret = \"topsecret"),
            ("line 2", "[registration]\nshared_secret = topsecret"),
            ("line 1", "registration = { shared_secret = \"topsecret\""),
            ("line 3", "[registration]\nshared_secret = \"\"\"\n\"\"\" topsecret"),
            ("line 3", "[registration]\nshared_secret = \"\"\"\ntopsecret \\q\"\"\""),
        ] {
            hides(parse(text), &["hearth.toml", line, "`registration.shared_secret`"]);
        }
        assert_says(
            parse("server_name = example.org"),
            &["hearth.toml", "line 1", "server_name = example.org"],
        );
    }

    #[test]
    fn times_of_retention_agree_with_each_other() {
        let retention = parse(
            "[retention]
             enabled = true
             default_lifetime_seconds = 100
             shortest_lifetime_seconds = 10
             longest_lifetime_seconds = 100
             purge_interval_seconds = 1",
        );
        assert!(retention.unwrap().retention.enabled);
        assert!(!parse("").unwrap().retention.enabled, "history is for ever");
        for (key, value, remedy) in [
            ("default_lifetime_seconds", "0", "between 1 and"),
            ("shortest_lifetime_seconds", "0", "between 1 and"),
            ("longest_lifetime_seconds", "99999999999999", "between 1 and"),
            ("purge_interval_seconds", "0", "between 1 and"),
            ("longest_lifetime_seconds", "10", "86400"),
            ("default_lifetime_seconds", "10", "86400 to"),
        ] {
            let name = format!("retention.{key}");
            assert_says(parse(&format!("[retention]\n{key} = {value}")), &[&name, value, remedy]);
        }
        let above = "[retention]\nlongest_lifetime_seconds = 86400\ndefault_lifetime_seconds = 86401";
        assert_says(parse(above), &["retention.default_lifetime_seconds", "86401", "86400 to 86400"]);
    }

    #[test]
    fn other_databases_are_refused_with_the_reason() {
        assert_says(
            parse("[database]\nurl = \"postgres://db/hearth\""),
            &["postgres://db/hearth", "yet", "sqlite:"],
        );
        assert_says(parse("[database]\nurl = \"mysql://db\""), &["mysql://db", "sqlite:PATH"]);
        let config = parse("[database]\nurl = \"sqlite:/srv/chat.db\"").unwrap();
        assert_eq!(config.database_path(), PathBuf::from("/srv/chat.db"));
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let variables = [
            ("HEARTH__SERVER_NAME", "example.org"),
            ("HEARTH__ROOMS__MAX_MEMBERS", "7"),
            ("HEARTH__LIMITS__ENABLED", "false"),
            ("HEARTH__LIMITS__MESSAGE__BURST", "5"),
            ("HEARTH__REGISTRATION__SHARED_SECRET", "1234"),
            ("HEARTH__LISTENER", r#"[{ bind = "0.0.0.0:80", serve = ["client"] }]"#),
            ("HOME", "/root"),
        ];
        let config = with("server_name = \"file.example\"\n[rooms]\nmax_members = 3", &variables).unwrap();
        assert_eq!(config.server_name, "example.org");
        assert_eq!(config.rooms.max_members, 7);
        assert!(!config.limits.enabled);
        assert_eq!(config.limits.message, Rate { per_second: 10.0, burst: 5 });
        assert_eq!(config.registration.shared_secret.as_deref(), Some("1234"), "text stays text");
        assert_eq!(config.listener[0].serve, [Api::Client]);
    }

    #[test]
    fn errors_of_the_environment_name_the_variable() {
        let bad = [("HEARTH__ROOMS__MAX_MEMBERS", "many")];
        assert_says(with("", &bad), &["rooms.max_members", "\"many\"", "HEARTH__ROOMS__MAX_MEMBERS"]);
        let unknown = [("HEARTH__ROMS__MAX_MEMBERS", "1")];
        assert_says(
            with("", &unknown),
            &["`roms.max_members`", "HEARTH__ROMS__MAX_MEMBERS", "`rooms.max_members`"],
        );
    }

    #[test]
    fn times_that_would_keep_a_server_busy_with_nothing_are_refused() {
        for key in [
            "presence.idle_after_ms",
            "presence.offline_after_ms",
            "stream.heartbeat_ms",
            "stream.patience_ms",
        ] {
            let (section, name) = key.split_once('.').unwrap();
            for value in [0, 99] {
                let text = format!("[{section}]\n{name} = {value}");
                assert_says(parse(&text), &[&format!("`{key} = {value}`"), "the least is 100"]);
            }
            parse(&format!("[{section}]\n{name} = 100")).unwrap();
        }
    }

    #[test]
    fn a_variable_for_a_part_of_a_list_is_told_how_lists_are_set() {
        let whole = "HEARTH__LISTENER='[{ bind = … }]'";
        assert_says(with("", &[("HEARTH__LISTENER__BIND", "[::]:80")]), &["HEARTH__LISTENER__BIND", whole]);
        let deep = [("HEARTH__LISTENER__TLS__KEY", "/etc/key.pem")];
        assert_says(with("", &deep), &["HEARTH__LISTENER__TLS__KEY", "HEARTH__LISTENER='[{ tls = … }]'"]);
        let contact = [("HEARTH__SUPPORT__CONTACT__ROLE", "m.role.admin")];
        assert_says(with("", &contact), &["HEARTH__SUPPORT__CONTACT='[{ role = … }]'"]);
        // One that isn't there at all is told so.
        assert_says(with("", &[("HEARTH__LISTENER__BNID", "x")]), &["there is no key", "`listener.bind`"]);
    }

    #[test]
    fn every_key_can_be_named() {
        let names = names();
        for name in
            ["server_name", "listener.tls.certificate", "limits.default.burst", "support.contact.role"]
        {
            assert!(names.iter().any(|known| known == name), "{name}");
        }
    }
}
