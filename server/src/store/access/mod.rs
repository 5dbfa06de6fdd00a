//! API keys, workspaces, connect links, and authorizations under way.

mod api_keys;
mod authorizations;
mod connect_links;
mod workspaces;

pub use api_keys::{ApiKeyFacts, ApiKeyRecord};
pub use authorizations::{AuthorizationScope, AuthorizationState};
pub use connect_links::ConnectLinkRecord;
pub use workspaces::{Shredding, WorkspaceFacts};
