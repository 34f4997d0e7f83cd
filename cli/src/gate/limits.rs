//! Named limits of the gates. Each number says why.

use std::time::Duration;

/// Longest hello or its answer in bytes: a version and a name.
pub const HELLO_MAX: usize = 1024;
/// Longest time until a connection has said hello; the shim says it at once.
pub const HELLO_TIME_MAX: Duration = Duration::from_secs(2);
/// Most connections of one run, each with a tool server of its own.
pub const CONNECTIONS_MAX: usize = 64;
/// Pause after a connection could not be accepted, as when descriptors have run out.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Longest line of either side in bytes. An image of a few megabytes fits; both directions of a connection hold one.
pub const LINE_MAX: usize = 8 * 1024 * 1024;
/// Deepest nesting of what an AI agent sends. Arguments of tools have a handful of levels.
pub const DEPTH_MAX: usize = 32;
/// Deepest nesting of what a tool server sends; schemas and structured results go deeper. The reader calls itself.
pub const SERVER_DEPTH_MAX: usize = 96;
/// Longest ID of a request in bytes.
pub const ID_MAX: usize = 256;
/// Largest number that an ID may be, either way: beyond it, JavaScript does not tell neighbours apart.
pub const ID_NUMBER_MAX: i64 = (1 << 53) - 1;
/// Most requests of one connection that wait for their answers.
pub const PENDING_MAX: usize = 128;
/// Most bytes of calls that wait for a listing or a decision.
pub const HELD_MAX: usize = 2 * LINE_MAX;
/// Most decisions and reports of one connection under way; then nothing more is read.
pub const TASKS_MAX: usize = 2 * PENDING_MAX;
/// Bytes that wait to be written to one side before the other is read no further.
pub const QUEUE_MAX: usize = 256 * 1024;
/// Bytes that wait for a tool server that asks on without reading its answers; then the connection ends.
pub const QUEUE_END: usize = 4 * LINE_MAX;
/// Most tools that a server may list; what nobody pinned counts as well.
pub const TOOLS_MAX: usize = 1024;
/// Most pages of one listing.
pub const PAGES_MAX: usize = 64;
/// Most bytes of all pages of one listing.
pub const LISTING_MAX: usize = LINE_MAX;
/// Longest cursor between two pages, in bytes.
pub const CURSOR_MAX: usize = 8 * 1024;
/// How often a listing begins anew because the server says that its tools changed meanwhile.
pub const LISTING_RESTARTS_MAX: u32 = 3;
/// Longest time of a listing; a server that takes longer has hung.
pub const LISTING_TIME_MAX: Duration = Duration::from_secs(30);
/// Pause between two attempts to reach a node agent that went away.
pub const AGENT_PAUSE: Duration = Duration::from_millis(200);
/// Longest time of a decision for a run: it is local, or denied.
pub const DECISION_TIME_MAX: Duration = Duration::from_secs(10);
/// Receipts that wait to be told to the node agent; the next is lost.
pub const RECEIPTS_WAITING_MAX: usize = 256;
/// Longest time in which one is told.
pub const RECEIPT_TIME_MAX: Duration = Duration::from_secs(2);
/// How long those that wait are waited for when the gates end; less than their host has.
pub const RECEIPTS_END_MAX: Duration = Duration::from_secs(1);
/// Longest time in which a tool server must have started and listed its tools when a gate is added; a package manager
/// may have to fetch it first.
pub const LOOK_TIME_MAX: Duration = Duration::from_secs(180);
/// How long answers that are under way are waited for when the AI agent has ended its side.
pub const DRAIN_TIME_MAX: Duration = Duration::from_secs(2);
/// How long a tool server has to end when its input is closed.
pub const SERVER_END_MAX: Duration = Duration::from_secs(2);
/// How long it has after it was told to (SIGTERM), before it is killed.
pub const SERVER_TERM_MAX: Duration = Duration::from_secs(1);
/// Longest piece of foreign text in a message or an event, in bytes.
pub const QUOTE_MAX: usize = 128;
/// Longest text of a decision that is told to a model, in bytes.
pub const TEXT_MAX: usize = 1024;

// The HTTP gate that is a workload of its own.

/// Longest time until both sides have proved who they are.
pub const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);
/// Most handshakes at once; the next waits. Whoever is in takes no place of them.
pub const HANDSHAKES_MAX: usize = 128;
/// Most connections at once; more are closed.
pub const SHARED_CONNECTIONS_MAX: usize = 1024;
/// Most connections of one SPIFFE ID; more are closed.
pub const CALLER_CONNECTIONS_MAX: usize = 64;
/// Longest life of a connection: what nobody reads does not stay for ever, and callers open another.
pub const SHARED_CONNECTION_TIME_MAX: Duration = Duration::from_secs(3600);
/// Most questions at once: as many as the node agent takes from one connection (128), with room for the streams of the gate.
pub const CHECKS_MAX: usize = 120;
/// Longest time of a decision for a caller: the node agent may wait for the server and for new rules.
pub const CHECK_TIME_MAX: Duration = Duration::from_secs(60);
/// How long the node agent may take for the first X509-SVID of the gate.
pub const SVID_TIME_MAX: Duration = Duration::from_secs(30);
// The HTTP gate.

/// Most connections to one HTTP gate; the next waits.
pub const HTTP_CONNECTIONS_MAX: usize = 256;
/// Biggest head of a request or an answer in bytes.
pub const HTTP_HEAD_MAX: usize = 64 * 1024;
/// Most headers of a request or an answer.
pub const HTTP_HEADERS_MAX: usize = 128;
/// Longest time until the head of a request is there, and that a connection has nothing to do.
pub const HTTP_HEAD_TIME_MAX: Duration = Duration::from_secs(60);
/// Longest path and query of a request in bytes.
pub const HTTP_TARGET_MAX: usize = 8 * 1024;
/// Most query parameters of a request.
pub const HTTP_QUERY_MAX: usize = 128;
/// Biggest body of a request in bytes; an upload of a few images fits.
pub const HTTP_BODY_MAX: u64 = 64 * 1024 * 1024;
/// Longest time until so much of a body is there as is looked at before the call is decided.
pub const HTTP_BODY_TIME_MAX: Duration = Duration::from_secs(30);
/// Longest time until a connection to an upstream stands.
pub const HTTP_CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// Longest time until an upstream begins to answer; those that compute take minutes.
pub const HTTP_ANSWER_TIME_MAX: Duration = Duration::from_secs(300);
/// Biggest answer in bytes that is held back to limit it. Bigger ones are refused.
pub const HTTP_HELD_MAX: u64 = 16 * 1024 * 1024;
/// Biggest answer in bytes that is read as a whole to see that it does not tell the secret; a bigger one is watched as it goes.
pub const HTTP_LOOKED_AT_MAX: u64 = 64 * 1024;
/// Answers of one gate that are held back at once; others wait. The text and what is left of it are both in memory.
pub const HTTP_HELD_AT_ONCE: usize = 4;
/// Longest time until an answer that is held back is there.
pub const HTTP_HELD_TIME_MAX: Duration = Duration::from_secs(60);
/// Connections to an upstream that are kept for the next request.
pub const HTTP_IDLE_MAX: usize = 64;
