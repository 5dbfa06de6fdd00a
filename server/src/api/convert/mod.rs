//! Requests into commands, outcomes into answers. No rule of the domain is decided here: a command's
//! parts parse themselves (`model::id`), and this module gathers what they say under field paths.

mod api_keys;
mod events;
#[cfg(test)]
mod events_tests;
mod fields;
mod jobs;
mod request;
mod response;
#[cfg(test)]
mod tests;
mod time;
mod token;
mod workspaces;

pub(super) use api_keys::RevokeApiKey;
pub(super) use events::answers;
pub(super) use jobs::Jobs;
pub(super) use response::OneToken;
pub(super) use workspaces::GetWorkspace;
