//! `cargo xtask`: builds, releases, promotes and rolls back dojo. One verb, one file.

#![allow(dead_code, reason = "skeleton: taken out when the commands are wired")]

mod duckdb;
mod fault;
mod image;
mod pipeline;
mod version;

fn main() {}
