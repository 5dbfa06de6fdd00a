//! API keys, workspaces, connect links, authorizations under way, and requests to delete data.

mod api_keys;
mod authorizations;
mod connect_links;
mod data_deletions;
mod workspaces;

pub use api_keys::{ApiKeyFacts, ApiKeyRecord};
pub use authorizations::{AuthorizationScope, AuthorizationState};
pub use connect_links::ConnectLinkRecord;
pub use data_deletions::DataDeletion;
pub use workspaces::{Shredding, WorkspaceFacts};
