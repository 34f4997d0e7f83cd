//! Benchmarks: each row is a ratio against a yardstick measured in the same run.
//!
//! Never a test: a row informs; `docs/PERFORMANCE.md` keeps what was measured.
#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used)]

mod papers;
mod yardstick;

use std::time::{Duration, Instant};

/// Length of one sample.
const SAMPLE: Duration = Duration::from_millis(300);
/// Samples per row; the median counts.
const SAMPLES: usize = 5;

/// Microseconds per call, median of the samples.
fn measure(mut call: impl FnMut()) -> f64 {
    let mut samples: Vec<f64> = (0..SAMPLES)
        .map(|_| {
            let begun = Instant::now();
            let mut calls = 0_u32;
            while begun.elapsed() < SAMPLE {
                call();
                calls += 1;
            }
            begun.elapsed().as_secs_f64() * 1e6 / f64::from(calls)
        })
        .collect();
    samples.sort_by(f64::total_cmp);
    samples.get(SAMPLES / 2).copied().unwrap_or(f64::NAN)
}

fn row(what: &str, micros: f64, yardstick: &str, yard: f64) {
    println!("{what:<44} {micros:>9.1} us   {:>6.2} x {yardstick} ({yard:.1} us)", micros / yard);
}

fn main() {
    let floor = yardstick::verify_and_sign();
    let sign = yardstick::sign();
    row("X.509-SVID from a CSR, in process", papers::x509_from_csr(), "verify + sign", floor);
    row("JWT-SVID, in process", papers::jwt(), "sign", sign);
}
