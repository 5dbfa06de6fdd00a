//! What is wrong now, as incidents that open, change and are resolved.

use std::collections::{BTreeMap, HashSet};

use prost_types::Timestamp;

use crate::v1::expiry_event::Kind;
use crate::v1::{ErrorReason, ExpiryEvent, Remedy, Severity, Token};
use crate::watch::{Snapshot, WatchItem};

/// What an incident is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// One connection, by its id.
    Connection(String),
    /// A provider as a whole, or our app there, by the provider's name.
    Provider(String),
}

/// Why there is an incident. Several events in a row may have one cause: a token that expires soon is expired some day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The token ends soon, or has ended.
    Expiry,
    /// The provider refuses the token.
    Refusal,
    /// The vault could not renew the token.
    Renewal,
    /// Scopes are missing.
    Scopes,
    /// Ad accounts are out of reach.
    AdAccounts,
    /// The data access ends soon, or has ended.
    DataAccess,
    /// The vault holds calls back.
    Throttling,
    /// The vault has not looked at the token in time.
    Overdue,
    /// The provider, or our app there, is in trouble.
    Provider,
    /// Of a newer vault, by the number of its kind of event or of its reason; go by severity and remedy.
    Other(i32),
}

/// Something that is wrong. One is open per scope and cause at most.
#[derive(Debug, Clone, PartialEq)]
pub struct Incident {
    /// Sequence of the event that opened it: a key for pagers. `None`: it is known from a snapshot, not from an event.
    pub id: Option<i64>,
    /// What it is about.
    pub scope: Scope,
    /// Why.
    pub cause: Cause,
    /// The worst of what is open in it.
    pub severity: Severity,
    /// The workspace of the connection. Empty for providers.
    pub workspace_id: String,
    /// The ad platform.
    pub provider: String,
    /// When it began, as far as known.
    pub since: Option<Timestamp>,
    /// What is wrong and what to do, in words: as it was told last.
    pub remedy: Option<Remedy>,
    /// Sequences of its open events, and how bad each is.
    pub events: BTreeMap<i64, Severity>,
    /// The snapshot in which it was seen covers the connection's events up to this sequence. 0: in none.
    pub seen_up_to: i64,
}

/// What became of an incident; each with the incident as it is now, or was at its end.
#[derive(Debug, Clone, PartialEq)]
pub enum Alert {
    /// It is new: tell people.
    Opened(Incident),
    /// It became worse or better, or there is more to say.
    Updated(Incident),
    /// It is over.
    Resolved(Incident),
}

/// The open incidents, kept up to date by what a watch brings. Warnings and worse open incidents.
///
/// To live on through restarts, keep [`open`](Self::open) together with the watch's position and give it back by
/// [`restore`](Self::restore); or keep neither, and start each time with a snapshot.
#[derive(Debug, Clone, Default)]
pub struct Alerts {
    open: BTreeMap<(Scope, Cause), Incident>,
    /// What the snapshot that is under way shows.
    snapshot: HashSet<(Scope, Cause)>,
}

impl Alerts {
    /// Nothing is wrong, as far as known.
    pub fn new() -> Self {
        Self::default()
    }

    /// These are open. Nothing is told about them.
    pub fn restore(open: impl IntoIterator<Item = Incident>) -> Self {
        let open = open.into_iter().map(|incident| ((incident.scope.clone(), incident.cause), incident));
        Self { open: open.collect(), snapshot: HashSet::new() }
    }

    /// The open incidents, by scope and cause.
    pub fn open(&self) -> impl Iterator<Item = &Incident> {
        self.open.values()
    }

    /// Takes in what the watch brought, and says what changed by it.
    pub fn take(&mut self, item: &WatchItem) -> Vec<Alert> {
        match item {
            WatchItem::Event(event) => self.event(event),
            WatchItem::Snapshot(Snapshot::Started) => {
                self.snapshot.clear();
                Vec::new()
            }
            WatchItem::Snapshot(Snapshot::Token(token)) => self.token(token),
            WatchItem::Snapshot(Snapshot::Complete { .. }) => self.complete(),
            _ => Vec::new(),
        }
    }

    fn event(&mut self, event: &ExpiryEvent) -> Vec<Alert> {
        // Added before anything is closed: one that takes over from its own predecessor is an update, not a new incident.
        let told = if event.severity >= Severity::Warning.into() { self.add(event) } else { None };
        let mut alerts = self.settle(event, told.as_ref().map(|(key, _)| key));
        alerts.extend(told.and_then(|(key, is_new)| {
            let incident = self.open.get(&key)?.clone();
            Some(if is_new { Alert::Opened(incident) } else { Alert::Updated(incident) })
        }));
        alerts
    }

    /// Where the event belongs now, and whether that is new. `None`: it is known already.
    fn add(&mut self, event: &ExpiryEvent) -> Option<((Scope, Cause), bool)> {
        let (scope, severity) = (scope(event), event.severity());
        let by_incident = self
            .open
            .iter()
            .find(|(_, open)| open.scope == scope && open.is_of(event.incident))
            .map(|(key, _)| key.clone());
        let key = by_incident.unwrap_or_else(|| (scope.clone(), cause(event)));
        let is_new = !self.open.contains_key(&key);
        let incident = self.open.entry(key.clone()).or_insert_with(|| Incident {
            id: None,
            scope,
            cause: key.1,
            severity,
            workspace_id: event.workspace_id.clone(),
            provider: event.provider.clone(),
            since: event.occurred_at,
            remedy: None,
            events: BTreeMap::new(),
            seen_up_to: 0,
        });
        if incident.events.insert(event.sequence, severity).is_some() {
            return None;
        }
        let opened_by = if event.incident == 0 { event.sequence } else { event.incident };
        incident.id.get_or_insert(opened_by);
        incident.remedy = event.remedy.clone().or(incident.remedy.take());
        incident.severity = worst(incident).unwrap_or(severity);
        Some((key, is_new))
    }

    /// Closes what the event closes. What it belongs to itself is told by the caller.
    fn settle(&mut self, event: &ExpiryEvent, own: Option<&(Scope, Cause)>) -> Vec<Alert> {
        if event.closes.is_empty() {
            return Vec::new();
        }
        let scope = scope(event);
        let known: HashSet<i64> = self.open.values().flat_map(|open| open.events.keys().copied()).collect();
        let oldest_unknown = event.closes.iter().copied().filter(|closed| !known.contains(closed)).min();
        let mut alerts = Vec::new();
        self.open.retain(|key, open| {
            let (events, seen_up_to) = (open.events.len(), open.seen_up_to);
            open.events.retain(|sequence, _| !event.closes.contains(sequence));
            // Of what a snapshot showed, the events' sequences may be unknown. What settles all of its connection settles
            // it, and so does a better state of the same thing.
            let touched = open.events.len() < events
                || oldest_unknown.is_some_and(|closed| open.scope == scope && closed <= open.seen_up_to);
            if touched && (settles_all(event.kind()) || cause(event) == open.cause) {
                open.seen_up_to = 0;
            }
            if open.events.len() == events && open.seen_up_to == seen_up_to {
                return true;
            }
            if open.events.is_empty() && open.seen_up_to == 0 {
                alerts.push(Alert::Resolved(open.clone()));
                return false;
            }
            open.severity = worst(open).unwrap_or(open.severity);
            if own != Some(key) {
                alerts.push(Alert::Updated(open.clone()));
            }
            true
        });
        alerts
    }

    fn token(&mut self, token: &Token) -> Vec<Alert> {
        let scope = Scope::Connection(token.connection_id.clone());
        // A connection that comes twice counts as it comes last.
        self.snapshot.retain(|(seen, _)| *seen != scope);
        let mut alerts = Vec::new();
        for problem in &token.problems {
            let Some(cause) = cause_of_problem(problem.reason) else { continue };
            if problem.severity < Severity::Warning.into() {
                continue;
            }
            let key = (scope.clone(), cause);
            // The worst comes first and speaks for all of the same cause.
            if !self.snapshot.insert(key.clone()) {
                continue;
            }
            let severity = problem.severity();
            let remedy = problem.remedy.clone();
            match self.open.get_mut(&key) {
                Some(open) => {
                    let changed = open.severity != severity;
                    open.severity = severity;
                    open.remedy = remedy.or(open.remedy.take());
                    open.seen_up_to = token.last_event_sequence;
                    if changed {
                        alerts.push(Alert::Updated(open.clone()));
                    }
                }
                None => {
                    let incident = Incident {
                        id: None,
                        scope: scope.clone(),
                        cause,
                        severity,
                        workspace_id: token.workspace_id.clone(),
                        provider: token.provider.clone(),
                        since: problem.since,
                        remedy,
                        events: BTreeMap::new(),
                        seen_up_to: token.last_event_sequence,
                    };
                    alerts.push(Alert::Opened(incident.clone()));
                    self.open.insert(key, incident);
                }
            }
        }
        alerts
    }

    /// What the snapshot does not show of connections is over. It says nothing of providers.
    fn complete(&mut self) -> Vec<Alert> {
        let shown = std::mem::take(&mut self.snapshot);
        let mut alerts = Vec::new();
        self.open.retain(|key, open| {
            let stays = shown.contains(key) || matches!(open.scope, Scope::Provider(_));
            if !stays {
                alerts.push(Alert::Resolved(open.clone()));
            }
            stays
        });
        alerts
    }
}

impl Incident {
    fn is_of(&self, opened_by: i64) -> bool {
        self.id == Some(opened_by) || self.events.contains_key(&opened_by)
    }
}

fn worst(incident: &Incident) -> Option<Severity> {
    incident.events.values().copied().max()
}

fn scope(event: &ExpiryEvent) -> Scope {
    if event.connection_id.is_empty() {
        Scope::Provider(event.provider.clone())
    } else {
        Scope::Connection(event.connection_id.clone())
    }
}

fn cause(event: &ExpiryEvent) -> Cause {
    match event.kind() {
        Kind::Expiring | Kind::Expired | Kind::DeadlinesChanged => Cause::Expiry,
        Kind::Invalidated => Cause::Refusal,
        Kind::RotationFailed => Cause::Renewal,
        Kind::ScopesChanged => Cause::Scopes,
        Kind::AdAccountsChanged => Cause::AdAccounts,
        Kind::DataAccessExpiring | Kind::DataAccessExpired => Cause::DataAccess,
        Kind::Throttled => Cause::Throttling,
        Kind::Overdue => Cause::Overdue,
        Kind::ProviderAlarm | Kind::ProviderRecovered => Cause::Provider,
        Kind::Unspecified
        | Kind::Connected
        | Kind::Replaced
        | Kind::Restored
        | Kind::Rotated
        | Kind::Revoked => Cause::Other(event.kind),
    }
}

/// The kinds that close all that was open of their connection.
fn settles_all(kind: Kind) -> bool {
    matches!(kind, Kind::Replaced | Kind::Restored | Kind::Rotated | Kind::Revoked)
}

/// `None`: it is no incident of the connection's own.
fn cause_of_problem(reason: i32) -> Option<Cause> {
    Some(match ErrorReason::try_from(reason) {
        Ok(ErrorReason::TokenExpired | ErrorReason::ExpiringSoon) => Cause::Expiry,
        Ok(ErrorReason::TokenInvalid) => Cause::Refusal,
        Ok(ErrorReason::AtCeiling | ErrorReason::ReauthorizationRequired) => Cause::Renewal,
        Ok(ErrorReason::ScopesMissing | ErrorReason::OptionalScopesMissing) => Cause::Scopes,
        Ok(ErrorReason::AdAccountsUnreachable | ErrorReason::NoAdAccounts) => Cause::AdAccounts,
        Ok(ErrorReason::DataAccessEnding) => Cause::DataAccess,
        Ok(ErrorReason::ProviderThrottled | ErrorReason::CallBudgetExhausted) => Cause::Throttling,
        // One alarm of the provider tells it, not one per connection.
        Ok(ErrorReason::ProviderUnavailable | ErrorReason::ProviderMisconfigured) => return None,
        Ok(ErrorReason::TokenRevoked) => return None,
        _ => Cause::Other(reason),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::Problem;

    fn happened(kind: Kind, severity: Severity, sequence: i64, incident: i64, closes: &[i64]) -> WatchItem {
        WatchItem::Event(Box::new(ExpiryEvent {
            sequence,
            kind: kind.into(),
            severity: severity.into(),
            connection_id: "c".into(),
            provider: "meta".into(),
            incident,
            closes: closes.to_vec(),
            ..Default::default()
        }))
    }

    fn warned(kind: Kind, sequence: i64, incident: i64) -> WatchItem {
        happened(kind, Severity::Warning, sequence, incident, &[])
    }

    fn critical(kind: Kind, sequence: i64, incident: i64) -> WatchItem {
        happened(kind, Severity::Critical, sequence, incident, &[])
    }

    fn closing(kind: Kind, sequence: i64, closes: &[i64]) -> WatchItem {
        happened(kind, Severity::Info, sequence, sequence, closes)
    }

    fn provider(item: WatchItem) -> WatchItem {
        let WatchItem::Event(mut event) = item else { panic!("{item:?}") };
        event.connection_id.clear();
        WatchItem::Event(event)
    }

    /// A snapshot of connection "c" alone, which is up to event 50.
    fn snapshot(problems: &[(ErrorReason, Severity)]) -> Vec<WatchItem> {
        let problems = problems.iter().map(|(reason, severity)| Problem {
            reason: (*reason).into(),
            severity: (*severity).into(),
            ..Default::default()
        });
        let token = Token {
            connection_id: "c".into(),
            provider: "meta".into(),
            last_event_sequence: 50,
            problems: problems.collect(),
            ..Default::default()
        };
        vec![
            WatchItem::Snapshot(Snapshot::Started),
            WatchItem::Snapshot(Snapshot::Token(Box::new(token))),
            WatchItem::Snapshot(Snapshot::Complete { token_count: 1, cursor: "v1:60".into() }),
        ]
    }

    /// An alert in a few words, such as "opened 3 Expiry Warning".
    fn told(alert: &Alert) -> String {
        let (word, incident) = match alert {
            Alert::Opened(incident) => ("opened", incident),
            Alert::Updated(incident) => ("updated", incident),
            Alert::Resolved(incident) => ("resolved", incident),
        };
        let id = incident.id.map_or("-".into(), |id| id.to_string());
        format!("{word} {id} {:?} {:?}", incident.cause, incident.severity)
    }

    #[test]
    fn incidents_open_change_and_are_resolved() {
        use Kind::*;
        let cases: Vec<(&str, Vec<WatchItem>, &[&str])> = vec![
            ("good news", vec![closing(Connected, 1, &[]), closing(Rotated, 2, &[])], &[]),
            (
                "one incident grows worse, and ends",
                vec![
                    warned(Expiring, 3, 3),
                    critical(Expiring, 5, 3),
                    critical(Expired, 7, 3),
                    closing(Restored, 9, &[3, 5, 7]),
                ],
                &[
                    "opened 3 Expiry Warning",
                    "updated 3 Expiry Critical",
                    "updated 3 Expiry Critical",
                    "resolved 3 Expiry Critical",
                ],
            ),
            (
                "the same cause under another incident is one",
                vec![warned(Expiring, 3, 3), critical(Expired, 7, 7), closing(Replaced, 9, &[3, 7])],
                &["opened 3 Expiry Warning", "updated 3 Expiry Critical", "resolved 3 Expiry Critical"],
            ),
            (
                "two causes are two, and one event settles both",
                vec![warned(Throttled, 3, 3), critical(Invalidated, 5, 5), closing(Revoked, 9, &[3, 5])],
                &[
                    "opened 3 Throttling Warning",
                    "opened 5 Refusal Critical",
                    "resolved 5 Refusal Critical",
                    "resolved 3 Throttling Warning",
                ],
            ),
            (
                "a part that is settled makes it better",
                vec![
                    warned(Expiring, 3, 3),
                    critical(Expiring, 5, 3),
                    closing(DeadlinesChanged, 6, &[5]),
                    closing(DeadlinesChanged, 8, &[3]),
                ],
                &[
                    "opened 3 Expiry Warning",
                    "updated 3 Expiry Critical",
                    "updated 3 Expiry Warning",
                    "resolved 3 Expiry Warning",
                ],
            ),
            (
                "a worse state that takes over from the one before",
                vec![
                    warned(ScopesChanged, 3, 3),
                    happened(ScopesChanged, Severity::Critical, 5, 5, &[3]),
                    closing(ScopesChanged, 7, &[5]),
                ],
                &["opened 3 Scopes Warning", "updated 3 Scopes Critical", "resolved 3 Scopes Critical"],
            ),
            (
                "an event delivered twice",
                vec![critical(Expired, 3, 3), critical(Expired, 3, 3)],
                &["opened 3 Expiry Critical"],
            ),
            ("what is closed and was never seen", vec![closing(Restored, 9, &[1, 2])], &[]),
            (
                "a kind of the future goes by its severity",
                vec![critical(Unspecified, 3, 3), closing(Restored, 4, &[3])],
                &["opened 3 Other(0) Critical", "resolved 3 Other(0) Critical"],
            ),
            (
                "a provider's alarm is no connection's, and outlives a snapshot",
                [
                    vec![provider(critical(ProviderAlarm, 3, 3)), closing(Restored, 4, &[])],
                    snapshot(&[]),
                    vec![provider(closing(ProviderRecovered, 5, &[3]))],
                ]
                .concat(),
                &["opened 3 Provider Critical", "resolved 3 Provider Critical"],
            ),
            (
                "a snapshot opens what it shows, changes and resolves the rest",
                [
                    vec![warned(Throttled, 3, 3), warned(Expiring, 4, 4)],
                    snapshot(&[
                        (ErrorReason::TokenExpired, Severity::Critical),
                        (ErrorReason::ScopesMissing, Severity::Critical),
                        (ErrorReason::ExpiryUnknown, Severity::Info),
                    ]),
                ]
                .concat(),
                &[
                    "opened 3 Throttling Warning",
                    "opened 4 Expiry Warning",
                    "updated 4 Expiry Critical",
                    "opened - Scopes Critical",
                    "resolved 3 Throttling Warning",
                ],
            ),
            (
                "the same snapshot again changes nothing",
                [
                    snapshot(&[(ErrorReason::TokenInvalid, Severity::Critical)]),
                    snapshot(&[(ErrorReason::TokenInvalid, Severity::Critical)]),
                    snapshot(&[]),
                ]
                .concat(),
                &["opened - Refusal Critical", "resolved - Refusal Critical"],
            ),
            (
                "what an event and a snapshot showed is settled by the event's end",
                [
                    vec![critical(Expired, 7, 7)],
                    snapshot(&[(ErrorReason::TokenExpired, Severity::Critical)]),
                    vec![closing(Restored, 61, &[7])],
                ]
                .concat(),
                &["opened 7 Expiry Critical", "resolved 7 Expiry Critical"],
            ),
            (
                "what only a snapshot showed is settled by an event that closes its unseen events",
                [
                    snapshot(&[(ErrorReason::TokenInvalid, Severity::Critical)]),
                    vec![closing(DeadlinesChanged, 61, &[40]), closing(Restored, 62, &[41])],
                ]
                .concat(),
                &["opened - Refusal Critical", "resolved - Refusal Critical"],
            ),
            (
                "and by a better state of the same thing, not by what closes only later events",
                [
                    snapshot(&[(ErrorReason::ExpiringSoon, Severity::Warning)]),
                    vec![closing(Rotated, 70, &[65]), closing(DeadlinesChanged, 71, &[40])],
                ]
                .concat(),
                &["opened - Expiry Warning", "resolved - Expiry Warning"],
            ),
        ];
        for (name, items, expected) in cases {
            let mut alerts = Alerts::new();
            let mut found = Vec::new();
            for item in &items {
                found.extend(alerts.take(item).iter().map(told));
            }
            assert_eq!(found, expected, "{name}");
            let still = expected.iter().filter(|word| word.starts_with("opened")).count()
                - expected.iter().filter(|word| word.starts_with("resolved")).count();
            assert_eq!(alerts.open().count(), still, "{name}");
        }
    }

    #[test]
    fn what_was_open_before_a_restart_is_resolved_after_it() {
        let mut before = Alerts::new();
        assert_eq!(before.take(&critical(Kind::Expired, 3, 3)).len(), 1);
        let mut after = Alerts::restore(before.open().cloned());
        assert!(after.take(&critical(Kind::Expired, 3, 3)).is_empty(), "known");
        let alerts = after.take(&closing(Kind::Restored, 5, &[3]));
        assert_eq!(alerts.iter().map(told).collect::<Vec<_>>(), ["resolved 3 Expiry Critical"]);
    }
}
