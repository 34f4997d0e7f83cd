//! The series of one process and the page that a scraper reads, in the Prometheus text form.
//!
//! A label value lives as long as the program: no caller can choose one, so the number of series is bounded by what
//! is written in the source. It has a limit all the same. Never blocks on I/O; a count takes one short lock and, after
//! the first of its kind, no memory.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::time::Duration;

use avouch_domain::Tick;
use parking_lot::Mutex;
use tonic::Code;

use super::names::{clean, snake_rpc};
use super::table::{Call, Counter, Gauge, Kind, Methods, Metric, Sample};
use crate::rpc::code_name;

/// Most series of one line; what comes after is dropped.
const SERIES_MAX: usize = 1024;
/// Most observations a summary remembers for its quantiles.
const WINDOW_MAX: usize = 256;
/// Observations older than this no longer count in quantiles, which then show NaN.
const WINDOW_AGE: Duration = Duration::from_secs(60);
const QUANTILES: [(f64, &str); 3] = [(0.5, "0.5"), (0.9, "0.9"), (0.99, "0.99")];

#[derive(Default)]
struct Summary {
    window: VecDeque<(Tick, f64)>,
    sum: f64,
    count: u64,
}

/// One set of label values of a line.
#[derive(Default)]
struct Series {
    /// What follows the name of the line.
    ending: String,
    /// As they stand between braces.
    labels: String,
    number: f64,
    summary: Summary,
}

struct Family {
    metric: &'static Metric,
    /// By the values of the line's own labels; for methods by service and method; last the status.
    series: Mutex<BTreeMap<Box<[&'static str]>, Series>>,
}

/// All series of one process.
pub struct Registry {
    prefix: String,
    fixed: Vec<(String, String)>,
    families: Vec<Family>,
    /// By service and method: how series spell them.
    methods: BTreeMap<(&'static str, &'static str), String>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Registry {
    /// The series of `table`. `prefix` goes before each name with an underscore (`spire_agent`), `fixed` labels stand
    /// on every series, and `methods` are those that may be counted: service and method, as in the logs.
    #[must_use]
    pub fn new(
        prefix: &str,
        table: &'static [Metric],
        methods: &[(&'static str, &'static str)],
        fixed: &[(&str, &str)],
    ) -> Self {
        Self {
            prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}_") },
            fixed: fixed.iter().map(|(n, v)| ((*n).to_owned(), clean(v))).collect(),
            families: table.iter().map(|metric| Family { metric, series: Mutex::default() }).collect(),
            methods: methods.iter().map(|(s, m)| ((*s, *m), format!("_{}", snake_rpc(s, m)))).collect(),
        }
    }

    fn with(&self, line: usize, values: &[&'static str], ending: &str, act: impl FnOnce(&mut Series)) {
        let Some(family) = self.families.get(line) else { return };
        let series = &mut *family.series.lock();
        if let Some(known) = series.get_mut(values) {
            act(known);
        } else if series.len() < SERIES_MAX {
            // The last values belong to the labels; those before them to a method's name.
            let names = family
                .metric
                .labels
                .iter()
                .copied()
                .chain(matches!(family.metric.kind, Kind::Call | Kind::Methods).then_some("status"));
            let skipped = if family.metric.kind == Kind::Methods { 2 } else { 0 };
            let own = names.zip(values.iter().skip(skipped));
            let mut all: Vec<(&str, String)> = own.map(|(name, value)| (name, clean(value))).collect();
            all.extend(self.fixed.iter().map(|(name, value)| (name.as_str(), value.clone())));
            all.sort();
            let labels: Vec<_> = all.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
            let fresh = Series { ending: ending.to_owned(), labels: labels.join(","), ..Series::default() };
            act(series.entry(values.into()).or_insert(fresh));
        }
    }

    /// Adds to a counter.
    pub fn add<const N: usize>(&self, counter: Counter<N>, values: [&'static str; N], more: f64) {
        self.with(counter.0, &values, "", |s| s.number += more);
    }

    /// Sets a gauge.
    pub fn set<const N: usize>(&self, gauge: Gauge<N>, values: [&'static str; N], to: f64) {
        self.with(gauge.0, &values, "", |s| s.number = to);
    }

    /// Adds to a gauge; a negative number takes away.
    pub fn shift<const N: usize>(&self, gauge: Gauge<N>, values: [&'static str; N], by: f64) {
        self.with(gauge.0, &values, "", |s| s.number += by);
    }

    /// One observation of a summary.
    pub fn observe<const N: usize>(&self, sample: Sample<N>, values: [&'static str; N], seen: f64) {
        self.with(sample.0, &values, "", |s| s.summary.take(seen, 1));
    }

    /// One call, how it ended and how long it took.
    pub fn call<const N: usize>(
        &self,
        call: Call<N>,
        values: [&'static str; N],
        code: Code,
        elapsed: Duration,
    ) {
        self.calls(call, values, code, elapsed, 1);
    }

    /// As many calls that ended together.
    pub fn calls<const N: usize>(
        &self,
        call: Call<N>,
        values: [&'static str; N],
        code: Code,
        elapsed: Duration,
        many: u32,
    ) {
        // No line has more labels than this.
        let mut all = [code_name(code); 4];
        for (place, value) in all.iter_mut().zip(values) {
            *place = value;
        }
        let Some(all) = all.get(..=N) else { return };
        self.with(call.0, all, "", |s| s.take_calls(elapsed, many));
    }

    /// One call of a method. What is not among the methods of this registry is not counted.
    pub fn method<const N: usize>(
        &self,
        line: Methods<N>,
        (service, method): (&'static str, &'static str),
        code: Code,
        elapsed: Duration,
    ) {
        let Some(ending) = self.methods.get(&(service, method)) else { return };
        self.with(line.0, &[service, method, code_name(code)], ending, |s| s.take_calls(elapsed, 1));
    }

    /// The page that a scraper reads.
    #[must_use]
    pub fn render(&self) -> String {
        let now = crate::clock::now().mono;
        let mut pages: BTreeMap<String, (&str, String)> = BTreeMap::new();
        for family in &self.families {
            for series in family.series.lock().values() {
                let name = format!("{}{}{}", self.prefix, family.metric.name, series.ending);
                let kind = family.metric.kind;
                if kind != Kind::Sample {
                    let word = if kind == Kind::Gauge { "gauge" } else { "counter" };
                    let page = &mut pages.entry(name.clone()).or_insert((word, String::new())).1;
                    let _ = writeln!(page, "{name}{} {}", braces(&series.labels, ""), series.number);
                }
                let timed = matches!(kind, Kind::Call | Kind::Methods);
                if timed || kind == Kind::Sample {
                    let name = if timed { format!("{name}_elapsed_time") } else { name };
                    let page = &mut pages.entry(name.clone()).or_insert(("summary", String::new())).1;
                    series.summary.render(&name, &series.labels, now, page);
                }
            }
        }
        pages.iter().fold(String::new(), |mut all, (name, (kind, page))| {
            let _ = write!(all, "# HELP {name} {name}\n# TYPE {name} {kind}\n{page}");
            all
        })
    }
}

impl Series {
    fn take_calls(&mut self, elapsed: Duration, many: u32) {
        self.number += f64::from(many);
        self.summary.take(elapsed.as_secs_f64() * 1000.0, many);
    }
}

impl Summary {
    fn take(&mut self, seen: f64, times: u32) {
        let now = crate::clock::now().mono;
        self.sum += seen * f64::from(times);
        self.count += u64::from(times);
        for _ in 0..usize::try_from(times).unwrap_or(WINDOW_MAX).min(WINDOW_MAX) {
            if self.window.len() >= WINDOW_MAX {
                self.window.pop_front();
            }
            self.window.push_back((now, seen));
        }
    }

    fn render(&self, name: &str, labels: &str, now: Tick, page: &mut String) {
        for (quantile, text) in QUANTILES {
            let label = format!("quantile=\"{text}\"");
            let value = self.at_quantile(now, quantile);
            let _ = writeln!(page, "{name}{} {value}", braces(labels, &label));
        }
        let _ = writeln!(page, "{name}_sum{} {}", braces(labels, ""), self.sum);
        let _ = writeln!(page, "{name}_count{} {}", braces(labels, ""), self.count);
    }

    fn at_quantile(&self, now: Tick, quantile: f64) -> f64 {
        let mut seen: Vec<f64> =
            self.window.iter().filter(|(at, _)| now.since(*at) <= WINDOW_AGE).map(|(_, v)| *v).collect();
        seen.sort_by(f64::total_cmp);
        let last = seen.len().saturating_sub(1);
        // At most 256 observations: the index fits whatever the quantile.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let index = (last as f64 * quantile).round() as usize;
        seen.get(index).copied().unwrap_or(f64::NAN)
    }
}

fn braces(labels: &str, more: &str) -> String {
    match (labels.is_empty(), more.is_empty()) {
        (true, true) => String::new(),
        (false, true) => format!("{{{labels}}}"),
        (true, false) => format!("{{{more}}}"),
        (false, false) => format!("{{{labels},{more}}}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::metric_table! {
        TURNS: Counter["way"] = Avouch "turns", "Turns taken.";
        LEVEL: Gauge[] = Avouch "level", "How high.";
        SIZES: Sample[] = Avouch "sizes", "How large.";
        LOOKS: Call["attestor"] = Spire "looks", "Looks taken.";
        RPC: Methods[] = Spire "rpc", "Calls.";
    }

    fn registry(fixed: &[(&str, &str)]) -> Registry {
        Registry::new("spire_agent", TABLE, &[("Health", "Check")], fixed)
    }

    fn lines(registry: &Registry) -> Vec<String> {
        registry.render().lines().filter(|l| !l.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn a_call_is_a_counter_and_a_summary() {
        let registry = registry(&[("host", "node-1.a")]);
        registry.method(RPC, ("Health", "Check"), Code::Ok, Duration::from_millis(2));
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
    fn calls_that_ended_together_are_as_many_observations() {
        let registry = registry(&[]);
        registry.calls(LOOKS, ["unix"], Code::Unknown, Duration::from_millis(2), 3);
        let lines = lines(&registry);
        let labels = "{attestor=\"unix\",status=\"Unknown\"}";
        for line in [
            format!("spire_agent_looks{labels} 3"),
            format!("spire_agent_looks_elapsed_time_sum{labels} 6"),
            format!("spire_agent_looks_elapsed_time_count{labels} 3"),
        ] {
            assert!(lines.contains(&line), "{line} is not in {lines:?}");
        }
    }

    #[test]
    fn counters_add_gauges_take_the_last_and_summaries_sum_up() {
        let registry = registry(&[]);
        registry.add(TURNS, ["left"], 2.0);
        registry.add(TURNS, ["left"], 1.0);
        registry.set(LEVEL, [], 5.0);
        registry.shift(LEVEL, [], -1.0);
        registry.observe(SIZES, [], 7.0);
        let lines = lines(&registry);
        for line in ["spire_agent_turns{way=\"left\"} 3", "spire_agent_level 4", "spire_agent_sizes_sum 7"] {
            assert!(lines.contains(&line.to_owned()), "{line} is not in {lines:?}");
        }
    }

    #[test]
    fn a_method_that_is_not_listed_is_not_counted() {
        let registry = registry(&[]);
        registry.method(RPC, ("Health", "Watch"), Code::Ok, Duration::ZERO);
        assert_eq!(registry.render(), "");
    }

    #[test]
    fn the_number_of_series_is_bounded() {
        let registry = registry(&[]);
        for i in 0..SERIES_MAX + 10 {
            registry.add(TURNS, [i.to_string().leak()], 1.0);
        }
        assert_eq!(lines(&registry).len(), SERIES_MAX);
    }
}
