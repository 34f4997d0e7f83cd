//! Handshakes in memory: who is accepted, and that nothing is ever resumed.
