//! Limits of the pages, each with its reason.

use std::time::Duration;

/// Longest wait between a link and its use: it goes from a terminal into a browser beside it.
pub const LINK_LIFE: Duration = Duration::from_secs(60);
/// Links of one person that wait at a time; a new one takes the place of the oldest.
pub const LINKS_PER_PERSON: usize = 3;
/// A working day.
pub const SESSION_LIFE: Duration = Duration::from_secs(8 * 3600);
/// Longest way to a provider and back: a password, a second factor, and a look for the phone.
pub const FLOW_LIFE: Duration = Duration::from_secs(600);
/// Sign-ins of one user that are under way; a new one takes the place of the oldest.
pub const FLOWS_PER_USER: usize = 16;
/// Oldest sign-in at a provider that will do: a session counts from there, and is to have half a day left.
pub const SIGN_IN_AGE: Duration = Duration::from_secs(4 * 3600);
/// Longest pause of a session: who left the desk has left.
pub const SESSION_PAUSE: Duration = Duration::from_secs(3600);
/// Sessions of one person; a new one ends the oldest.
pub const SESSIONS_PER_PERSON: usize = 8;
/// Links and sessions in all: memory.
pub const KEPT_MAX: usize = 10_000;
/// Age from which on a sign-in is too old for what makes more possible.
pub const FRESH: Duration = Duration::from_secs(300);
/// Connections at a time: each is a task and a few KiB.
pub const CONNECTIONS_MAX: usize = 512;
/// Connections of one user: a browser opens six, and nobody is to take the places of the others.
pub const CONNECTIONS_PER_USER: usize = 32;
/// Streams of news at a time.
pub const STREAMS_MAX: usize = 64;
/// Streams of one session: a browser opens six connections to a server, and the pages need some of them.
pub const STREAMS_PER_SESSION: usize = 3;
/// Longest wait for the head or the body of a request.
pub const REQUEST_TIME: Duration = Duration::from_secs(10);
/// Bytes of a request's head.
pub const HEAD_MAX: usize = 32 * 1024;
/// Bytes of a form: a page of the longest names.
pub const FORM_MAX: usize = 256 * 1024;
/// Fields of a form.
pub const FIELDS_MAX: usize = 256;
/// Pause after a failed accept.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Identities on a page: with long names, too, it has less than 60 KiB.
pub const ROWS: i32 = 80;
/// Requests that have ended, on a page.
pub const PAST: usize = 50;
/// Chains of nodes to choose from.
pub const CHAINS_SHOWN: usize = 100;
/// Of each list on the first page.
pub const FIRST_FEW: usize = 5;
/// Records on a page of the log.
pub const RECORDS: u64 = 50;
/// Records that are looked through for what was refused or used lately, of each chain.
pub const LOOKED_BACK: u64 = 500;
/// Chains that are looked through: those that began last.
pub const CHAINS: usize = 16;
/// Pages of chains that are read to find them.
pub const CHAIN_PAGES: usize = 16;
/// Lines of the log that are read at a time to verify it or to trace a decision: a second's work or two.
pub const READ_MAX: usize = 200_000;
/// Lines that are checked before others have their turn.
pub const LINES_AT_ONCE: usize = 32;
/// Longest time that this takes.
pub const READ_TIME: Duration = Duration::from_secs(10);
/// Requests whose text is shown.
pub const CARDS: usize = 20;
/// Decisions shown of one identity.
pub const USED: usize = 20;
/// Shortest time between two pieces of news on one stream: each counts anew what there is.
pub const NEWS_PAUSE: Duration = Duration::from_secs(2);
/// Longest silence of a stream: a proxy or a browser thinks it dead otherwise.
pub const NEWS_SILENCE: Duration = Duration::from_secs(20);
