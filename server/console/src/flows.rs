//! Sign-ins on their way to a provider and back.
//!
//! Never lets a browser end what another began: a flow is bound to a cookie and to a local user, ends with its first use, and is
//! kept as little as a link is: of what names it, digests alone.

use std::collections::HashMap;

use avouch_credential::random::RandomError;
use avouch_domain::Now;
use avouch_signin::Flow;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use parking_lot::Mutex;
use zeroize::Zeroizing;

use crate::limits::{FLOW_LIFE, FLOWS_PER_USER};
use crate::sessions::{Digest, digest_of, is_user, make_room, secret};

const STATE: &[u8] = b"avouch pages sign-in\n";
const BROWSER: &[u8] = b"avouch pages browser\n";

/// What names a flow: a state that goes through the provider, and a cookie that stays in the browser.
pub(crate) struct Names {
    pub(crate) state: Zeroizing<String>,
    pub(crate) cookie: Zeroizing<String>,
}

impl Names {
    pub(crate) fn new() -> Result<Self, RandomError> {
        Ok(Self { state: secret()?, cookie: secret()? })
    }
}

/// A flow that came back.
pub(crate) struct Ended {
    pub(crate) flow: Flow,
    /// The local user who began it.
    pub(crate) user: u32,
    /// The page to which it leads.
    pub(crate) to: &'static str,
}

struct Kept {
    ended: Ended,
    browser: Digest,
    made: Now,
}

/// All flows of a server.
#[derive(Default)]
pub(crate) struct Flows(Mutex<HashMap<Digest, Kept>>);

impl Flows {
    /// Keeps a flow that a user begins. The oldest of theirs gives way.
    pub(crate) fn keep(&self, names: &Names, ended: Ended, now: Now) {
        let mut kept = self.0.lock();
        kept.retain(|_, flow| now.since(flow.made) < FLOW_LIFE);
        let user = ended.user;
        make_room(&mut kept, FLOWS_PER_USER, |flow| flow.ended.user == user, |flow| flow.made);
        let browser = digest_of(BROWSER, &names.cookie);
        kept.insert(digest_of(STATE, &names.state), Kept { ended, browser, made: now });
    }

    /// Uses a flow up; `None` if there is none of this state, or another browser or user began it.
    pub(crate) fn end<'a>(
        &self,
        state: &str,
        cookies: impl Iterator<Item = &'a str>,
        user: u32,
        now: Now,
    ) -> Option<Ended> {
        let flow = self.0.lock().remove(&digest_of(STATE, state))?;
        let mut shown = cookies.map(|cookie| digest_of(BROWSER, cookie));
        let same = shown.any(|browser| verify_slices_are_equal(&browser, &flow.browser).is_ok());
        (same && now.since(flow.made) < FLOW_LIFE && is_user(flow.ended.user, user)).then_some(flow.ended)
    }
}

#[cfg(test)]
mod tests {
    use avouch_domain::{Tick, Timestamp};

    use super::*;

    const ME: u32 = 1000;

    fn at(seconds: u64) -> Now {
        Now { wall: Timestamp::from_secs(1_000_000 + seconds.cast_signed()), mono: Tick(seconds * 1000) }
    }

    fn begun(flows: &Flows, user: u32, now: Now) -> Names {
        let names = Names::new().unwrap();
        let flow = Flow::new(avouch_signin::Wanted::Fresh, now.wall).unwrap();
        flows.keep(&names, Ended { flow, user, to: "requests" }, now);
        names
    }

    fn ends(flows: &Flows, state: &str, cookie: &str, user: u32, now: Now) -> bool {
        flows.end(state, ["other", cookie].into_iter(), user, now).is_some()
    }

    #[test]
    fn a_flow_ends_once_in_the_browser_and_for_the_user_that_began_it() {
        let flows = Flows::default();
        let names = begun(&flows, ME, at(0));
        let ended = flows.end(&names.state, [names.cookie.as_str()].into_iter(), ME, at(1)).unwrap();
        assert_eq!((ended.to, ended.user), ("requests", ME));
        assert!(!ends(&flows, &names.state, &names.cookie, ME, at(1)), "once");
        let (mine, theirs) = (begun(&flows, ME, at(0)), begun(&flows, ME, at(0)));
        assert!(!ends(&flows, &mine.state, &theirs.cookie, ME, at(1)), "a code of another flow");
        assert!(!ends(&flows, &mine.state, &mine.cookie, ME, at(1)), "it is used up all the same");
        assert!(!ends(&flows, &theirs.state, &theirs.cookie, ME + 1, at(1)), "another user");
        let none = begun(&flows, ME, at(0));
        assert!(flows.end(&none.state, std::iter::empty(), ME, at(1)).is_none(), "no cookie at all");
        let roots = begun(&flows, ME, at(0));
        assert!(ends(&flows, &roots.state, &roots.cookie, 0, at(1)), "root can be anybody");
        assert!(!ends(&flows, "", "", ME, at(1)));
    }

    #[test]
    fn neither_name_stands_for_the_other() {
        let flows = Flows::default();
        let names = begun(&flows, ME, at(0));
        assert!(!ends(&flows, &names.cookie, &names.state, ME, at(0)));
        assert!(!ends(&flows, &names.state, &names.state, ME, at(0)));
    }

    #[test]
    fn a_flow_lasts_ten_minutes_by_whichever_clock_says_more() {
        let flows = Flows::default();
        let life = FLOW_LIFE.as_secs();
        let (good, late, slept) =
            (begun(&flows, ME, at(0)), begun(&flows, ME, at(0)), begun(&flows, ME, at(0)));
        assert!(ends(&flows, &good.state, &good.cookie, ME, at(life - 1)));
        assert!(!ends(&flows, &late.state, &late.cookie, ME, at(life)));
        let woken = Now { mono: at(1).mono, ..at(life) };
        assert!(!ends(&flows, &slept.state, &slept.cookie, ME, woken));
    }

    #[test]
    fn one_user_keeps_few_and_takes_no_place_of_another() {
        let flows = Flows::default();
        let other = begun(&flows, ME + 1, at(0));
        let first = begun(&flows, ME, at(0));
        for _ in 0..FLOWS_PER_USER {
            begun(&flows, ME, at(1));
        }
        assert!(!ends(&flows, &first.state, &first.cookie, ME, at(2)));
        assert!(ends(&flows, &other.state, &other.cookie, ME + 1, at(2)));
    }
}
