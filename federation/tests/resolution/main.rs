//! State resolution over rooms whose history forks.

#![allow(clippy::unwrap_used)]

mod dag;
mod definitions;
mod generated;
mod oracle;
