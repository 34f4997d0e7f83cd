//! Metrics of the daemons in the Prometheus text form, with the names and shapes that SPIRE dashboards use.
//!
//! A call is a counter and a summary of milliseconds. Label values must come from small fixed sets; the number of
//! series is bounded all the same. Never blocks on I/O.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::time::Duration;

use avouch_domain::Tick;
use parking_lot::Mutex;

/// Most series kept; what comes after is dropped, so that a label gone wild can't eat the memory.
const SERIES_MAX: usize = 4096;
/// Most observations a summary remembers for its quantiles.
const WINDOW_MAX: usize = 256;
/// Observations older than this no longer count in quantiles, which then show NaN.
const WINDOW_AGE: Duration = Duration::from_secs(60);
const QUANTILES: [(f64, &str); 3] = [(0.5, "0.5"), (0.9, "0.9"), (0.99, "0.99")];

/// Name and value of a label.
pub type Label<'a> = (&'a str, &'a str);

enum Series {
    Counter(f64),
    Gauge(f64),
    Summary { window: VecDeque<(Tick, f64)>, sum: f64, count: u64 },
}

impl Series {
    fn kind(&self) -> &'static str {
        match self {
            Self::Counter(_) => "counter",
            Self::Gauge(_) => "gauge",
            Self::Summary { .. } => "summary",
        }
    }
}

#[derive(Default)]
struct Table {
    families: BTreeMap<String, BTreeMap<String, Series>>,
    series: usize,
}

/// All series of one process.
pub struct Registry {
    prefix: String,
    fixed: Vec<(String, String)>,
    table: Mutex<Table>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Registry {
    /// `prefix` goes before each name with an underscore (`spire_agent`); `fixed` labels stand on every series.
    #[must_use]
    pub fn new(prefix: &str, fixed: &[Label<'_>]) -> Self {
        Self {
            prefix: prefix.to_owned(),
            fixed: fixed.iter().map(|(n, v)| ((*n).to_owned(), clean(v))).collect(),
            table: Mutex::default(),
        }
    }

    fn with(
        &self,
        name: &str,
        labels: &[Label<'_>],
        make: impl FnOnce() -> Series,
        act: impl FnOnce(&mut Series),
    ) {
        let name = if self.prefix.is_empty() { name.to_owned() } else { format!("{}_{name}", self.prefix) };
        let mut all: Vec<(&str, String)> = self.fixed.iter().map(|(n, v)| (n.as_str(), v.clone())).collect();
        all.extend(labels.iter().map(|(n, v)| (*n, clean(v))));
        all.sort();
        let mut key = String::new();
        for (label, value) in all {
            let comma = if key.is_empty() { "" } else { "," };
            let _ = write!(key, "{comma}{label}=\"{value}\"");
        }
        let table = &mut *self.table.lock();
        let family = table.families.entry(name).or_default();
        if !family.contains_key(&key) {
            if table.series >= SERIES_MAX {
                return;
            }
            table.series += 1;
        }
        act(family.entry(key).or_insert_with(make));
    }

    /// Adds to a counter.
    pub fn counter(&self, name: &str, labels: &[Label<'_>], add: f64) {
        self.with(
            name,
            labels,
            || Series::Counter(0.0),
            |s| {
                if let Series::Counter(value) = s {
                    *value += add;
                }
            },
        );
    }

    /// Sets a gauge.
    pub fn gauge(&self, name: &str, labels: &[Label<'_>], to: f64) {
        self.with(
            name,
            labels,
            || Series::Gauge(0.0),
            |s| {
                if let Series::Gauge(value) = s {
                    *value = to;
                }
            },
        );
    }

    /// Adds to a gauge; a negative number takes away.
    pub fn gauge_add(&self, name: &str, labels: &[Label<'_>], add: f64) {
        self.with(
            name,
            labels,
            || Series::Gauge(0.0),
            |s| {
                if let Series::Gauge(value) = s {
                    *value += add;
                }
            },
        );
    }

    /// One observation of a summary.
    pub fn sample(&self, name: &str, labels: &[Label<'_>], seen: f64) {
        let now = crate::clock::now().mono;
        self.with(name, labels, empty_summary, |s| {
            if let Series::Summary { window, sum, count } = s {
                *sum += seen;
                *count += 1;
                if window.len() >= WINDOW_MAX {
                    window.pop_front();
                }
                window.push_back((now, seen));
            }
        });
    }

    /// One call: counter `name` and summary `name_elapsed_time` in milliseconds, both with the status.
    pub fn call(&self, name: &str, labels: &[Label<'_>], status: &str, elapsed: Duration) {
        let mut all = labels.to_vec();
        all.push(("status", status));
        self.counter(name, &all, 1.0);
        self.sample(&format!("{name}_elapsed_time"), &all, elapsed.as_secs_f64() * 1000.0);
    }

    /// The page that a scraper reads.
    #[must_use]
    pub fn render(&self) -> String {
        let now = crate::clock::now().mono;
        let mut page = String::new();
        for (name, family) in &self.table.lock().families {
            let kind = family.values().next().map_or("untyped", Series::kind);
            let _ = writeln!(page, "# HELP {name} {name}\n# TYPE {name} {kind}");
            for (labels, series) in family {
                match series {
                    Series::Counter(value) | Series::Gauge(value) => {
                        let _ = writeln!(page, "{name}{} {value}", braces(labels, ""));
                    }
                    Series::Summary { window, sum, count } => {
                        for (quantile, text) in QUANTILES {
                            let label = format!("quantile=\"{text}\"");
                            let value = at_quantile(window, now, quantile);
                            let _ = writeln!(page, "{name}{} {value}", braces(labels, &label));
                        }
                        let _ = writeln!(page, "{name}_sum{} {sum}", braces(labels, ""));
                        let _ = writeln!(page, "{name}_count{} {count}", braces(labels, ""));
                    }
                }
            }
        }
        page
    }
}

fn empty_summary() -> Series {
    Series::Summary { window: VecDeque::new(), sum: 0.0, count: 0 }
}

fn braces(labels: &str, more: &str) -> String {
    match (labels.is_empty(), more.is_empty()) {
        (true, true) => String::new(),
        (false, true) => format!("{{{labels}}}"),
        (true, false) => format!("{{{more}}}"),
        (false, false) => format!("{{{labels},{more}}}"),
    }
}

fn at_quantile(window: &VecDeque<(Tick, f64)>, now: Tick, quantile: f64) -> f64 {
    let mut seen: Vec<f64> =
        window.iter().filter(|(at, _)| now.since(*at) <= WINDOW_AGE).map(|(_, v)| *v).collect();
    seen.sort_by(f64::total_cmp);
    let last = seen.len().saturating_sub(1);
    // At most 256 observations: the index fits whatever the quantile.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let index = (last as f64 * quantile).round() as usize;
    seen.get(index).copied().unwrap_or(f64::NAN)
}

/// Label values keep letters, digits and underscores; each run of other characters becomes one underscore.
fn clean(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        if c.is_ascii_alphanumeric() || c == '_' {
            out.push(c);
        } else if !out.ends_with('_') {
            out.push('_');
        }
    }
    out
}

/// The metric name of a gRPC method, without prefix: `rpc_workload_api_fetch_x509svid`.
/// `service` is the short name of the logs (`WorkloadAPI`, `agent.v1.Agent`, `Health`).
#[must_use]
pub fn snake_rpc(service: &str, method: &str) -> String {
    let mut name = String::from("rpc");
    for part in service.split('.').chain([method]) {
        name.push('_');
        name.push_str(&snake(part));
    }
    name
}

fn snake(part: &str) -> String {
    if part == "SubscribeToX509SVIDs" {
        return "subscribe_to_x509_svids".into();
    }
    let chars: Vec<char> = part.chars().collect();
    let mut out = String::new();
    for (at, c) in chars.iter().enumerate() {
        let lower = |i: Option<usize>| i.and_then(|i| chars.get(i)).is_some_and(char::is_ascii_lowercase);
        let inner = at > 0 && at + 1 < chars.len();
        if c.is_ascii_uppercase() && inner && (lower(at.checked_sub(1)) || lower(Some(at + 1))) {
            out.push('_');
        }
        out.push(if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' });
    }
    out
}

/// The name of a status code as SPIRE's labels spell it.
#[must_use]
pub fn code_name(code: tonic::Code) -> &'static str {
    use tonic::Code;
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn method_names_follow_the_rule_of_the_original() {
        for (service, method, name) in [
            ("WorkloadAPI", "FetchX509SVID", "rpc_workload_api_fetch_x509svid"),
            ("WorkloadAPI", "FetchX509Bundles", "rpc_workload_api_fetch_x509_bundles"),
            ("WorkloadAPI", "FetchJWTSVID", "rpc_workload_api_fetch_jwtsvid"),
            ("svid.v1.SVID", "BatchNewX509SVID", "rpc_svid_v1_svid_batch_new_x509svid"),
            ("svid.v1.SVID", "NewDownstreamX509CA", "rpc_svid_v1_svid_new_downstream_x509ca"),
            ("agent.v1.Agent", "AttestAgent", "rpc_agent_v1_agent_attest_agent"),
            ("DelegatedIdentity", "SubscribeToX509SVIDs", "rpc_delegated_identity_subscribe_to_x509_svids"),
            ("Health", "Check", "rpc_health_check"),
        ] {
            assert_eq!(snake_rpc(service, method), name);
        }
    }

    #[test]
    fn a_call_is_a_counter_and_a_summary() {
        let registry = Registry::new("spire_agent", &[("host", "node-1.a")]);
        registry.call("rpc_health_check", &[], "OK", Duration::from_millis(2));
        let page = registry.render();
        assert!(page.contains(
            "# TYPE spire_agent_rpc_health_check counter\nspire_agent_rpc_health_check{host=\"node_1_a\",status=\"OK\"} 1\n"
        ));
        assert!(page.contains(
            "spire_agent_rpc_health_check_elapsed_time{host=\"node_1_a\",status=\"OK\",quantile=\"0.5\"} 2\n"
        ));
        assert!(page.contains("_elapsed_time_count{host=\"node_1_a\",status=\"OK\"} 1\n"));
    }

    #[test]
    fn the_number_of_series_is_bounded() {
        let registry = Registry::new("", &[]);
        for i in 0..SERIES_MAX + 10 {
            registry.counter("c", &[("n", &i.to_string())], 1.0);
        }
        assert_eq!(registry.render().lines().filter(|l| !l.starts_with('#')).count(), SERIES_MAX);
    }

    #[test]
    fn label_values_are_cleaned() {
        assert_eq!(clean("example.org"), "example_org");
        assert_eq!(clean("1.16.0-dev  x\""), "1_16_0_dev_x_");
    }
}
