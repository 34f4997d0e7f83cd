//! Pages for who is not signed in, and for what failed.
//!
//! Never shows anything of what is governed here.

use askama::Template;
use avouch_credential::shown;

use super::Frame;
use super::parts::{Page, Shell, Spoken, spoken};
use super::words::argument;

#[derive(Template)]
#[template(path = "signed_out.html")]
struct SignedOut {
    trust_domain: String,
    provider: Option<String>,
}

#[derive(Template)]
#[template(path = "stranger.html")]
struct Stranger {
    issuer: String,
    subject: String,
    /// As arguments of a command.
    arguments: String,
    waits: bool,
}

#[derive(Template)]
#[template(path = "leaving.html")]
struct Leaving<'a> {
    provider: String,
    url: &'a str,
}

#[derive(Template)]
#[template(path = "failed.html")]
struct Failed<'a> {
    shell: Shell<'a>,
    stale: bool,
    status: u16,
    what: String,
    text: Spoken,
}

#[derive(Template)]
#[template(path = "failed_bare.html")]
struct FailedBare {
    status: u16,
    what: String,
    text: Spoken,
}

/// How to sign in: at a provider, or by a link.
///
/// # Errors
/// The page could not be written.
pub fn signed_out(trust_domain: &str, provider: Option<&str>) -> Result<String, askama::Error> {
    SignedOut { trust_domain: shown::plain(trust_domain), provider: provider.map(shown::plain) }.render()
}

/// For somebody whose account is no active person here.
///
/// # Errors
/// The page could not be written.
pub fn stranger(issuer: &str, subject: &str, waits: bool) -> Result<String, askama::Error> {
    let arguments = format!("--issuer {} --subject {}", argument(issuer), argument(subject));
    Stranger { issuer: shown::plain(issuer), subject: shown::plain(subject), arguments, waits }.render()
}

/// Leads somebody who signed out here out of the provider, too.
///
/// # Errors
/// The page could not be written.
pub fn leaving(provider: &str, url: &str) -> Result<String, askama::Error> {
    Leaving { provider: shown::plain(provider), url }.render()
}

/// What happened, and what to do next. `stale`: it takes a newer sign-in.
///
/// # Errors
/// The page could not be written.
pub fn failed(
    frame: Option<&Frame<'_>>,
    stale: bool,
    status: u16,
    title: &str,
    text: &str,
) -> Result<String, askama::Error> {
    let (what, text) = (shown::plain(title), spoken(text));
    match frame {
        Some(frame) => {
            let shell = Shell::new(frame, Page::Other, "./".to_owned());
            Failed { shell, stale, status, what, text }.render()
        }
        None => FailedBare { status, what, text }.render(),
    }
}

/// The text of an error as a sentence begins.
#[must_use]
pub fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
