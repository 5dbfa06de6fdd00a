//! The policy in force: the operator's settings, the same for every replica. A process that starts with another policy
//! writes the next revision. Running processes adopt it, and the job `policy-change` recomputes every connection's
//! dates.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{
    Announced, Connection, ConnectionId, DeadlineKind, EventKind, IncidentKey, Policy, RenewalPolicy,
    Standing, Timestamp,
};
use crate::provider::GUIDE;
use crate::store::{Abort, JobRun, Needs, RunCause, Scope};
use crate::vault::error::VaultError;
use crate::vault::jobs::run::{Progress, RunFailed};
use crate::vault::state::Vault;
use crate::vault::timetable::JobKind;

/// Connections whose dates are written in one transaction.
const BATCH: i64 = 200;

/// A policy as the database stores it. Times are in microseconds.
#[derive(Serialize, Deserialize, PartialEq, Eq)]
struct Document {
    warning_window: u64,
    thresholds: Vec<u64>,
    required_scopes: Vec<String>,
    optional_scopes: Vec<String>,
    renewal_enabled: bool,
    renewal_min_age: u64,
    renewal_window: u64,
    event_retention: u64,
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl From<&Policy> for Document {
    fn from(policy: &Policy) -> Self {
        Self {
            warning_window: micros(policy.warning_window),
            thresholds: policy.thresholds.iter().copied().map(micros).collect(),
            required_scopes: policy.required_scopes.clone(),
            optional_scopes: policy.optional_scopes.clone(),
            renewal_enabled: policy.renewal.enabled,
            renewal_min_age: micros(policy.renewal.min_age),
            renewal_window: micros(policy.renewal.window),
            event_retention: micros(policy.event_retention),
        }
    }
}

impl From<Document> for Policy {
    fn from(document: Document) -> Self {
        Self {
            warning_window: Duration::from_micros(document.warning_window),
            thresholds: document.thresholds.into_iter().map(Duration::from_micros).collect(),
            required_scopes: document.required_scopes,
            optional_scopes: document.optional_scopes,
            renewal: RenewalPolicy {
                enabled: document.renewal_enabled,
                min_age: Duration::from_micros(document.renewal_min_age),
                window: Duration::from_micros(document.renewal_window),
            },
            event_retention: Duration::from_micros(document.event_retention),
            guide: GUIDE,
        }
    }
}

impl Vault {
    /// When a process starts: puts the configured policy in force if it differs. A run of `policy-change` follows.
    pub(in crate::vault) async fn put_policy_in_force(&self) -> Result<(), VaultError> {
        let ours = self.policy();
        let text = serde_json::to_string(&Document::from(&*ours)).map_err(|_| VaultError::Internal)?;
        let now = self.clock.now();
        let run = self.new_run(JobKind::PolicyChange, now, RunCause::Request);
        let (revision, changed) = self
            .store
            .write_with(Needs { alone: true, ..Needs::default() }, move |tx| {
                let (text, run) = (text.clone(), run.clone());
                Box::pin(async move {
                    let (revision, known) = tx.lock_policy().await?;
                    if known.as_deref().is_some_and(|known| same_document(known, &text)) {
                        return Ok((revision, false));
                    }
                    tx.put_policy(revision + 1, &text, now).await?;
                    // Without connections there are no dates to recompute.
                    let has_connections = !tx.live_connections_after(None, 1).await?.is_empty();
                    if has_connections && !tx.begin_run(&run, RunCause::Request).await? {
                        tx.restart_run(&run.job).await?;
                    }
                    Ok::<_, Abort<VaultError>>((revision + 1, has_connections))
                })
            })
            .await?
            .0;
        self.policy.confirm(revision);
        if changed {
            tracing::warn!(revision, "the policy in force has changed; every replica adopts it");
        }
        Ok(())
    }

    /// Adopts the policy that another process has put in force. Called every second.
    ///
    /// # Errors
    /// `StorageUnavailable`.
    pub async fn adopt_policy(&self) -> Result<(), VaultError> {
        let (revision, text) = self.store.read().await?.policy().await?;
        if revision == self.policy.revision() {
            return Ok(());
        }
        let Some(policy) = text.as_deref().and_then(parse) else { return Ok(()) };
        self.policy.replace(policy, revision);
        tracing::warn!(revision, "adopted the policy that another process has put in force");
        Ok(())
    }

    /// Recomputes every connection's dates, from the run's position on. A new threshold that has already passed is
    /// marked as announced, without an event. After an upgrade there is no earlier policy; then passed thresholds are
    /// announced.
    pub(super) async fn recompute_dates(
        &self,
        run: &mut JobRun,
        progress: &Progress<'_>,
    ) -> Result<(), RunFailed> {
        let revision = self.policy.revision();
        let before = self.store.read().await?.policy_of(revision - 1).await?;
        let (policy, before) = (self.policy(), Arc::new(before.as_deref().and_then(parse)));
        loop {
            let after = ConnectionId::parse(&run.position).ok();
            let page = self.store.read().await?.live_connections_after(after, BATCH).await?;
            let Some(last) = page.last().copied() else { return Ok(()) };
            run.done += i64::try_from(page.len()).unwrap_or(0);
            let (now, policy, before) = (self.clock.now(), Arc::clone(&policy), Arc::clone(&before));
            self.store
                .write_with(Needs { connections: page.clone(), alone: true }, move |tx| {
                    let (page, policy, before) = (page.clone(), Arc::clone(&policy), Arc::clone(&before));
                    Box::pin(async move {
                        let mut dated = Vec::with_capacity(page.len());
                        for id in page {
                            let Some(mut connection) = tx.lock_connection(id).await? else { continue };
                            let due = match &*before {
                                None => Some(now),
                                Some(before) => {
                                    let scope = Scope::Connection(id);
                                    let announced = tx.announced(&scope).await?;
                                    let passed =
                                        passed_unannounced(&announced, &connection, before, &policy, now);
                                    for key in passed {
                                        tx.mark_announced(&scope, key).await?;
                                    }
                                    // What was due under the old policy must still be announced.
                                    connection.schedule.next_deadline_at.filter(|at| *at <= now)
                                }
                            };
                            connection.schedule.next_deadline_at =
                                due.or_else(|| connection.next_deadline(now, &policy));
                            if connection.schedule.attempts == 0 && connection.parent.is_none() {
                                connection.schedule.next_renewal_at = connection.first_renewal(&policy);
                            }
                            dated.push(connection);
                        }
                        tx.note_dates(&dated).await?;
                        Ok::<_, Abort<VaultError>>(())
                    })
                })
                .await
                .map_err(VaultError::from)?;
            run.position = last.to_string();
            progress.note(run).await?;
        }
    }
}

fn parse(text: &str) -> Option<Policy> {
    serde_json::from_str::<Document>(text).ok().map(Policy::from)
}

/// Compares contents: PostgreSQL does not keep the text of a JSON document as it was written.
fn same_document(one: &str, other: &str) -> bool {
    let read = |text: &str| serde_json::from_str::<Document>(text).ok();
    matches!((read(one), read(other)), (Some(one), Some(other)) if one == other)
}

/// Warnings of the new policy for thresholds that have passed already and that the old policy did not have.
fn passed_unannounced(
    announced: &Announced,
    connection: &Connection,
    before: &Policy,
    policy: &Policy,
    now: Timestamp,
) -> Vec<IncidentKey> {
    if connection.standing != Standing::Live {
        return Vec::new();
    }
    let version = connection.version.get();
    let ends = [
        (EventKind::Expiring, DeadlineKind::Token, connection.facts.expiry.at()),
        (EventKind::DataAccessExpiring, DeadlineKind::DataAccess, connection.facts.data_access.at()),
    ];
    let mut keys = Vec::new();
    for (kind, deadline, end) in ends {
        let Some(end) = end.filter(|end| *end > now) else { continue };
        let passed = policy.thresholds.iter().copied().filter(|threshold| end - *threshold <= now).min();
        let Some(threshold) = passed.filter(|threshold| !before.thresholds.contains(threshold)) else {
            continue;
        };
        // If an old, tighter threshold has passed, its own warning covers this one.
        let covered = announced
            .open()
            .any(|i| i.key.kind == kind && i.key.version == version && i.key.threshold <= threshold);
        if !covered {
            keys.push(IncidentKey { kind, deadline: Some(deadline), threshold, version, episode: 1 });
        }
    }
    keys
}
