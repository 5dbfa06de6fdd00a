//! BeginAuthorization and CompleteAuthorization: a person consents at the provider, and the vault keeps the token.
//!
//! [`state`] makes and checks what travels through the browser, [`begin`] writes the authorization and gives the dialog's
//! address, [`callback`] reads what came back, and [`complete`] exchanges the code and stores the token as StoreToken
//! does. An authorization is taken by one process before its code is sent to the provider: from then on it ends with a
//! token or without one, and is never tried again, because nobody knows whether a lost reply has used up the code.
//! [`links`] are for people who have no session with the caller's platform.

pub(in crate::vault) mod begin;
mod callback;
pub(in crate::vault) mod complete;
pub(in crate::vault) mod links;
mod state;
