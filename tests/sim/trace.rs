//! One line per event, in fixed columns: time, host, role, event, revision, authority, oldest expiry, then words.

use std::collections::VecDeque;

use avouch_domain::{AuthorityId, Timestamp};

/// Lines kept for the report of a failure.
const KEPT: usize = 40;

/// What becomes of the lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tracing {
    /// None is made: that costs time.
    #[default]
    Off,
    /// The last ones are kept.
    Last,
    /// Each is printed, too.
    All,
}

/// What stands in the columns beside time and words.
#[derive(Clone, Debug)]
pub struct Place {
    pub host: String,
    pub role: &'static str,
    pub revision: u64,
    /// Server: what signs. Agent: what signed the SVID that ends first.
    pub oldest: Option<(AuthorityId, Timestamp)>,
    pub wall: Timestamp,
}

#[derive(Debug, Default)]
pub struct Trace {
    pub tracing: Tracing,
    /// What people and faults did.
    acts: Vec<String>,
    lines: VecDeque<String>,
}

pub fn heading() -> String {
    format!(
        "{:>10} {:<8} {:<6} {:<14} {:>6} {:<18} {:>8}  {}",
        "time ms", "host", "role", "event", "rev", "authority", "ends in", "what"
    )
}

impl Trace {
    pub fn on(&self) -> bool {
        self.tracing != Tracing::Off
    }

    pub fn line(&mut self, time: u64, place: &Place, event: &str, words: &str) {
        let (authority, ends) = match &place.oldest {
            Some((id, end)) => (id.to_string(), format!("{} s", (end.0 - place.wall.0) / 1000)),
            None => ("-".to_owned(), "-".to_owned()),
        };
        let Place { host, role, revision, .. } = place;
        let line = format!(
            "{time:>10} {host:<8} {role:<6} {event:<14} {revision:>6} {authority:<18} {ends:>8}  {words}"
        );
        let line = line.trim_end().to_owned();
        if self.tracing == Tracing::All {
            println!("{line}");
        }
        if matches!(*role, "admin" | "fault") {
            self.acts.push(line.clone());
        }
        // Of the last lines none is given away to a beat that says nothing.
        if event != "heartbeat" {
            self.lines.push_back(line);
        }
        if self.lines.len() > KEPT {
            self.lines.pop_front();
        }
    }

    /// What people and faults did, below the heading.
    pub fn acts(&self) -> String {
        self.acts.iter().fold(heading() + "\n", |text, line| text + line + "\n")
    }

    /// The last lines, below their heading.
    pub fn last(&self) -> String {
        self.lines.iter().fold(heading() + "\n", |text, line| text + line + "\n")
    }
}
