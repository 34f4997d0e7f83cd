//! Named limits of the agent's edges. Each number says why.

use std::time::Duration;

use avouch_credential::limits::{PRESENTED_CHAIN_MAX, PRESENTED_TOKEN_MAX};
use avouch_domain::limits::REQUEST_TEXT_MAX;

/// Longest path of a Unix socket in bytes: 108 of the address, less the final zero.
pub const SOCKET_PATH_MAX: usize = 107;
/// Asked backlog; the kernel cuts it to `net.core.somaxconn`. A full Unix backlog fails non-blocking clients.
pub const BACKLOG: i32 = i32::MAX;
/// Descriptors kept for files, server connections, listeners, and processes pinned a moment longer than they stay; the
/// rest of the limit is for workloads.
pub const DESCRIPTORS_RESERVED: u64 = 192;
/// One part in so many of the rest is for connections that are not pinned yet: each holds a handle of its process then.
pub const UNPINNED_DIVISOR: u64 = 16;
/// One part in so many is at most for files that stay open, one for a process.
pub const OPEN_FILES_DIVISOR: u64 = 8;
/// Descriptors that a process costs beside one for each of its connections: its handle.
pub const DESCRIPTORS_PER_PROCESS: usize = 1;
/// Connections served whatever the descriptor limit says, so that a tiny limit still works.
pub const CONNECTIONS_MIN: usize = 16;
/// Connections served at most, however many descriptors there are, a process counting as one: some 20 kB each.
pub const CONNECTIONS_MAX: usize = 32_768;
/// Most open calls on the workload socket: about 11 kB each, so a few hundred megabytes at worst.
pub const CALLS_MAX: usize = 32_768;
/// Most JWT-SVID calls that wait for minting: few enough that one process's flood delays nobody for long.
pub const MINTING_MAX: usize = 1024;
/// Answers with JWT-SVIDs that are given again without asking the cache: as many as it holds tokens by default.
pub const LENT_MAX: usize = 1000;
/// Longest time for which that goes on: the cache throws away what it has not been asked for longest.
pub const LENT_AGE_MAX: Duration = Duration::from_secs(1);
/// Most open calls on one connection. A client library keeps two to four streams.
pub const CALLS_PER_CONNECTION: u32 = 128;
/// Rounds in which a connection and its calls wake each other before others have the thread: a call takes two or three.
pub const ROUNDS_MAX: usize = 64;
/// Largest body of a question on the decision socket, in bytes.
pub const ACCESS_BODY_MAX: usize = 64 << 10;
/// Largest head of a request there: a path and a few headers.
pub const ACCESS_HEAD_MAX: usize = 16 << 10;
/// Most questions of one batch: each is decided and recorded in turn.
pub const EVALUATIONS_MAX: usize = 64;
/// Longest name of a request that is given back.
pub const REQUEST_ID_MAX: usize = 128;
/// Most attestations that wait or run at once.
pub const ATTESTATIONS_WAITING_MAX: usize = 1024;
/// Attestations that run at once: each reads a few files, or hashes one binary.
pub const ATTESTATIONS_RUNNING_MAX: usize = 16;
/// Budget kept free for callers that hold next to nothing: one part in so many.
pub const RESERVE_DIVISOR: usize = 8;
/// A process or user that holds fewer than this is never the one that is refused for its share.
pub const SHARE_MIN: usize = 4;
/// Longest attestation; a caller waits this long at most for its lookers.
pub const ATTESTATION_DEADLINE: Duration = Duration::from_secs(10);
/// Age at which cached selectors are looked up again: names of users and groups can change outside the process.
pub const SELECTORS_AGE_MAX: Duration = Duration::from_secs(60);
/// Most processes whose selectors are cached.
pub const SELECTORS_CACHED_MAX: usize = 8192;
/// Connections at once, from which on their end is worth giving memory back: some eight megabytes.
pub const EBB_CONNECTIONS_MIN: usize = 256;
/// Time between the end of a flood and that: the rest of it goes in the meantime.
pub const EBB_AFTER: Duration = Duration::from_secs(2);
/// Pause after a failed accept, so that a lack of descriptors does not spin.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Time between the refusal of a changed process and the end of its connection: the answer must get out first.
pub const CLOSE_GRACE: Duration = Duration::from_millis(100);
/// Longest wait for callers to take their last answer when the agent stops.
pub const DRAIN_MAX: Duration = Duration::from_secs(5);
/// A first answer that has one SVID waits this long at most for the next that is being signed: the caller's default
/// identity is then the right one from the start, and one slow signature holds nobody up.
pub const INCOMPLETE_WAIT: Duration = Duration::from_secs(2);
/// Biggest answer that every client library takes.
pub const ANSWER_MAX: usize = 4 * 1024 * 1024;
/// Answers above this are warned about: they grow with each federation and are near the limit.
pub const ANSWER_WARN: usize = 1024 * 1024;
/// Biggest request: a token to validate is the largest, and one beyond 16 KiB fits no HTTP header.
pub const REQUEST_MAX: usize = 64 * 1024;
/// Biggest question of a gate: what a person is to see, and what its caller presented.
pub const ASK_MAX: usize = REQUEST_TEXT_MAX + PRESENTED_TOKEN_MAX + PRESENTED_CHAIN_MAX + 16 * 1024;
/// Biggest request of the services beside the Workload API: health and reflection ask by name.
pub const SMALL_REQUEST_MAX: usize = 4 * 1024;
/// Longest wait for the end of a request: clients send it at once, and what is half there takes room.
pub const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);
/// Bytes that a connection, and each call on it, may send ahead of being read: the biggest request.
pub const RECEIVE_WINDOW: u32 = 64 * 1024;
/// Bytes of a call's answers that wait for its client; with more there, the next is made when it reads on.
pub const SEND_BUFFER: usize = 4 * 1024;
/// Biggest list of a request's headers.
pub const HEADER_LIST_MAX: u32 = 16 * 1024;
/// Most audiences in one request: rust clients refuse tokens with more.
pub const AUDIENCES_MAX: usize = 32;
/// Refusals of one process leave one log line in this time.
pub const REFUSAL_LOG_PERIOD: Duration = Duration::from_secs(10);
/// Processes whose last refusal is remembered, and so the most lines in one period: each looks at all entries for the
/// nearest one.
pub const REFUSALS_REMEMBERED_MAX: usize = 128;
/// Difference to the server's clock above which health and log warn.
pub const CLOCK_SKEW_WARN_MS: i64 = 5000;
/// Worker threads, whatever the cores: the agent must not crowd out its node's workloads.
pub const WORKER_THREADS_MAX: usize = 4;
/// Longest call to the server, answer included (as SPIRE's agent).
pub const CALL_MAX: Duration = Duration::from_secs(30);
/// How often in a row a call is made again because its connection ended under it; more is no coincidence.
pub const INTERRUPTIONS_MAX: u32 = 3;
/// Longest attestation of the node: several rounds, and the server may pace them.
pub const ATTEST_MAX: Duration = Duration::from_secs(60);
/// Longest attempt to connect, all addresses of the server together.
pub const CONNECT_MAX: Duration = Duration::from_secs(20);
/// A server address that has not answered by then is joined by the next.
pub const CONNECT_NEXT_AFTER: Duration = Duration::from_secs(1);
/// Idle time after which the kernel asks whether the server is still there.
pub const SERVER_KEEPALIVE: Duration = Duration::from_secs(15);
/// Sent bytes that the server's machine does not acknowledge for this long end the connection.
pub const SERVER_SILENCE_MAX: Duration = Duration::from_secs(30);
/// A push stream without a frame for this long is dead: the server beats far more often.
pub const STREAM_SILENCE_MAX: Duration = Duration::from_secs(90);
/// Frames read ahead of the shell.
pub const FRAMES_WAITING: usize = 16;
/// Biggest answer of a server: all entries of one agent in one message, from a server that can't do better.
pub const ANSWER_FROM_SERVER_MAX: usize = 64 * 1024 * 1024;
/// Federated bundles fetched at once (as SPIRE's agent).
pub const FEDERATED_FETCHES: usize = 10;
/// Requests to the shell that wait; callers behind them wait outside.
pub const COMMANDS_WAITING: usize = 1024;
/// A subscription that nobody uses ends after one to two of these: who asks again in the meantime is answered from it.
pub const SUBSCRIPTION_LINGER: Duration = Duration::from_secs(5);
/// Subscriptions, above which one that nobody uses ends at once.
pub const IDLE_SUBSCRIPTIONS_MAX: usize = 1024;
/// Most X509-SVIDs asked for in one call: the server's own limit.
pub const SIGN_BATCH: usize = 500;
/// Calls for X509-SVIDs at once; one more is kept for those somebody waits for.
pub const SIGN_CALLS: usize = 3;
/// Calls for JWT-SVIDs at once.
pub const MINT_CALLS: usize = 64;
/// A wall clock that is set forward is noticed within this time.
pub const SLEEP_MAX: Duration = Duration::from_secs(30);
/// The trust bundle of the first contact is at most this big: thousands of authorities.
pub const BOOTSTRAP_BUNDLE_MAX: usize = 4 * 1024 * 1024;
/// Longest fetch of that bundle by URL, redirects included.
pub const BOOTSTRAP_FETCH_MAX: Duration = Duration::from_secs(30);
/// Most redirects on the way to that bundle (as Go's client, which SPIRE's agent is).
pub const BOOTSTRAP_REDIRECTS_MAX: usize = 10;
/// Refusals by the server that wait to be acted on; more of them say nothing new.
pub const REFUSALS_WAITING: usize = 8;
/// Time between updates of the slow gauges.
pub const GAUGE_INTERVAL: Duration = Duration::from_secs(10);
/// Biggest sealed state: all entries of the biggest agent, and as much again for its SVIDs. A bigger one is not kept.
pub const SEALED_STATE_MAX: usize = 64 * 1024 * 1024;
/// Changes of the sealed state that come together are written together.
pub const SEAL_AFTER: Duration = Duration::from_millis(100);
/// Least time between two writes of the sealed state.
pub const SEAL_EVERY: Duration = Duration::from_secs(1);
/// Pause after a sealed state that could not be written.
pub const SEAL_AGAIN: Duration = Duration::from_secs(60);
/// Writing the sealed state takes one part in so many of the time at most: a big one on a slow disk is written less.
pub const SEAL_SHARE: u32 = 20;
/// Oldest "latest moment known" in the sealed state: a wall clock set back over a reboot wins this much at most.
pub const SEALED_AGE_MAX: Duration = Duration::from_secs(600);
/// Calls of a task that names no number.
pub const TASK_CALLS: u32 = 1_000;
/// How long the beginning of a run waits for rules that are in force at the server and not here yet; then it begins with
/// those that are here.
pub const RULES_WAIT: Duration = Duration::from_secs(5);
/// How long a server is waited for that is to ask a person. A call asks twice at most, each time with one repetition, and
/// has its answer before the gate gives up.
pub const ASK_TIME: Duration = Duration::from_secs(2);
/// How long a server is waited for that is to say which emergencies are open: the call may have to ask a person after it.
pub const EMERGENCY_TIME: Duration = Duration::from_millis(1_500);
/// How long a run whose calls are denied does not ask again, once it heard that none is open: it may call as often as it likes.
pub const EMERGENCY_AGAIN: Duration = Duration::from_millis(250);
/// How often a call asks: a yes that is too old for a rule is asked for once more.
pub const ASKS_PER_CALL: usize = 2;
/// Decisions of one run, or of one gate that is a workload of its own, whose receipt is waited for; beyond them the oldest has
/// none any more.
pub const RECEIPTS_AWAITED_MAX: usize = 1_024;
/// Gates that are workloads of their own whose receipts are waited for.
pub const RECEIPT_GATES_MAX: usize = 256;
/// Largest status that a receipt tells of HTTP.
pub const HTTP_STATUS_MAX: u32 = 999;
/// Longest action in a record.
pub const ACTION_RECORDED_MAX: usize = 64;
/// Most refusals of one run, each of which is a record; then it ends.
pub const REFUSALS_MAX: u32 = 10_000;
/// Most calls of a task.
pub const TASK_CALLS_MAX: u32 = 100_000;
/// Resources that a task names.
pub const TASK_TOOLS_MAX: usize = 256;
/// Refusals of one caller at gates that are recorded for themselves in [`REFUSED_PERIOD`]; the next record counts the rest.
pub const REFUSED_RECORDED_MAX: u32 = 50;
/// See [`REFUSED_RECORDED_MAX`].
pub const REFUSED_PERIOD: Duration = Duration::from_secs(10);
/// Callers whose refusals are counted at once; those of others are not recorded then.
pub const REFUSED_CALLERS_MAX: usize = 4096;
/// Tokens that do not hold are recorded once in this time for each hook: whoever reaches it can send any number.
pub const UNPROVED_PERIOD: Duration = Duration::from_secs(10);
/// Time in which `avouch run` says what it wants.
pub const BEGIN_TIME: Duration = Duration::from_secs(10);
/// Answers that wait for a gate that does not read.
pub const ANSWERS_WAITING: usize = 64;
/// Biggest file of kept rules: the largest folder with every byte of it escaped.
pub const RULES_FILE_MAX: usize = 8 * 1024 * 1024;
/// New rules are fetched within this time for each agent that follows the same server: 5,000 come spread over a second.
pub const RULES_SPREAD_EACH: Duration = Duration::from_micros(200);
/// And within this at most.
pub const RULES_SPREAD_MAX: Duration = Duration::from_secs(2);
/// Days for which the arguments of a call can be looked up in its record.
pub const SALT_DAYS: i64 = 90;
/// Records that the server has not acknowledged, in bytes on disk: about a million. When it is full nothing more can be
/// recorded, and what must be recorded is refused.
pub const SPOOL_MAX: u64 = 512 * 1024 * 1024;
/// Biggest file of records: the last one is read as a whole at each start, and files go one by one.
pub const SEGMENT_MAX: u64 = 4 * 1024 * 1024;
/// Callers that wait for the disk to have their record; the next is refused.
pub const SYNC_WAITING_MAX: usize = 4096;
/// Pause before records are synced for which nobody waits: half of the time in which they must be on disk.
pub const SYNC_AFTER: Duration = Duration::from_millis(50);
/// Most records in one call to the server; less than the server takes.
pub const SHIP_LINES: usize = 500;
/// Most bytes of records in one call; less than the server takes.
pub const SHIP_BYTES: usize = 768 * 1024;
/// Least time between two calls with records, unless there is a full one.
pub const SHIP_EVERY: Duration = Duration::from_millis(200);
/// Pause before a server that takes no records is asked again.
pub const SHIP_UNKNOWN_PAUSE: Duration = Duration::from_secs(600);
/// Between two questions whether the server is there, while something that is decided here rests on it. A server that starts
/// anew within 5 s leaves what holds shortest (10 s) standing.
pub const RENEW_EVERY: Duration = Duration::from_secs(3);
/// Such questions whose answers are waited for.
pub const RENEWALS_WAITING: usize = 8;
/// How long a node that was to prove itself anew is not asked to again: each proof costs the server a signature, and what runs
/// here decides how often it is wanted.
pub const PROOF_AGAIN: Duration = Duration::from_secs(60);
/// Processes of one run that are looked at to find what they are refused: each look costs as an attestation does.
pub const LOOKS_PER_RUN: usize = 64;
/// How long such a process waits for its look before it has its answer.
pub const LOOK_WAIT: Duration = Duration::from_millis(500);
/// Identities whose refusal to one run is recorded.
pub const REFUSED_NAMES_MAX: usize = 64;
/// Identities whose first use of a day waits to be recorded.
pub const USES_WAITING: usize = 1024;
/// Identities whose use is recorded in a day.
pub const USED_NAMES_MAX: usize = 100_000;
/// Refused beginnings of one user that are recorded in a period: a record takes disk on the node and at the server.
pub const TURNED_AWAY_MAX: u32 = 20;
/// The period.
pub const TURNED_AWAY_PERIOD: Duration = Duration::from_secs(60);
/// Users of whom that is counted at a time.
pub const TURNED_AWAY_USERS_MAX: usize = 1_024;
