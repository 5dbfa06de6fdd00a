//! What was lately found about tokens, so that repeated reports of one token do not use up the provider's calls.

use std::time::Duration;

use moka::sync::Cache;

use crate::model::{Connection, ConnectionId, SecretId, Timestamp};

/// The longest time for which one look answers further reports. At worst, the vault notices a dead token that much
/// later; repeated reports of one token cost six looks a minute.
const REUSED: Duration = Duration::from_secs(10);
/// So many looks in a row may follow each other at once where the report is news that must not wait.
const AT_ONCE: u32 = 3;
/// The most secrets whose last look is remembered.
const REMEMBERED: u64 = 100_000;
/// How long a look is remembered.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);

pub struct Inspections {
    last: Cache<(ConnectionId, SecretId), Look>,
}

/// What a look at a token found that did not find it dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing is wrong, as far as the provider answered.
    Nothing,
    /// The provider refused the vault's own data call, and has to refuse it once more to be believed.
    Doubt,
    /// The provider could not be asked, or its answer is not believed yet.
    NoAnswer,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    found: Found,
    at: Timestamp,
    wait: Duration,
    /// How many looks have followed each other, up to this one.
    row: u32,
}

impl Default for Inspections {
    fn default() -> Self {
        let last = Cache::builder().max_capacity(REMEMBERED).time_to_live(REMEMBERED_FOR).build();
        Self { last }
    }
}

impl Inspections {
    /// What the last look at this secret found, and the rest of its retry delay, if it answers a further report.
    /// `is_news`: the report may be about something that happened since.
    pub fn recent(
        &self,
        connection: &Connection,
        is_news: bool,
        now: Timestamp,
    ) -> Option<(Found, Duration)> {
        let last = self.last.get(&(connection.id, connection.secret_id))?;
        // After the clock was set back, the age is unknown.
        let age = if now < last.at { return None } else { now.since(last.at) };
        let answers = age < last.wait.min(REUSED) && !(is_news && last.row < AT_ONCE);
        answers.then(|| (last.found, last.wait.saturating_sub(age)))
    }

    pub fn note(&self, connection: &Connection, found: Found, wait: Duration, at: Timestamp) {
        let key = (connection.id, connection.secret_id);
        let row = self.last.get(&key).map_or(0, |last| last.row).saturating_add(1);
        self.last.insert(key, Look { found, at, wait, row });
    }
}
