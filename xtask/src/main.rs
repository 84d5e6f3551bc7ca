//! `cargo xtask`: builds, releases, promotes and rolls back dojo. One verb, one file.

#![allow(dead_code, reason = "skeleton: taken out when the commands are wired")]

mod archive;
mod fault;
mod image;
mod pipeline;
mod registry;
mod version;

fn main() {}
