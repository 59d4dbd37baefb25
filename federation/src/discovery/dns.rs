//! Names asked of the DNS: the trait, and the resolver that the system is configured with.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, Instant, SystemTime},
};

use hickory_resolver::{
    ResolverBuilder, TokioResolver,
    config::{LookupIpStrategy, NameServerConfig, ResolverConfig},
    lookup::Lookup,
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::{Name, RData, RecordType},
    system_conf::parse_resolv_conf,
};

use super::{LONGEST, lock};
use crate::Task;

/// Entries of the resolver's own cache; what is found is remembered by [`Discovery`](super::Discovery) too.
const CACHED: u64 = 1024;

/// What the DNS has under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsAnswer<T> {
    /// The records; at least one.
    pub records: Vec<T>,
    /// How long they may be remembered.
    pub ttl: Duration,
    /// The name is an alias (CNAME) of another one, whose records they are.
    pub alias: bool,
}

/// A SRV record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The lowest is tried first.
    pub priority: u16,
    /// How often it is tried first among those of its priority, relative to them.
    pub weight: u16,
    /// The host; `.` where the service isn't offered.
    pub target: String,
    /// Its port.
    pub port: u16,
}

/// Why there are no records.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// There are none.
    #[error("there is no such record")]
    None,
    /// Nobody could say.
    #[error("the DNS doesn't answer: {0}")]
    Failed(String),
}

/// The DNS. Names are without the final dot, and in lower case.
pub trait Dns: Send + Sync {
    /// The addresses (A and AAAA) of a host.
    fn addresses<'a>(&'a self, name: &'a str) -> Task<'a, Result<DnsAnswer<IpAddr>, DnsError>>;
    /// The SRV records of a name.
    fn services<'a>(&'a self, name: &'a str) -> Task<'a, Result<DnsAnswer<Service>, DnsError>>;
}

/// Where the system says who is to be asked.
const SYSTEMS: &str = "/etc/resolv.conf";
/// Where it has names of its own.
const HOSTS: &str = "/etc/hosts";

/// The resolver of the system: `/etc/resolv.conf` and `/etc/hosts`, as they are by now. A server may be started before the
/// network is there, and networks change.
pub struct SystemDns {
    /// The file that says who is asked, and their port. `None`: that doesn't change.
    configured_by: Option<(PathBuf, u16)>,
    current: Mutex<(State, TokioResolver)>,
}

/// The files of the system, as they were: when they were written, and their length.
type State = [Option<(SystemTime, u64)>; 2];

impl SystemDns {
    /// Read the system's configuration. Where it has none, a resolver on this machine is asked, as the C library does.
    pub fn new() -> Result<Self, DnsError> {
        Self::configured_by(SYSTEMS, 53)
    }

    /// The same by a file in the place of `/etc/resolv.conf`; those that it names are asked at `port`.
    pub fn configured_by(file: impl Into<PathBuf>, port: u16) -> Result<Self, DnsError> {
        let file = file.into();
        let current = Mutex::new((state(&file), read(&file, port)?));
        Ok(Self { configured_by: Some((file, port)), current })
    }

    /// Ask this resolver instead of the system's.
    pub fn asking(resolver: SocketAddr) -> Result<Self, DnsError> {
        let current = Mutex::new((State::default(), asking(resolver)?));
        Ok(Self { configured_by: None, current })
    }

    /// The resolver for a question.
    fn current(&self) -> TokioResolver {
        let mut current = lock(&self.current);
        if let Some((file, port)) = &self.configured_by {
            let state = state(file);
            if state != current.0 {
                current.0 = state;
                // Whatever can't be used leaves what there is, until it changes again.
                if let Ok(resolver) = read(file, *port) {
                    current.1 = resolver;
                }
            }
        }
        current.1.clone()
    }
}

/// Before they are read, so that what changes meanwhile is read again.
fn state(file: &Path) -> State {
    [file, Path::new(HOSTS)].map(|file| {
        let metadata = fs::metadata(file).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    })
}

fn read(file: &Path, port: u16) -> Result<TokioResolver, DnsError> {
    let read = fs::read(file).ok().and_then(|text| parse_resolv_conf(text).ok());
    let Some((mut config, options)) = read else {
        return asking(SocketAddr::from(([127, 0, 0, 1], port)));
    };
    config.name_servers.iter_mut().for_each(|server| at_port(server, port));
    let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    build(builder.with_options(options))
}

fn asking(resolver: SocketAddr) -> Result<TokioResolver, DnsError> {
    let mut server = NameServerConfig::udp_and_tcp(resolver.ip());
    at_port(&mut server, resolver.port());
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    build(TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()))
}

fn at_port(server: &mut NameServerConfig, port: u16) {
    for connection in &mut server.connections {
        connection.port = port;
    }
}

fn build(mut builder: ResolverBuilder<TokioRuntimeProvider>) -> Result<TokioResolver, DnsError> {
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.cache_size = CACHED;
    options.positive_max_ttl = Some(LONGEST);
    // Whoever asks in vain waits with asking again; then there may be something.
    options.negative_max_ttl = Some(Duration::ZERO);
    // Among them are aliases, which we want to know of.
    options.preserve_intermediates = true;
    builder.build().map_err(|failed| error(&failed))
}

impl Dns for SystemDns {
    fn addresses<'a>(&'a self, name: &'a str) -> Task<'a, Result<DnsAnswer<IpAddr>, DnsError>> {
        Box::pin(async move {
            let found = self.current().lookup_ip(full(name)?).await.map_err(|failed| error(&failed))?;
            answer(found.as_lookup(), |data| match data {
                RData::A(address) => Some(IpAddr::V4(address.0)),
                RData::AAAA(address) => Some(IpAddr::V6(address.0)),
                _ => None,
            })
        })
    }

    fn services<'a>(&'a self, name: &'a str) -> Task<'a, Result<DnsAnswer<Service>, DnsError>> {
        Box::pin(async move {
            let found =
                self.current().lookup(full(name)?, RecordType::SRV).await.map_err(|failed| error(&failed))?;
            answer(&found, |data| match data {
                RData::SRV(service) => {
                    let target = service.target.to_ascii();
                    let short = target.strip_suffix('.').filter(|short| !short.is_empty());
                    Some(Service {
                        priority: service.priority,
                        weight: service.weight,
                        target: short.unwrap_or(&target).to_ascii_lowercase(),
                        port: service.port,
                    })
                }
                _ => None,
            })
        })
    }
}

/// The name as it is, without the domains that the system searches.
fn full(name: &str) -> Result<Name, DnsError> {
    let mut name = Name::from_ascii(name).map_err(|_| DnsError::None)?;
    name.set_fqdn(true);
    Ok(name)
}

fn answer<T>(found: &Lookup, record: impl Fn(&RData) -> Option<T>) -> Result<DnsAnswer<T>, DnsError> {
    let records: Vec<T> = found.answers().iter().filter_map(|answer| record(&answer.data)).collect();
    let alias = found.answers().iter().any(|answer| matches!(answer.data, RData::CNAME(_)));
    let ttl = found.valid_until().saturating_duration_since(Instant::now());
    if records.is_empty() { Err(DnsError::None) } else { Ok(DnsAnswer { records, ttl, alias }) }
}

fn error(error: &NetError) -> DnsError {
    if error.is_no_records_found() || error.is_nx_domain() {
        DnsError::None
    } else {
        DnsError::Failed(error.to_string())
    }
}
