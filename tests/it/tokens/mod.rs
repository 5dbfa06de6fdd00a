//! Tokens: storing, fetching, validating, renewing, listing and ending them.

mod bad_input;
mod endings;
mod exchanges;
mod idempotency;
mod judges;
mod listing;
mod make_before_break;
mod one_exchange;
mod pages;
mod provider_errors;
mod provider_trouble;
mod store_and_fetch;
mod views;
