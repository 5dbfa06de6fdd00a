//! The wire: connections, requests, replies and their parts, and the calls that Meta makes itself.

pub(crate) mod callbacks;
pub(crate) mod error;
pub(crate) mod fields;
pub(crate) mod paging;
pub(crate) mod reply;
pub(crate) mod request;
pub(crate) mod server;
