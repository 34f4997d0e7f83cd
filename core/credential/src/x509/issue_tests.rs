//! Issued certificates, read back and compared field by field.
