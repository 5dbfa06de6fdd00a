//! Requests into commands, outcomes into answers. No rule of the domain is decided here: a command's
//! parts parse themselves (`model::id`), and this module gathers what they say under field paths.

mod admin;
mod answer;
mod events;
#[cfg(test)]
mod events_tests;
mod fields;
mod keys;
mod request;
mod runs;
#[cfg(test)]
mod tests;
mod time;
mod token;

pub(super) use admin::RevokeApiKey;
pub(super) use answer::OneToken;
pub(super) use events::answers;
pub(super) use keys::GetWorkspace;
pub(super) use runs::Jobs;
