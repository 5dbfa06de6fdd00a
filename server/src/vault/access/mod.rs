//! Who calls: authentication, and the API keys.

pub(super) mod callers;
