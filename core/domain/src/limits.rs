//! Named limits of the nouns. Each number says why.

use std::time::Duration;

/// Longest SPIFFE ID in bytes, the whole URI counted (SPIFFE-ID 2.3, ID-16, ID-17).
pub const SPIFFE_ID_MAX: usize = 2048;
/// Longest trust domain name in bytes (SPIFFE-ID 2.1, ID-18).
pub const TRUST_DOMAIN_MAX: usize = 255;
/// Longest entry ID in bytes (as SPIRE's datastore allows).
pub const ENTRY_ID_MAX: usize = 255;
/// Longest hint in bytes (as SPIRE's API allows).
pub const HINT_MAX: usize = 1024;
/// Longest DNS name in bytes (RFC 1035 2.3.4).
pub const DNS_NAME_MAX: usize = 255;
/// Longest selector (type, colon and value) in bytes; long container labels fit.
pub const SELECTOR_MAX: usize = 4096;
/// Most selectors on one entry, node or workload: far above any real set, far below a flood.
pub const SELECTORS_MAX: usize = 1024;
/// Longest join token in bytes.
pub const JOIN_TOKEN_MAX: usize = 1024;
/// Longest agent version text in bytes (as SPIRE's API allows).
pub const AGENT_VERSION_MAX: usize = 255;
/// Longest person ID in bytes: the prefix and a UUID without dashes fit.
pub const PERSON_ID_MAX: usize = 40;
/// Longest name of a person in bytes: one line of any screen.
pub const PERSON_NAME_MAX: usize = 128;
/// Longest issuer in bytes: a URL with a tenant in it.
pub const ISSUER_MAX: usize = 512;
/// Longest subject in bytes (OpenID Connect Core 2).
pub const SUBJECT_MAX: usize = 255;
/// Largest text of a request in bytes: nobody reads more before they say yes.
pub const REQUEST_TEXT_MAX: usize = 64 * 1024;
/// Longest action and resource that is asked about, in bytes, as in a folder of rules.
pub const REQUEST_NAME_MAX: usize = 256;
/// How long a request waits for a yes: a working day.
pub const REQUEST_WAIT: Duration = Duration::from_secs(8 * 3600);
/// How long a yes lasts, unless a rule wants a fresher one.
pub const YES_FOR: Duration = Duration::from_secs(900);
/// After a no, how long the same identity does not ask to do the same thing to the same resource.
pub const NO_REST: Duration = Duration::from_secs(600);
/// Most requests of one identity that wait at one time.
pub const REQUESTS_WAITING_MAX: usize = 20;
/// Most requests that one identity makes in an hour.
pub const REQUESTS_AN_HOUR_MAX: usize = 60;
/// Most requests of all identities that wait at one time.
pub const REQUESTS_WAITING_ALL_MAX: usize = 10_000;
/// Most requests of one node that wait at one time.
pub const REQUESTS_WAITING_NODE_MAX: usize = 1_000;
/// How long a request, a grant or an emergency is kept after nothing can come of it any more; the log tells of it for longer.
pub const REQUEST_KEPT: Duration = Duration::from_secs(86_400);
/// For how long a call that is made again is answered alike: longer than any caller repeats one.
pub const AGAIN_WITHIN: Duration = Duration::from_secs(60);
/// Longest time that a grant lasts: a month, so that nothing is given for good.
pub const GRANT_FOR_MAX: Duration = Duration::from_secs(31 * 86_400);
/// Most uses of one grant.
pub const GRANT_USES_MAX: u32 = 10_000;
/// How many uses of a grant are remembered by their key.
pub const GRANT_KEYS_MAX: usize = 64;
/// Most grants of one identity that are open.
pub const GRANTS_MAX: usize = 1_000;
/// Most grants of all identities that are kept.
pub const GRANTS_ALL_MAX: usize = 100_000;
/// For how long ahead somebody accepts at most what something lacks: a quarter, as long as the drill of a stop counts.
pub const ACCEPTED_FOR_MAX: Duration = Duration::from_secs(90 * 86_400);
/// Most of what is lacking that is accepted, also what is over: a list that is longer is no exception any more.
pub const ACCEPTED_ALL_MAX: usize = 10_000;
/// Longest name of a case in bytes, as systems that keep cases give them.
pub const CASE_MAX: usize = 64;
/// Longest time that an emergency is open: long enough to act, too short to get used to.
pub const EMERGENCY_FOR_MAX: Duration = Duration::from_secs(1800);
/// How long an emergency waits for a second person: whoever is called answers by then, or it is asked anew.
pub const EMERGENCY_WAIT: Duration = Duration::from_secs(600);
/// Longest reason that somebody gives, in bytes: one line that is read in a hurry.
pub const WHY_MAX: usize = 256;
/// Most emergencies of one identity that wait or are open.
pub const EMERGENCIES_MAX: usize = 8;
/// Most emergencies of all identities that are kept.
pub const EMERGENCIES_ALL_MAX: usize = 1_000;
/// Longest code in bytes: a word or two, no story.
pub const CODE_MAX: usize = 64;
/// Longest note on published rules in bytes: one line, no story.
pub const RULES_NOTE_MAX: usize = 256;
/// Largest folder of rules that is published, names and texts of all files together, in bytes: some ten times what
/// 2,000 rules with their examples take, and a quarter of what a message may hold.
pub const RULES_FOLDER_MAX: usize = 1 << 20;
/// Longest life of an identity from now on: a year and the days to renew it.
pub const IDENTITY_LIFE_MAX: Duration = Duration::from_secs(400 * 86_400);
/// How long the owner given by an adoption has to confirm: a month, so that a holiday is not silence.
pub const ADOPTED_FOR: Duration = Duration::from_secs(30 * 86_400);
/// Longest life of an SVID of an identity that acts by itself: what verifiers outside go on accepting after a stop.
pub const SELF_ACTING_SVID_MAX: Duration = Duration::from_secs(600);
/// Longest life of a task token: one step of a task at a gate elsewhere, and what a stop leaves in anybody's hands.
pub const TASK_TOKEN_LIFE: Duration = Duration::from_secs(300);
/// Longest ID of an instance in bytes: the prefix and a UUID without dashes fit.
pub const INSTANCE_ID_MAX: usize = 40;
/// How long a node decides by what it knows after the server was last heard: what can't be taken back or is most sensitive.
pub const ALONE_SHORT: Duration = Duration::from_secs(10);
/// The same for what is sensitive.
pub const ALONE_MIDDLE: Duration = Duration::from_secs(60);
/// The same for everything else: the longest that a node which hears of no stop goes on.
pub const ALONE_LONG: Duration = Duration::from_secs(600);
/// How much longer that is while a server that went away on purpose comes back, at most and once.
pub const AWAY_MAX: Duration = Duration::from_secs(60);
/// For how long the drill of a stop counts as one.
pub const DRILL_COUNTS: Duration = Duration::from_secs(90 * 86_400);
/// After how long an identity that nobody used is called unused.
pub const UNUSED_AFTER: Duration = Duration::from_secs(30 * 86_400);
