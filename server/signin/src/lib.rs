//! Sign-in at a provider through OpenID Connect: the code flow with PKCE, and nothing else.
//!
//! Never decides who somebody is here: it says which account signed in, and when. Never keeps a session, never asks a clock, and
//! never believes more of a provider than a signed ID token says.

mod document;
mod error;
mod flow;
mod http;
mod keys;
pub mod limits;
mod provider;
mod token;
mod url;

#[cfg(test)]
mod tests;

use std::time::Duration;

use avouch_domain::{Issuer, SignIn, Timestamp};
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

pub use crate::document::Document;
pub use crate::error::{SignInFailed, TokenError, is_refusal};
pub use crate::flow::Flow;
pub use crate::keys::KeySet;
pub use crate::provider::Provider;
pub use crate::token::{Expected, Verified, verify};

/// What this server is to its provider.
pub struct Client {
    pub issuer: Issuer,
    pub id: String,
    /// `None`: a public client, whom PKCE alone protects.
    pub secret: Option<Zeroizing<String>>,
    /// Where the provider sends a browser that signed in.
    pub redirect: String,
    /// Where it sends one that signed out.
    pub after: String,
    /// Who vouches for the provider's certificate.
    pub roots: Vec<CertificateDer<'static>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("issuer", &self.issuer).field("id", &self.id).finish_non_exhaustive()
    }
}

/// How old the sign-in at the provider may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// As if nobody had signed in there: the provider asks.
    Fresh,
    /// This old at most; else the provider asks.
    Within(Duration),
}

/// What came back to this server with a browser.
#[derive(Clone, Copy, Debug)]
pub struct Returned<'a> {
    pub code: &'a str,
    /// Which provider it says it is (RFC 9207); empty: it does not say.
    pub issuer: &'a str,
}

/// Somebody who signed in.
pub struct Signed {
    pub sign_in: SignIn,
    /// When, as the provider says. Never later than now.
    pub at: Timestamp,
    /// Says to the provider who signs out; empty if it is too long to go back in a URL.
    pub id_token: Zeroizing<String>,
}

impl std::fmt::Debug for Signed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signed").field("sign_in", &self.sign_in).field("at", &self.at).finish_non_exhaustive()
    }
}
