//! What the store promises, on every kind of database.
mod files;
mod kit;
mod nodes;
mod props;
mod suite;
