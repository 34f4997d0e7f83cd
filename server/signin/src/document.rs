//! What a provider says of itself (OpenID Connect Discovery 1.0).
//!
//! Never the document of another issuer than the configured one, byte by byte.

use avouch_credential::json;
use avouch_domain::Issuer;
use serde_json::{Map, Value};

use crate::error::SignInFailed;
use crate::keys::ALGORITHMS;
use crate::url::Url;

/// What is used of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub(crate) authorize: Url,
    pub(crate) token: Url,
    pub(crate) keys: Url,
    /// Where somebody signs out of the provider, too.
    pub(crate) end: Option<Url>,
    /// Says with each answer which provider it is (RFC 9207).
    pub(crate) names_itself: bool,
    /// Takes a secret in the header alone, or in the form alone.
    pub(crate) secret_in_form: bool,
}

/// Where the document of a provider is.
pub(crate) fn place(issuer: &Issuer) -> Result<Url, SignInFailed> {
    let text = format!("{}/.well-known/openid-configuration", issuer.as_str().trim_end_matches('/'));
    Url::read(&text, "issuer", issuer)
}

impl Document {
    /// Reads the document of this issuer.
    ///
    /// # Errors
    /// [`SignInFailed::Document`].
    pub fn read(bytes: &[u8], issuer: &Issuer) -> Result<Self, SignInFailed> {
        let wrong = |why: String| SignInFailed::Document(why);
        let members = json::object(bytes).map_err(|_| wrong("it is no JSON object".to_owned()))?;
        if members.get("issuer").and_then(Value::as_str) != Some(issuer.as_str()) {
            return Err(wrong(format!(
                "it is of another issuer than {issuer}: write it as the provider does"
            )));
        }
        let url = |name: &'static str| {
            let text = members.get(name).and_then(Value::as_str);
            Url::read(text.unwrap_or_default(), name, issuer)
        };
        // What is not said holds: these lists may be left out, and then mean these values.
        let has = |name: &str, value: &str, unsaid: bool| {
            list(&members, name).map_or(unsaid, |l| l.contains(&value))
        };
        if !has("code_challenge_methods_supported", "S256", true) {
            return Err(wrong("it takes no PKCE with S256".to_owned()));
        }
        if !has("response_types_supported", "code", true) {
            return Err(wrong("it takes no response type \"code\"".to_owned()));
        }
        let signs = list(&members, "id_token_signing_alg_values_supported");
        if signs.is_some_and(|signs| !ALGORITHMS.iter().any(|known| signs.contains(&known.name))) {
            return Err(wrong("it signs with none of RS256, PS256, ES256 and EdDSA".to_owned()));
        }
        let methods = "token_endpoint_auth_methods_supported";
        let end = members.get("end_session_endpoint").is_some();
        Ok(Self {
            authorize: url("authorization_endpoint")?,
            token: url("token_endpoint")?,
            keys: url("jwks_uri")?,
            end: end.then(|| url("end_session_endpoint")).transpose()?,
            names_itself: members.get("authorization_response_iss_parameter_supported")
                == Some(&Value::Bool(true)),
            secret_in_form: !has(methods, "client_secret_basic", true)
                && has(methods, "client_secret_post", false),
        })
    }
}

/// A list of texts; `None` if the document has none.
fn list<'a>(members: &'a Map<String, Value>, name: &str) -> Option<Vec<&'a str>> {
    members.get(name)?.as_array().map(|many| many.iter().filter_map(Value::as_str).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn issuer() -> Issuer {
        Issuer::new("https://idp.example.org/a").unwrap()
    }

    fn with(name: &str, value: Value) -> Result<Document, SignInFailed> {
        let mut document = json!({
            "issuer": "https://idp.example.org/a",
            "authorization_endpoint": "https://idp.example.org/a/auth",
            "token_endpoint": "https://idp.example.org/a/token",
            "jwks_uri": "https://idp.example.org/a/keys",
        });
        document.as_object_mut().unwrap().insert(name.into(), value);
        Document::read(document.to_string().as_bytes(), &issuer())
    }

    #[test]
    fn it_is_read_where_the_standard_says() {
        let at = |issuer: &str| place(&Issuer::new(issuer).unwrap()).unwrap().text;
        assert_eq!(
            at("https://idp.example.org/a"),
            "https://idp.example.org/a/.well-known/openid-configuration"
        );
        assert_eq!(
            at("https://idp.example.org/"),
            "https://idp.example.org/.well-known/openid-configuration"
        );
    }

    #[test]
    fn it_is_the_configured_issuers_byte_by_byte() {
        assert!(with("x", json!(1)).is_ok());
        for other in ["https://idp.example.org/a/", "https://idp.example.org", "https://evil.example.org/a"] {
            let refused = with("issuer", json!(other)).unwrap_err().to_string();
            assert!(refused.contains("of another issuer than https://idp.example.org/a"), "{refused}");
        }
        assert!(with("issuer", json!(7)).is_err());
    }

    #[test]
    fn every_place_that_it_names_has_tls() {
        for name in ["authorization_endpoint", "token_endpoint", "jwks_uri", "end_session_endpoint"] {
            for wrong in
                [json!("http://idp.example.org/x"), json!("javascript:alert(1)"), json!(""), json!(7)]
            {
                assert!(with(name, wrong.clone()).unwrap_err().to_string().contains(name), "{name}: {wrong}");
            }
        }
    }

    #[test]
    fn a_provider_that_can_not_do_what_is_needed_is_refused() {
        for (name, value) in [
            ("code_challenge_methods_supported", json!(["plain"])),
            ("response_types_supported", json!(["id_token"])),
            ("id_token_signing_alg_values_supported", json!(["HS256", "none"])),
        ] {
            assert!(with(name, value).is_err(), "{name}");
        }
        assert!(with("id_token_signing_alg_values_supported", json!(["HS256", "ES256"])).is_ok());
    }

    #[test]
    fn what_it_says_of_secrets_and_of_its_name_is_read() {
        let methods =
            |methods| with("token_endpoint_auth_methods_supported", methods).unwrap().secret_in_form;
        assert!(
            !methods(json!(["client_secret_post", "client_secret_basic"]))
                && methods(json!(["client_secret_post"]))
        );
        let named =
            |value| with("authorization_response_iss_parameter_supported", value).unwrap().names_itself;
        assert!(named(json!(true)) && !named(json!(false)) && !named(json!("true")));
    }
}
