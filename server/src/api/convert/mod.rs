//! Converts requests into commands, and outcomes into responses. No rule of the domain is decided here: the parts of a
//! command parse themselves (`model::id`), and this module collects their errors under field paths.

mod api_keys;
mod authorization;
pub(in crate::api) mod bounds;
mod events;
mod fields;
mod jobs;
mod request;
mod response;
#[cfg(test)]
mod tests;
mod time;
mod token;
mod vault_status;
mod workspaces;

pub(super) use api_keys::RevokeApiKey;
pub(super) use authorization::RevokeConnectLink;
pub(super) use events::responses;
pub(super) use jobs::Jobs;
pub(super) use response::OneToken;
pub(super) use workspaces::GetWorkspace;
