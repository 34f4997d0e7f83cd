//! The pages of this server, as its API sees them: a caller who is signed in, and the link that signs in.
//!
//! Never believes a page more than a socket: what a visitor may do is decided where it is for everybody. What a page gives
//! away takes a fresh sign-in.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use avouch_console::sessions::{Sessions, Visitor};
use avouch_console::{Arrivals, Console, FRESH, Whose};
use avouch_domain::{PersonId, PersonState, SignIn};
use avouch_proto::governance_v1 as wire;
use http::{Request, Response};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tower::Service;
use tower::util::BoxCloneSyncService;

use crate::api::call::{Call, Connection};
use crate::api::caller::Peer;
use crate::api::gate::{Gate, Stack};
use crate::api::governance::{GovernanceApi, local_user};
use crate::api::people_stack;
use crate::api::status::write_failed;
use crate::config::SignInConfig;
use crate::service::Services;
use crate::sign_in;

/// Methods for which a sign-in is never too old: they read, or they make less possible. What answers a request looks itself.
const ANYTIME: [&str; 23] = [
    "ListPeople",
    "GetIdentity",
    "ListIdentities",
    "ListFound",
    "ListRules",
    "GetRules",
    "ListRequests",
    "GetRequest",
    "ListGrants",
    "ListAccepted",
    "ListEmergencies",
    "ListRecords",
    "ListChains",
    "Overview",
    "PauseIdentity",
    "StopIdentity",
    "DrillStop",
    "EndGrant",
    "EndCase",
    "UnacceptFinding",
    "EndEmergency",
    "WithdrawRules",
    "AnswerRequest",
];

/// Where the pages are, and who is signed in. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pages {
    pub address: SocketAddr,
    pub sessions: Arc<Sessions>,
    /// `None`: links sign in.
    pub sign_in: Option<SignInConfig>,
}

impl Pages {
    #[must_use]
    pub fn at(address: SocketAddr, sign_in: Option<SignInConfig>) -> Self {
        Self { address, sessions: Arc::default(), sign_in }
    }

    /// Where a browser finds them.
    fn base(&self) -> String {
        let known = self.sign_in.as_ref().and_then(|config| config.host.clone());
        let host = known.unwrap_or_else(|| self.address.to_string());
        // Browsers leave out the port that HTTP has by itself.
        format!("http://{}", host.strip_suffix(":80").unwrap_or(&host))
    }

    /// The pages, on top of this API.
    ///
    /// # Errors
    /// The provider can't be made ready: one sentence.
    pub fn console(&self, gate: &Arc<Gate>) -> Result<Console, String> {
        let stack = people_stack(gate, None);
        let api = move |visitor| {
            let connection =
                Connection { peer: Arc::new(Peer::Page(visitor)), leaving: CancellationToken::new() };
            BoxCloneSyncService::new(Within { stack: stack.clone(), connection })
        };
        let services = &gate.services;
        let domain = services.trust_domain().as_str();
        let console = Console::new(domain, self.sessions.clone(), api, services.subscribe(), gate.clock);
        let Some(config) = &self.sign_in else { return Ok(console) };
        let (base, services) = (self.base(), services.clone());
        let provider = sign_in::provider(config, &base)?;
        Ok(console.with_arrivals(Arrivals::new(provider, &base, move |account| whose(&services, account))))
    }
}

fn whose(services: &Services, account: &SignIn) -> Whose {
    match services.registry().person_of_sign_in(account) {
        Some(person) if person.is_active() => Whose::Person(person.id.clone()),
        Some(person) if person.state == PersonState::Proposed => Whose::Waits,
        _ => Whose::Nobody,
    }
}

/// The API without a wire, in the name of one visitor.
#[derive(Clone)]
struct Within {
    stack: Stack,
    connection: Connection,
}

impl Service<Request<Body>> for Within {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.stack.clone().answer(request, self.connection.clone()))
    }
}

/// Refuses what makes more possible, and a yes, from a page to which somebody signed in a while ago.
pub(super) fn freshly(call: &Call) -> Result<(), Status> {
    match &*call.connection.peer {
        Peer::Page(visitor) if call.now().since(visitor.signed_in) >= FRESH => {
            let again = match visitor.account {
                Some(_) => "sign in again",
                None => "open a new link of `avouch console`",
            };
            Err(Status::failed_precondition(format!(
                "you signed in more than {} minutes ago, and this takes a fresh sign-in: {again}, then do it again",
                FRESH.as_secs() / 60
            )))
        }
        _ => Ok(()),
    }
}

impl GovernanceApi {
    /// The person who is signed in.
    pub(super) fn visitor(&self, call: &Call, visitor: &Visitor) -> Result<PersonId, Status> {
        if !ANYTIME.contains(&call.method.name) {
            freshly(call)?;
        }
        let registry = self.services.registry();
        let person = registry.person(&visitor.person).filter(|person| person.is_active());
        let gone = || Status::permission_denied("whoever is signed in is no active person here any more");
        let person = person.ok_or_else(gone)?;
        // Whoever takes an account back ends what it began.
        if visitor.account.is_some() && visitor.account != person.sign_in {
            return Err(Status::permission_denied("whoever is signed in signs in as another account now"));
        }
        Ok(person.id.clone())
    }

    /// A link for the person who calls on a socket.
    pub(super) fn invited(&self, call: &Call) -> Result<wire::OpenPagesResponse, Status> {
        // Who is on a page already makes no links: they would outlast the session.
        let user = local_user(call)?;
        let person = self.person(call)?;
        let pages = self.pages.as_ref().ok_or_else(|| {
            Status::failed_precondition(
                "this server serves no pages: set `console_address = \"127.0.0.1:8090\"` in its configuration",
            )
        })?;
        if let Some(config) = &pages.sign_in {
            return Err(Status::failed_precondition(format!(
                "people sign in to the pages with {}: open {}/ in a browser on this machine",
                config.issuer.host(),
                pages.base()
            )));
        }
        let invitation = pages.sessions.invite(&person, user, call.now());
        let invitation = invitation.map_err(|e| Status::internal(format!("failed to make a link: {e}")))?;
        let url = format!("{}/sign-in?code={}", pages.base(), *invitation.code);
        Ok(wire::OpenPagesResponse { url, ends_at: invitation.ends_at.secs() })
    }

    pub(super) async fn counted(&self, call: &Call) -> Result<wire::OverviewResponse, Status> {
        self.person(call)?;
        let counted = self.services.overview(call.now()).await;
        let (counts, last_record) = counted.map_err(|e| write_failed("failed to count", &e))?;
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Ok(wire::OverviewResponse {
            proposed: number(counts.proposed),
            active: number(counts.active),
            paused: number(counts.paused),
            stopped: number(counts.stopped),
            found: number(counts.found),
            not_confirmed: number(counts.not_confirmed),
            ending: number(counts.ending),
            stop_untried: number(counts.stop_untried),
            unused: number(counts.unused),
            waiting: number(counts.waiting),
            people: number(counts.people),
            security_people: number(counts.security_people),
            nodes: number(counts.nodes),
            following: number(self.services.followers()),
            last_record,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::authz::METHODS;

    #[test]
    fn what_makes_more_possible_takes_a_fresh_sign_in() {
        let governance = METHODS.iter().filter(|method| method.service.ends_with(".Governance"));
        let (free, fresh): (Vec<_>, Vec<_>) =
            governance.map(|method| method.name).partition(|name| ANYTIME.contains(name));
        assert_eq!(free.len(), ANYTIME.len(), "each is a method: {free:?}");
        assert_eq!(
            fresh,
            [
                "Init",
                "AddPerson",
                "SetSignIn",
                "ApprovePerson",
                "LeavePerson",
                "RegisterIdentity",
                "ApproveIdentity",
                "ChangeIdentity",
                "ConfirmIdentity",
                "ResumeIdentity",
                "PlaceIdentity",
                "Adopt",
                "PublishRules",
                "ApproveRules",
                "GiveGrant",
                "AcceptFinding",
                "AskEmergency",
                "AgreeEmergency",
                "OpenPages",
            ]
        );
    }
}
