//! Whether the keys of `[federation]` can be used: lists that would match nobody are told at the start, not missed later.

use ruma::ServerName;

use super::{Api, Config, Error, Federation};

impl Config {
    pub(super) fn checked_federation(&self) -> Result<(), Error> {
        self.federation.checked()?;
        for (index, listener) in self.listener.iter().enumerate() {
            if !self.federation.enabled && listener.serve == [Api::Federation] {
                let cause = "federation is off (`federation.enabled = false`), so the port would serve nothing: take \
                             this listener out";
                return Err(Error::value(&format!("listener[{index}].serve"), "[\"federation\"]", cause));
            }
        }
        Ok(())
    }
}

impl Federation {
    fn checked(&self) -> Result<(), Error> {
        for (name, list) in [("allow", &self.allow), ("deny", &self.deny)] {
            for (index, pattern) in list.iter().enumerate() {
                if let Some(cause) = why_it_matches_nobody(pattern) {
                    let key = format!("federation.{name}[{index}]");
                    return Err(Error::value(&key, format!("{pattern:?}"), cause));
                }
            }
        }
        if let Some(address) = &self.address
            && ServerName::parse(address).is_err()
        {
            let cause = "an address is a host, or a host and a port: \"matrix.example.org:443\"";
            return Err(Error::value("federation.address", format!("{address:?}"), cause));
        }
        Ok(())
    }
}

/// What is wrong with a pattern of the lists, whose form `ClientSettings::allows` gives.
fn why_it_matches_nobody(pattern: &str) -> Option<&'static str> {
    let host = pattern.strip_prefix("*.").unwrap_or(pattern);
    if pattern == "*" {
        return Some(
            "there is no pattern for everybody: an empty list allows all, and `federation.enabled = false` none",
        );
    }
    if host.contains('*') {
        return Some("a star stands at the beginning alone: \"*.example.org\"");
    }
    match ServerName::parse(host) {
        Ok(name) if name.port().is_some() => {
            Some("the lists name hosts, whatever their port: leave the port out")
        }
        Ok(_) => None,
        Err(_) if host.contains("://") => Some("the name of a server has no https:// before it"),
        Err(_) if host.parse::<std::net::Ipv6Addr>().is_ok() => {
            Some("an IPv6 address stands in brackets: \"[2001:db8::1]\"")
        }
        Err(_) => {
            Some("no server has such a name: write \"example.org\", or \"*.example.org\" for all below it")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::refused, *};

    #[test]
    fn patterns_that_match_nobody_are_refused_with_a_remedy() {
        for (pattern, remedy) in [
            ("*", "federation.enabled"),
            ("*.*.org", "at the beginning"),
            ("evil*.org", "at the beginning"),
            ("example.org:8448", "leave the port out"),
            ("https://example.org", "https://"),
            ("2001:db8::1", "[2001:db8::1]"),
            ("", "*.example.org"),
            ("exämple.org", "*.example.org"),
            ("*.", "*.example.org"),
        ] {
            for list in ["allow", "deny"] {
                let text = format!("[federation]\n{list} = [\"good.example\", {pattern:?}]");
                refused(&text, &[&format!("federation.{list}[1]"), &format!("{pattern:?}"), remedy]);
            }
        }
    }

    #[test]
    fn patterns_that_can_match_are_taken() {
        let text = "[federation]\nallow = [\"example.org\", \"*.Example.org\", \"[::1]\", \"192.0.2.1\", \"localhost\"]";
        let config = Config::parse(text, "hearth.toml", std::iter::empty()).unwrap();
        assert_eq!(config.federation.allow.len(), 5);
    }

    #[test]
    fn an_address_is_a_host_and_perhaps_a_port() {
        for address in
            ["https://matrix.example.org", "matrix.example.org:", "matrix.example.org/", "", "a:b:c"]
        {
            let text = format!("[federation]\naddress = {address:?}");
            refused(&text, &["federation.address", address, "matrix.example.org:443"]);
        }
        for address in ["matrix.example.org", "matrix.example.org:443", "[2001:db8::1]:8448", "192.0.2.1"] {
            let text = format!("[federation]\naddress = {address:?}");
            Config::parse(&text, "hearth.toml", std::iter::empty()).unwrap();
        }
    }

    #[test]
    fn a_port_for_nothing_is_refused() {
        let port = "[[listener]]\nserve = [\"federation\"]\n[federation]\nenabled = ";
        refused(
            &format!("{port}false"),
            &["listener[0].serve", "federation.enabled", "take this listener out"],
        );
        Config::parse(&format!("{port}true"), "hearth.toml", std::iter::empty()).unwrap();
        Config::parse("[federation]\nenabled = false", "hearth.toml", std::iter::empty()).unwrap();
    }
}
