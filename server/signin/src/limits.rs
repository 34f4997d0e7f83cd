//! Limits of the sign-in at a provider, each with its reason.

use std::time::Duration;

/// Longest wait for one answer of a provider, from the connection to the last byte: a person waits behind it.
pub const ANSWER_TIME: Duration = Duration::from_secs(10);
/// Bytes of an answer: a provider's document has a few KiB, its keys some more.
pub const ANSWER_MAX: usize = 256 * 1024;
/// Bytes of an answer's head.
pub const HEAD_MAX: usize = 32 * 1024;
/// Keys of a provider: two that take turns for each of a few algorithms.
pub const KEYS_MAX: usize = 64;
/// Bytes of an ID token: claims about groups make some long.
pub const TOKEN_MAX: usize = 32 * 1024;
/// Bytes of an ID token that goes back to the provider in a URL when somebody signs out: longer URLs are refused by some.
pub const HINT_MAX: usize = 4 * 1024;
/// Bytes of the word by which a provider says why not: the longest of the standards has half.
pub const REFUSAL_MAX: usize = 64;
/// Bytes of a URL that a provider names.
pub const URL_MAX: usize = 2048;
/// Bytes of a code, and of a state that comes back.
pub const CODE_MAX: usize = 4096;
/// Difference granted between the clocks of the provider and of this server.
pub const LEEWAY: Duration = Duration::from_secs(60);
/// How long the document of a provider is believed without asking again.
pub const DOCUMENT_AGE: Duration = Duration::from_secs(3600);
/// How long keys are believed without asking again: a key that the provider withdrew signs for no longer.
pub const KEYS_AGE: Duration = Duration::from_secs(300);
/// Shortest time between two questions for keys that an unknown key leads to: whoever has a token made up is not to make this
/// server ask all the time.
pub const KEYS_PAUSE: Duration = Duration::from_secs(5);
/// Shortest time between two questions to a provider that did not answer.
pub const DOWN_PAUSE: Duration = Duration::from_secs(3);
