//! What the vault does by itself as time goes by: jobs, and the renewal of tokens.

mod jobs;
mod ninety_days;
mod passes;
mod rotation;
mod rotation_pace;
mod time;
