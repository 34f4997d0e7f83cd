//! The table of a daemon's series: one line for each, and a typed handle to each line.
//!
//! A handle knows its kind and how many label values it takes, so that a wrong one does not compile. Never: a value.

use std::fmt::Write;

use super::names::snake_rpc;

/// What a line stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// The state of the moment.
    Gauge,
    /// A summary of observations.
    Sample,
    /// A counter and, with `_elapsed_time`, a summary of milliseconds, both with the label `status`.
    Call,
    /// A call for each method of the daemon, whose name ends the name of the series.
    Methods,
}

/// Who gave a series its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// SPIRE: its dashboards find it.
    Spire,
    Avouch,
}

/// One line of a table.
#[derive(Debug)]
pub struct Metric {
    /// Without prefix.
    pub name: &'static str,
    pub kind: Kind,
    /// Labels beside `status` and those that the configuration puts on every series.
    pub labels: &'static [&'static str],
    pub origin: Origin,
    pub meaning: &'static str,
}

macro_rules! handle {
    ($name:ident, $what:literal) => {
        #[doc = $what]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name<const LABELS: usize>(pub(super) usize);

        impl<const LABELS: usize> $name<LABELS> {
            /// For `metric_table!`: the handle of a line of its table.
            #[must_use]
            pub const fn of_line(line: usize) -> Self {
                Self(line)
            }
        }
    };
}

handle!(Counter, "Handle to a counter.");
handle!(Gauge, "Handle to a gauge.");
handle!(Sample, "Handle to a summary.");
handle!(Call, "Handle to a call counter with its summary of elapsed time.");
handle!(Methods, "Handle to the call counters of all methods.");

/// Declares the table of a daemon, `TABLE`, and a constant for each of its lines:
///
/// ```
/// avouch::metric_table! {
///     UPTIME: Gauge[] = Spire "uptime_in_ms", "Time since the start in milliseconds.";
///     LOOK: Call["attestor"] = Spire "workload_api_workload_attestor", "One attestor looked at a process.";
/// }
/// # fn main() {
/// let registry = avouch::metrics::Registry::new("spire_agent", TABLE, &[], &[]);
/// registry.set(UPTIME, [], 5.0);
/// # registry.call(LOOK, ["unix"], tonic::Code::Ok, std::time::Duration::ZERO);
/// assert!(registry.render().contains("spire_agent_uptime_in_ms 5\n"));
/// # }
/// ```
#[macro_export]
macro_rules! metric_table {
    ($($id:ident: $kind:ident[$($label:literal),*] = $origin:ident $name:literal, $meaning:literal;)*) => {
        /// Every series of this daemon.
        pub static TABLE: &[$crate::metrics::Metric] = &[$($crate::metrics::Metric {
            name: $name,
            kind: $crate::metrics::Kind::$kind,
            labels: &[$($label),*],
            origin: $crate::metrics::Origin::$origin,
            meaning: $meaning,
        }),*];

        #[allow(non_camel_case_types, clippy::upper_case_acronyms)] // named as the constants that they number
        enum Line { $($id),* }

        $(
            #[doc = $meaning]
            const $id: $crate::metrics::$kind<{ <[&str]>::len(&[$($label),*]) }> =
                $crate::metrics::$kind::of_line(Line::$id as usize);
        )*
    };
}

/// What `docs/METRICS.md` shows between the marks of a daemon: compared with [`page`] by the test of each table.
#[must_use]
pub fn shown<'a>(document: &'a str, daemon: &str) -> Option<&'a str> {
    let (_, rest) = document.split_once(&format!("<!-- {daemon}: begin -->\n"))?;
    rest.split_once(&format!("<!-- {daemon}: end -->")).map(|(part, _)| part)
}

/// The table as `docs/METRICS.md` shows it, with `prefix` before each name; below it the names that stand for
/// `methods` (service and method, as in the logs).
#[must_use]
pub fn page(prefix: &str, table: &[Metric], methods: &[(&str, &str)]) -> String {
    let mut text = "| Series | Kind | Labels | Name by | Meaning |\n|---|---|---|---|---|\n".to_owned();
    for metric in table {
        let (kind, timed) = match metric.kind {
            Kind::Counter => ("counter", false),
            Kind::Gauge => ("gauge", false),
            Kind::Sample => ("summary", false),
            Kind::Call => ("call", true),
            Kind::Methods => ("call", true),
        };
        let method = if metric.kind == Kind::Methods { "_METHOD" } else { "" };
        let labels = metric.labels.iter().copied().chain(timed.then_some("status"));
        let labels: Vec<_> = labels.map(|l| format!("`{l}`")).collect();
        let origin = if metric.origin == Origin::Spire { "SPIRE" } else { "Avouch" };
        let _ = writeln!(
            text,
            "| `{prefix}_{}{method}` | {kind} | {} | {origin} | {} |",
            metric.name,
            labels.join(" "),
            metric.meaning
        );
    }
    text.push_str("\nMETHOD is one of:\n");
    let mut names: Vec<_> = methods.iter().map(|(service, method)| snake_rpc(service, method)).collect();
    names.sort();
    for name in names {
        let _ = writeln!(text, "`{name}`");
    }
    text
}
