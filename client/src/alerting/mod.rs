//! What is wrong now, as incidents that open, change and are resolved.

mod incident;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};

use crate::v1::{ExpiryEvent, Severity, Token};
use crate::watch::{Snapshot, WatchItem};
use incident::{cause, cause_of_problem, scope, settles_all, worst};

pub use incident::{Alert, Cause, Incident, Scope};

/// The open incidents, kept up to date by a watch's items. Events of severity warning and worse open incidents.
///
/// To survive restarts, store [`open`](Self::open) together with the watch's position and pass it to
/// [`restore`](Self::restore); or store neither, and start each time with a snapshot.
#[derive(Debug, Clone, Default)]
pub struct Alerts {
    open: BTreeMap<(Scope, Cause), Incident>,
    /// The problems in the snapshot that is arriving.
    snapshot: HashSet<(Scope, Cause)>,
}

impl Alerts {
    /// Starts without any incident.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts with these incidents open, without alerts about them.
    pub fn restore(open: impl IntoIterator<Item = Incident>) -> Self {
        let open = open.into_iter().map(|incident| ((incident.scope.clone(), incident.cause), incident));
        Self { open: open.collect(), snapshot: HashSet::new() }
    }

    /// The open incidents, by scope and cause.
    pub fn open(&self) -> impl Iterator<Item = &Incident> {
        self.open.values()
    }

    /// Processes an item of the watch, and returns what it changed.
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
        // Add the event before anything is closed: an event that replaces its own predecessor is an update, not a new
        // incident.
        let added = if event.severity >= Severity::Warning.into() { self.add(event) } else { None };
        let mut alerts = self.settle(event, added.as_ref().map(|(key, _)| key));
        alerts.extend(added.and_then(|(key, is_new)| {
            let incident = self.open.get(&key)?.clone();
            Some(if is_new { Alert::Opened(incident) } else { Alert::Updated(incident) })
        }));
        alerts
    }

    /// Adds the event to its incident, and returns that and whether it is new. `None`: the event is known already.
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

    /// Closes what the event closes. The caller reports the event's own incident.
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
            // If a snapshot showed the incident, the events behind it may be unknown. Then it ends with an event that
            // settles everything of its connection, or with a better state for the same cause.
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
        // If a connection comes twice, the later state replaces the earlier one.
        self.snapshot.retain(|(seen, _)| *seen != scope);
        let mut alerts = Vec::new();
        for problem in &token.problems {
            let Some(cause) = cause_of_problem(problem.reason) else { continue };
            if problem.severity < Severity::Warning.into() {
                continue;
            }
            let key = (scope.clone(), cause);
            // The worst problem comes first, and represents all of the same cause.
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

    /// Resolves the incidents of connections that the snapshot lacks. A snapshot does not cover providers.
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
