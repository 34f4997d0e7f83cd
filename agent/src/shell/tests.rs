//! The shell against a made-up server, without sockets.
