//! State resolution over rooms whose history forks.

#![allow(clippy::unwrap_used)]

mod dag;
mod definitions;
mod generated;
mod hostile;
mod oracle;
mod resets;
mod version_1;
