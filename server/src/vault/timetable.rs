//! Which jobs there are, and when they run.

use std::time::Duration;

use crate::model::Cron;
use crate::vault::error::VaultError;

#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::EnumString, strum::VariantArray)]
#[strum(const_into_str, serialize_all = "kebab-case")]
pub enum JobKind {
    /// Asks the providers about every connection, once a day.
    MetaTokenExpiry,
    /// Announces tokens that expire or are about to. Runs all the time on every replica; a run is recorded only when a
    /// caller asks for one.
    ExpiryDeadlines,
    /// Renews tokens that are due.
    Rotation,
    /// Deletes events past their retention.
    EventRetention,
    /// Deletes old requests and old runs.
    Housekeeping,
    /// Recomputes the dates of every connection. Started by a change of the policy in force.
    PolicyChange,
    /// Wraps every key with the active master key. Started when another key becomes the active one.
    MasterKeyRotation,
    /// Encrypts secrets with their workspace's newest data key. Started when a workspace gets a new one.
    DataKeyRotation,
    /// Seals keys to the break-glass key. Started when some keys lack that seal.
    BreakGlass,
    /// Ends the connections of shredded workspaces. Started by shredding.
    Shredding,
    /// Ends the connections of people who ask for the deletion of their data, and erases them. Started by such a request.
    DataDeletion,
}

impl JobKind {
    /// In the order in which callers list them.
    pub const ALL: &[Self] = <Self as strum::VariantArray>::VARIANTS;

    /// The name in the API, in the database and in logs.
    pub const fn as_str(self) -> &'static str {
        self.into_str()
    }

    pub(super) fn parse(name: &str) -> Result<Self, VaultError> {
        name.parse().map_err(|_| {
            let known: Vec<_> = Self::ALL.iter().map(|job| job.as_str()).collect();
            VaultError::JobNotFound { job: name.chars().take(100).collect(), known: known.join(", ") }
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timetable {
    /// The times of each job; `None` for one that is switched off.
    pub meta_token_expiry: Option<Cron>,
    pub rotation: Option<Cron>,
    pub event_retention: Option<Cron>,
    pub housekeeping: Option<Cron>,
    /// How long due work may wait before the watchdog announces it as overdue.
    pub overdue_after: Duration,
    /// How many connections the daily sweep asks about at once.
    pub sweep_concurrency: usize,
}

impl Timetable {
    /// `None` for a job that always runs, that something else starts, or that is switched off.
    pub const fn cron(&self, job: JobKind) -> Option<&Cron> {
        match job {
            JobKind::MetaTokenExpiry => self.meta_token_expiry.as_ref(),
            JobKind::Rotation => self.rotation.as_ref(),
            JobKind::ExpiryDeadlines
            | JobKind::PolicyChange
            | JobKind::MasterKeyRotation
            | JobKind::DataKeyRotation
            | JobKind::BreakGlass
            | JobKind::Shredding
            | JobKind::DataDeletion => None,
            JobKind::EventRetention => self.event_retention.as_ref(),
            JobKind::Housekeeping => self.housekeeping.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written out by hand: renaming a variant must not rename what is stored, and callers list jobs in this order.
    #[test]
    fn job_names_never_change() {
        let names: Vec<_> = JobKind::ALL.iter().map(|job| job.as_str()).collect();
        let stored = [
            "meta-token-expiry",
            "expiry-deadlines",
            "rotation",
            "event-retention",
            "housekeeping",
            "policy-change",
            "master-key-rotation",
            "data-key-rotation",
            "break-glass",
            "shredding",
            "data-deletion",
        ];
        assert_eq!(names, stored);
        for (job, name) in JobKind::ALL.iter().zip(stored) {
            assert_eq!(JobKind::parse(name).ok(), Some(*job));
        }
        assert!(JobKind::parse("nightly").is_err());
    }
}
