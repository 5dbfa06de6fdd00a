//! What the provider shows of tokens and ad accounts, and what its refusals mean for whom.

mod ad_accounts;
mod api_version;
pub(crate) mod callbacks;
mod deaths;
mod facts;
mod reads;
mod shared_fate;
