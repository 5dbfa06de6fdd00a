//! The verbs about tokens.
//!
//! Two walks through the wing:
//!
//! - StoreToken, from the paste to the commit: `store` (the verb) → `store/pasted_text` (the text becomes a secret) →
//!   `once/idempotency` (a repeated request ends here) → `once/together` (an equal one waits here) → `store/take_in` →
//!   `store/accept` (inspect, exchange, check the scopes) → `store/save` (one transaction: `change` writes the
//!   connection and its events, `secret` seals and stores the secret) → `validate/checks` (try the stored token out) →
//!   `inspection` (write what they found) → `view` (the response).
//! - FetchAccessToken: `fetch` (the verb) → `target` (may the caller see the connection?) → `secret` (is the token
//!   usable? decrypt it) → the audit record → the response.
//!
//! Dependencies point downwards: verbs → `store/{accept, save}`, `validate/checks`, `inspection` → `judges`, `change`,
//! `secret` → `target`, `view`.

pub(super) mod change;
pub(super) mod exchange;
pub(super) mod fetch;
pub(super) mod inspection;
pub(super) mod judges;
pub(super) mod list;
pub(super) mod report;
pub(super) mod revoke;
pub(super) mod secret;
pub(super) mod store;
pub(super) mod target;
pub(super) mod validate;
pub(super) mod view;
