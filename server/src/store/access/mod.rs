//! API keys, workspaces, and authorizations under way.

mod api_keys;
mod authorizations;
mod workspaces;

pub use api_keys::{ApiKeyFacts, ApiKeyRecord};
pub use authorizations::{AuthorizationScope, AuthorizationState};
pub use workspaces::{Shredding, WorkspaceFacts};
