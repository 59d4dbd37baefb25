//! Whether the listeners can all be had, and serve something.

use std::net::SocketAddr;

use super::{Config, Error, error::Problem};

impl Config {
    pub(super) fn checked_listeners(&self) -> Result<(), Error> {
        if self.listener.is_empty() {
            return Err(Error::value("listener", "[]", "a server needs at least one port"));
        }
        for (index, listener) in self.listener.iter().enumerate() {
            let key = |name: &str| format!("listener[{index}].{name}");
            if listener.serve.is_empty() {
                return Err(Error::value(
                    &key("serve"),
                    "[]",
                    "name at least one of client, federation, metrics",
                ));
            }
            if let Some(other) =
                self.listener[..index].iter().find(|other| overlap(other.bind, listener.bind))
            {
                let cause = format!(
                    "another listener has this address ({}): let one serve both, or give this one another port",
                    other.bind
                );
                return Err(Error::value(&key("bind"), listener.bind, cause));
            }
            if let Some(tls) = &listener.tls {
                for (name, path) in [("tls.certificate", &tls.certificate), ("tls.key", &tls.key)] {
                    if path.as_os_str().is_empty() {
                        return Err(Error::new(&key(name), Problem::Missing));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Whether only one of two listeners could have its address.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    // Where IPv6 is, [::] is the addresses of IPv4 too.
    let covers =
        |all: SocketAddr, one: SocketAddr| all.ip().is_unspecified() && (all.is_ipv6() || one.is_ipv4());
    let same = one.ip() == other.ip() || covers(one, other) || covers(other, one);
    // 0 is any port that is free.
    same && one.port() == other.port() && one.port() != 0
}

#[cfg(test)]
mod tests {
    use super::{super::refused, *};

    #[test]
    fn an_address_of_a_listener_is_an_ip_address_and_a_port() {
        for bind in ["\"localhost:8008\"", "\"127.0.0.1\"", "\":8008\"", "8008"] {
            let text = format!("[[listener]]\nbind = {bind}");
            refused(&text, &["listener[0].bind", bind, "an IP address and a port", "127.0.0.1:8008"]);
        }
    }

    #[test]
    fn listeners_that_would_want_one_address_are_refused() {
        let two = |one: &str, other: &str| {
            format!("[[listener]]\nbind = \"{one}\"\n[[listener]]\nbind = \"{other}\"")
        };
        for (one, other) in [
            ("127.0.0.1:8008", "127.0.0.1:8008"),
            ("0.0.0.0:8008", "127.0.0.1:8008"),
            ("127.0.0.1:8008", "0.0.0.0:8008"),
            ("[::]:8008", "127.0.0.1:8008"),
            ("[::]:8008", "0.0.0.0:8008"),
            ("[::1]:8008", "[::]:8008"),
        ] {
            refused(&two(one, other), &["listener[1].bind", one, other, "another port"]);
        }
        for (one, other) in [
            ("127.0.0.1:8008", "127.0.0.1:8009"),
            ("127.0.0.1:8008", "127.0.0.2:8008"),
            ("0.0.0.0:8008", "[::1]:8008"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("0.0.0.0:8008", "[::]:8009"),
        ] {
            Config::parse(&two(one, other), "hearth.toml", std::iter::empty()).unwrap();
        }
    }
}
