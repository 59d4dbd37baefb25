//! What was tried to find a server, in words for the operator.

use std::{fmt, net::IpAddr};

use super::{DnsError, NoDelegation, Service};

/// One step of a discovery, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The name is an address: no name has to be looked up.
    Literal(IpAddr),
    /// The name has a port: neither well-known nor SRV records are asked for.
    Port(u16),
    /// The host was asked to whom it delegates.
    WellKnown {
        /// Every address that was asked, in order.
        asked: Vec<String>,
        /// The name it delegates to.
        outcome: Result<String, NoDelegation>,
    },
    /// SRV records were looked up.
    Services {
        /// Under this name.
        name: String,
        /// They, in the order in which they are tried.
        outcome: Result<Vec<Service>, DnsError>,
    },
    /// Addresses were looked up.
    Addresses {
        /// Of this host.
        name: String,
        /// They, in the order in which they are tried.
        outcome: Result<Vec<IpAddr>, DnsError>,
        /// It is the target of a SRV record, and an alias, which RFC 2782 forbids. Others may refuse it (SD-05).
        forbidden_alias: bool,
    },
}

impl Step {
    /// Whether it led on. A host without a well-known answer or SRV records may be all right.
    pub fn is_ok(&self) -> bool {
        match self {
            Self::Literal(_) | Self::Port(_) => true,
            Self::WellKnown { outcome, .. } => outcome.is_ok(),
            Self::Services { outcome, .. } => outcome.is_ok(),
            Self::Addresses { outcome, forbidden_alias, .. } => outcome.is_ok() && !forbidden_alias,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(address) => write!(formatter, "the name is the address {address}"),
            Self::Port(port) => write!(formatter, "the name has the port {port}"),
            Self::WellKnown { asked, outcome } => {
                write!(formatter, "{}: ", asked.join(" → "))?;
                match outcome {
                    Ok(name) => write!(formatter, "delegates to {name}"),
                    Err(error) => write!(formatter, "{error}"),
                }
            }
            Self::Services { name, outcome } => {
                write!(formatter, "SRV {name}: ")?;
                match outcome {
                    Ok(services) => {
                        let targets: Vec<_> = services
                            .iter()
                            .map(|Service { target, port, .. }| format!("{target}:{port}"))
                            .collect();
                        write!(formatter, "{}", targets.join(", "))
                    }
                    Err(error) => write!(formatter, "{error}"),
                }
            }
            Self::Addresses { name, outcome, forbidden_alias } => {
                write!(formatter, "A, AAAA {name}: ")?;
                match outcome {
                    Ok(addresses) => {
                        let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                        write!(formatter, "{}", addresses.join(", "))?;
                    }
                    Err(error) => write!(formatter, "{error}")?,
                }
                if *forbidden_alias {
                    write!(formatter, " (an alias, which the target of a SRV record may not be)")?;
                }
                Ok(())
            }
        }
    }
}
