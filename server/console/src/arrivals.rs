//! People who come through a provider: to it, back from it, and out of it again.
//!
//! Never signs in whom the server does not know by exactly the account that the provider vouches for, and shows nothing of what
//! is governed here to anybody else.

use avouch_domain::{PersonId, SignIn};
use avouch_signin::{Provider, Returned, SignInFailed, Signed, Wanted, is_refusal};
use hyper::StatusCode;
use hyper::header::{self, HeaderMap, HeaderValue};
use zeroize::Zeroizing;

use crate::flows::{Ended, Flows, Names};
use crate::forms::Fields;
use crate::http::{Answer, Place, cookies, html, is_step_of_a_page, problem, see};
use crate::limits::{FLOW_LIFE, SIGN_IN_AGE};
use crate::sessions::{Visitor, room, signed_in_at};
use crate::{Console, pages};

/// The cookie of a flow.
const COOKIE: &str = "avouch_sign_in";
/// Where a provider sends a browser back to.
pub(crate) const BACK: &str = "/signed-in";
/// Pages to which a sign-in may lead, by their path in the room.
const PAGES: [&str; 3] = ["requests", "identities", "log"];

/// Whose account it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    Person(PersonId),
    /// Of somebody who waits for another security person's yes.
    Waits,
    Nobody,
}

/// Tells whose an account is.
type Known = Box<dyn Fn(&SignIn) -> Whose + Send + Sync>;

/// Sign-in at a provider, as the pages offer it.
pub struct Arrivals {
    provider: Provider,
    /// `http://HOST[:PORT]`, as the provider knows these pages.
    base: String,
    known: Known,
    flows: Flows,
}

impl std::fmt::Debug for Arrivals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arrivals").field("provider", &self.provider).finish_non_exhaustive()
    }
}

impl Arrivals {
    /// Sign-in at `provider` to the pages at `base`; `known` says whose an account is.
    #[must_use]
    pub fn new(
        provider: Provider,
        base: &str,
        known: impl Fn(&SignIn) -> Whose + Send + Sync + 'static,
    ) -> Self {
        Self { provider, base: base.to_owned(), known: Box::new(known), flows: Flows::default() }
    }

    /// What people know the provider by.
    pub(crate) fn host(&self) -> &str {
        self.provider.issuer().host()
    }
}

/// The header that gives a browser the cookie of a flow, for the way back alone. A provider is another site: `Lax` lets the cookie
/// come with what it sends back, and with nothing else of other sites.
fn set_cookie(value: &str, seconds: u64) -> Option<HeaderValue> {
    let text = format!("{COOKIE}={value}; Path={BACK}; HttpOnly; SameSite=Lax; Max-Age={seconds}");
    let mut header = HeaderValue::from_str(&text).ok()?;
    header.set_sensitive(true);
    Some(header)
}

fn none_here() -> Answer {
    let text = "This server knows no provider: `avouch console` makes a link that signs in.";
    problem(StatusCode::NOT_FOUND, "Not so", text)
}

fn failed(error: &SignInFailed) -> Answer {
    tracing::warn!(%error, "Nobody could be signed in");
    let status = match error {
        SignInFailed::Unreachable(_) | SignInFailed::Status(_) => StatusCode::SERVICE_UNAVAILABLE,
        SignInFailed::Random(_) => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::FORBIDDEN,
    };
    let text = format!(
        "{}. Try it again in a moment. The command line works without the provider: `avouch --help`.",
        pages::sentence(&error.to_string())
    );
    problem(status, "Not signed in", &text)
}

/// Leads a browser to the provider.
pub(crate) async fn begin(console: &Console, place: &Place, headers: &HeaderMap, query: &Fields) -> Answer {
    let Some(arrivals) = &console.arrivals else { return none_here() };
    if !is_step_of_a_page(headers) {
        let text = "Open these pages yourself, and sign in from there.";
        return problem(StatusCode::FORBIDDEN, "A page of another site leads here", text);
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if arrivals.base.strip_prefix("http://") != Some(host.trim_end_matches(":80")) {
        // The cookie would not come back to another name.
        let text = format!("The provider knows these pages as `{}`: sign in from there.", arrivals.base);
        return problem(StatusCode::MISDIRECTED_REQUEST, "Under another name", &text);
    }
    let wanted = if query.get("fresh").is_empty() { Wanted::Within(SIGN_IN_AGE) } else { Wanted::Fresh };
    let to = PAGES.into_iter().find(|page| *page == query.get("to")).unwrap_or_default();
    match begun(console, arrivals, wanted, place.user(), to).await {
        Ok(answer) => answer,
        Err(error) => failed(&error),
    }
}

async fn begun(
    console: &Console,
    arrivals: &Arrivals,
    wanted: Wanted,
    user: u32,
    to: &'static str,
) -> Result<Answer, SignInFailed> {
    let names = Names::new()?;
    let (flow, url) = arrivals.provider.begin(wanted, &names.state, (console.clock)()).await?;
    arrivals.flows.keep(&names, Ended { flow, user, to }, (console.clock)());
    let mut answer = see(&url);
    if let Some(cookie) = set_cookie(&names.cookie, FLOW_LIFE.as_secs()) {
        answer.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(answer)
}

/// Takes a browser that comes back.
pub(crate) async fn back(console: &Console, place: &Place, headers: &HeaderMap, query: &Fields) -> Answer {
    let Some(arrivals) = &console.arrivals else { return none_here() };
    let cookies = cookies(headers, COOKIE);
    let ended = arrivals.flows.end(query.get("state"), cookies, place.user(), (console.clock)());
    let Some(ended) = ended else {
        let text = "This browser did not begin it, or it was used already, or it took more than ten minutes.";
        return problem(StatusCode::GONE, "This sign-in is over", text);
    };
    let mut answer = match query.get("error") {
        "" => {
            let returned = Returned { code: query.get("code"), issuer: query.get("iss") };
            match arrivals.provider.finish(&ended.flow, returned, (console.clock)()).await {
                Ok(signed) => let_in(console, arrivals, place, &ended, signed),
                Err(error) => failed(&error),
            }
        }
        word => refused(word),
    };
    if let Some(gone) = set_cookie("", 0) {
        answer.headers_mut().append(header::SET_COOKIE, gone);
    }
    answer
}

/// What a provider says in place of a code.
fn refused(word: &str) -> Answer {
    let text = match is_refusal(word) {
        true => format!("The provider says: {word}."),
        false => "The provider says no.".to_owned(),
    };
    problem(StatusCode::FORBIDDEN, "Not signed in", &text)
}

fn let_in(console: &Console, arrivals: &Arrivals, place: &Place, ended: &Ended, signed: Signed) -> Answer {
    let now = (console.clock)();
    let Signed { sign_in, at, id_token } = signed;
    let person = match (arrivals.known)(&sign_in) {
        Whose::Person(person) => person,
        other => {
            tracing::info!(issuer = %sign_in.issuer, "An account signed in that is no active person here");
            let made =
                pages::stranger(sign_in.issuer.as_str(), sign_in.subject.as_str(), other == Whose::Waits);
            return html(StatusCode::FORBIDDEN, made);
        }
    };
    let visitor = Visitor { person, signed_in: signed_in_at(at, now), account: Some(sign_in) };
    let begun = console.sessions.begin(visitor, ended.user, id_token, now);
    match begun.map(|cookie| place.cookie(&cookie).map(|header| (header, room(&cookie)))) {
        Ok(Some((cookie, room))) => {
            let mut answer = see(&format!("/{room}/{}", ended.to));
            answer.headers_mut().append(header::SET_COOKIE, cookie);
            answer
        }
        Ok(None) => {
            problem(StatusCode::INTERNAL_SERVER_ERROR, "Not signed in", "The server made no session.")
        }
        Err(error) => failed(&error.into()),
    }
}

/// Where somebody goes whose session is over: to the provider, if they came from there and it has a place for that.
pub(crate) async fn out(console: &Console, id_token: Option<Zeroizing<String>>) -> Answer {
    if let (Some(arrivals), Some(id_token)) = (&console.arrivals, id_token)
        && let Some(url) = arrivals.provider.end(&id_token, (console.clock)()).await
    {
        // A page and no redirect: browsers hold what a form leads to against the policy of its page.
        return html(StatusCode::OK, pages::leaving(arrivals.host(), &url));
    }
    see("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_of_a_flow_is_for_the_way_back_and_comes_with_no_form_of_others() {
        let header = set_cookie("x", 600).unwrap();
        let expected = "avouch_sign_in=x; Path=/signed-in; HttpOnly; SameSite=Lax; Max-Age=600";
        assert_eq!(header.to_str().unwrap(), expected);
        assert!(header.is_sensitive(), "no log shows it");
    }
}
