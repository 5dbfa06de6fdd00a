//! Which jobs there are, and when they run.

use std::time::Duration;

use crate::model::Cron;
use crate::vault::error::VaultError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    /// Asks Meta about every connection, once a day.
    MetaTokenExpiry,
    /// Renews tokens that are due.
    Rotation,
    /// Announces tokens that expire or are about to. Runs all the time on every replica; a run is recorded only when a
    /// caller asks for one.
    ExpiryDeadlines,
    /// Deletes events past their retention.
    EventRetention,
    /// Deletes old requests and old runs.
    Housekeeping,
    /// Recomputes the dates of every connection. Started by a change of the policy in force.
    PolicyChange,
    /// Wraps every key by the active master key. Started when another one becomes active.
    MasterKeyRotation,
    /// Encrypts secrets by their workspace's newest data key. Started when a workspace gets a new one.
    DataKeyRotation,
    /// Seals keys to the break-glass key. Started when there are keys without that seal.
    BreakGlass,
    /// Ends the connections of shredded workspaces. Started by shredding.
    Shredding,
}

impl JobKind {
    pub const ALL: [Self; 10] = [
        Self::MetaTokenExpiry,
        Self::ExpiryDeadlines,
        Self::Rotation,
        Self::EventRetention,
        Self::Housekeeping,
        Self::PolicyChange,
        Self::MasterKeyRotation,
        Self::DataKeyRotation,
        Self::BreakGlass,
        Self::Shredding,
    ];

    /// The name in the API, in the database and in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MetaTokenExpiry => "meta-token-expiry",
            Self::Rotation => "rotation",
            Self::ExpiryDeadlines => "expiry-deadlines",
            Self::EventRetention => "event-retention",
            Self::Housekeeping => "housekeeping",
            Self::PolicyChange => "policy-change",
            Self::MasterKeyRotation => "master-key-rotation",
            Self::DataKeyRotation => "data-key-rotation",
            Self::BreakGlass => "break-glass",
            Self::Shredding => "shredding",
        }
    }

    pub(super) fn parse(name: &str) -> Result<Self, VaultError> {
        Self::ALL.into_iter().find(|job| job.as_str() == name).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|job| job.as_str()).collect();
            VaultError::JobNotFound { job: name.chars().take(100).collect(), known: known.join(", ") }
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timetable {
    pub meta_token_expiry: Cron,
    pub rotation: Cron,
    pub event_retention: Cron,
    pub housekeeping: Cron,
    /// How long due work may wait before the watchdog announces it as overdue.
    pub overdue_after: Duration,
    /// How many connections the daily sweep asks about at once.
    pub sweep_concurrency: usize,
}

impl Timetable {
    /// `None` for a job that always runs, or that something else starts.
    pub const fn cron(&self, job: JobKind) -> Option<&Cron> {
        match job {
            JobKind::MetaTokenExpiry => Some(&self.meta_token_expiry),
            JobKind::Rotation => Some(&self.rotation),
            JobKind::ExpiryDeadlines
            | JobKind::PolicyChange
            | JobKind::MasterKeyRotation
            | JobKind::DataKeyRotation
            | JobKind::BreakGlass
            | JobKind::Shredding => None,
            JobKind::EventRetention => Some(&self.event_retention),
            JobKind::Housekeeping => Some(&self.housekeeping),
        }
    }
}
