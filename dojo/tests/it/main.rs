//! The real binary, on real files and loopback ports: what a person or a pod sees of it.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "clippy knows tests by their attribute, not their helpers"
)]

mod data;
mod dojo;
mod http;
mod kill;
mod last_words;
mod life;
mod restore;
