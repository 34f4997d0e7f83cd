//! Reading configuration files as SPIRE does: HCL 1 or JSON text to a document, a document against tables of keys to
//! typed values.
//!
//! Never knows a key: the server and the agent bring their tables. Never touches files or the environment by itself.

pub mod decode;
pub mod duration;
pub mod env;
pub mod hcl;
pub mod limits;
pub mod table;
