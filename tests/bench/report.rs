//! One line a row: what was measured, against what, and whether it keeps its bar and is not much worse than last time.
//!
//! Bars that are times are those of the reference machine. On a slower one a time is judged as what it would be there, by
//! the floor that the part found; it is never judged better than it was seen on a machine as fast or faster.

use std::cell::{Cell, RefCell};

use crate::last::Last;

/// What a row must keep.
#[derive(Clone, Copy, Debug)]
pub enum Bar {
    AtMost(f64),
    AtLeast(f64),
    /// Told for comparison only.
    Free,
}

impl Bar {
    fn kept(self, judged: f64) -> bool {
        match self {
            Self::AtMost(limit) => judged <= limit,
            Self::AtLeast(limit) => judged >= limit,
            Self::Free => true,
        }
    }
}

/// The floor of the machine that bars in times are for, in microseconds.
const REFERENCE_FLOOR: f64 = 53.0;
/// Units of a time, and of a number in a time.
const TIMES: [&str; 3] = ["us", "ms", "s"];
const RATES: [&str; 2] = ["/s", "a second"];

/// Something measured in the same run that the row is divided by.
#[derive(Clone, Copy, Debug)]
pub struct Yard {
    pub name: &'static str,
    pub value: f64,
}

/// One row of a part, with what it came to each time that the part was run.
#[derive(Debug)]
struct Row {
    part: String,
    what: String,
    bar: Bar,
    samples: Vec<f64>,
}

impl Row {
    fn judged(&self) -> f64 {
        median(self.samples.clone())
    }

    fn over(&self) -> bool {
        !self.bar.kept(self.judged())
    }

    fn worse(&self, last: &Last) -> bool {
        last.of(&self.part, &self.what).is_some_and(|last| worse(self.judged(), last, self.bar))
    }
}

/// What rows came to in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    pub rows: usize,
    /// Over their bar.
    pub over: usize,
    /// Much worse than last time.
    pub worse: usize,
}

/// Prints rows, and judges them.
#[derive(Debug, Default)]
pub struct Report {
    part: RefCell<String>,
    rows: RefCell<Vec<Row>>,
    last: Last,
    /// How often the part has been run.
    round: Cell<usize>,
    /// How many times slower this machine is than the reference machine; 1 for a faster one.
    slower: Cell<f64>,
}

impl Report {
    /// Rows that are compared with what they came to last.
    pub fn beside(last: Last) -> Self {
        Self { last, slower: Cell::new(1.0), ..Self::default() }
    }

    /// A row whose bar is about the value itself.
    pub fn plain(&self, what: &str, value: f64, unit: &str, bar: Bar) {
        let slower = self.slower.get();
        let judged = match unit {
            _ if TIMES.contains(&unit) => value / slower,
            _ if RATES.contains(&unit) => value * slower,
            _ => value,
        };
        let there =
            if judged == value { String::new() } else { format!(" = {judged:.1} on the reference machine") };
        self.line(what, &format!("{value:>10.1} {unit}{there}"), judged, unit, bar);
    }

    /// A row whose bar is about the ratio to a yardstick; both in microseconds.
    pub fn ratio(&self, what: &str, micros: f64, yard: Yard, bar: Bar) {
        let ratio = micros / yard.value;
        let measured = format!("{micros:>10.1} us = {ratio:.2} x {} ({:.1} us)", yard.name, yard.value);
        self.line(what, &measured, ratio, "x", bar);
    }

    /// The samples behind the row before.
    pub fn each(&self, samples: &[f64], unit: &str) {
        let samples: Vec<_> = samples.iter().map(|sample| format!("{sample:.0}")).collect();
        println!("  {:<66}    each: {} {unit}", "", samples.join(", "));
    }

    /// A row that could not be measured here.
    pub fn absent(&self, what: &str, reason: &str) {
        println!("  {what:<66}    not run: {reason}");
    }

    /// A heading; the rows that follow belong to it. The floor, in microseconds, is this machine's, now.
    pub fn part(&self, name: &str, floor: f64) {
        self.slower.set((floor / REFERENCE_FLOOR).max(1.0));
        println!("\n{name} (floor {floor:.1} us)");
        name.clone_into(&mut self.part.borrow_mut());
        self.round.set(1);
    }

    /// The rows of this part follow once more.
    pub fn again(&self) {
        self.round.set(self.round.get() + 1);
        println!("{}, run {}", self.part.borrow(), self.round.get());
    }

    /// Whether a row of this part came out otherwise than last time, so that one run is not enough to say it.
    pub fn doubtful(&self) -> bool {
        let part = self.part.borrow();
        self.rows.borrow().iter().filter(|row| row.part == *part).any(|row| {
            let known = self.last.of(&row.part, &row.what).is_some_and(|last| !row.bar.kept(last));
            row.worse(&self.last) || (row.over() && !known)
        })
    }

    fn line(&self, what: &str, measured: &str, judged: f64, unit: &str, bar: Bar) {
        let verdict = match bar {
            Bar::AtMost(limit) => format!("bar <= {limit} {unit}"),
            Bar::AtLeast(limit) => format!("bar >= {limit} {unit}"),
            Bar::Free => String::new(),
        };
        let part = self.part.borrow().clone();
        let last = self.last.of(&part, what).filter(|last| worse(judged, *last, bar));
        let mark = match last {
            _ if !bar.kept(judged) => "  OVER".to_owned(),
            Some(last) => format!("  WORSE than {last:.2}"),
            None => String::new(),
        };
        println!("  {what:<66} {measured}   {verdict}{mark}");
        let mut rows = self.rows.borrow_mut();
        match rows.iter_mut().find(|row| row.part == part && row.what == what) {
            Some(row) => {
                row.samples.push(judged);
                assert!(row.samples.len() <= self.round.get(), "two rows of one name: {what}");
            }
            None => rows.push(Row { part, what: what.to_owned(), bar, samples: vec![judged] }),
        }
    }

    /// What the rows came to, each by the median of the runs of its part; names those that failed.
    pub fn sum(&self) -> Sum {
        let rows = self.rows.borrow();
        for row in rows.iter().filter(|row| row.over() || row.worse(&self.last)) {
            let how = if row.over() { "over its bar" } else { "worse than last time" };
            println!("{how}: {}: {}, the median of {}", row.what, row.judged(), row.samples.len());
        }
        let count = |is: &dyn Fn(&Row) -> bool| rows.iter().filter(|row| is(row)).count();
        Sum { rows: rows.len(), over: count(&Row::over), worse: count(&|row| row.worse(&self.last)) }
    }

    /// What is to be known the next time: the rows that have a bar, and those of other parts as they were.
    pub fn kept(self) -> Last {
        let mut last = self.last;
        let rows = self.rows.into_inner();
        last.forget(rows.iter().map(|row| row.part.as_str()));
        for row in rows.iter().filter(|row| !matches!(row.bar, Bar::Free)) {
            last.note(&row.part, &row.what, row.judged());
        }
        last
    }
}

/// A row is worse by three tenths of what it was. What is less than a twentieth of its bar is noise.
fn worse(judged: f64, last: f64, bar: Bar) -> bool {
    const MORE: f64 = 1.3;
    const NOISE: f64 = 0.05;
    match bar {
        Bar::AtMost(limit) => judged > last * MORE && judged - last > limit * NOISE,
        Bar::AtLeast(limit) => judged < last / MORE && last - judged > limit * NOISE,
        Bar::Free => false,
    }
}

/// The middle of the samples.
pub fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// The value that `share` (0 to 1) of the samples do not exceed.
pub fn quantile(samples: &[f64], share: f64) -> f64 {
    let mut samples = samples.to_vec();
    samples.sort_by(f64::total_cmp);
    let rank = ((samples.len() as f64 * share).ceil() as usize).clamp(1, samples.len());
    samples[rank - 1]
}
