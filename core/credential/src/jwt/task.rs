//! Task tokens: that an AI agent acts within a task, on one resource, for five minutes at most.
//!
//! The one place that writes and reads their claims. A task token is no JWT-SVID and says so in its header (RFC 8725,
//! section 3.11): who takes the one refuses the other, whatever their audiences are.

use std::fmt;
use std::sync::Arc;

use avouch_domain::limits::{INSTANCE_ID_MAX, TASK_TOKEN_LIFE};
use avouch_domain::{Code, SpiffeId, Timestamp};
use serde::Serialize;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::issue::{JwtIssueError, JwtIssuer};
use super::verify::{JwtError, JwtKeys, Token, Typ, says_task};
use crate::limits::JWT_LEEWAY;

/// `typ` of the header.
pub const TYPE: &str = "avouch-task+jwt";
/// What an audience begins with. The ID of the resource follows.
const AUDIENCE: &str = "avouch-resource:";
/// Claims beside the registered ones.
const TASK: &str = "task";
const INSTANCE: &str = "instance";
const PURPOSE: &str = "purpose";
const STOP: &str = "stop";

/// The one audience of a token for this resource.
#[must_use]
pub fn audience(resource: &str) -> String {
    format!("{AUDIENCE}{resource}")
}

/// Within which task something is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskClaims {
    /// The AI agent.
    pub id: SpiffeId,
    /// What its run is about.
    pub task: Code,
    /// ID of the run: `ins_` and hexadecimal digits.
    pub instance: Arc<str>,
    /// What the identity is for.
    pub purpose: Code,
    /// Stop number of the identity when this was signed: under a higher one it is void.
    pub stop_number: u64,
}

/// What one token says.
#[derive(Clone, Copy, Debug)]
pub struct TaskTemplate<'a> {
    pub claims: &'a TaskClaims,
    /// ID in the catalogue.
    pub resource: &'a str,
    /// `iss`, if the server has one configured.
    pub issuer: Option<&'a str>,
    /// From [`crate::random::jti`].
    pub jti: &'a str,
    pub now: Timestamp,
    /// Nothing of the identity lives longer.
    pub end: Timestamp,
}

/// A signed token.
pub struct TaskToken {
    pub token: Zeroizing<String>,
    pub jti: Arc<str>,
    /// Exclusive.
    pub expires_at: Timestamp,
}

impl fmt::Debug for TaskToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { jti, expires_at, .. } = self;
        f.debug_struct("TaskToken").field("jti", jti).field("expires_at", expires_at).finish_non_exhaustive()
    }
}

/// A token that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedTask {
    pub claims: TaskClaims,
    pub jti: Arc<str>,
}

/// Why a task token is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// As for every token of this key: form, header, key, signature, subject.
    #[error(transparent)]
    Jwt(#[from] JwtError),
    #[error("the token is for {found:?}, expected {expected:?} alone")]
    Audience { expected: String, found: Vec<String> },
    #[error("the token has expired: a task token lives {} s at most", TASK_TOKEN_LIFE.as_secs())]
    Expired,
    #[error("the token was issued in the future (iat)")]
    IssuedInTheFuture,
    #[error("the token lives from iat to exp longer than {} s", TASK_TOKEN_LIFE.as_secs())]
    TooLong,
    #[error("claim {0} is missing, or is not what it has to be")]
    Claim(&'static str),
}

/// Members stand in the order of their names.
#[derive(Serialize)]
struct Claims<'a> {
    aud: [&'a str; 1],
    exp: i64,
    iat: i64,
    instance: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    jti: &'a str,
    purpose: &'a str,
    stop: u64,
    sub: &'a str,
    task: &'a str,
}

/// Signs one token: valid from now, to the second, for [`TASK_TOKEN_LIFE`] or until the identity's or the key's end.
///
/// # Errors
/// [`JwtIssueError`].
pub fn sign(issuer: &JwtIssuer, template: &TaskTemplate<'_>) -> Result<TaskToken, JwtIssueError> {
    let TaskTemplate { claims, resource, issuer: iss, jti, now, end } = *template;
    if now >= issuer.not_after() {
        return Err(JwtIssueError::KeyExpired);
    }
    let iat = now.secs();
    // From the second that the token names, so that it never lives a part of a second too long.
    let until = (Timestamp::from_secs(iat) + TASK_TOKEN_LIFE).min(issuer.not_after()).min(end);
    let audience = audience(resource);
    let token = issuer.task(&Claims {
        aud: [&audience],
        exp: until.secs(),
        iat,
        instance: &claims.instance,
        iss,
        jti,
        purpose: claims.purpose.as_str(),
        stop: claims.stop_number,
        sub: claims.id.as_str(),
        task: claims.task.as_str(),
    })?;
    Ok(TaskToken { token, jti: jti.into(), expires_at: Timestamp::from_secs(until.secs()) })
}

/// True if a token says that it is a task token. NOT verified.
#[must_use]
pub fn is_task_token(token: &str) -> bool {
    says_task(token)
}

/// Verifies a token for this very resource. Its end is the clock's: no difference of clocks is granted to it.
///
/// # Errors
/// The first rule broken.
pub fn verify(
    token: &str,
    keys: &JwtKeys,
    resource: &str,
    now: Timestamp,
) -> Result<VerifiedTask, TaskError> {
    let token = Token::parse(token, Typ::Task)?;
    token.check_key(keys)?;
    let expected = audience(resource);
    if token.audience.as_slice() != std::slice::from_ref(&expected) {
        return Err(TaskError::Audience { expected, found: token.audience });
    }
    let issued_at = token.time("iat")?.ok_or(TaskError::Claim("iat"))?;
    if token.expires_at <= now {
        return Err(TaskError::Expired);
    }
    if now + JWT_LEEWAY < issued_at {
        return Err(TaskError::IssuedInTheFuture);
    }
    if issued_at + TASK_TOKEN_LIFE < token.expires_at {
        return Err(TaskError::TooLong);
    }
    let Token { id, claims, .. } = token;
    Ok(VerifiedTask {
        jti: text(&claims, "jti").filter(|jti| !jti.is_empty()).ok_or(TaskError::Claim("jti"))?.into(),
        claims: TaskClaims {
            id,
            task: code(&claims, TASK)?,
            instance: text(&claims, INSTANCE)
                .filter(|id| is_instance(id))
                .ok_or(TaskError::Claim(INSTANCE))?
                .into(),
            purpose: code(&claims, PURPOSE)?,
            stop_number: claims.get(STOP).and_then(Value::as_u64).ok_or(TaskError::Claim(STOP))?,
        },
    })
}

/// True for the ID of a run, which stands in records.
#[must_use]
pub fn is_instance(id: &str) -> bool {
    let digits = id.strip_prefix("ins_").filter(|_| id.len() <= INSTANCE_ID_MAX);
    digits.is_some_and(|digits| {
        !digits.is_empty() && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

fn text<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    claims.get(name)?.as_str()
}

fn code(claims: &Map<String, Value>, name: &'static str) -> Result<Code, TaskError> {
    text(claims, name).and_then(|text| Code::new(text).ok()).ok_or(TaskError::Claim(name))
}
