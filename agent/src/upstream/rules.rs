//! The rules in force: what the watch stream says of them, and the folder that is fetched beside it.
//!
//! Never judges what the server says: `crate::rules` does.

use std::num::NonZeroU32;

use avouch_credential::rules::SignedRules;
use avouch_domain::limits::RULES_FOLDER_MAX;
use avouch_domain::{Epoch, RulesDigest, Timestamp};
use avouch_proto::convert::{rules_digest, rules_files};
use avouch_proto::rules_v1::rules_client::RulesClient;
use avouch_proto::rules_v1::{FetchRequest, FetchResponse};
use avouch_proto::watch_v1::RulesNotice;
use tokio::sync::watch;

use super::watch::malformed;
use super::{CallError, Line, Server};

/// Bytes that a folder takes on the wire beside its names and texts.
const AROUND: usize = 64 * 1024;

/// Which rules are in force, by the word of the server's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// Of the server's store: numbers rise within one.
    pub epoch: Epoch,
    /// `None`: none are published.
    pub rules: Option<AnnouncedRules>,
    /// Agents that follow the same server, this one counted; `None`: not told.
    pub fleet: Option<NonZeroU32>,
}

/// Rules by the word of the server's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnouncedRules {
    /// From 1.
    pub number: u64,
    pub digest: RulesDigest,
    /// What the server signs rules with (PKIX, DER).
    pub key: Vec<u8>,
}

/// Rules as the server gave them: nothing of it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedRules {
    pub signed: SignedRules,
    /// Names and texts, of bounded size.
    pub files: Vec<(String, String)>,
}

/// Where rules come from.
#[tonic::async_trait]
pub trait RulesSource: Send + Sync + 'static {
    /// What was announced last; `None` before anything was, and for ever from a server that knows no rules.
    fn announced(&self) -> watch::Receiver<Option<Announced>>;

    /// The rules in force.
    async fn fetch_rules(&self) -> Result<FetchedRules, CallError>;
}

#[tonic::async_trait]
impl RulesSource for Server {
    fn announced(&self) -> watch::Receiver<Option<Announced>> {
        self.announced.subscribe()
    }

    async fn fetch_rules(&self) -> Result<FetchedRules, CallError> {
        self.call(|line| async move { fetch(&line).await }).await
    }
}

async fn fetch(line: &Line) -> Result<FetchedRules, CallError> {
    let mut client =
        RulesClient::new(line.channel.clone()).max_decoding_message_size(RULES_FOLDER_MAX + AROUND);
    fetched(client.fetch(FetchRequest {}).await?.into_inner())
}

fn fetched(answer: FetchResponse) -> Result<FetchedRules, CallError> {
    let statement = answer.statement.ok_or_else(|| malformed("rules without a statement"))?;
    let signed = SignedRules {
        epoch: Epoch { started: statement.epoch_started, random: statement.epoch_random },
        number: statement.number,
        digest: rules_digest(&statement.digest).map_err(malformed)?,
        valid_from: Timestamp(statement.valid_from_ms),
        key: statement.key,
        signature: statement.signature,
    };
    Ok(FetchedRules { signed, files: rules_files(answer.files).map_err(malformed)? })
}

/// # Errors
/// A notice of rules without a digest.
pub(super) fn announced(notice: RulesNotice, fleet: Option<NonZeroU32>) -> Result<Announced, CallError> {
    let rules = match notice.number {
        0 => None,
        number => {
            let digest = rules_digest(&notice.digest).map_err(malformed)?;
            Some(AnnouncedRules { number, digest, key: notice.key })
        }
    };
    let epoch = Epoch { started: notice.epoch_started, random: notice.epoch_random };
    Ok(Announced { epoch, rules, fleet })
}

#[cfg(test)]
mod tests {
    use avouch_proto::rules_v1::{File, Statement};

    use super::*;

    fn statement() -> Statement {
        Statement { epoch_started: 5, number: 7, digest: vec![1; 32], key: vec![2], ..Default::default() }
    }

    #[test]
    fn what_is_fetched_says_what_was_sent() {
        let files = vec![File { name: "a.cedar".into(), text: "x".into() }];
        let fetched = fetched(FetchResponse { statement: Some(statement()), files }).unwrap();
        assert_eq!((fetched.signed.number, fetched.signed.epoch.started), (7, 5));
        assert_eq!(fetched.files, [("a.cedar".to_owned(), "x".to_owned())]);
    }

    #[test]
    fn rules_without_statement_or_digest_or_of_too_many_bytes_are_malformed() {
        assert!(fetched(FetchResponse::default()).is_err());
        let short = Statement { digest: vec![1; 31], ..statement() };
        assert!(fetched(FetchResponse { statement: Some(short), files: vec![] }).is_err());
        let large = File { name: "a.cedar".into(), text: "x".repeat(RULES_FOLDER_MAX) };
        assert!(fetched(FetchResponse { statement: Some(statement()), files: vec![large] }).is_err());
        assert!(announced(RulesNotice { number: 1, ..Default::default() }, None).is_err());
    }

    #[test]
    fn number_zero_says_that_no_rules_are_published() {
        let none = announced(RulesNotice { epoch_started: 5, ..Default::default() }, None).unwrap();
        assert_eq!((none.epoch.started, none.rules), (5, None));
    }
}
