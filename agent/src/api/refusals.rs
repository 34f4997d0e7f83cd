//! One log line per refused process and period: who asked, with which selectors, and which entry came closest.
//!
//! Never floods the log, never delays the answer.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

use avouch_domain::{SelectorSet, Tick};
use parking_lot::Mutex;

use crate::limits::{REFUSAL_LOG_PERIOD, REFUSALS_REMEMBERED_MAX};
use crate::peer::Caller;
use crate::supply::Supply;

/// Remembers which processes were refused lately.
#[derive(Debug, Default)]
pub struct Refusals {
    seen: Mutex<HashMap<i32, Seen>>,
    /// Only selectors with one of these beginnings are shown; empty = all.
    shown: Vec<String>,
}

#[derive(Debug)]
struct Seen {
    at: Tick,
    since: u64,
}

impl Refusals {
    /// `shown` is the `log_selectors` list of the configuration.
    #[must_use]
    pub fn new(shown: Vec<String>) -> Self {
        Self { seen: Mutex::default(), shown }
    }

    /// How many refusals went unlogged since the last line, if a line is due.
    pub fn due(&self, pid: i32, now: Tick) -> Option<u64> {
        let seen = &mut *self.seen.lock();
        if let Some(last) = seen.get_mut(&pid)
            && now.since(last.at) < REFUSAL_LOG_PERIOD
        {
            last.since += 1;
            return None;
        }
        let unlogged = seen.remove(&pid).map_or(0, |last| last.since);
        if seen.len() >= REFUSALS_REMEMBERED_MAX {
            seen.retain(|_, last| now.since(last.at) < REFUSAL_LOG_PERIOD);
            if seen.len() >= REFUSALS_REMEMBERED_MAX {
                return None; // a flood of processes: the lines that are there tell enough
            }
        }
        seen.insert(pid, Seen { at: now, since: 0 });
        Some(unlogged)
    }

    /// Writes the line in the background if one is due.
    pub fn note(
        &self,
        supply: &Arc<dyn Supply>,
        caller: &Caller,
        selectors: &SelectorSet,
        method: &'static str,
        now: Tick,
    ) {
        if caller.is_self() {
            return;
        }
        let Some(unlogged) = self.due(caller.pid, now) else { return };
        let (pid, supply, selectors) = (caller.pid, supply.clone(), selectors.clone());
        let shown = self.describe(&selectors);
        tokio::spawn(async move {
            let nearest = match supply.nearest(&selectors).await {
                None => "none".to_owned(),
                Some(near) => {
                    let mut text = format!("entry {} of {} also needs", near.entry_id, near.spiffe_id);
                    for selector in &near.missing {
                        let _ = write!(text, " {selector}");
                    }
                    text
                }
            };
            tracing::error!(
                subsystem_name = "endpoints",
                service = "WorkloadAPI",
                method,
                pid,
                registered = false,
                selectors = shown,
                nearest,
                unlogged,
                "No identity issued"
            );
        });
    }

    fn describe(&self, selectors: &SelectorSet) -> String {
        let mut text = String::new();
        for selector in selectors {
            let text_of = selector.as_str();
            if self.shown.is_empty() || self.shown.iter().any(|prefix| text_of.starts_with(prefix.as_str())) {
                let comma = if text.is_empty() { "" } else { "," };
                let _ = write!(text, "{comma}{text_of}");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_process_and_period_that_counts_the_rest() {
        let refusals = Refusals::default();
        assert_eq!(refusals.due(1, Tick(0)), Some(0));
        assert_eq!(refusals.due(1, Tick(10)), None);
        assert_eq!(refusals.due(1, Tick(20)), None);
        assert_eq!(refusals.due(2, Tick(20)), Some(0));
        assert_eq!(refusals.due(1, Tick(10_000)), Some(2));
    }

    #[test]
    fn a_flood_of_processes_is_bounded() {
        let refusals = Refusals::default();
        let count = i32::try_from(REFUSALS_REMEMBERED_MAX).unwrap();
        let lines = (0..count * 2).filter(|pid| refusals.due(*pid, Tick(5)).is_some()).count();
        assert_eq!(lines, REFUSALS_REMEMBERED_MAX);
    }

    #[test]
    fn only_configured_selectors_are_shown() {
        let refusals = Refusals::new(vec!["unix:uid".into()]);
        let set = avouch_domain::fixtures::set(&["unix:uid:7", "unix:path:/bin/x"]);
        assert_eq!(refusals.describe(&set), "unix:uid:7");
    }
}
