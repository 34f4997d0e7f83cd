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
use crate::limits::{ASK_TIME, ASKS_PER_CALL};
use crate::upstream::{Asked, CallError, Requests};

/// A yes, or why there is none.
enum Told {
    /// It is used up by this.
    Yes { request: String, yes: Yes },
    /// This request waits for it.
    Waits(String),
    /// Nobody was asked.
    Nobody(String),
}

/// What is asked, and where.
pub(crate) struct Asking<'a> {
    pub requests: &'a dyn Requests,
    pub identity: &'a SpiffeId,
    pub task: &'a Code,
    /// What the gate shows is what is asked, and nothing less.
    pub question: &'a Question,
    /// What the identity showed at a hook; empty for a run.
    pub token: &'a str,
}

impl Asking<'_> {
    /// Asks until nobody's yes is missing: uses one that was said to exactly this, or lets a request wait for it. `judge`
    /// decides anew with a yes.
    pub(crate) async fn settle(&self, answer: &mut Answer, mut judge: impl FnMut(Yes) -> Answer) {
        // A rule may want a fresher yes than was said: then it is used up for nothing, and asked for anew.
        for _ in 0..ASKS_PER_CALL {
            match self.once(answer.needs).await {
                Told::Nobody(why) => return answer.unasked(&why),
                Told::Waits(request) => return answer.waits(request),
                Told::Yes { request, yes } => *answer = Answer { request, ..judge(yes) },
            }
            if answer.needs.nobodys() {
                return;
            }
        }
        answer.unasked("the yes that was said is not fresh enough");
    }

    async fn once(&self, needs: Whose) -> Told {
        let Self { requests, identity, task, question, token } = *self;
        if question.shown.is_empty() {
            return Told::Nobody("nobody is asked, because it is more than a person can be shown".to_owned());
        }
        let content = RequestContent {
            identity: identity.clone(),
            task: task.clone(),
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
            Ok(Ok(asked)) if asked.hash != text.hash => Told::Nobody(format!(
                "nobody is asked: the server speaks of something else ({})",
                asked.request
            )),
            Ok(Ok(Asked { request, used: Some(used), .. })) => {
                let yes = Yes { owner: used.whose.owner, person: used.whose.person, age: used.age };
                Told::Yes { request: request.to_string(), yes }
            }
            Ok(Ok(Asked { request, used: None, .. })) => Told::Waits(request.to_string()),
            Ok(Err(e)) => Told::Nobody(format!("nobody could be asked: {e}")),
            Err(_) => {
                Told::Nobody(format!("nobody could be asked: no answer within {} s", ASK_TIME.as_secs()))
            }
        }
    }
}

impl Answer {
    /// Denied, because nobody was asked.
    pub(crate) fn unasked(&mut self, why: &str) {
        self.text = format!("{}, and {why}", self.text);
        (self.outcome, self.reason) = ("deny", "not_asked");
    }

    /// Denied until somebody has said yes to this request.
    fn waits(&mut self, request: String) {
        self.text = format!("{}; {request} waits for it: `avouch ask show {request}`", self.text);
        self.request = request;
    }
}
