//! Who is signed in: links that are used once, and the sessions that begin with them or with a provider's word.
//!
//! Never keeps what it gave out: of a link's code and of a session's cookie only digests are here. In memory alone, so a
//! server that starts anew asks everybody to sign in again. Time comes from outside.

use std::collections::HashMap;
use std::hash::Hash;

use avouch_credential::random::{self, RandomError};
use avouch_domain::{Now, PersonId, SignIn, Tick, Timestamp};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use parking_lot::Mutex;
use zeroize::Zeroizing;

use crate::limits::{
    KEPT_MAX, LINK_LIFE, LINKS_PER_PERSON, SESSION_LIFE, SESSION_PAUSE, SESSIONS_PER_PERSON,
};

/// What a digest is made over, so that no secret can stand for another.
const CODE: &[u8] = b"avouch pages link\n";
const COOKIE: &[u8] = b"avouch pages session\n";
const FORM: &[u8] = b"avouch pages form\n";
const ROOM: &[u8] = b"avouch pages room\n";

pub(crate) type Digest = [u8; 32];

/// A link that was given out.
pub struct Invitation {
    /// 64 hexadecimal digits; a secret until it is used.
    pub code: Zeroizing<String>,
    pub ends_at: Timestamp,
}

impl std::fmt::Debug for Invitation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invitation").field("ends_at", &self.ends_at).finish_non_exhaustive()
    }
}

/// Somebody who is signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visitor {
    pub person: PersonId,
    /// When they showed who they are: never later than the session began.
    pub signed_in: Now,
    /// As which account; `None`: by a local link.
    pub account: Option<SignIn>,
}

struct Link {
    person: PersonId,
    /// The local user who asked for it, and alone may use it.
    user: u32,
    made: Now,
}

struct Session {
    visitor: Visitor,
    user: u32,
    seen: Now,
    /// What the provider is shown when somebody signs out; `None`: by a local link.
    id_token: Option<Zeroizing<String>>,
}

#[derive(Default)]
struct State {
    links: HashMap<Digest, Link>,
    sessions: HashMap<Digest, Session>,
}

/// All links and sessions of a server.
#[derive(Default)]
pub struct Sessions(Mutex<State>);

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sessions")
    }
}

impl Sessions {
    /// A link for a person who is this local user. The oldest of theirs that wait gives way.
    ///
    /// # Errors
    /// [`RandomError`].
    pub fn invite(&self, person: &PersonId, user: u32, now: Now) -> Result<Invitation, RandomError> {
        let code = secret()?;
        let mut state = self.0.lock();
        state.links.retain(|_, link| now.since(link.made) < LINK_LIFE);
        make_room(&mut state.links, LINKS_PER_PERSON, |link| link.person == *person, |link| link.made);
        state.links.insert(digest_of(CODE, &code), Link { person: person.clone(), user, made: now });
        let life = i64::try_from(LINK_LIFE.as_secs()).unwrap_or(0);
        Ok(Invitation { code, ends_at: Timestamp::from_secs(now.wall.secs() + life) })
    }

    /// Uses a link up and gives the cookie of the session that begins; `None` if it is no link any more, or not this user's.
    ///
    /// # Errors
    /// [`RandomError`]; then the link is used up all the same.
    pub fn redeem(&self, code: &str, user: u32, now: Now) -> Result<Option<Zeroizing<String>>, RandomError> {
        let mut state = self.0.lock();
        let Some(link) = state.links.remove(&digest_of(CODE, code)) else { return Ok(None) };
        if now.since(link.made) >= LINK_LIFE || !is_user(link.user, user) {
            return Ok(None);
        }
        let visitor = Visitor { person: link.person, signed_in: now, account: None };
        state.begin(Session { visitor, user: link.user, seen: now, id_token: None }, now).map(Some)
    }

    /// Begins the session of somebody for whom a provider vouches, and of a local user; gives its cookie.
    ///
    /// # Errors
    /// [`RandomError`].
    pub fn begin(
        &self,
        visitor: Visitor,
        user: u32,
        id_token: Zeroizing<String>,
        now: Now,
    ) -> Result<Zeroizing<String>, RandomError> {
        self.0.lock().begin(Session { visitor, user, seen: now, id_token: Some(id_token) }, now)
    }

    /// Whose session it is; it lives on.
    #[must_use]
    pub fn find(&self, cookie: &str, user: u32, now: Now) -> Option<Visitor> {
        let mut state = self.0.lock();
        let session = state.sessions.get_mut(&digest_of(COOKIE, cookie))?;
        if !session.lives(now) || !is_user(session.user, user) {
            return None;
        }
        session.seen = now;
        Some(session.visitor.clone())
    }

    /// Whose session it is; it does not live longer for being asked about.
    #[must_use]
    pub fn peek(&self, cookie: &str, user: u32, now: Now) -> Option<Visitor> {
        let state = self.0.lock();
        let session = state.sessions.get(&digest_of(COOKIE, cookie))?;
        (session.lives(now) && is_user(session.user, user)).then(|| session.visitor.clone())
    }

    /// Ends a session; gives what its provider is shown, if it has one.
    pub fn end(&self, cookie: &str) -> Option<Zeroizing<String>> {
        self.0.lock().sessions.remove(&digest_of(COOKIE, cookie))?.id_token
    }
}

impl State {
    fn begin(&mut self, session: Session, now: Now) -> Result<Zeroizing<String>, RandomError> {
        let cookie = secret()?;
        self.sessions.retain(|_, session| session.lives(now));
        let theirs = |other: &Session| other.visitor.person == session.visitor.person;
        make_room(&mut self.sessions, SESSIONS_PER_PERSON, theirs, |other| other.visitor.signed_in);
        self.sessions.insert(digest_of(COOKIE, &cookie), session);
        Ok(cookie)
    }
}

impl Session {
    fn lives(&self, now: Now) -> bool {
        now.since(self.visitor.signed_in) < SESSION_LIFE && now.since(self.seen) < SESSION_PAUSE
    }
}

/// A moment of which only the wall clock tells, by both clocks: never later than now.
#[must_use]
pub fn signed_in_at(at: Timestamp, now: Now) -> Now {
    let age = u64::try_from(now.wall.since(at).as_millis()).unwrap_or(u64::MAX);
    Now { wall: at.min(now.wall), mono: Tick(now.mono.0.saturating_sub(age)) }
}

/// Whether a connection of `user` may use what belongs to `owner`. Root can be anybody.
pub(crate) fn is_user(owner: u32, user: u32) -> bool {
    user == owner || user == 0
}

/// The first part of the paths of a session's pages. The browser sends the cookie there alone: browsers share cookies between
/// all ports of a machine, and what listens at another does not know this path.
#[must_use]
pub fn room(cookie: &str) -> String {
    hex::encode(digest_of(ROOM, cookie).first_chunk::<16>().unwrap_or(&[0; 16]))
}

/// What each form of a session holds: a page of somebody else can't know it.
#[must_use]
pub fn form_token(cookie: &str) -> String {
    hex::encode(digest_of(FORM, cookie))
}

/// Whether a form came from a page of this session.
#[must_use]
pub fn fits(cookie: &str, token: &str) -> bool {
    verify_slices_are_equal(form_token(cookie).as_bytes(), token.as_bytes()).is_ok()
}

pub(crate) fn secret() -> Result<Zeroizing<String>, RandomError> {
    let bytes = Zeroizing::new(random::bytes::<32>()?);
    Ok(Zeroizing::new(hex::encode(*bytes)))
}

pub(crate) fn digest_of(what: &[u8], secret: &str) -> Digest {
    let mut whole = Zeroizing::new(Vec::with_capacity(what.len() + secret.len()));
    whole.extend_from_slice(what);
    whole.extend_from_slice(secret.as_bytes());
    let mut key = [0; 32];
    key.copy_from_slice(digest(&SHA256, &whole).as_ref());
    key
}

/// Removes the oldest of a person's until one more has a place, and the oldest of all where there is none left.
pub(crate) fn make_room<K: Eq + Hash + Clone, V>(
    kept: &mut HashMap<K, V>,
    each: usize,
    theirs: impl Fn(&V) -> bool,
    age: impl Fn(&V) -> Now,
) {
    while kept.values().filter(|value| theirs(value)).count() >= each {
        remove_oldest(kept, &theirs, &age);
    }
    if kept.len() >= KEPT_MAX {
        remove_oldest(kept, |_| true, &age);
    }
}

fn remove_oldest<K: Eq + Hash + Clone, V>(
    kept: &mut HashMap<K, V>,
    which: impl Fn(&V) -> bool,
    age: impl Fn(&V) -> Now,
) {
    let oldest = kept.iter().filter(|(_, value)| which(value)).min_by_key(|(_, value)| age(value).mono);
    if let Some(key) = oldest.map(|(key, _)| key.clone()) {
        kept.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use avouch_domain::Tick;

    use super::*;

    const ME: u32 = 1000;

    fn at(seconds: u64) -> Now {
        let wall = Timestamp::from_secs(1_000_000 + i64::try_from(seconds).unwrap());
        Now { wall, mono: Tick(seconds * 1000) }
    }

    fn person(name: &str) -> PersonId {
        PersonId::new(&format!("per_{name}")).unwrap()
    }

    fn signed_in(sessions: &Sessions, who: &str, seconds: u64) -> Zeroizing<String> {
        let link = sessions.invite(&person(who), ME, at(seconds)).unwrap();
        sessions.redeem(&link.code, ME, at(seconds)).unwrap().unwrap()
    }

    #[test]
    fn a_link_signs_in_once() {
        let sessions = Sessions::default();
        let link = sessions.invite(&person("a"), ME, at(0)).unwrap();
        let cookie = sessions.redeem(&link.code, ME, at(1)).unwrap().unwrap();
        assert_eq!(sessions.redeem(&link.code, ME, at(1)).unwrap(), None);
        let visitor = sessions.find(&cookie, ME, at(2)).unwrap();
        assert_eq!((visitor.person, visitor.signed_in), (person("a"), at(1)));
    }

    fn arrived(who: &str, signed_in: Now) -> Visitor {
        let account = SignIn::read("https://idp.example.org", who).unwrap();
        Visitor { person: person(who), signed_in, account }
    }

    #[test]
    fn a_session_of_a_provider_counts_from_the_sign_in_there() {
        let sessions = Sessions::default();
        let (life, began) = (SESSION_LIFE.as_secs(), 10_000);
        let visitor = arrived("a", signed_in_at(at(began - 600).wall, at(began)));
        assert_eq!(visitor.signed_in, at(began - 600));
        let cookie = sessions.begin(visitor, ME, "a.b.c".to_owned().into(), at(began)).unwrap();
        for seconds in (began..began - 600 + life).step_by(1800) {
            assert!(sessions.find(&cookie, ME, at(seconds)).is_some(), "{seconds}");
        }
        assert_eq!(sessions.find(&cookie, ME, at(began - 600 + life)), None);
        assert_eq!(sessions.find(&cookie, ME + 1, at(began)), None, "another user");
    }

    #[test]
    fn a_moment_by_the_wall_is_never_later_than_now_and_never_younger_than_it_is() {
        assert_eq!(signed_in_at(at(90).wall, at(60)), at(60));
        let before_this_clock_began = signed_in_at(Timestamp::from_secs(999_000), at(60));
        assert_eq!(before_this_clock_began.mono, Tick(0));
        assert_eq!(at(60).since(before_this_clock_began).as_secs(), 1060);
    }

    #[test]
    fn a_session_gives_back_the_token_of_its_provider_when_it_ends_and_a_links_has_none() {
        let sessions = Sessions::default();
        let cookie = sessions.begin(arrived("a", at(0)), ME, "a.b.c".to_owned().into(), at(0)).unwrap();
        assert_eq!(sessions.end(&cookie).as_deref().map(String::as_str), Some("a.b.c"));
        assert_eq!(sessions.end(&cookie), None);
        assert_eq!(sessions.end(&signed_in(&sessions, "a", 0)), None);
    }

    #[test]
    fn a_link_lasts_a_minute() {
        let sessions = Sessions::default();
        let link = sessions.invite(&person("a"), ME, at(0)).unwrap();
        assert_eq!(link.ends_at, at(60).wall);
        assert_eq!(sessions.redeem(&link.code, ME, at(60)).unwrap(), None);
    }

    #[test]
    fn a_fourth_link_takes_the_place_of_the_first() {
        let sessions = Sessions::default();
        let links: Vec<_> = (0..4).map(|n| sessions.invite(&person("a"), ME, at(n)).unwrap()).collect();
        let other = sessions.invite(&person("b"), ME, at(4)).unwrap();
        assert_eq!(sessions.redeem(&links[0].code, ME, at(5)).unwrap(), None);
        for link in links[1..].iter().chain([&other]) {
            assert!(sessions.redeem(&link.code, ME, at(5)).unwrap().is_some());
        }
    }

    #[test]
    fn a_session_ends_with_the_day_and_with_a_long_pause() {
        let sessions = Sessions::default();
        let cookie = signed_in(&sessions, "a", 0);
        let (day, pause) = (SESSION_LIFE.as_secs(), SESSION_PAUSE.as_secs());
        for seconds in (0..day).step_by(1800) {
            assert!(sessions.find(&cookie, ME, at(seconds)).is_some(), "after {seconds} s");
        }
        assert_eq!(sessions.find(&cookie, ME, at(day)), None);
        let cookie = signed_in(&sessions, "a", 0);
        assert_eq!(sessions.find(&cookie, ME, at(pause)), None);
    }

    #[test]
    fn who_signs_out_is_out() {
        let sessions = Sessions::default();
        let (one, other) = (signed_in(&sessions, "a", 0), signed_in(&sessions, "a", 0));
        sessions.end(&one);
        assert!(sessions.find(&one, ME, at(1)).is_none() && sessions.find(&other, ME, at(1)).is_some());
    }

    #[test]
    fn a_person_has_eight_sessions() {
        let sessions = Sessions::default();
        let first = signed_in(&sessions, "a", 0);
        let others: Vec<_> = (1..=8).map(|n| signed_in(&sessions, "a", n)).collect();
        assert_eq!(sessions.find(&first, ME, at(9)), None);
        assert!(others.iter().all(|cookie| sessions.find(cookie, ME, at(9)).is_some()));
    }

    #[test]
    fn no_secret_stands_for_another() {
        let sessions = Sessions::default();
        let link = sessions.invite(&person("a"), ME, at(0)).unwrap();
        assert_eq!(sessions.find(&link.code, ME, at(0)), None);
        let cookie = signed_in(&sessions, "a", 0);
        assert_eq!(sessions.find(&form_token(&cookie), ME, at(0)), None);
        assert!(fits(&cookie, &form_token(&cookie)) && !fits(&cookie, &cookie) && !fits(&cookie, ""));
    }

    #[test]
    fn neither_a_clock_that_is_set_back_nor_one_that_slept_prolongs_anything() {
        let sessions = Sessions::default();
        let cookie = signed_in(&sessions, "a", 0);
        let set_back = Now { wall: Timestamp::from_secs(0), ..at(SESSION_LIFE.as_secs()) };
        assert_eq!(sessions.peek(&cookie, ME, set_back), None);
        let slept = Now { mono: at(1).mono, ..at(SESSION_PAUSE.as_secs()) };
        assert_eq!(sessions.peek(&cookie, ME, slept), None);
    }

    #[test]
    fn a_link_and_a_session_are_their_users_and_roots() {
        let sessions = Sessions::default();
        let link = sessions.invite(&person("a"), ME, at(0)).unwrap();
        assert_eq!(sessions.redeem(&link.code, ME + 1, at(0)).unwrap(), None, "a link that somebody saw");
        assert_eq!(
            sessions.redeem(&link.code, ME, at(0)).unwrap(),
            None,
            "it is used up, so its person notices"
        );
        let cookie = signed_in(&sessions, "a", 0);
        assert_eq!(sessions.find(&cookie, ME + 1, at(1)), None);
        assert!(sessions.find(&cookie, ME, at(1)).is_some() && sessions.peek(&cookie, 0, at(1)).is_some());
    }

    #[test]
    fn looking_at_a_session_does_not_prolong_it() {
        let sessions = Sessions::default();
        let cookie = signed_in(&sessions, "a", 0);
        let pause = SESSION_PAUSE.as_secs();
        assert!(sessions.peek(&cookie, ME, at(pause - 1)).is_some());
        assert_eq!(sessions.peek(&cookie, ME, at(pause)), None);
    }
}
