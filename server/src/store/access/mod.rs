//! API keys and workspaces.

mod api_keys;
mod workspaces;

pub use api_keys::{ApiKeyFacts, ApiKeyRecord};
pub use workspaces::{Shredding, WorkspaceFacts};
