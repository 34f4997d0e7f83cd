//! One test per rule of X509-SVID validation.
