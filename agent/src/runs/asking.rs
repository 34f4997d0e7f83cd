//! What takes a person's yes: asked at the server, and used there once.
//!
//! Never takes a yes for anything but the text that this node has hashed itself, and never waits for a person: who asks is
//! told which request waits, and calls again.

use avouch_credential::random;
use avouch_credential::request::text_of;
use avouch_domain::{Code, RequestContent, SpiffeId, Whose};
use avouch_rules::Yes;
use tokio::time::timeout;

use super::deciding::{Answer, Question};
use crate::limits::ASK_TIME;
use crate::upstream::{Asked, CallError, Requests};

/// A yes, or why there is none.
pub(crate) enum Told {
    /// It is used up by this.
    Yes { request: String, yes: Yes },
    /// This request waits for it.
    Waits(String),
    /// Nobody was asked.
    Nobody(String),
}

/// Asks once. What is asked is what the gate shows, and nothing less. `token`: what the identity showed at a hook; empty for a
/// run.
pub(crate) async fn ask(
    requests: &dyn Requests,
    identity: SpiffeId,
    task: Code,
    question: &Question,
    (needs, token): (Whose, &str),
) -> Told {
    if question.shown.is_empty() {
        return Told::Nobody("nobody is asked, because it is more than a person can be shown".to_owned());
    }
    let content = RequestContent {
        identity,
        task,
        action: question.action.clone(),
        resource: question.resource.clone(),
        shown: question.shown.clone(),
    };
    let text = match text_of(&content) {
        Ok(text) => text,
        Err(e) => return Told::Nobody(format!("nobody is asked: {e}")),
    };
    let Ok(key) = random::bytes() else {
        return Told::Nobody("nobody is asked: this machine has no random numbers".to_owned());
    };
    let ask = || timeout(ASK_TIME, requests.ask(&content, needs, key, token));
    let asked = match ask().await {
        // Its answer may be what was lost: with its key it is the same call.
        Err(_) | Ok(Err(CallError::Unreachable(_))) => ask().await,
        asked => asked,
    };
    match asked {
        Ok(Ok(asked)) if asked.hash != text.hash => {
            Told::Nobody(format!("nobody is asked: the server speaks of something else ({})", asked.request))
        }
        Ok(Ok(Asked { request, used: Some(used), .. })) => {
            let yes = Yes { owner: used.whose.owner, person: used.whose.person, age: used.age };
            Told::Yes { request: request.to_string(), yes }
        }
        Ok(Ok(Asked { request, used: None, .. })) => Told::Waits(request.to_string()),
        Ok(Err(e)) => Told::Nobody(format!("nobody could be asked: {e}")),
        Err(_) => Told::Nobody(format!("nobody could be asked: no answer within {} s", ASK_TIME.as_secs())),
    }
}

impl Answer {
    /// Denied, because nobody was asked.
    pub(crate) fn unasked(self, why: &str) -> Self {
        let text = format!("{}, and {why}", self.text);
        Self { outcome: "deny", reason: "not_asked", text, ..self }
    }

    /// Denied until somebody has said yes to this request.
    pub(crate) fn waits(self, request: String) -> Self {
        let text = format!("{}; {request} waits for it: `avouch ask show {request}`", self.text);
        Self { text, request, ..self }
    }
}
