//! One line a row: what was measured, against what, and whether it keeps its bar.

use std::cell::Cell;

/// What a row must keep.
#[derive(Clone, Copy, Debug)]
pub enum Bar {
    AtMost(f64),
    AtLeast(f64),
    /// Told for comparison only.
    Free,
}

/// Something measured in the same run that the row is divided by.
#[derive(Clone, Copy, Debug)]
pub struct Yard {
    pub name: &'static str,
    pub value: f64,
}

/// Prints rows and counts those over their bar.
#[derive(Debug, Default)]
pub struct Report {
    over: Cell<usize>,
    rows: Cell<usize>,
}

impl Report {
    /// A row whose bar is about the value itself.
    pub fn plain(&self, what: &str, value: f64, unit: &str, bar: Bar) {
        self.line(what, &format!("{value:>10.1} {unit}"), value, unit, bar);
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

    /// A heading.
    pub fn part(&self, name: &str) {
        println!("\n{name}");
    }

    fn line(&self, what: &str, measured: &str, judged: f64, unit: &str, bar: Bar) {
        let (verdict, kept) = match bar {
            Bar::AtMost(limit) => (format!("bar <= {limit} {unit}"), judged <= limit),
            Bar::AtLeast(limit) => (format!("bar >= {limit} {unit}"), judged >= limit),
            Bar::Free => (String::new(), true),
        };
        let mark = if kept { "" } else { "  OVER" };
        println!("  {what:<66} {measured}   {verdict}{mark}");
        self.rows.set(self.rows.get() + 1);
        self.over.set(self.over.get() + usize::from(!kept));
    }

    /// Rows, and how many of them were over their bar.
    pub fn sum(&self) -> (usize, usize) {
        (self.rows.get(), self.over.get())
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
