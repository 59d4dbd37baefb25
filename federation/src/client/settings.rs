//! What the operator decides about requests to other servers.

use std::{path::PathBuf, time::Duration};

use ruma::ServerName;

/// Settings of requests to other servers. Each default is one to run with.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// Certificate authorities, as PEM, that are believed *instead of* the system's (FT-02).
    pub ca_file: Option<PathBuf>,
    /// No server is to be connected to: authorities aren't looked for, and none is believed.
    pub offline: bool,
    /// Whether certificates are verified at all. Without, anybody on the way can read and change everything.
    pub verify_tls: bool,
    /// Whether servers may be on this machine and in private networks.
    pub allow_private_networks: bool,
    /// If there are any, only servers with these names are spoken to: `example.org`, or `*.example.org` for all below it.
    pub allow: Vec<String>,
    /// Servers with these names never are.
    pub deny: Vec<String>,
    /// The `User-Agent` header.
    pub user_agent: String,
    /// For each attempt to connect to a server, TLS and all.
    pub connect_timeout: Duration,
    /// How many connections are made at a time to servers that answer within `slow_after`.
    pub max_dials: usize,
    /// How many are made at a time to those that don't.
    pub max_slow_dials: usize,
    /// How many are made at a time to one host.
    pub max_dials_per_host: usize,
    /// After this a server counts as slow, until it has answered again.
    pub slow_after: Duration,
    /// For a request whole, from looking for the server to the end of its answer, unless the request says otherwise.
    pub request_timeout: Duration,
    /// An answer of which less than a kilobyte comes within this is given up.
    pub stall_timeout: Duration,
    /// How long a connection is kept for the next request.
    pub idle_timeout: Duration,
    /// How many connections are kept.
    pub max_idle: usize,
    /// How many connections are kept to one server.
    pub max_idle_per_server: usize,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            ca_file: None,
            offline: false,
            verify_tls: true,
            allow_private_networks: false,
            allow: Vec::new(),
            deny: Vec::new(),
            user_agent: "Hearth".to_owned(),
            connect_timeout: Duration::from_secs(10),
            // Together with the kept ones within what systems allow by default, 1024 open files.
            max_dials: 192,
            max_slow_dials: 128,
            max_dials_per_host: 8,
            slow_after: Duration::from_secs(1),
            request_timeout: Duration::from_mins(1),
            stall_timeout: Duration::from_secs(10),
            // Below what servers and proxies commonly allow, so that it is we who close.
            idle_timeout: Duration::from_secs(45),
            max_idle: 256,
            max_idle_per_server: 2,
        }
    }
}

impl ClientSettings {
    /// Whether a server may be spoken to, by the lists. It holds for both directions.
    pub fn allows(&self, server: &ServerName) -> bool {
        let on = |list: &[String]| list.iter().any(|pattern| matches(pattern, server.host()));
        !on(&self.deny) && (self.allow.is_empty() || on(&self.allow))
    }
}

fn matches(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(parent) => {
            let start = host.len().checked_sub(parent.len() + 1);
            start
                .and_then(|start| host.get(start..))
                .is_some_and(|end| end.strip_prefix('.').is_some_and(|end| end.eq_ignore_ascii_case(parent)))
        }
        None => host.eq_ignore_ascii_case(pattern),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn allows(allow: &[&str], deny: &[&str], server: &str) -> bool {
        let list = |list: &[&str]| list.iter().map(|&pattern| pattern.to_owned()).collect();
        let settings = ClientSettings { allow: list(allow), deny: list(deny), ..ClientSettings::default() };
        settings.allows(<&ServerName>::try_from(server).unwrap())
    }

    #[test]
    fn lists_name_hosts_and_what_is_below_them() {
        assert!(allows(&[], &[], "a.example"));
        assert!(!allows(&[], &["a.example"], "a.example"));
        assert!(!allows(&[], &["a.example"], "A.EXAMPLE:8448"));
        assert!(allows(&[], &["a.example"], "b.a.example"));
        assert!(!allows(&[], &["*.a.example"], "b.a.example"));
        assert!(!allows(&[], &["*.a.example"], "c.b.A.example:1"));
        assert!(allows(&[], &["*.a.example"], "a.example"));
        assert!(allows(&[], &["*.a.example"], "ba.example"));
        assert!(allows(&["a.example"], &[], "a.example"));
        assert!(!allows(&["a.example"], &[], "b.example"));
        assert!(!allows(&["*.example"], &["a.example"], "a.example"));
        assert!(!allows(&[], &["[::1]"], "[::1]:8448"));
    }
}
