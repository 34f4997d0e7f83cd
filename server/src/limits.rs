//! Named limits of the server. Each number says why; nothing else in the crate invents one.

use std::time::Duration;

/// Largest request message in bytes. 500 certificate requests of 8 KiB fit; gRPC's usual limit.
pub const REQUEST_BYTES_MAX: usize = 4 << 20;
/// Largest answer in bytes. A list of 100,000 entries fits, as SPIRE sends it in one message.
pub const RESPONSE_BYTES_MAX: usize = 256 << 20;
/// Largest set of request headers in bytes: h2 refuses more with status 431.
pub const HEADER_LIST_BYTES_MAX: u32 = 64 << 10;
/// Open calls of one connection; an agent uses a handful.
pub const CALLS_PER_CONNECTION: u32 = 250;

/// Connections over TCP, however many descriptors there are. 50,000 agents with one connection each fit.
pub const TCP_CONNECTIONS_MAX: usize = 60_000;
/// Share of the descriptors that TCP connections leave for the admin socket, the store, keys and logs.
pub const DESCRIPTORS_RESERVED_SHARE: u64 = 4;
/// And how many they leave at most.
pub const DESCRIPTORS_RESERVED_MAX: u64 = 1024;
/// Connections on the admin socket: people, controllers and probes of one host.
pub const ADMIN_CONNECTIONS_MAX: usize = 512;
/// TLS handshakes at one time. A handshake costs 0.4 ms, so more would only wait longer.
pub const HANDSHAKES_MAX: usize = 1024;
/// A handshake that takes longer is a dead or hostile peer.
pub const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// Pause of the accept loop when the process is out of descriptors, so that it does not spin.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Backlog asked of the kernel, which cuts it to somaxconn.
pub const BACKLOG: u32 = 4096;

/// A TCP connection is told to go away after this, so that agents look the server up again and meet its current
/// certificate. As SPIRE.
pub const CONNECTION_AGE: Duration = Duration::from_secs(180);
/// Share of [`CONNECTION_AGE`] by which ages differ, so that a fleet does not return as one.
pub const CONNECTION_AGE_SPREAD: f64 = 0.1;
/// Time that the calls of a connection have after it was told to go away.
pub const CONNECTION_GRACE: Duration = Duration::from_secs(30);
/// Time in which a connection that is cut may still say so.
pub const LAST_WORDS: Duration = Duration::from_millis(500);
/// Silence after which a peer is probed.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(60);
/// A peer that leaves a probe unanswered for this long is gone.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a server that stops waits until that is recorded: its nodes then decide alone for longer.
pub const FAREWELL_TIME: Duration = Duration::from_secs(1);
/// Time that running calls have when the server stops. As SPIRE.
pub const DRAIN_TIME: Duration = Duration::from_secs(10);

/// AttestAgent calls per second and client address. As SPIRE.
pub const ATTEST_PER_SECOND: u32 = 1;
/// Certificates signed per second and client address. As SPIRE.
pub const SIGN_X509_PER_SECOND: u32 = 500;
/// Tokens signed per second and client address. As SPIRE.
pub const SIGN_JWT_PER_SECOND: u32 = 500;
/// PostStatus calls per second and client address. As SPIRE.
pub const POST_STATUS_PER_SECOND: u32 = 10;
/// Calls that may wait for one bucket of one address; the next is refused at once.
pub const RATE_WAITERS_MAX: u32 = 1024;
/// A bucket that nobody used for one to two of these is forgotten.
pub const RATE_GENERATION: Duration = Duration::from_secs(60);
/// Addresses in one generation of buckets; the generation turns early when it is full.
pub const RATE_ADDRESSES_MAX: usize = 100_000;

/// Entries in one page of SyncAuthorizedEntries. Fixed by SPIRE: agents take the page size from the first page.
pub const SYNC_PAGE: usize = 500;
/// Challenges and answers of one attestation; x509pop needs one.
pub const ATTEST_ROUNDS_MAX: usize = 16;
/// Time for one attestation from the first message to the result.
pub const ATTEST_TIME_MAX: Duration = Duration::from_secs(60);

/// Largest frame on the watch stream in bytes, so that a withdrawal never waits behind a big payload.
pub const WATCH_FRAME_BYTES: usize = 64 << 10;
/// Frames queued for one watcher. While they wait, later changes are merged into one update, not queued.
pub const WATCH_QUEUE: usize = 8;
/// Time between heartbeats on a silent watch stream.
pub const WATCH_HEARTBEAT: Duration = Duration::from_secs(10);
/// A watcher that does not say hello within this is dropped.
pub const WATCH_HELLO_TIME: Duration = Duration::from_secs(10);

/// Age up to which Debug.GetInfo may repeat its last answer. As SPIRE.
pub const DEBUG_INFO_AGE: Duration = Duration::from_secs(5);
/// Age up to which a probe may be told the last result of the health checks.
pub const HEALTH_AGE: Duration = Duration::from_secs(5);
/// Time between two refreshes of the gauges that time moves. As SPIRE.
pub const GAUGE_INTERVAL: Duration = Duration::from_secs(10);
/// One health check that takes longer has failed.
pub const HEALTH_TIME_MAX: Duration = Duration::from_secs(5);

/// Longest socket path in bytes that Linux accepts (`sun_path` without its final zero).
pub const SOCKET_PATH_MAX: usize = 107;
/// Worker threads: signing runs in slices, so more threads than this only cost memory.
pub const WORKER_THREADS_MAX: usize = 8;

/// Writes that wait for the writer; the next is refused at once. Some seconds of work.
pub const WRITE_QUEUE: usize = 4096;
/// Writes in one transaction: enough to share an fsync, few enough to plan again quickly.
pub const WRITE_BATCH: usize = 256;
/// How often a batch is planned again because another server wrote first.
pub const WRITE_ATTEMPTS: usize = 16;
/// Changes read from the log in one step.
pub const FOLLOW_STEP: usize = 4096;
/// How soon the commits of another known server on the same store are seen.
pub const FOLLOW_INTERVAL: Duration = Duration::from_millis(200);
/// How soon a second server on the same store is noticed; one read of one row.
pub const NOTICE_INTERVAL: Duration = Duration::from_secs(5);
/// Certificates signed on the reactor's own thread before the work is moved off it: under 1 ms with P-256.
pub const SIGN_INLINE_MAX: usize = 16;
/// Certificates that a lane signs before it offers the processor to others: a fifth of a millisecond with P-256, which
/// each of the ten steps between an admin's call and a workload's stream may have to wait.
pub const SIGN_SLICE: usize = 4;
/// How much lower the priority of a lane is that signs a batch. Beside other work that never ends it still comes to its
/// turn, and SVIDs are renewed at half of their life.
pub const BATCH_NICENESS: i32 = 5;
/// How long an activation that is due waits for silent agents.
pub const PROPAGATION_BOUND: Duration = Duration::from_secs(60);
/// Operators' orders about authorities that wait; people give them, one after the other.
pub const ORDERS_WAITING: usize = 16;
/// Pause between two looks at the agents' acknowledgements while an activation waits for them.
pub const ACKNOWLEDGEMENT_PAUSE: Duration = Duration::from_millis(500);
/// Least time between two SVIDs of the server itself, however short they live.
pub const SERVER_SVID_PAUSE: Duration = Duration::from_millis(500);
/// Longest sleep of a task that waits for a wall-clock time, so that a step of the clock is noticed.
pub const WALL_SLEEP_MAX: Duration = Duration::from_secs(60);
/// How long an ended join token is remembered, so that an agent that comes late with it hears "expired", not
/// "unknown".
pub const TOKEN_KEPT: Duration = Duration::from_secs(24 * 3600);
/// Time between two looks for agents that ended long ago, if the configuration asks for it. As SPIRE.
pub const NODE_PRUNE_INTERVAL: Duration = Duration::from_secs(3600);
/// Least time between two signed heads of the log: a busy log is signed once a second, not once a write.
pub const HEAD_PAUSE: Duration = Duration::from_secs(1);
/// Pause before the rules in force are signed again after a failure.
pub const RULES_AGAIN: Duration = Duration::from_secs(5);
/// Folders of rules that are handed out at one time: a stop finds few of them on the way.
pub const RULES_TURNS: usize = 8;
/// Longest that a node waits for its turn to fetch rules while others have theirs, or a stop goes first: less than whoever
/// waits for rules on a node does.
pub const RULES_TURN_MAX: Duration = Duration::from_secs(2);
/// Folders of rules that are checked at one time; each takes up to a second of a core.
pub const RULES_CHECKS: usize = 1;
/// Most identities or found names on one page.
pub const GOVERNANCE_PAGE_MAX: i32 = 1_000;
/// Most names that one call adopts: one plan of bounded size.
pub const ADOPT_MAX: usize = 1_000;
/// Most records handed out by one call, whose lines must fit into a message.
pub const RECORDS_PER_CALL: usize = 2_000;
/// Most bytes of records handed out by one call: well inside a message.
pub const RECORD_BYTES_PER_CALL: usize = 1 << 20;
/// Identities that an agent asks for in one call.
pub const IDENTITIES_PER_FETCH: usize = 100;
/// Most lines of a node in one call: half a millisecond of checking.
pub const SHIPMENT_LINES_MAX: usize = 512;
/// Most bytes of lines in one call.
pub const SHIPMENT_BYTES_MAX: usize = 1 << 20;
/// Shipments of all nodes that wait for the store; the next is sent away to come again.
pub const SHIPMENTS_WAITING: usize = 256;
/// Most lines in one transaction, so that a write of the server waits a few milliseconds for it at most.
pub const NODE_RECORDS_PER_COMMIT: usize = 2_048;
/// Longest certificate that comes with a head: an agent's SVID has some 700 bytes.
pub const HEAD_CERTIFICATE_MAX: usize = 8 << 10;
/// How long the answer to a stop waits for the nodes that follow.
pub const STOP_CONFIRM_MAX: Duration = Duration::from_secs(1);
/// Bytes of the file of people: some tens of thousands of them.
pub const PEOPLE_FILE_MAX: u64 = 1024 * 1024;
/// Pause before a file of people is tried again that can't be watched, or that somebody could not leave by.
pub const PEOPLE_FILE_RETRY: Duration = Duration::from_secs(5);
/// Longest time in which a file of people is not read: what changes elsewhere (links, shared disks) tells nobody.
pub const PEOPLE_FILE_AGE_MAX: Duration = Duration::from_secs(60);
/// Shortest time between two reads of it: others may write in its folder.
pub const PEOPLE_FILE_PAUSE: Duration = Duration::from_millis(250);
/// Age of counts that are shown again while nothing was written: ends are reached by time alone.
pub const OVERVIEW_AGE_MAX: Duration = Duration::from_secs(5);
