//! What one caller may do, asked of the node agent with what the caller proved.

use avouch_domain::Presented;
use avouch_proto::gate_v1::gate_client::GateClient;
use avouch_proto::gate_v1::{CheckRequest, CheckResponse, Param as Named};
use avouch_proto::run_v1::Answer;
use avouch_rules::{Param, Params};
use tonic::Code;
use tonic::transport::Channel;

use crate::gate::{Ask, GateEvent, Happened, Judge, Verdict, wire};

/// Asks about one request of one caller.
pub(super) struct PeerJudge {
    pub client: GateClient<Channel>,
    pub presented: Presented,
}

impl PeerJudge {
    async fn asked(&self, ask: Ask) -> Verdict {
        let Ask { action, resource, params, shown } = ask;
        let request = CheckRequest {
            token: self.presented.token.to_string(),
            certificates: self.presented.chain.clone(),
            action: action.into_owned(),
            resource,
            params: named(params),
            what_if: false,
            shown,
        };
        match self.client.clone().check(request).await {
            Ok(answer) => wire::verdict(answered(answer.into_inner())),
            Err(status) if status.code() == Code::Unavailable => {
                Verdict::Unavailable { text: format!("the node agent does not decide: {}", status.message()) }
            }
            Err(status) => Verdict::Deny { reason: "gate".to_owned(), text: status.message().to_owned() },
        }
    }
}

impl Judge for PeerJudge {
    async fn decide(&self, ask: Ask) -> Verdict {
        self.asked(ask).await
    }

    async fn note(&self, event: GateEvent) {
        match event.what {
            // Asked and denied like any other, so that there is a record of it.
            Happened::UnknownRoute { action, resource } => {
                let (params, shown) = (Params::new(), String::new());
                self.asked(Ask { action: action.into(), resource, params, shown }).await;
            }
            other => tracing::debug!(gate = event.gate, what = ?other, "A gate let something not through"),
        }
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
    let CheckResponse { outcome, reason, text, limits, record, request, .. } = answer;
    Answer { number: 0, outcome, reason, text, limits, record, request }
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
