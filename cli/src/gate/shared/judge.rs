//! What one caller may do, asked of the node agent with what the caller proved.

use std::sync::Arc;
use std::time::Duration;

use avouch_domain::Presented;
use avouch_proto::gate_v1::gate_client::GateClient;
use avouch_proto::gate_v1::{CheckRequest, CheckResponse, DidRequest, Param as Named};
use avouch_proto::run_v1::Answer;
use avouch_rules::{Param, Params};
use tokio::sync::Semaphore;
use tonic::Code;
use tonic::transport::Channel;

use crate::gate::limits::{CHECK_TIME_MAX, CHECKS_MAX};
use crate::gate::{Ask, Decided, Did, GateEvent, Happened, Judge, Teller, Telling, Verdict, wire};

/// The way to the node agent, for all callers of the gate. Cheap to clone.
#[derive(Clone)]
pub(super) struct Line {
    client: GateClient<Channel>,
    /// As many questions as the node agent takes from one connection, with room for the gate's own streams.
    places: Arc<Semaphore>,
    teller: Teller,
}

impl Line {
    /// With what tells receipts, until nobody has the line any more.
    pub(super) fn new(channel: Channel) -> (Self, Telling) {
        let client = GateClient::new(channel);
        let told = client.clone();
        let (teller, telling) = Teller::new(move |did: Did| {
            let mut client = told.clone();
            async move {
                let record = did.record;
                let (did, params) = did.wire();
                let request = DidRequest { did: Some(did), params: named(params) };
                if let Err(status) = client.did(request).await {
                    tracing::debug!(record, %status, "The node agent did not take a receipt");
                }
            }
        });
        (Self { client, places: Arc::new(Semaphore::new(CHECKS_MAX)), teller }, telling)
    }
}

/// Asks about one request of one caller.
pub(super) struct PeerJudge {
    pub line: Line,
    pub presented: Presented,
}

impl PeerJudge {
    async fn asked(&self, ask: Ask, presented: &Presented) -> Decided {
        let away = |why: &str| {
            Decided::from(Verdict::Unavailable { text: format!("the node agent does not decide: {why}") })
        };
        let Ok(_place) = self.line.places.try_acquire() else {
            return away("it has all the questions that it takes at once");
        };
        let Ask { action, resource, params, shown } = ask;
        let request = CheckRequest {
            token: presented.token.to_string(),
            certificates: presented.chain.clone(),
            action: action.into_owned(),
            resource,
            params: named(params),
            what_if: false,
            shown,
        };
        match self.line.client.clone().check(request).await {
            Ok(answer) => wire::decided(answered(answer.into_inner())),
            Err(status) if matches!(status.code(), Code::PermissionDenied | Code::InvalidArgument) => {
                Verdict::Deny { reason: "gate".to_owned(), text: status.message().to_owned() }.into()
            }
            Err(status) => away(status.message()),
        }
    }
}

impl Judge for PeerJudge {
    /// The node agent asks the server, and a person's yes or a grant may be used meanwhile: to give up is to lose it.
    const TIME_MAX: Duration = CHECK_TIME_MAX;

    async fn decide(&self, ask: Ask) -> Decided {
        self.asked(ask, &self.presented).await
    }

    async fn note(&self, event: GateEvent) {
        match event.what {
            // Asked and denied like any other, so that there is a record of it. No token is for what has no route.
            Happened::UnknownRoute { action, resource } => {
                let ask =
                    Ask { action: action.into(), resource, params: Params::new(), shown: String::new() };
                let presented = Presented { chain: self.presented.chain.clone(), ..Presented::default() };
                self.asked(ask, &presented).await;
            }
            other => tracing::debug!(gate = event.gate, what = ?other, "A gate let something not through"),
        }
    }

    fn did(&self, did: Did) {
        self.line.teller.take(did);
    }
}

/// In the text form; one that is a set stands once for each of its texts.
fn named(params: Params) -> Vec<Named> {
    let one = |name: &str, value: String| Named { name: name.to_owned(), value };
    let mut named = Vec::with_capacity(params.len());
    for (name, param) in params {
        match param {
            Param::Long(number) => named.push(one(&name, number.to_string())),
            Param::String(text) => named.push(one(&name, text)),
            Param::Set(texts) => named.extend(texts.into_iter().map(|text| one(&name, text))),
        }
    }
    named
}

fn answered(answer: CheckResponse) -> Answer {
    let CheckResponse { outcome, reason, text, limits, record, request, receipt, .. } = answer;
    Answer { number: 0, outcome, reason, text, limits, record, request, receipt }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_written_as_texts_and_a_set_once_for_each() {
        let set = Param::Set(["a".to_owned(), "b".to_owned()].into());
        let params = [("id", Param::Long(-7)), ("state", Param::String("open".into())), ("tags", set)];
        let named = named(params.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
        let named: Vec<_> = named.iter().map(|one| format!("{}={}", one.name, one.value)).collect();
        assert_eq!(named, ["id=-7", "state=open", "tags=a", "tags=b"]);
    }
}
