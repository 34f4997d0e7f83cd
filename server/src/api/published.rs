//! The methods of the governance service on published rules.

use avouch_domain::PublishedRules;
use avouch_domain::rules::rules_note;
use avouch_proto::convert::{published_rules_to_wire, rules_files, rules_files_to_wire};
use avouch_proto::governance_v1 as wire;
use avouch_rules::Finding;
use tonic::Status;

use crate::api::call::Call;
use crate::api::governance::{GovernanceApi, unreadable};
use crate::api::rules::statement;
use crate::api::status::{bad, rules_failed, write_failed};
use crate::limits::GOVERNANCE_PAGE_MAX;
use crate::service::{Publication, RulesError};

fn finding(found: Finding) -> wire::RulesFinding {
    wire::RulesFinding {
        file: found.file,
        line: found.line.unwrap_or(0),
        code: found.code.to_owned(),
        text: found.text,
        next: found.next,
    }
}

impl GovernanceApi {
    fn shown(&self, rules: &PublishedRules) -> wire::PublishedRules {
        let in_force = self.services.find_rules(0).ok().map(|rules| rules.number);
        published_rules_to_wire(rules, in_force)
    }

    pub(super) async fn publish(
        &self,
        call: &Call,
        request: wire::PublishRulesRequest,
    ) -> Result<wire::PublishRulesResponse, Status> {
        let actor = self.person(call)?;
        let note = rules_note(&request.note).map_err(|e| bad(&e.to_string()))?;
        let files = rules_files(request.files).map_err(unreadable)?;
        let done = self.services.publish_rules(call.now(), &actor, files, note).await;
        let done = done.map_err(|e| write_failed("failed to publish the rules", &e))?;
        Ok(match done.map_err(|e| rules_failed(&e))? {
            Publication::Published(rules) => {
                wire::PublishRulesResponse { rules: Some(self.shown(&rules)), findings: Vec::new() }
            }
            Publication::Found(findings) => wire::PublishRulesResponse {
                rules: None,
                findings: findings.into_iter().map(finding).collect(),
            },
        })
    }

    pub(super) async fn approve_published(
        &self,
        call: &Call,
        number: u64,
    ) -> Result<wire::PublishedRules, Status> {
        let actor = self.person(call)?;
        let done = self.services.approve_rules(call.now(), &actor, number).await;
        let done = done.map_err(|e| write_failed("failed to approve the rules", &e))?;
        done.map(|rules| self.shown(&rules)).map_err(|e| rules_failed(&e))
    }

    pub(super) async fn withdraw_published(
        &self,
        call: &Call,
        number: u64,
    ) -> Result<wire::PublishedRules, Status> {
        let actor = self.person(call)?;
        let done = self.services.withdraw_rules(call.now(), &actor, number).await;
        let done = done.map_err(|e| write_failed("failed to withdraw the rules", &e))?;
        done.map(|rules| self.shown(&rules)).map_err(|e| rules_failed(&e))
    }

    pub(super) fn list_published(
        &self,
        call: &Call,
        request: &wire::ListRulesRequest,
    ) -> Result<wire::ListRulesResponse, Status> {
        self.person(call)?;
        let limit =
            if request.limit > 0 { request.limit.min(GOVERNANCE_PAGE_MAX) } else { GOVERNANCE_PAGE_MAX };
        let (rules, in_force) = self.services.list_rules(request.before, usize::try_from(limit).unwrap_or(0));
        let rules = rules.iter().map(|rules| published_rules_to_wire(rules, in_force)).collect();
        Ok(wire::ListRulesResponse { rules })
    }

    pub(super) async fn get_published(
        &self,
        call: &Call,
        number: u64,
    ) -> Result<wire::GetRulesResponse, Status> {
        self.person(call)?;
        let rules = self.services.find_rules(number).map_err(|e| match number {
            0 => Status::not_found("no rules are in force: `avouch rules publish` puts a folder in force"),
            _ => rules_failed(&e),
        })?;
        let folder = self.services.rules_folder(rules.digest).await;
        let folder = folder.map_err(|e| write_failed("failed to read the rules", &e))?;
        let folder = folder.ok_or_else(|| rules_failed(&RulesError::NotKept(rules.number)))?;
        let in_force = self.services.find_rules(0).is_ok_and(|in_force| in_force.number == rules.number);
        let shown = self.services.shown_rules();
        let signed = shown.as_ref().and_then(|shown| shown.rules.as_ref()).map(|rules| &rules.signed);
        // New rules are in force before they are signed: until then agents are still shown the ones before.
        let signed = signed.filter(|signed| in_force && signed.number == rules.number);
        Ok(wire::GetRulesResponse {
            rules: Some(self.shown(&rules)),
            files: rules_files_to_wire(&folder.files),
            statement: signed.map(statement),
        })
    }
}
