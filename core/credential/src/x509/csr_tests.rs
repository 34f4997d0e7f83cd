//! Requests of our own and of a foreign builder, and each way a request is refused.
