//! Which events follow from a change of a connection, or from the passing of time. Pure: the result depends only on the
//! facts before and after, on the open incidents, and on the time.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Announced, DeadlineKind, Detail, EventKind, EventWord, Incident};
use crate::model::token::{days_left, in_days};
use crate::model::{
    Connection, Expiry, Fixer, Policy, RefusalReason, Remedy, Severity, Standing, Status, Timestamp,
};

/// The cause of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A person connected again.
    Person,
    /// The vault exchanged the token.
    Exchange,
    /// The provider was asked about the token.
    Observation,
    /// A caller ended the connection.
    Revocation,
}

/// Ad accounts that became reachable or unreachable. Both lists are sorted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccountChange {
    pub added: Vec<String>,
    pub removed: Vec<String>,
}

impl Connection {
    /// The next moment after `now` at which the passing of time alone has to be announced.
    pub fn next_deadline(&self, now: Timestamp, policy: &Policy) -> Option<Timestamp> {
        if self.standing != Standing::Live || self.facts.expiry.at().is_some_and(|end| end <= now) {
            return None;
        }
        let ends = [self.facts.expiry.at(), self.facts.data_access.at()];
        let moments = ends.into_iter().flatten().flat_map(|end| {
            policy.thresholds.iter().map(move |threshold| end - *threshold).chain(std::iter::once(end))
        });
        moments.filter(|moment| *moment > now).min()
    }
}

/// The tightest threshold that has been crossed.
fn crossed(end: Timestamp, now: Timestamp, policy: &Policy) -> Option<Duration> {
    policy.thresholds.iter().copied().filter(|threshold| end - *threshold <= now).min()
}

impl Announced {
    /// Announces the ends and thresholds that have passed. Of several thresholds only the tightest is announced.
    pub fn catch_up(&mut self, connection: &Connection, now: Timestamp, policy: &Policy) {
        if connection.standing != Standing::Live {
            return;
        }
        if let Some(end) = connection.facts.expiry.at() {
            if end <= now {
                self.expired(connection, end, now, policy);
                return;
            }
            self.expiring(connection, EventKind::Expiring, end, now, policy);
        }
        if let Some(end) = connection.facts.data_access.at() {
            if end <= now {
                let remedy = Remedy::for_refusal(RefusalReason::DataAccessLapsed);
                let word = word(
                    connection,
                    EventKind::DataAccessExpired,
                    Severity::Warning,
                    remedy,
                    end,
                    now,
                    policy,
                );
                self.open_with(word, Some(DeadlineKind::DataAccess), Duration::ZERO);
            } else {
                self.expiring(connection, EventKind::DataAccessExpiring, end, now, policy);
            }
        }
    }

    fn expired(&mut self, connection: &Connection, end: Timestamp, now: Timestamp, policy: &Policy) {
        let remedy = Remedy::for_refusal(RefusalReason::Expired);
        let mut word = word(connection, EventKind::Expired, Severity::Critical, remedy, end, now, policy);
        word.reason = Some(RefusalReason::Expired);
        word.detail = Detail::Died { last_known_good: connection.seen.last_known_good, first_known_bad: end };
        self.open_with(word, Some(DeadlineKind::Token), Duration::ZERO);
    }

    fn expiring(
        &mut self,
        connection: &Connection,
        kind: EventKind,
        end: Timestamp,
        now: Timestamp,
        policy: &Policy,
    ) {
        let deadline =
            if kind == EventKind::Expiring { DeadlineKind::Token } else { DeadlineKind::DataAccess };
        let Some(threshold) = crossed(end, now, policy) else { return };
        let tighter = |i: &Incident| {
            i.key.kind == kind && i.key.version == connection.version.get() && i.key.threshold <= threshold
        };
        if self.open().any(tighter) {
            return;
        }
        let days = in_days(days_left(end, end - threshold));
        let (severity, message, action) = match deadline {
            DeadlineKind::Token => (
                if policy.thresholds.iter().min() == Some(&threshold) {
                    Severity::Critical
                } else {
                    Severity::Warning
                },
                format!("The token expires in {days} or less, at {end}."),
                "Ask the workspace owner to reconnect the account before then.",
            ),
            DeadlineKind::DataAccess => (
                Severity::Warning,
                format!("Data access ends in {days} or less, at {end}; ads permissions keep working."),
                "Ask the workspace owner to reconnect and confirm the data access.",
            ),
        };
        let remedy = Remedy::new(Fixer::WorkspaceOwner, message, action);
        let mut word = word(connection, kind, severity, remedy, end - threshold, now, policy);
        word.detail = Detail::Expiring { threshold, deadline };
        self.open_with(word, Some(deadline), threshold);
    }

    /// Announces a connection's first token.
    pub fn born(&mut self, connection: &Connection, now: Timestamp, policy: &Policy) {
        let remedy = Remedy::none("The account is connected.");
        let word = word(connection, EventKind::Connected, Severity::Info, remedy, now, now, policy);
        self.settle_with(word, |_| false);
        self.catch_up(connection, now, policy);
    }

    /// Announces what changed between two states of a connection, and first what had passed by then.
    pub fn changed(
        &mut self,
        before: &Connection,
        after: &Connection,
        cause: Cause,
        now: Timestamp,
        policy: &Policy,
    ) {
        self.catch_up(before, now, policy);
        let worked = before.status(now, policy).is_usable();
        let works = after.status(now, policy).is_usable();
        let new_version = before.version != after.version;
        match (&before.standing, &after.standing) {
            (Standing::Revoked { .. }, Standing::Revoked { .. }) => {}
            (_, Standing::Revoked { .. }) => self.revoked(after, now, policy),
            (Standing::Live, Standing::Invalid { since, reason, .. }) if worked => {
                self.invalidated(after, *since, *reason, now, policy);
            }
            _ if !worked && (works || new_version) => self.restored(before, after, now, policy),
            _ if works && (new_version || cause == Cause::Exchange && moved(before, after)) => {
                self.renewed(before, after, cause, now, policy);
            }
            _ if works && (moved(before, after) || data_access_moved(before, after)) => {
                self.deadlines_changed(before, after, now, policy);
            }
            _ => {}
        }
        if !matches!(after.standing, Standing::Revoked { .. }) {
            self.scopes_changed(before, after, now, policy);
        }
        self.catch_up(after, now, policy);
    }

    fn revoked(&mut self, after: &Connection, now: Timestamp, policy: &Policy) {
        let remedy = Remedy::for_revocation();
        let word = word(after, EventKind::Revoked, Severity::Info, remedy, now, now, policy);
        self.settle_with(word, |_| true);
    }

    fn invalidated(
        &mut self,
        after: &Connection,
        since: Timestamp,
        reason: RefusalReason,
        now: Timestamp,
        policy: &Policy,
    ) {
        let remedy = Remedy::for_refusal(reason);
        let mut word = word(after, EventKind::Invalidated, Severity::Critical, remedy, since, now, policy);
        word.detail = Detail::Died { last_known_good: after.seen.last_known_good, first_known_bad: since };
        self.open_with(word, None, Duration::ZERO);
    }

    fn restored(&mut self, before: &Connection, after: &Connection, now: Timestamp, policy: &Policy) {
        let cause = match &before.standing {
            Standing::Revoked { .. } => EventKind::Revoked,
            Standing::Invalid { .. } => EventKind::Invalidated,
            Standing::Live => EventKind::Expired,
        };
        let remedy = Remedy::none("The connection works again; what was missed can be read now.");
        let mut word = word(after, EventKind::Restored, Severity::Info, remedy, now, now, policy);
        let ended = match &before.standing {
            Standing::Revoked { at, .. } => Some(*at),
            Standing::Invalid { since, .. } => Some(*since),
            Standing::Live => before.facts.expiry.at(),
        };
        // For a token that was never seen to work, the gap starts with its death.
        let gap_start = before.seen.last_known_good.or(ended);
        word.detail = Detail::Restored { gap_start, gap_end: now, cause };
        self.settle_with(word, |_| true);
    }

    fn renewed(
        &mut self,
        before: &Connection,
        after: &Connection,
        cause: Cause,
        now: Timestamp,
        policy: &Policy,
    ) {
        let (kind, message) = match cause {
            Cause::Exchange => (EventKind::Rotated, "The vault renewed the token."),
            _ => (EventKind::Replaced, "A person connected again with a new token."),
        };
        let mut word = word(after, kind, Severity::Info, Remedy::none(message), now, now, policy);
        if kind == EventKind::Rotated {
            word.detail = Detail::Renewed { previous_expiry: before.facts.expiry };
        }
        self.settle_with(word, |_| true);
    }

    /// An end moved without a new secret: this closes the warnings that no longer hold.
    fn deadlines_changed(
        &mut self,
        before: &Connection,
        after: &Connection,
        now: Timestamp,
        policy: &Policy,
    ) {
        let remedy = Remedy::none("A deadline of the token has moved.");
        let mut word = word(after, EventKind::DeadlinesChanged, Severity::Info, remedy, now, now, policy);
        word.detail = Detail::Renewed { previous_expiry: before.facts.expiry };
        let (end, access) = (after.facts.expiry, after.facts.data_access);
        let voided = |end: Expiry, threshold| end.at().is_none_or(|end| end - threshold > now);
        self.settle_with(word, |incident| match incident.key.kind {
            EventKind::Expiring => voided(end, incident.key.threshold),
            EventKind::DataAccessExpiring | EventKind::DataAccessExpired => {
                voided(access, incident.key.threshold)
            }
            // The vault has now done the overdue work.
            EventKind::Overdue => true,
            _ => false,
        });
    }

    fn scopes_changed(&mut self, before: &Connection, after: &Connection, now: Timestamp, policy: &Policy) {
        let had: BTreeSet<&String> = before.facts.scopes.iter().collect();
        let has: BTreeSet<&String> = after.facts.scopes.iter().collect();
        if had == has {
            return;
        }
        let added: Vec<String> = has.difference(&had).map(|scope| (*scope).clone()).collect();
        let removed: Vec<String> = had.difference(&has).map(|scope| (*scope).clone()).collect();
        let lost = |wanted: &[String]| removed.iter().any(|scope| wanted.contains(scope));
        let (severity, remedy) = if lost(&policy.required_scopes) {
            (Severity::Critical, ask_for_scopes("required", &removed))
        } else if lost(&policy.optional_scopes) {
            (Severity::Warning, ask_for_scopes("optional", &removed))
        } else {
            (Severity::Info, Remedy::none("The token's scopes have changed; no needed scope was lost."))
        };
        let mut word = word(after, EventKind::ScopesChanged, severity, remedy, now, now, policy);
        word.detail = Detail::Changed { added, removed };
        self.succeed_or_settle(word);
    }

    /// Announces ad accounts that came or went.
    pub fn ad_accounts_changed(
        &mut self,
        connection: &Connection,
        change: AccountChange,
        now: Timestamp,
        policy: &Policy,
    ) {
        let AccountChange { added, removed } = change;
        if added.is_empty() && removed.is_empty() {
            return;
        }
        let (severity, remedy) = if removed.is_empty() {
            (Severity::Info, Remedy::none("The token reaches more ad accounts than before."))
        } else {
            let remedy = Remedy::new(
                Fixer::AdAccountAdmin,
                format!("The token no longer reaches {} of its ad accounts.", removed.len()),
                "Have the person's role on these ad accounts restored if they are still wanted.",
            );
            (Severity::Warning, remedy)
        };
        let mut word = word(connection, EventKind::AdAccountsChanged, severity, remedy, now, now, policy);
        word.detail = Detail::Changed { added, removed };
        self.succeed_or_settle(word);
    }

    /// A loss stays open until the next change of its kind; a gain only closes the loss before it.
    fn succeed_or_settle(&mut self, word: EventWord) {
        if word.severity == Severity::Info {
            let kind = word.kind;
            self.settle_with(word, |incident| incident.key.kind == kind);
        } else {
            self.succeed_with(word);
        }
    }

    /// Announces that the vault can't renew the token by itself.
    pub fn rotation_failed(
        &mut self,
        connection: &Connection,
        at_ceiling: bool,
        next_attempt_at: Option<Timestamp>,
        now: Timestamp,
        policy: &Policy,
    ) {
        let why = if at_ceiling {
            "The provider no longer extends the token's life."
        } else {
            "The vault could not renew the token."
        };
        let end = connection.facts.expiry.at().map_or(String::new(), |end| format!(" It expires at {end}."));
        let remedy = Remedy::new(
            Fixer::WorkspaceOwner,
            format!("{why}{end}"),
            "Ask the workspace owner to reconnect the account before then.",
        );
        let kind = EventKind::RotationFailed;
        let mut word = word(connection, kind, Severity::Critical, remedy, now, now, policy);
        let attempts = connection.schedule.attempts.max(1);
        word.detail = Detail::RotationFailed { at_ceiling, attempts, next_attempt_at };
        self.open_with(word, Some(DeadlineKind::Token), Duration::ZERO);
    }

    /// Announces that due work was not done.
    pub fn overdue(&mut self, connection: &Connection, now: Timestamp, policy: &Policy) {
        let remedy = Remedy::new(
            Fixer::Operator,
            "Work on this token is overdue.",
            "See GetVaultStatus, ListJobRuns and the vault's log.",
        );
        let kind = EventKind::Overdue;
        let word = word(connection, kind, Severity::Critical, remedy, now, now, policy);
        self.open_with(word, None, Duration::ZERO);
    }

    /// Announces that due work is done after all.
    pub fn no_longer_overdue(&mut self, connection: &Connection, now: Timestamp, policy: &Policy) {
        if !self.open().any(|incident| incident.key.kind == EventKind::Overdue) {
            return;
        }
        let remedy = Remedy::none("The vault has caught up with its work on this token.");
        let kind = EventKind::DeadlinesChanged;
        let mut word = word(connection, kind, Severity::Info, remedy, now, now, policy);
        word.detail = Detail::Renewed { previous_expiry: connection.facts.expiry };
        self.settle_with(word, |incident| incident.key.kind == EventKind::Overdue);
    }
}

fn ask_for_scopes(which: &str, removed: &[String]) -> Remedy {
    Remedy::new(
        Fixer::WorkspaceOwner,
        format!("The token lost scopes, some of them {which}: {}.", removed.join(", ")),
        "Ask the workspace owner to reconnect and grant them.",
    )
}

fn moved(before: &Connection, after: &Connection) -> bool {
    after.facts.expiry.differs(before.facts.expiry)
}

fn data_access_moved(before: &Connection, after: &Connection) -> bool {
    after.facts.data_access.differs(before.facts.data_access)
}

fn word(
    connection: &Connection,
    kind: EventKind,
    severity: Severity,
    remedy: Remedy,
    occurred_at: Timestamp,
    now: Timestamp,
    policy: &Policy,
) -> EventWord {
    let (reason, provider_code) = match &connection.standing {
        Standing::Invalid { reason, provider_code, .. } => (Some(*reason), provider_code.clone()),
        Standing::Live | Standing::Revoked { .. } => (None, String::new()),
    };
    let status: Status = connection.status(now, policy);
    EventWord {
        kind,
        severity,
        workspace: Some(connection.workspace.clone()),
        provider: connection.provider.clone(),
        connection: Some(connection.id),
        version: connection.version.get(),
        occurred_at,
        status: Some(status),
        expiry: connection.facts.expiry,
        reason,
        provider_code,
        remedy,
        incident: 0,
        closes: Vec::new(),
        detail: Detail::None,
    }
}
