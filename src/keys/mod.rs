//! End-to-end encryption: public keys of devices and users, and what is sent from device to device. This server keeps and
//! hands out what devices publish; it sees no secret.
//!
//! Specification: [End-to-end encryption](https://spec.matrix.org/v1.19/client-server-api/#end-to-end-encryption).

mod lists;

#[allow(unused_imports)]
pub use self::lists::DeviceLists;
