//! What Prometheus is told: requests by route and status, their duration, how many are in flight, and the process.
//!
//! Handles are made once and kept with their route, so that counting a request formats no string and takes no lock.

use std::{
    fmt::Write as _,
    sync::{Arc, LazyLock, OnceLock},
    time::Instant,
};

use http::StatusCode;
use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

const REQUESTS: &str = "hearth_http_requests_total";
const DURATION: &str = "hearth_http_request_duration_seconds";
const IN_FLIGHT: &str = "hearth_http_requests_in_flight";
const CONNECTIONS: &str = "hearth_http_connections";
const MEMORY: &str = "process_resident_memory_bytes";
const CPU: &str = "process_cpu_seconds_total";

/// Bounds of the duration histogram, in seconds. The last ones are those of long polls.
const BOUNDS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5, 10.0, 40.0];

/// The statuses that are counted by name; any other counts as its hundred.
const STATUSES: [(u16, &str); 12] = [
    (200, "200"),
    (302, "302"),
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (409, "409"),
    (413, "413"),
    (429, "429"),
    (500, "500"),
    (502, "502"),
];
const HUNDREDS: [&str; 6] = ["0xx", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// The process's recorder, from which `/metrics` is answered.
#[derive(Clone)]
pub struct Recorder {
    handle: PrometheusHandle,
}

impl Recorder {
    /// To be called once, before any route is made: what was registered before is counted nowhere.
    pub fn install() -> Result<Self, metrics_exporter_prometheus::BuildError> {
        let handle = PrometheusBuilder::new().set_buckets(&BOUNDS)?.install_recorder()?;
        describe_counter!(REQUESTS, "Requests that were answered");
        describe_histogram!(
            DURATION,
            Unit::Seconds,
            "From a request's headers to its answer's, waiting included"
        );
        describe_gauge!(IN_FLIGHT, "Requests that are being answered, long polls included");
        describe_gauge!(CONNECTIONS, "Open connections of clients");
        describe_gauge!(MEMORY, Unit::Bytes, "Resident memory");
        describe_counter!(CPU, Unit::Seconds, "Processor time, user and system");
        Ok(Self { handle })
    }

    /// Moves what was recorded into the histograms. Recorded values take memory until then: call it every few seconds.
    pub fn digest(&self) {
        self.handle.run_upkeep();
    }

    /// All metrics in Prometheus's text format.
    pub fn render(&self) -> String {
        let process = Process::read();
        gauge!(MEMORY).set(process.resident_bytes as f64);
        let mut text = self.handle.render();
        // A counter of fractions, which the recorder doesn't have.
        let _ = writeln!(text, "# TYPE {CPU} counter\n{CPU} {}", process.cpu_seconds);
        text
    }
}

/// What the operating system knows about this process; zeros where it doesn't say.
struct Process {
    resident_bytes: u64,
    cpu_seconds: f64,
}

impl Process {
    fn read() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status.lines().find_map(|line| {
            line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
        });
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The name of the program is in parentheses and may hold anything; the fields begin behind it.
        let fields = stat.rsplit_once(')').map(|(_, fields)| fields.split_whitespace());
        let ticks = fields
            .map_or(0, |fields| fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum());
        // Linux reports this in hundredths of a second on every architecture.
        Self { resident_bytes: resident.unwrap_or_default() * 1024, cpu_seconds: ticks as f64 / 100.0 }
    }
}

/// The counters of one route.
pub(super) struct RouteMetrics {
    method: String,
    route: String,
    /// Registered when first needed: most routes only ever answer with a few statuses.
    answers: [OnceLock<Counter>; STATUSES.len() + HUNDREDS.len()],
    duration: OnceLock<Histogram>,
}

impl RouteMetrics {
    pub(super) fn new(method: &str, route: &str) -> Arc<Self> {
        Arc::new(Self {
            method: method.to_owned(),
            route: route.to_owned(),
            answers: [const { OnceLock::new() }; STATUSES.len() + HUNDREDS.len()],
            duration: OnceLock::new(),
        })
    }

    pub(super) fn record(&self, status: StatusCode, start: Instant) {
        let number = status.as_u16();
        let known = STATUSES.iter().position(|(known, _)| *known == number);
        let (slot, name) = known.map_or_else(
            || {
                let hundred = usize::from(number / 100).min(HUNDREDS.len() - 1);
                (STATUSES.len() + hundred, HUNDREDS[hundred])
            },
            |index| (index, STATUSES[index].1),
        );
        let counter = self.answers[slot].get_or_init(|| {
            counter!(REQUESTS, "method" => self.method.clone(), "route" => self.route.clone(), "status" => name)
        });
        counter.increment(1);
        let duration = self.duration.get_or_init(
            || histogram!(DURATION, "method" => self.method.clone(), "route" => self.route.clone()),
        );
        duration.record(start.elapsed());
    }
}

/// Something counted while it lives.
pub(super) struct Present(&'static LazyLock<Gauge>);

static REQUESTS_PRESENT: LazyLock<Gauge> = LazyLock::new(|| gauge!(IN_FLIGHT));
static CONNECTIONS_PRESENT: LazyLock<Gauge> = LazyLock::new(|| gauge!(CONNECTIONS));

impl Present {
    pub(super) fn request() -> Self {
        REQUESTS_PRESENT.increment(1);
        Self(&REQUESTS_PRESENT)
    }

    pub(super) fn connection() -> Self {
        CONNECTIONS_PRESENT.increment(1);
        Self(&CONNECTIONS_PRESENT)
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}
