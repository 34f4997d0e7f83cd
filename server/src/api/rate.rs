//! Rate limits: token buckets per client address that make a caller wait its turn.
//!
//! Never unbounded: waiters per address and remembered addresses are limited. Callers on the admin socket never
//! come here.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use avouch_domain::Tick;
use parking_lot::Mutex;

use crate::clock::Clock;
use crate::limits::{RATE_ADDRESSES_MAX, RATE_GENERATION, RATE_WAITERS_MAX};

/// Why a call may not wait for its turn. The texts are those of the limiter that SPIRE uses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// One call asks for more than a full bucket holds.
    #[error("rate ({asked}) exceeds burst size ({burst})")]
    Burst { asked: u32, burst: u32 },
    /// The caller would be gone before its turn.
    #[error("rate: Wait(n={0}) would exceed context deadline")]
    Deadline(u32),
    /// Too many calls of this address wait already.
    #[error("{RATE_WAITERS_MAX} calls of this address are waiting already")]
    Waiters,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Below zero: that many tokens are promised to waiters.
    tokens: f64,
    at: Tick,
    waiters: u32,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<IpAddr, Bucket>,
    old: HashMap<IpAddr, Bucket>,
    turned: Tick,
}

/// One kind of work, limited to `per_second` (which is also the burst) for each client address.
#[derive(Debug)]
pub struct RateLimiter {
    per_second: u32,
    clock: Clock,
    buckets: Mutex<Generations>,
}

impl RateLimiter {
    /// A limiter whose buckets start full.
    #[must_use]
    pub fn new(per_second: u32, clock: Clock) -> Self {
        Self { per_second, clock, buckets: Mutex::new(Generations::default()) }
    }

    /// Takes `asked` tokens of `address`, waiting for them. `deadline` is the time the caller has left.
    ///
    /// # Errors
    /// [`RateError`] at once, if waiting is of no use.
    pub async fn take(
        &self,
        address: IpAddr,
        asked: u32,
        deadline: Option<Duration>,
    ) -> Result<(), RateError> {
        let wait = self.reserve(address, asked, deadline)?;
        if wait.is_zero() {
            return Ok(());
        }
        let mut turn = Turn { limiter: self, address, asked, given: false };
        tokio::time::sleep(wait).await;
        turn.given = true;
        Ok(())
    }

    fn reserve(
        &self,
        address: IpAddr,
        asked: u32,
        deadline: Option<Duration>,
    ) -> Result<Duration, RateError> {
        let burst = self.per_second;
        if asked > burst {
            return Err(RateError::Burst { asked, burst });
        }
        let now = (self.clock)().mono;
        let mut buckets = self.buckets.lock();
        buckets.turn(now);
        let full = Bucket { tokens: f64::from(burst), at: now, waiters: 0 };
        let moved = buckets.old.remove(&address).unwrap_or(full);
        let bucket = buckets.young.entry(address).or_insert(moved);
        let refill = now.since(bucket.at).as_secs_f64() * f64::from(burst);
        let left = (bucket.tokens + refill).min(f64::from(burst)) - f64::from(asked);
        let wait =
            if left < 0.0 { Duration::from_secs_f64(-left / f64::from(burst)) } else { Duration::ZERO };
        if deadline.is_some_and(|d| wait > d) {
            return Err(RateError::Deadline(asked));
        }
        if !wait.is_zero() && bucket.waiters >= RATE_WAITERS_MAX {
            return Err(RateError::Waiters);
        }
        bucket.tokens = left;
        bucket.at = now;
        bucket.waiters += u32::from(!wait.is_zero());
        Ok(wait)
    }

    /// Addresses remembered, for the test of forgetting.
    #[cfg(test)]
    fn addresses(&self) -> usize {
        let buckets = self.buckets.lock();
        buckets.young.len() + buckets.old.len()
    }
}

impl Generations {
    fn turn(&mut self, now: Tick) {
        if now.since(self.turned) >= RATE_GENERATION || self.young.len() >= RATE_ADDRESSES_MAX {
            // Two generations passed: what was young is older than one of them already.
            if now.since(self.turned) >= RATE_GENERATION * 2 {
                self.young.clear();
            }
            self.old = std::mem::take(&mut self.young);
            self.turned = now;
        }
    }
}

/// A place in the queue; leaving early gives the tokens back.
struct Turn<'a> {
    limiter: &'a RateLimiter,
    address: IpAddr,
    asked: u32,
    given: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut guard = self.limiter.buckets.lock();
        let Generations { young, old, .. } = &mut *guard;
        if let Some(bucket) = young.get_mut(&self.address).or_else(|| old.get_mut(&self.address)) {
            bucket.waiters = bucket.waiters.saturating_sub(1);
            if !self.given {
                bucket.tokens += f64::from(self.asked);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paused time of the test's own runtime.
    fn test_clock() -> avouch_domain::Now {
        thread_local!(static START: tokio::time::Instant = tokio::time::Instant::now());
        let mono = START.with(tokio::time::Instant::elapsed).as_millis();
        avouch_domain::Now { mono: Tick(u64::try_from(mono).unwrap()), ..Default::default() }
    }

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn limiter(per_second: u32) -> RateLimiter {
        RateLimiter::new(per_second, test_clock)
    }

    #[tokio::test(start_paused = true)]
    async fn the_second_call_waits_for_its_turn() {
        let limiter = limiter(1);
        let start = tokio::time::Instant::now();
        for _ in 0..3 {
            limiter.take(A, 1, None).await.unwrap();
        }
        assert_eq!(start.elapsed().as_secs(), 2);
        limiter.take(B, 1, None).await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 2, "another address has its own bucket");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_cannot_wait_long_enough_is_refused_at_once() {
        let limiter = limiter(1);
        limiter.take(A, 1, None).await.unwrap();
        let refused = limiter.take(A, 1, Some(Duration::from_millis(300))).await.unwrap_err();
        assert_eq!(refused.to_string(), "rate: Wait(n=1) would exceed context deadline");
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_a_full_bucket_is_refused() {
        let refused = limiter(500).take(A, 501, None).await.unwrap_err();
        assert_eq!(refused.to_string(), "rate (501) exceeds burst size (500)");
        assert!(limiter(500).take(A, 500, None).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_leaves_gives_its_tokens_back() {
        let limiter = limiter(1);
        limiter.take(A, 1, None).await.unwrap();
        let gone = tokio::time::timeout(Duration::from_millis(1), limiter.take(A, 1, None)).await;
        assert!(gone.is_err());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(limiter.reserve(A, 1, None), Ok(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_of_one_address_is_bounded() {
        let limiter = limiter(1);
        for _ in 0..=RATE_WAITERS_MAX {
            limiter.reserve(A, 1, None).unwrap();
        }
        assert_eq!(limiter.reserve(A, 1, None), Err(RateError::Waiters));
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_address_is_forgotten() {
        let limiter = limiter(1);
        limiter.take(A, 1, None).await.unwrap();
        for _ in 0..2 {
            tokio::time::advance(RATE_GENERATION).await;
            limiter.take(B, 1, None).await.unwrap();
        }
        assert_eq!(limiter.addresses(), 1);
    }
}
