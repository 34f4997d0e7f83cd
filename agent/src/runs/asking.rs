//! What takes a person's yes or a grant: asked at the server, and used there once.
//!
//! Never takes a yes for anything but the text that this node has hashed itself, and never waits for a person: who asks is
//! told which request waits, and calls again.

use avouch_credential::random;
use avouch_credential::request::text_of;
use avouch_domain::{Code, Needs, Presented, RequestContent, RequestHash, SpiffeId};
use avouch_rules::{FRESH_GRANT, Grant, Yes};
use tokio::time::timeout;

use super::deciding::{Answer, Question};
use crate::limits::{ASK_TIME, ASKS_PER_CALL};
use crate::upstream::{self, Asked, CallError, Requests, UsedGrant, UsedYes};

/// What a decision may count with besides the identity and its task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Given {
    pub yes: Yes,
    pub grant: Option<Grant>,
}

impl Given {
    /// What is needed, as it would be the moment somebody gives it.
    pub(crate) fn all_of(needs: Needs) -> Self {
        let yes = Yes { owner: needs.yes.owner, person: needs.yes.person, age: 0 };
        Self { yes, grant: needs.grant.then_some(FRESH_GRANT) }
    }
}

/// What came of an ask.
enum Told {
    /// Used up by this: the request and the grant, each if it was needed, and what they give.
    Used { request: String, grant: String, given: Given },
    /// This request waits for a yes.
    Waits(String),
    /// Nobody has given one.
    NoGrant,
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
    /// What the identity presented at a hook; empty for a run.
    pub presented: &'a Presented,
}

impl Asking<'_> {
    /// Asks until nothing is missing: uses a yes that was said to exactly this, and a grant, or lets a request wait for the
    /// yes. `judge` decides anew with what was given.
    pub(crate) async fn settle(&self, answer: &mut Answer, mut judge: impl FnMut(Given) -> Answer) {
        // A grant that is used counts until this call is decided.
        let mut held = (String::new(), None);
        // A rule may want a fresher yes than was said: then it is used up for nothing, and asked for anew.
        for _ in 0..ASKS_PER_CALL {
            match self.once(answer.needs).await {
                Told::Nobody(why) => return answer.unasked(&why),
                Told::NoGrant => return answer.ungranted(&self.question.resource, &self.question.action),
                Told::Waits(request) => return answer.waits(request),
                Told::Used { request, grant, given } => {
                    if given.grant.is_some() {
                        held = (grant, given.grant);
                    }
                    let (grant, given) = (held.0.clone(), Given { grant: held.1, ..given });
                    *answer = Answer { request, grant, ..judge(given) };
                }
            }
            if answer.needs.nothing() {
                return;
            }
            // No other would be used, and each would be lost.
            if answer.needs.grant {
                return answer.unasked("the grant that was used is not what the rule wants");
            }
        }
        answer.unasked("the yes that was said is not fresh enough");
    }

    async fn once(&self, needs: Needs) -> Told {
        let Self { requests, identity, task, question, presented } = *self;
        let content = RequestContent {
            identity: identity.clone(),
            task: task.clone(),
            action: question.action.clone(),
            resource: question.resource.clone(),
            // Nobody looks at what takes nobody's yes.
            shown: if needs.yes.nobodys() { String::new() } else { question.shown.clone() },
        };
        let hash = match expected(&content, needs) {
            Ok(hash) => hash,
            Err(why) => return Told::Nobody(why),
        };
        let Ok(key) = random::bytes() else {
            return Told::Nobody("nobody is asked: this machine has no random numbers".to_owned());
        };
        let ask = || timeout(ASK_TIME, requests.ask(&content, needs, key, presented));
        let asked = match ask().await {
            // Its answer may be what was lost: with its key it is the same call.
            Err(_) | Ok(Err(CallError::Unreachable(_))) => ask().await,
            asked => asked,
        };
        match asked {
            Ok(Ok(asked)) => told(asked, hash, needs),
            Ok(Err(e)) => Told::Nobody(format!("nobody could be asked: {e}")),
            Err(_) => {
                Told::Nobody(format!("nobody could be asked: no answer within {} s", ASK_TIME.as_secs()))
            }
        }
    }
}

/// The hash of what a person is shown; `None`: no yes is needed.
fn expected(content: &RequestContent, needs: Needs) -> Result<Option<RequestHash>, String> {
    if needs.yes.nobodys() {
        return Ok(None);
    }
    if content.shown.is_empty() {
        return Err("nobody is asked, because it is more than a person can be shown".to_owned());
    }
    text_of(content).map(|text| Some(text.hash)).map_err(|e| format!("nobody is asked: {e}"))
}

/// Believes the server only what was asked for.
fn told(asked: Asked, hash: Option<RequestHash>, needs: Needs) -> Told {
    let speaks_of_another = |asking: &upstream::Asking| Some(asking.hash) != hash;
    match asked {
        Asked::NoGrant => Told::NoGrant,
        Asked::Waits(asking) | Asked::Used { yes: Some((asking, _)), .. } if speaks_of_another(&asking) => {
            Told::Nobody(format!("nobody is asked: the server speaks of something else ({})", asking.request))
        }
        Asked::Waits(asking) => Told::Waits(asking.request.to_string()),
        Asked::Used { yes, grant } => {
            if (hash.is_some(), needs.grant) != (yes.is_some(), grant.is_some()) {
                return Told::Nobody(
                    "nobody is asked: the server gives something else than was needed".to_owned(),
                );
            }
            let (request, yes) = yes.map_or_else(Default::default, |(asking, used)| {
                let UsedYes { whose, age } = used;
                (asking.request.to_string(), Yes { owner: whose.owner, person: whose.person, age })
            });
            let (id, grant) = grant.map_or_else(Default::default, |used| {
                let UsedGrant { id, uses_left, seconds_left } = used;
                (id.to_string(), Some(Grant { uses_left, seconds_left }))
            });
            Told::Used { request, grant: id, given: Given { yes, grant } }
        }
    }
}

impl Answer {
    /// Denied, because nobody was asked.
    pub(crate) fn unasked(&mut self, why: &str) {
        self.text = format!("{}, and {why}", self.text);
        (self.outcome, self.reason) = ("deny", "not_asked");
    }

    /// Denied, because nobody has given it.
    fn ungranted(&mut self, resource: &str, action: &str) {
        self.text = format!(
            "{}, and there is none; next: somebody other than its owner gives one, `avouch grant give IDENTITY {resource} \
             --action {action}`",
            self.text
        );
        (self.outcome, self.reason) = ("deny", "no_grant");
    }

    /// Denied until somebody has said yes to this request.
    fn waits(&mut self, request: String) {
        self.text = format!("{}; {request} waits for it: `avouch ask show {request}`", self.text);
        self.request = request;
    }
}
