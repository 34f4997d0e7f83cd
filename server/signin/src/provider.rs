//! A provider: what it said of itself, its keys, and the questions that are put to it.
//!
//! Never asks before somebody wants to sign in: a provider that is down keeps no server from starting. One question at a time
//! goes for its document and its keys, however many people wait.

use std::sync::Arc;
use std::time::Duration;

use avouch_credential::json;
use avouch_credential::tls::{TlsError, web_client_config};
use avouch_domain::{Issuer, Now};
use serde_json::Value;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use crate::document::{self, Document};
use crate::error::{SignInFailed, TokenError, is_refusal};
use crate::flow::Flow;
use crate::http;
use crate::keys::KeySet;
use crate::limits::{CODE_MAX, DOCUMENT_AGE, DOWN_PAUSE, HINT_MAX, KEYS_AGE, KEYS_PAUSE};
use crate::token::{Expected, verify};
use crate::url::Url;
use crate::{Client, Returned, Signed, Wanted};

/// One provider, as one client of it.
pub struct Provider {
    client: Client,
    http: http::Client,
    document: Mutex<Cached<Document>>,
    keys: Mutex<Cached<KeySet>>,
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Provider").field("client", &self.client).finish_non_exhaustive()
    }
}

/// What was read last, when, and how the last try went.
pub(crate) struct Cached<T> {
    value: Option<(Arc<T>, Now)>,
    failed: Option<(SignInFailed, Now)>,
}

impl<T> Default for Cached<T> {
    fn default() -> Self {
        Self { value: None, failed: None }
    }
}

impl<T> Cached<T> {
    /// What is there, if it is younger than `age`; if the last try failed a moment ago, what there is or why there is nothing.
    pub(crate) fn get(&self, age: Duration, now: Now) -> Option<Result<Arc<T>, SignInFailed>> {
        let young = self.value.as_ref().filter(|(_, read)| now.since(*read) < age);
        if let Some((value, _)) = young {
            return Some(Ok(value.clone()));
        }
        let (why, _) = self.failed.as_ref().filter(|(_, tried)| now.since(*tried) < DOWN_PAUSE)?;
        Some(self.old().ok_or_else(|| why.clone()))
    }

    /// Keeps what was read. Of a provider that does not answer, what it said before holds.
    pub(crate) fn put(&mut self, read: Result<T, SignInFailed>, now: Now) -> Result<Arc<T>, SignInFailed> {
        match read {
            Ok(value) => {
                let value = Arc::new(value);
                *self = Self { value: Some((value.clone(), now)), failed: None };
                Ok(value)
            }
            Err(error) => {
                self.failed = Some((error.clone(), now));
                self.old().ok_or(error)
            }
        }
    }

    fn old(&self) -> Option<Arc<T>> {
        self.value.as_ref().map(|(value, _)| value.clone())
    }
}

impl Provider {
    /// # Errors
    /// TLS can't be set up.
    pub fn new(client: Client) -> Result<Self, TlsError> {
        let http = http::Client::new(web_client_config(client.roots.iter().cloned())?);
        Ok(Self { client, http, document: Mutex::default(), keys: Mutex::default() })
    }

    #[must_use]
    pub fn issuer(&self) -> &Issuer {
        &self.client.issuer
    }

    /// Begins a sign-in that `state` names; gives what to keep, and where the browser goes.
    ///
    /// # Errors
    /// [`SignInFailed`].
    pub async fn begin(&self, wanted: Wanted, state: &str, now: Now) -> Result<(Flow, String), SignInFailed> {
        let document = self.document(now).await?;
        let flow = Flow::new(wanted, now.wall)?;
        let url = flow.url(&document, &self.client, wanted, state);
        Ok((flow, url))
    }

    /// Ends a sign-in: who it was.
    ///
    /// # Errors
    /// [`SignInFailed`]; then nobody signed in.
    pub async fn finish(&self, flow: &Flow, back: Returned<'_>, now: Now) -> Result<Signed, SignInFailed> {
        let document = self.document(now).await?;
        check_issuer(&document, &self.client.issuer, back.issuer)?;
        if back.code.is_empty() || back.code.len() > CODE_MAX {
            return Err(SignInFailed::Answer("there is no code in it".to_owned()));
        }
        let form = flow.form(&document, &self.client, back.code)?;
        let (status, body) = self.http.ask(&document.token, Some(form)).await?;
        let id_token = read_token(status.as_u16(), &body)?;
        let expected = Expected {
            issuer: &self.client.issuer,
            client_id: &self.client.id,
            nonce: flow.nonce(),
            signed_in_after: flow.signed_in_after(),
        };
        let keys = self.keys(&document, KEYS_AGE, now).await?;
        let verified = match verify(&id_token, &keys, &expected, now.wall) {
            // The provider may have new ones.
            Err(TokenError::UnknownKey) => {
                verify(&id_token, &*self.keys(&document, KEYS_PAUSE, now).await?, &expected, now.wall)
            }
            other => other,
        }?;
        Ok(Signed { sign_in: verified.sign_in, at: verified.at, id_token: hint(id_token) })
    }

    /// Where a browser signs out of the provider, too; `None` if that has no such place, or nothing is known of it.
    pub async fn end(&self, id_token: &str, now: Now) -> Option<String> {
        let document = self.document(now).await.ok()?;
        document.end.as_ref().map(|end| end.with(&end_fields(&self.client, id_token)))
    }

    async fn document(&self, now: Now) -> Result<Arc<Document>, SignInFailed> {
        let place = document::place(&self.client.issuer)?;
        let read = async {
            let bytes = self.read(&place).await;
            bytes.and_then(|bytes| Document::read(&bytes, &self.client.issuer)).inspect_err(|error| {
                tracing::warn!(issuer = %self.client.issuer, %error, "The provider does not say how to sign in");
            })
        };
        known(&self.document, DOCUMENT_AGE, now, read).await
    }

    /// Keys that were read less than `age` ago.
    async fn keys(&self, document: &Document, age: Duration, now: Now) -> Result<Arc<KeySet>, SignInFailed> {
        let read = async {
            let read = self.read(&document.keys).await.and_then(|bytes| KeySet::read(&bytes));
            read.inspect_err(|error| {
                tracing::warn!(issuer = %self.client.issuer, %error, "The provider does not show its keys");
            })
        };
        known(&self.keys, age, now, read).await
    }

    async fn read(&self, url: &Url) -> Result<hyper::body::Bytes, SignInFailed> {
        match self.http.ask(url, None).await? {
            (status, body) if status.as_u16() == 200 => Ok(body),
            (status, _) => Err(SignInFailed::Status(status.as_u16())),
        }
    }
}

/// What is known and young enough, else what is read now. One reads, and the others wait for it.
async fn known<T>(
    cached: &Mutex<Cached<T>>,
    age: Duration,
    now: Now,
    read: impl Future<Output = Result<T, SignInFailed>>,
) -> Result<Arc<T>, SignInFailed> {
    let mut cached = cached.lock().await;
    match cached.get(age, now) {
        Some(known) => known,
        None => cached.put(read.await, now),
    }
}

/// What of a token goes back to its provider: all of it, or nothing.
fn hint(id_token: Zeroizing<String>) -> Zeroizing<String> {
    if id_token.len() <= HINT_MAX { id_token } else { Zeroizing::default() }
}

/// What a provider is told when somebody signs out.
fn end_fields<'a>(client: &'a Client, hint: &'a str) -> Vec<(&'static str, &'a str)> {
    let mut fields =
        vec![("client_id", client.id.as_str()), ("post_logout_redirect_uri", client.after.as_str())];
    if !hint.is_empty() {
        fields.push(("id_token_hint", hint));
    }
    fields
}

/// An answer has to say which provider gave it if the provider does so, and must not say another in any case.
fn check_issuer(document: &Document, issuer: &Issuer, said: &str) -> Result<(), SignInFailed> {
    match said {
        "" if document.names_itself => {
            Err(SignInFailed::OtherIssuer("it does not say of which (iss), although this provider does"))
        }
        "" => Ok(()),
        said if said == issuer.as_str() => Ok(()),
        _ => Err(SignInFailed::OtherIssuer("it says so (iss)")),
    }
}

/// The ID token in what the provider gives for a code.
fn read_token(status: u16, body: &[u8]) -> Result<Zeroizing<String>, SignInFailed> {
    let members = json::object(body);
    if status != 200 {
        let said = members.ok().and_then(|m| m.get("error").and_then(Value::as_str).map(str::to_owned));
        let word = said.filter(|word| is_refusal(word));
        return Err(word.map_or(SignInFailed::Status(status), SignInFailed::Refused));
    }
    let members = members.map_err(|_| SignInFailed::Answer("no JSON object".to_owned()))?;
    let token = members.get("id_token").and_then(Value::as_str);
    let token = token.ok_or_else(|| SignInFailed::Answer("there is no ID token in it".to_owned()))?;
    Ok(Zeroizing::new(token.to_owned()))
}

#[cfg(test)]
mod tests {
    use avouch_domain::{Tick, Timestamp};

    use super::*;

    fn at(seconds: u64) -> Now {
        Now { wall: Timestamp::from_secs(1_000_000 + seconds.cast_signed()), mono: Tick(seconds * 1000) }
    }

    #[test]
    fn what_was_read_is_believed_for_a_time_and_then_asked_for_anew() {
        let mut cached = Cached::default();
        assert_eq!(cached.get(KEYS_AGE, at(0)), None);
        cached.put(Ok(1), at(0)).unwrap();
        let age = KEYS_AGE.as_secs();
        assert_eq!(cached.get(KEYS_AGE, at(age - 1)), Some(Ok(Arc::new(1))));
        assert_eq!(cached.get(KEYS_AGE, at(age)), None);
    }

    #[test]
    fn an_unknown_key_leads_to_one_question_in_a_while() {
        let mut cached = Cached::default();
        cached.put(Ok(1), at(0)).unwrap();
        let pause = KEYS_PAUSE.as_secs();
        assert!(
            cached.get(KEYS_PAUSE, at(pause - 1)).is_some() && cached.get(KEYS_PAUSE, at(pause)).is_none()
        );
        cached.put(Ok(2), at(pause)).unwrap();
        assert_eq!(cached.get(KEYS_PAUSE, at(pause + 1)), Some(Ok(Arc::new(2))));
    }

    #[test]
    fn a_provider_that_is_down_is_left_alone_for_a_moment_and_what_it_said_before_holds() {
        let down = SignInFailed::Status(503);
        let mut cached = Cached::<u8>::default();
        assert_eq!(cached.put(Err(down.clone()), at(0)), Err(down.clone()));
        let pause = DOWN_PAUSE.as_secs();
        assert_eq!(cached.get(DOCUMENT_AGE, at(pause - 1)), Some(Err(down.clone())));
        assert_eq!(cached.get(DOCUMENT_AGE, at(pause)), None, "asked again");
        cached.put(Ok(1), at(pause)).unwrap();
        let late = pause + DOCUMENT_AGE.as_secs();
        assert_eq!(cached.put(Err(down), at(late)), Ok(Arc::new(1)));
        assert_eq!(cached.get(DOCUMENT_AGE, at(late + 1)), Some(Ok(Arc::new(1))));
    }

    #[test]
    fn an_answer_names_its_provider_where_the_provider_does_so_and_never_another() {
        let issuer = Issuer::new("https://idp.example.org").unwrap();
        let document = |names_itself: bool| {
            let document = serde_json::json!({
                "issuer": issuer.as_str(),
                "authorization_endpoint": "https://idp.example.org/auth",
                "token_endpoint": "https://idp.example.org/token",
                "jwks_uri": "https://idp.example.org/keys",
                "authorization_response_iss_parameter_supported": names_itself,
            });
            Document::read(document.to_string().as_bytes(), &issuer).unwrap()
        };
        for named in [true, false] {
            assert_eq!(check_issuer(&document(named), &issuer, "").is_ok(), !named);
            assert!(check_issuer(&document(named), &issuer, "https://idp.example.org").is_ok());
            assert!(check_issuer(&document(named), &issuer, "https://idp.example.org/").is_err());
        }
    }

    #[test]
    fn a_token_goes_back_to_its_provider_whole_or_not_at_all() {
        let client = Client {
            issuer: Issuer::new("https://idp.example.org").unwrap(),
            id: "avouch".to_owned(),
            secret: None,
            redirect: String::new(),
            after: "http://127.0.0.1:8090/".to_owned(),
            roots: Vec::new(),
        };
        let shown = |bytes: usize| {
            let hint = hint("a".repeat(bytes).into());
            let fields = end_fields(&client, &hint);
            fields.iter().find(|(name, _)| *name == "id_token_hint").map(|(_, hint)| hint.len())
        };
        assert_eq!((shown(HINT_MAX), shown(HINT_MAX + 1)), (Some(HINT_MAX), None), "never as an empty text");
    }

    #[test]
    fn of_an_answer_that_is_none_a_known_word_is_repeated_at_most() {
        assert_eq!(*read_token(200, br#"{"id_token":"a.b.c","x":1}"#).unwrap(), "a.b.c");
        assert!(matches!(read_token(200, b"{}"), Err(SignInFailed::Answer(_))));
        assert!(matches!(read_token(200, b"<html>"), Err(SignInFailed::Answer(_))));
        let refused = read_token(400, br#"{"error":"invalid_grant"}"#);
        assert_eq!(refused, Err(SignInFailed::Refused("invalid_grant".to_owned())));
        assert_eq!(read_token(400, br#"{"error":"<b>"}"#), Err(SignInFailed::Status(400)));
        assert_eq!(read_token(302, b""), Err(SignInFailed::Status(302)));
    }
}
