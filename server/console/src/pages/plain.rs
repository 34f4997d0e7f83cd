//! Pages for who is not signed in, and for what failed.
//!
//! Never shows anything of what is governed here.

use askama::Template;
use avouch_credential::shown;

use super::Frame;
use super::parts::{Page, Shell, Spoken, spoken};

#[derive(Template)]
#[template(path = "signed_out.html")]
struct SignedOut {
    trust_domain: String,
}

#[derive(Template)]
#[template(path = "failed.html")]
struct Failed<'a> {
    shell: Shell<'a>,
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

/// How to sign in.
///
/// # Errors
/// The page could not be written.
pub fn signed_out(trust_domain: &str) -> Result<String, askama::Error> {
    SignedOut { trust_domain: shown::plain(trust_domain) }.render()
}

/// What happened, and what to do next.
///
/// # Errors
/// The page could not be written.
pub fn failed(
    frame: Option<&Frame<'_>>,
    status: u16,
    title: &str,
    text: &str,
) -> Result<String, askama::Error> {
    let (what, text) = (shown::plain(title), spoken(text));
    match frame {
        Some(frame) => {
            let shell = Shell::new(frame, Page::Other, "./".to_owned());
            Failed { shell, status, what, text }.render()
        }
        None => FailedBare { status, what, text }.render(),
    }
}
