//! Governance service: people, identities, published rules, requests, grants, emergencies and records, on local sockets.
//!
//! Never believes a caller who it is: the kernel names the local user, and the user is a person or is not.

use avouch_domain::{PersonId, SpiffeId};
use avouch_proto::convert::{
    ConvertError, environment, identity_kind, identity_to_wire, name_of_person, optional_person, person_id,
    person_to_wire, standing_name,
};
use avouch_proto::governance_v1 as wire;
use avouch_proto::governance_v1::governance_server::Governance;
use tonic::{Request, Response, Status};

use crate::api::call::{Call, open};
use crate::api::caller::{LocalPeer, NOBODY, Peer};
use crate::api::pages::Pages;
use crate::api::status::{bad, bad_token, identity_written, name_failed, people_failed, write_failed};
use crate::limits::GOVERNANCE_PAGE_MAX;
use crate::service::{IdentityFilter, ListError, PageRequest, Services, Step, step};

/// The service on the admin socket and on that for people.
#[derive(Clone)]
pub struct GovernanceApi {
    pub services: Services,
    /// `None`: there are no pages.
    pub pages: Option<Pages>,
}

impl std::fmt::Debug for GovernanceApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GovernanceApi")
    }
}

pub(super) fn unreadable(error: ConvertError) -> Status {
    bad(&error.to_string())
}

/// The local user who calls.
pub(super) fn local_user(call: &Call) -> Result<u32, Status> {
    match &*call.connection.peer {
        Peer::Local(LocalPeer { uid, .. }) if *uid != NOBODY => Ok(*uid),
        _ => {
            Err(Status::permission_denied("the kernel does not say who calls: use the server's admin socket"))
        }
    }
}

/// A page of what is wanted, or as long as pages get.
pub(super) fn page(size: i32, token: String) -> PageRequest {
    let size = if size > 0 { size.min(GOVERNANCE_PAGE_MAX) } else { GOVERNANCE_PAGE_MAX };
    PageRequest { size, token }
}

impl GovernanceApi {
    /// The person who calls.
    pub(super) fn person(&self, call: &Call) -> Result<PersonId, Status> {
        if let Peer::Page(visitor) = &*call.connection.peer {
            return self.visitor(call, visitor);
        }
        let uid = local_user(call)?;
        let person = self.services.person_of_uid(uid).filter(avouch_domain::Person::is_active);
        person.map(|person| person.id).ok_or_else(|| {
            Status::permission_denied(format!(
                "user {uid} is no active person here: `avouch init` makes the first, `avouch person add --uid {uid}` \
                 by a security person the others"
            ))
        })
    }

    /// The person who calls, and the identity that a text means.
    pub(super) fn person_and_name(&self, call: &Call, text: &str) -> Result<(PersonId, SpiffeId), Status> {
        let actor = self.person(call)?;
        let name = self.services.find_name(text).map_err(|e| name_failed(&e))?;
        Ok((actor, name))
    }

    async fn step(
        &self,
        request: Request<wire::IdentityRequest>,
        step: Step,
    ) -> Result<Response<wire::Identity>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        line.text("identity", &request.name);
        let done = async {
            let (actor, name) = self.person_and_name(&call, &request.name)?;
            identity_written(self.services.step_identity(call.now(), &actor, name, step).await)
        };
        let done = line.conclude(done.await)?;
        Ok(Response::new(identity_to_wire(&done)))
    }
}

#[tonic::async_trait]
impl Governance for GovernanceApi {
    async fn init(&self, request: Request<wire::InitRequest>) -> Result<Response<wire::Person>, Status> {
        let (call, request) = open(request)?;
        let line = call.audit();
        let made = async {
            let uid = local_user(&call)?;
            let owner = nix::unistd::Uid::effective().as_raw();
            if uid != owner {
                return Err(Status::permission_denied(format!(
                    "user {uid} calls, expected user {owner}, who owns the server's data: run it as that user"
                )));
            }
            let name = name_of_person(&request.name).map_err(unreadable)?;
            let made = self.services.first_person(call.now(), name, uid).await;
            let made = made.map_err(|e| write_failed("failed to make the first person", &e))?;
            made.map_err(|e| people_failed(&e))
        };
        let made = line.conclude(made.await)?;
        Ok(Response::new(person_to_wire(&made)))
    }

    async fn add_person(
        &self,
        request: Request<wire::AddPersonRequest>,
    ) -> Result<Response<wire::Person>, Status> {
        let (call, request) = open(request)?;
        let added = self.add(&call, &request).await;
        call.audit().conclude(added).map(Response::new)
    }

    async fn set_sign_in(
        &self,
        request: Request<wire::SetSignInRequest>,
    ) -> Result<Response<wire::Person>, Status> {
        let (call, request) = open(request)?;
        let set = self.sign_in_as(&call, &request).await;
        call.audit().conclude(set).map(Response::new)
    }

    async fn approve_person(
        &self,
        request: Request<wire::ApprovePersonRequest>,
    ) -> Result<Response<wire::Person>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        line.text("person", &request.id);
        let approved = async {
            let actor = self.person(&call)?;
            let id = person_id(&request.id).map_err(unreadable)?;
            let approved = self.services.approve_person(call.now(), &actor, id).await;
            let approved = approved.map_err(|e| write_failed("failed to approve the person", &e))?;
            approved.map_err(|e| people_failed(&e))
        };
        let approved = line.conclude(approved.await)?;
        Ok(Response::new(person_to_wire(&approved)))
    }

    async fn leave_person(
        &self,
        request: Request<wire::LeavePersonRequest>,
    ) -> Result<Response<wire::LeavePersonResponse>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        line.text("person", &request.id);
        Ok(Response::new(line.conclude(self.leave(&call, &request).await)?))
    }

    async fn list_people(
        &self,
        request: Request<wire::ListPeopleRequest>,
    ) -> Result<Response<wire::ListPeopleResponse>, Status> {
        let (call, _) = open(request)?;
        let people = self.services.people();
        // Who asks before there is anybody hears that there is nobody.
        let caller =
            if people.is_empty() { Ok(String::new()) } else { self.person(&call).map(|id| id.to_string()) };
        let caller = call.audit().conclude(caller)?;
        Ok(Response::new(wire::ListPeopleResponse {
            people: people.iter().map(person_to_wire).collect(),
            caller,
        }))
    }

    async fn register_identity(
        &self,
        request: Request<wire::RegisterIdentityRequest>,
    ) -> Result<Response<wire::Identity>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        line.text("identity", &request.name);
        let made = self.register(&call, &request).await;
        line.conclude(made).map(Response::new)
    }

    async fn approve_identity(
        &self,
        request: Request<wire::IdentityRequest>,
    ) -> Result<Response<wire::Identity>, Status> {
        self.step(request, step::approve).await
    }

    async fn change_identity(
        &self,
        request: Request<wire::ChangeIdentityRequest>,
    ) -> Result<Response<wire::Identity>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        line.text("identity", &request.name);
        let changed = self.change(&call, &request).await;
        line.conclude(changed).map(Response::new)
    }

    async fn confirm_identity(
        &self,
        request: Request<wire::IdentityRequest>,
    ) -> Result<Response<wire::Identity>, Status> {
        self.step(request, step::confirm).await
    }

    async fn pause_identity(
        &self,
        request: Request<wire::IdentityRequest>,
    ) -> Result<Response<wire::StopResponse>, Status> {
        self.stopping(request, step::pause).await
    }

    async fn resume_identity(
        &self,
        request: Request<wire::IdentityRequest>,
    ) -> Result<Response<wire::Identity>, Status> {
        self.step(request, step::resume).await
    }

    async fn stop_identity(
        &self,
        request: Request<wire::IdentityRequest>,
    ) -> Result<Response<wire::StopResponse>, Status> {
        self.stopping(request, step::stop).await
    }

    async fn drill_stop(
        &self,
        request: Request<wire::IdentityRequest>,
    ) -> Result<Response<wire::StopResponse>, Status> {
        self.stopping(request, step::drill).await
    }

    async fn place_identity(
        &self,
        request: Request<wire::PlaceIdentityRequest>,
    ) -> Result<Response<wire::PlaceIdentityResponse>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        line.text("identity", &request.name);
        let placed = self.place(&call, &request).await;
        let entry_id = line.conclude(placed)?;
        Ok(Response::new(wire::PlaceIdentityResponse { entry_id }))
    }

    async fn get_identity(
        &self,
        request: Request<wire::IdentityRequest>,
    ) -> Result<Response<wire::GetIdentityResponse>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        line.text("identity", &request.name);
        let found = self
            .person(&call)
            .and_then(|_| self.services.find_name(&request.name).map_err(|e| name_failed(&e)));
        let name = line.conclude(found)?;
        let reach = self.services.reach(call.now().wall, &name);
        let reach = reach.ok_or_else(|| Status::not_found(format!("no identity has the name {name}")))?;
        Ok(Response::new(wire::GetIdentityResponse {
            identity: self.with_uses(vec![reach.identity]).await?.pop(),
            entry_ids: reach.entry_ids,
            agent_ids: reach.agents.iter().map(ToString::to_string).collect(),
        }))
    }

    async fn list_identities(
        &self,
        request: Request<wire::ListIdentitiesRequest>,
    ) -> Result<Response<wire::ListIdentitiesResponse>, Status> {
        let (call, request) = open(request)?;
        let filter = || -> Result<IdentityFilter, Status> {
            let named = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            Ok(IdentityFilter {
                standing: named(&request.standing)
                    .map(|s| standing_name(&s))
                    .transpose()
                    .map_err(unreadable)?,
                owner: optional_person(&request.owner).map_err(unreadable)?,
                kind: named(&request.kind).map(|k| identity_kind(&k)).transpose().map_err(unreadable)?,
                environment: named(&request.environment)
                    .map(|e| environment(&e))
                    .transpose()
                    .map_err(unreadable)?,
                unused: request.unused,
            })
        };
        let listed = async {
            self.person(&call)?;
            let page = page(request.page_size, request.page_token.clone());
            let listed = self.services.list_identities(call.now().wall, &filter()?, &page).await;
            let listed = listed.map_err(|e| match e {
                ListError::Token(e) => bad_token("failed to list identities", &e),
                ListError::Store(e) => write_failed("failed to list identities", &e),
            })?;
            Ok((self.with_uses(listed.items).await?, listed.next_token))
        };
        let (identities, next_page_token) = call.audit().conclude(listed.await)?;
        Ok(Response::new(wire::ListIdentitiesResponse { identities, next_page_token }))
    }

    async fn list_found(
        &self,
        request: Request<wire::ListFoundRequest>,
    ) -> Result<Response<wire::ListFoundResponse>, Status> {
        let (call, request) = open(request)?;
        let listed = self.person(&call).and_then(|_| {
            let listed = self.services.list_found(&page(request.page_size, request.page_token));
            listed.map_err(|e| bad_token("failed to list found names", &e))
        });
        let listed = call.audit().conclude(listed)?;
        let withheld_from = self.services.settings().owners_demanded_from.map_or(0, |from| from.secs());
        let found = listed.items.into_iter().map(|found| {
            let (owner, reason) = match found.suggestion {
                Some(suggestion) => (suggestion.person.to_string(), suggestion.reason.to_string()),
                None => Default::default(),
            };
            wire::Found {
                spiffe_id: found.name.to_string(),
                entries: u32::try_from(found.entries).unwrap_or(u32::MAX),
                suggested_owner: owner,
                reason,
                withheld_from,
            }
        });
        Ok(Response::new(wire::ListFoundResponse {
            found: found.collect(),
            next_page_token: listed.next_token,
        }))
    }

    async fn adopt(
        &self,
        request: Request<wire::AdoptRequest>,
    ) -> Result<Response<wire::AdoptResponse>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        line.text("path_prefix", &request.path_prefix);
        line.flag("dry_run", request.dry_run);
        let adopted = self.adopt_names(&call, &request).await;
        line.conclude(adopted).map(Response::new)
    }

    async fn publish_rules(
        &self,
        request: Request<wire::PublishRulesRequest>,
    ) -> Result<Response<wire::PublishRulesResponse>, Status> {
        let (call, request) = open(request)?;
        let published = self.publish(&call, request).await;
        call.audit().conclude(published).map(Response::new)
    }

    async fn approve_rules(
        &self,
        request: Request<wire::RulesRequest>,
    ) -> Result<Response<wire::PublishedRules>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        line.text("rules", request.number.to_string());
        let approved = self.approve_published(&call, request.number).await;
        line.conclude(approved).map(Response::new)
    }

    async fn withdraw_rules(
        &self,
        request: Request<wire::RulesRequest>,
    ) -> Result<Response<wire::PublishedRules>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        line.text("rules", request.number.to_string());
        let withdrawn = self.withdraw_published(&call, request.number).await;
        line.conclude(withdrawn).map(Response::new)
    }

    async fn list_rules(
        &self,
        request: Request<wire::ListRulesRequest>,
    ) -> Result<Response<wire::ListRulesResponse>, Status> {
        let (call, request) = open(request)?;
        call.audit().conclude(self.list_published(&call, &request)).map(Response::new)
    }

    async fn get_rules(
        &self,
        request: Request<wire::RulesRequest>,
    ) -> Result<Response<wire::GetRulesResponse>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        line.text("rules", request.number.to_string());
        let got = self.get_published(&call, request.number).await;
        line.conclude(got).map(Response::new)
    }

    async fn list_requests(
        &self,
        request: Request<wire::ListRequestsRequest>,
    ) -> Result<Response<wire::ListRequestsResponse>, Status> {
        let (call, request) = open(request)?;
        call.audit().conclude(self.requests(&call, request.all)).map(Response::new)
    }

    async fn get_request(
        &self,
        request: Request<wire::GetRequestRequest>,
    ) -> Result<Response<wire::GetRequestResponse>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        line.text("request", &request.id);
        line.conclude(self.request(&call, &request.id).await).map(Response::new)
    }

    async fn answer_request(
        &self,
        request: Request<wire::AnswerRequestRequest>,
    ) -> Result<Response<wire::Request>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        line.text("request", &request.id);
        line.flag("yes", request.yes);
        line.conclude(self.answer(&call, &request).await).map(Response::new)
    }

    async fn give_grant(
        &self,
        request: Request<wire::GiveGrantRequest>,
    ) -> Result<Response<wire::Grant>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        line.text("identity", &request.name);
        line.text("resource", &request.resource);
        line.conclude(self.give(&call, request).await).map(Response::new)
    }

    async fn end_grant(
        &self,
        request: Request<wire::EndGrantRequest>,
    ) -> Result<Response<wire::Grant>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        line.text("grant", &request.id);
        line.conclude(self.take_back(&call, &request.id).await).map(Response::new)
    }

    async fn end_case(
        &self,
        request: Request<wire::EndCaseRequest>,
    ) -> Result<Response<wire::EndCaseResponse>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        line.text("case", &request.case);
        line.conclude(self.close(&call, &request.case).await).map(Response::new)
    }

    async fn list_grants(
        &self,
        request: Request<wire::ListGrantsRequest>,
    ) -> Result<Response<wire::ListGrantsResponse>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        line.text("identity", &request.name);
        line.conclude(self.grants(&call, &request)).map(Response::new)
    }

    async fn accept_finding(
        &self,
        request: Request<wire::AcceptFindingRequest>,
    ) -> Result<Response<wire::Accepted>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        line.text("identity", &request.name);
        line.conclude(self.accept(&call, &request).await).map(Response::new)
    }

    async fn unaccept_finding(
        &self,
        request: Request<wire::UnacceptFindingRequest>,
    ) -> Result<Response<wire::Accepted>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        line.text("identity", &request.name);
        line.conclude(self.unaccept(&call, &request).await).map(Response::new)
    }

    async fn list_accepted(
        &self,
        request: Request<wire::ListAcceptedRequest>,
    ) -> Result<Response<wire::ListAcceptedResponse>, Status> {
        let (call, request) = open(request)?;
        call.audit().conclude(self.accepted(&call, request)).map(Response::new)
    }

    async fn ask_emergency(
        &self,
        request: Request<wire::AskEmergencyRequest>,
    ) -> Result<Response<wire::Emergency>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        line.text("identity", &request.name);
        line.text("resource", &request.resource);
        line.conclude(self.widen(&call, request).await).map(Response::new)
    }

    async fn agree_emergency(
        &self,
        request: Request<wire::AgreeEmergencyRequest>,
    ) -> Result<Response<wire::Emergency>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        line.text("emergency", &request.id);
        line.conclude(self.agree(&call, &request.id).await).map(Response::new)
    }

    async fn end_emergency(
        &self,
        request: Request<wire::EndEmergencyRequest>,
    ) -> Result<Response<wire::Emergency>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        line.text("emergency", &request.id);
        line.conclude(self.narrow(&call, &request.id).await).map(Response::new)
    }

    async fn list_emergencies(
        &self,
        request: Request<wire::ListEmergenciesRequest>,
    ) -> Result<Response<wire::ListEmergenciesResponse>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        line.text("identity", &request.name);
        line.conclude(self.emergencies(&call, &request)).map(Response::new)
    }

    async fn list_records(
        &self,
        request: Request<wire::ListRecordsRequest>,
    ) -> Result<Response<wire::ListRecordsResponse>, Status> {
        let (call, request) = open(request)?;
        let read = self.read_records(&call, &request).await;
        call.audit().conclude(read).map(Response::new)
    }

    async fn list_chains(
        &self,
        request: Request<wire::ListChainsRequest>,
    ) -> Result<Response<wire::ListChainsResponse>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        line.text("source", &request.source);
        let read = self.read_chains(&call, &request).await;
        line.conclude(read).map(Response::new)
    }

    async fn overview(
        &self,
        request: Request<wire::OverviewRequest>,
    ) -> Result<Response<wire::OverviewResponse>, Status> {
        let (call, _) = open(request)?;
        let counted = self.counted(&call).await;
        call.audit().conclude(counted).map(Response::new)
    }

    async fn open_pages(
        &self,
        request: Request<wire::OpenPagesRequest>,
    ) -> Result<Response<wire::OpenPagesResponse>, Status> {
        let (call, _) = open(request)?;
        call.audit().conclude(self.invited(&call)).map(Response::new)
    }
}
