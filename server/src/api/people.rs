//! People who are added, and as which account they sign in.
//!
//! Never lets a page say as which account somebody signs in: whoever had a page for a minute would be them for good.

use avouch_proto::convert::{name_of_person, person_to_wire, sign_in};
use avouch_proto::governance_v1 as wire;
use tonic::Status;

use crate::api::call::Call;
use crate::api::caller::NOBODY;
use crate::api::governance::{GovernanceApi, local_user, unreadable};
use crate::api::status::{bad, people_failed, write_failed};
use crate::service::Who;

impl GovernanceApi {
    pub(super) async fn add(
        &self,
        call: &Call,
        request: &wire::AddPersonRequest,
    ) -> Result<wire::Person, Status> {
        let actor = self.person(call)?;
        if request.uid == Some(NOBODY) {
            return Err(bad(&format!("uid {NOBODY} is nobody, expected a local user's")));
        }
        let who = Who {
            name: name_of_person(&request.name).map_err(unreadable)?,
            uid: request.uid,
            sign_in: sign_in(&request.issuer, &request.subject).map_err(unreadable)?,
            security: request.security,
        };
        let added = self.services.add_person(call.now(), &actor, who).await;
        let added = added.map_err(|e| write_failed("failed to add the person", &e))?;
        added.map(|person| person_to_wire(&person)).map_err(|e| people_failed(&e))
    }

    pub(super) async fn sign_in_as(
        &self,
        call: &Call,
        request: &wire::SetSignInRequest,
    ) -> Result<wire::Person, Status> {
        local_user(call)?;
        let actor = self.person(call)?;
        let sign_in = sign_in(&request.issuer, &request.subject).map_err(unreadable)?;
        let set = self.services.set_sign_in(call.now(), &actor, sign_in).await;
        let set = set.map_err(|e| write_failed("failed to set the sign-in", &e))?;
        set.map(|person| person_to_wire(&person)).map_err(|e| people_failed(&e))
    }
}
