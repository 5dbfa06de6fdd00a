//! Which events follow from a change of a connection, or from the passing of time. Pure: the result depends only on the
//! facts before and after, on the open incidents, and on the time.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Announced, DeadlineKind, Detail, EventKind, EventWord, Incident};
use crate::model::{
    ConnectLinkId, Connection, Expiry, Health, Policy, Problem, ProblemReason, RefusalReason, Remedy,
    Severity, Standing, Timestamp,
};

/// The cause of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause<'a> {
    /// A person connected again, with this connect link if any.
    Person(Option<&'a ConnectLinkId>),
    /// The vault exchanged the token.
    Exchange,
    /// The provider was asked about the token.
    Observation,
    /// A caller ended the connection.
    Revocation,
}

impl<'a> Cause<'a> {
    fn link(self) -> Option<&'a ConnectLinkId> {
        match self {
            Self::Person(link) => link,
            Self::Exchange | Self::Observation | Self::Revocation => None,
        }
    }
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

impl Announced {
    /// Announces the ends and thresholds that have passed. Of several thresholds only the tightest is announced.
    pub fn catch_up(&mut self, connection: &Connection, now: Timestamp, policy: &Policy) {
        if connection.standing != Standing::Live {
            return;
        }
        let health = connection.health(now, policy);
        if let Some(end) = connection.facts.expiry.at() {
            if let Some(problem) = health.problem(ProblemReason::TokenExpired) {
                let mut word = told(connection, &health, EventKind::Expired, problem, end);
                word.reason = Some(RefusalReason::Expired);
                let last_known_good = connection.seen.last_known_good;
                word.detail = Detail::Died { last_known_good, first_known_bad: end };
                self.open_with(word, Some(DeadlineKind::Token), Duration::ZERO);
                return;
            }
            if let Some(problem) = health.problem(ProblemReason::ExpiringSoon) {
                let word = told(connection, &health, EventKind::Expiring, problem, end);
                self.expiring(word, DeadlineKind::Token, end, now, policy);
            }
        }
        let access = connection.facts.data_access.at();
        if let Some((end, problem)) = access.zip(health.problem(ProblemReason::DataAccessEnding)) {
            if end <= now {
                let word = told(connection, &health, EventKind::DataAccessExpired, problem, end);
                self.open_with(word, Some(DeadlineKind::DataAccess), Duration::ZERO);
            } else {
                let word = told(connection, &health, EventKind::DataAccessExpiring, problem, end);
                self.expiring(word, DeadlineKind::DataAccess, end, now, policy);
            }
        }
    }

    /// Announces the tightest threshold before `end` that has been crossed, unless that is announced already.
    fn expiring(
        &mut self,
        mut word: EventWord,
        deadline: DeadlineKind,
        end: Timestamp,
        now: Timestamp,
        policy: &Policy,
    ) {
        let Some(threshold) = policy.crossed(end, now) else { return };
        let tighter = |i: &Incident| {
            i.key.kind == word.kind && i.key.version == word.version && i.key.threshold <= threshold
        };
        if self.open().any(tighter) {
            return;
        }
        word.occurred_at = end - threshold;
        word.detail = Detail::Expiring { threshold, deadline };
        self.open_with(word, Some(deadline), threshold);
    }

    /// Announces a connection's first token, and the connect link with which a person brought it.
    pub fn born(
        &mut self,
        connection: &Connection,
        link: Option<&ConnectLinkId>,
        now: Timestamp,
        policy: &Policy,
    ) {
        let health = connection.health(now, policy);
        let remedy = Remedy::none("The account is connected.");
        let mut word = word(connection, &health, EventKind::Connected, Severity::Info, remedy, now);
        word.link = link.cloned();
        self.settle_with(word, |_| false);
        self.catch_up(connection, now, policy);
    }

    /// Announces what changed between two states of a connection, and first what had passed by then.
    pub fn changed(
        &mut self,
        before: &Connection,
        after: &Connection,
        cause: Cause<'_>,
        now: Timestamp,
        policy: &Policy,
    ) {
        self.catch_up(before, now, policy);
        let worked = before.status(now, policy).is_usable();
        let health = after.health(now, policy);
        let works = health.is_usable();
        let new_version = before.version != after.version;
        let is_open = |all: &Self, kind| all.open().any(|incident| incident.key.kind == kind);
        let missed = [EventKind::ScopesChanged, EventKind::AdAccountsChanged].map(|kind| is_open(self, kind));
        match (&before.standing, &after.standing) {
            (Standing::Revoked { .. }, Standing::Revoked { .. }) => {}
            (_, Standing::Revoked { .. }) => self.revoked(after, &health, now),
            (Standing::Live, Standing::Invalid { since, .. }) if worked => {
                self.invalidated(after, &health, *since);
            }
            _ if !worked && (works || new_version) => self.restored(before, after, &health, cause, now),
            _ if works && (new_version || cause == Cause::Exchange && lengthened(before, after)) => {
                self.renewed(before, after, &health, cause, now);
            }
            _ if works && (moved(before, after) || data_access_moved(before, after)) => {
                self.deadlines_changed(before, after, &health, now);
            }
            _ => {}
        }
        if !matches!(after.standing, Standing::Revoked { .. }) {
            // What settles all does not bring back what is still missing.
            let [scopes, accounts] = missed;
            let scopes_settled = scopes && !is_open(self, EventKind::ScopesChanged);
            self.scopes_changed(before, after, &health, scopes_settled, now, policy);
            if accounts && !is_open(self, EventKind::AdAccountsChanged) {
                self.still_without_ad_accounts(after, &health, now, policy);
            }
        }
        self.catch_up(after, now, policy);
    }

    fn revoked(&mut self, after: &Connection, health: &Health, now: Timestamp) {
        let remedy = Remedy::for_revocation();
        let word = word(after, health, EventKind::Revoked, Severity::Info, remedy, now);
        self.settle_with(word, |_| true);
    }

    fn invalidated(&mut self, after: &Connection, health: &Health, since: Timestamp) {
        let Some(problem) = health.problem(ProblemReason::TokenInvalid) else { return };
        let mut word = told(after, health, EventKind::Invalidated, problem, since);
        word.detail = Detail::Died { last_known_good: after.seen.last_known_good, first_known_bad: since };
        self.open_with(word, None, Duration::ZERO);
    }

    fn restored(
        &mut self,
        before: &Connection,
        after: &Connection,
        health: &Health,
        by: Cause<'_>,
        now: Timestamp,
    ) {
        let cause = match &before.standing {
            Standing::Revoked { .. } => EventKind::Revoked,
            Standing::Invalid { .. } => EventKind::Invalidated,
            Standing::Live => EventKind::Expired,
        };
        let remedy = Remedy::none("The connection works again; what was missed can be read now.");
        let mut word = word(after, health, EventKind::Restored, Severity::Info, remedy, now);
        let ended = match &before.standing {
            Standing::Revoked { at, .. } => Some(*at),
            Standing::Invalid { since, .. } => Some(*since),
            Standing::Live => before.facts.expiry.at(),
        };
        // For a token that was never seen to work, the gap starts with its death.
        let gap_start = before.seen.last_known_good.or(ended);
        word.detail = Detail::Restored { gap_start, gap_end: now, cause };
        word.link = by.link().cloned();
        self.settle_with(word, |_| true);
    }

    fn renewed(
        &mut self,
        before: &Connection,
        after: &Connection,
        health: &Health,
        cause: Cause<'_>,
        now: Timestamp,
    ) {
        let (kind, message) = match cause {
            Cause::Exchange if before.version == after.version => {
                (EventKind::Rotated, "The provider extended the token, which stays the same.")
            }
            Cause::Exchange => (EventKind::Rotated, "The vault renewed the token."),
            _ => (EventKind::Replaced, "A person connected again with a new token."),
        };
        let mut word = word(after, health, kind, Severity::Info, Remedy::none(message), now);
        word.link = cause.link().cloned();
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
        health: &Health,
        now: Timestamp,
    ) {
        let remedy = Remedy::none("A deadline of the token has moved.");
        let mut word = word(after, health, EventKind::DeadlinesChanged, Severity::Info, remedy, now);
        word.detail = Detail::Renewed { previous_expiry: before.facts.expiry };
        let (end, access) = (after.facts.expiry, after.facts.data_access);
        let renewal_starts_anew = moved(before, after);
        let voided = |end: Expiry, threshold| end.at().is_none_or(|end| end - threshold > now);
        self.settle_with(word, |incident| match incident.key.kind {
            EventKind::Expiring => voided(end, incident.key.threshold),
            EventKind::DataAccessExpiring | EventKind::DataAccessExpired => {
                voided(access, incident.key.threshold)
            }
            // Another end is another chance of renewal.
            EventKind::RotationFailed => renewal_starts_anew,
            // The vault has now done the overdue work.
            EventKind::Overdue => true,
            _ => false,
        });
    }

    /// What is still missing decides how bad a change is: a scope that is not needed may come or go while a needed one is
    /// missing. `settled`: another event has just settled the last change.
    fn scopes_changed(
        &mut self,
        before: &Connection,
        after: &Connection,
        health: &Health,
        settled: bool,
        now: Timestamp,
        policy: &Policy,
    ) {
        let had: BTreeSet<&String> = before.facts.scopes.iter().collect();
        let has: BTreeSet<&String> = after.facts.scopes.iter().collect();
        let from = after.standpoint(now, policy);
        let missing = from.required_scopes(&after.facts).or_else(|| from.optional_scopes(&after.facts));
        if had == has && !(settled && missing.is_some()) {
            return;
        }
        let added: Vec<String> = has.difference(&had).map(|scope| (*scope).clone()).collect();
        let removed: Vec<String> = had.difference(&has).map(|scope| (*scope).clone()).collect();
        let kind = EventKind::ScopesChanged;
        let mut word = match &missing {
            Some(problem) => told(after, health, kind, problem, now),
            None => {
                let remedy = Remedy::none("The token's scopes have changed; it has all that are needed.");
                word(after, health, kind, Severity::Info, remedy, now)
            }
        };
        word.detail = Detail::Changed { added, removed };
        self.succeed_or_settle(word);
    }

    fn still_without_ad_accounts(
        &mut self,
        after: &Connection,
        health: &Health,
        now: Timestamp,
        policy: &Policy,
    ) {
        let Some(problem) = after.ad_account_problem(now, policy) else { return };
        let mut word = told(after, health, EventKind::AdAccountsChanged, &problem, now);
        word.detail = Detail::Changed { added: Vec::new(), removed: Vec::new() };
        self.succeed_with(word);
    }

    /// Announces ad accounts that came or went. What the token still lacks decides how bad it is.
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
        let health = connection.health(now, policy);
        let kind = EventKind::AdAccountsChanged;
        let mut word = match connection.ad_account_problem(now, policy) {
            Some(problem) => told(connection, &health, kind, &problem, now),
            None => {
                let remedy = Remedy::none("The token reaches more ad accounts than before.");
                word(connection, &health, kind, Severity::Info, remedy, now)
            }
        };
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

    /// Announces that the vault can't renew the token by itself, as its schedule says.
    pub fn rotation_failed(&mut self, connection: &Connection, now: Timestamp, policy: &Policy) {
        let health = connection.health(now, policy);
        let problem = [ProblemReason::AtCeiling, ProblemReason::ReauthorizationRequired]
            .into_iter()
            .find_map(|reason| health.problem(reason));
        let Some(problem) = problem else { return };
        let mut word = told(connection, &health, EventKind::RotationFailed, problem, now);
        word.detail = Detail::RotationFailed {
            at_ceiling: problem.reason == ProblemReason::AtCeiling,
            attempts: connection.schedule.attempts.max(1),
            next_attempt_at: connection.schedule.next_renewal_at,
        };
        self.open_with(word, Some(DeadlineKind::Token), Duration::ZERO);
    }

    /// Announces that due work was not done, as its schedule says.
    pub fn overdue(&mut self, connection: &Connection, now: Timestamp, policy: &Policy) {
        let health = connection.health(now, policy);
        let Some(problem) = health.problem(ProblemReason::Overdue) else { return };
        let word = told(connection, &health, EventKind::Overdue, problem, now);
        self.open_with(word, None, Duration::ZERO);
    }

    /// Announces that due work is done after all.
    pub fn no_longer_overdue(&mut self, connection: &Connection, now: Timestamp, policy: &Policy) {
        if !self.open().any(|incident| incident.key.kind == EventKind::Overdue) {
            return;
        }
        let remedy = Remedy::none("The vault has caught up with its work on this token.");
        let kind = EventKind::DeadlinesChanged;
        let health = connection.health(now, policy);
        let mut word = word(connection, &health, kind, Severity::Info, remedy, now);
        word.detail = Detail::Renewed { previous_expiry: connection.facts.expiry };
        self.settle_with(word, |incident| incident.key.kind == EventKind::Overdue);
    }
}

fn moved(before: &Connection, after: &Connection) -> bool {
    after.facts.expiry.differs(before.facts.expiry)
}

fn data_access_moved(before: &Connection, after: &Connection) -> bool {
    after.facts.data_access.differs(before.facts.data_access)
}

/// Whether the end moved away. An end that only became known was not moved by an exchange.
fn lengthened(before: &Connection, after: &Connection) -> bool {
    before.facts.expiry != Expiry::Unknown && after.facts.expiry.is_later(before.facts.expiry)
}

/// An event about a problem: as severe as the problem, with the same remedy.
fn told(
    connection: &Connection,
    health: &Health,
    kind: EventKind,
    problem: &Problem,
    occurred_at: Timestamp,
) -> EventWord {
    word(connection, health, kind, problem.severity(), problem.remedy.clone(), occurred_at)
}

fn word(
    connection: &Connection,
    health: &Health,
    kind: EventKind,
    severity: Severity,
    remedy: Remedy,
    occurred_at: Timestamp,
) -> EventWord {
    let (reason, provider_code) = match &connection.standing {
        Standing::Invalid { reason, provider_code, .. } => (Some(*reason), provider_code.clone()),
        Standing::Live | Standing::Revoked { .. } => (None, String::new()),
    };
    EventWord {
        kind,
        severity,
        workspace: Some(connection.workspace.clone()),
        provider: connection.provider.clone(),
        connection: Some(connection.id),
        version: connection.version.get(),
        occurred_at,
        status: Some(health.status),
        expiry: connection.facts.expiry,
        reason,
        provider_code,
        remedy,
        incident: 0,
        closes: Vec::new(),
        link: None,
        detail: Detail::None,
    }
}
