//! One sign-in on its way: what is asked of a provider, and what has to come back.
//!
//! Never prints its secrets.

use avouch_credential::random::{self, RandomError};
use avouch_domain::Timestamp;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::HeaderValue;
use zeroize::Zeroizing;

use crate::document::Document;
use crate::error::SignInFailed;
use crate::http::Form;
use crate::{Client, Wanted};

/// What only this server knows of a sign-in that was begun.
pub struct Flow {
    nonce: Zeroizing<String>,
    verifier: Zeroizing<String>,
    /// The oldest sign-in at the provider that will do.
    signed_in_after: Timestamp,
}

impl std::fmt::Debug for Flow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flow").field("signed_in_after", &self.signed_in_after).finish_non_exhaustive()
    }
}

impl Flow {
    /// Begins one.
    ///
    /// # Errors
    /// [`RandomError`].
    pub fn new(wanted: Wanted, now: Timestamp) -> Result<Self, RandomError> {
        let secret = || {
            let bytes = Zeroizing::new(random::bytes::<32>()?);
            Ok(Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes)))
        };
        let signed_in_after = match wanted {
            Wanted::Fresh => now,
            Wanted::Within(age) => now - age,
        };
        Ok(Self { nonce: secret()?, verifier: secret()?, signed_in_after })
    }

    pub(crate) fn nonce(&self) -> &str {
        &self.nonce
    }

    pub(crate) fn signed_in_after(&self) -> Timestamp {
        self.signed_in_after
    }

    /// Where a browser goes to sign in.
    pub(crate) fn url(&self, document: &Document, client: &Client, wanted: Wanted, state: &str) -> String {
        let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, self.verifier.as_bytes()));
        let age = match wanted {
            Wanted::Fresh => 0,
            Wanted::Within(age) => age.as_secs(),
        };
        // Always asked: then the token has to say when somebody signed in.
        let age = age.to_string();
        let mut fields = vec![
            ("response_type", "code"),
            ("scope", "openid"),
            ("client_id", &client.id),
            ("redirect_uri", &client.redirect),
            ("state", state),
            ("nonce", &self.nonce),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
            ("max_age", &age),
        ];
        if wanted == Wanted::Fresh {
            fields.push(("prompt", "login"));
        }
        document.authorize.with(&fields)
    }

    /// What is sent to get a token for a code.
    pub(crate) fn form(
        &self,
        document: &Document,
        client: &Client,
        code: &str,
    ) -> Result<Form, SignInFailed> {
        let mut fields = form_urlencoded::Serializer::new(String::new());
        fields
            .append_pair("grant_type", "authorization_code")
            .append_pair("code", code)
            .append_pair("redirect_uri", &client.redirect)
            .append_pair("code_verifier", &self.verifier);
        let authorization = match &client.secret {
            Some(secret) if !document.secret_in_form => Some(basic(&client.id, secret)?),
            Some(secret) => {
                fields.append_pair("client_id", &client.id).append_pair("client_secret", secret);
                None
            }
            None => {
                fields.append_pair("client_id", &client.id);
                None
            }
        };
        Ok(Form { body: fields.finish(), authorization })
    }
}

/// Both parts are encoded as in a form before they are joined (RFC 6749 2.3.1).
fn basic(id: &str, secret: &str) -> Result<HeaderValue, SignInFailed> {
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = Zeroizing::new(format!("{}:{}", encoded(id), &*Zeroizing::new(encoded(secret))));
    let text = Zeroizing::new(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(&*pair)));
    let mut value = HeaderValue::from_str(&text)
        .map_err(|_| SignInFailed::Document("the client's secret is none".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}
