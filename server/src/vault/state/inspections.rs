//! Recent inspections, so that repeated reports of one token do not use up the provider's calls.

use std::time::Duration;

use moka::sync::Cache;

use super::work::Questions;
use crate::model::{Connection, ConnectionId, SecretId, Timestamp};
use crate::vault::token::validate::{Validation, ValidationQuestion};

/// The longest time for which one inspection answers further reports. At worst, the vault notices a dead token that
/// much later; repeated reports of one token cost six provider calls a minute.
const REUSED: Duration = Duration::from_secs(10);
/// The most secrets whose last inspection is remembered.
const REMEMBERED: u64 = 100_000;
/// How long an inspection is remembered.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);

pub struct Inspections {
    last: Cache<(ConnectionId, SecretId), Inspection>,
    pub(in crate::vault) validations: Questions<ValidationQuestion, Validation>,
}

/// An inspection that did not find the token dead.
#[derive(Debug, Clone, Copy)]
struct Inspection {
    /// True if the provider accepted the token, false if it could not be asked.
    still_valid: bool,
    at: Timestamp,
    wait: Duration,
}

impl Default for Inspections {
    fn default() -> Self {
        let last = Cache::builder().max_capacity(REMEMBERED).time_to_live(REMEMBERED_FOR).build();
        Self { last, validations: Questions::default() }
    }
}

impl Inspections {
    /// What the last inspection of this secret found, if it is recent: whether the token was valid, and the rest of its
    /// retry delay.
    pub fn recent(&self, connection: &Connection, now: Timestamp) -> Option<(bool, Duration)> {
        let last = self.last.get(&(connection.id, connection.secret_id))?;
        // After the clock was set back, the age is unknown.
        let age = if now < last.at { return None } else { now.since(last.at) };
        (age < last.wait).then(|| (last.still_valid, last.wait.saturating_sub(age)))
    }

    pub fn note(&self, connection: &Connection, still_valid: bool, wait: Duration, at: Timestamp) {
        let wait = wait.min(REUSED);
        self.last.insert((connection.id, connection.secret_id), Inspection { still_valid, at, wait });
    }
}
