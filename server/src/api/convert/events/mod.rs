//! The feed: requests into commands; events, watch responses and subscriptions into messages.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use prost_types::Duration as PbDuration;
use token_vault_proto::v1 as pb;
use token_vault_proto::v1::expiry_event::{Detail as PbDetail, Kind};
use token_vault_proto::v1::watch_expiry_events_request::{From as PbFrom, Start};
use token_vault_proto::v1::watch_expiry_events_response::{
    EventBatch, Heartbeat, Item, SnapshotComplete, SnapshotPage,
};
use token_vault_proto::v1::{deadline, token};

use super::bounds::{Filled, Page};
use super::fields::Fields;
use super::time::{instant, length};
use super::token::{count, refusal_reason, severity, status};
use crate::model::{
    ConnectionId, DeadlineKind, Detail, EventKind, ProviderId, Severity, SubscriptionName,
    check_principal_name,
};
use crate::vault::{
    AcknowledgeEvents, DeleteSubscription, EventFilter, EventPage, ListEvents, ListSubscriptions, NextPage,
    SeenEvent, Subscription, VaultError, WatchEvents, WatchItem, WatchMessage, WatchStart,
};

/// The most workspaces, and the most connections, in a filter.
const MOST_IDS: usize = 1_000;
/// The most providers, and the most kinds, in a filter.
const MOST_KINDS: usize = 100;
/// The shortest and the longest heartbeat interval, in seconds.
const HEARTBEAT: (u64, u64) = (1, 300);

/// Without a filter, everything passes.
fn filter(fields: &mut Fields, filter: Option<pb::EventFilter>) -> EventFilter {
    let Some(filter) = filter else { return EventFilter::default() };
    let lengths = [
        ("filter.workspace_ids", filter.workspace_ids.len(), MOST_IDS),
        ("filter.providers", filter.providers.len(), MOST_KINDS),
        ("filter.connection_ids", filter.connection_ids.len(), MOST_IDS),
        ("filter.kinds", filter.kinds.len(), MOST_KINDS),
    ];
    for (field, length, most) in lengths {
        fields.reject_if(length > most, field, &format!("must be at most {most}"));
    }
    let mut workspaces = BTreeSet::new();
    for (at, id) in filter.workspace_ids.into_iter().take(MOST_IDS).enumerate() {
        workspaces.extend(fields.workspace(&format!("filter.workspace_ids[{at}]"), id));
    }
    let mut providers = BTreeSet::new();
    for (at, name) in filter.providers.into_iter().take(MOST_KINDS).enumerate() {
        providers.extend(fields.keep(&format!("filter.providers[{at}]"), ProviderId::parse(name)));
    }
    let mut connections = BTreeSet::new();
    for (at, id) in filter.connection_ids.into_iter().take(MOST_IDS).enumerate() {
        connections.extend(fields.keep(&format!("filter.connection_ids[{at}]"), ConnectionId::parse(&id)));
    }
    let mut kinds = BTreeSet::new();
    for (at, number) in filter.kinds.into_iter().take(MOST_KINDS).enumerate() {
        match known_kind(number) {
            Some(kind) => drop(kinds.insert(kind)),
            None => fields.violated(format!("filter.kinds[{at}]"), "must be a kind of this version"),
        }
    }
    let min_severity = match pb::Severity::try_from(filter.min_severity) {
        Ok(pb::Severity::Unspecified) => None,
        Ok(pb::Severity::Info) => Some(Severity::Info),
        Ok(pb::Severity::Warning) => Some(Severity::Warning),
        Ok(pb::Severity::Critical) => Some(Severity::Critical),
        Err(_) => {
            fields.violated("filter.min_severity", "must be a severity of this version");
            None
        }
    };
    EventFilter { workspaces, providers, connections, kinds, min_severity }
}

impl TryFrom<pb::WatchExpiryEventsRequest> for WatchEvents {
    type Error = VaultError;

    fn try_from(request: pb::WatchExpiryEventsRequest) -> Result<Self, VaultError> {
        let mut fields = Fields::default();
        let filter = filter(&mut fields, request.filter);
        let subscription =
            request.subscription.and_then(|name| fields.keep("subscription", SubscriptionName::parse(name)));
        let start = match request.start {
            None => WatchStart::Now,
            Some(Start::Cursor(cursor)) => WatchStart::After(cursor),
            Some(Start::From(number)) => match PbFrom::try_from(number) {
                Ok(PbFrom::Unspecified | PbFrom::Now) => WatchStart::Now,
                Ok(PbFrom::Earliest) => WatchStart::Earliest,
                Ok(PbFrom::Snapshot) => WatchStart::Snapshot,
                Err(_) => {
                    fields.violated("from", "must be a start of this version");
                    WatchStart::Now
                }
            },
        };
        let heartbeat = heartbeat(&mut fields, request.heartbeat_interval);
        fields.check()?;
        Ok(Self { filter, subscription, start, heartbeat })
    }
}

/// Zero means the vault's default.
fn heartbeat(fields: &mut Fields, interval: Option<PbDuration>) -> Duration {
    let interval = fields.length("heartbeat_interval", interval).unwrap_or_default();
    let (least, most) = (Duration::from_secs(HEARTBEAT.0), Duration::from_secs(HEARTBEAT.1));
    let good = interval.is_zero() || (least..=most).contains(&interval);
    fields.reject_if(!good, "heartbeat_interval", "must be 0, or 1 second to 5 minutes");
    interval
}

impl TryFrom<pb::ListExpiryEventsRequest> for ListEvents {
    type Error = VaultError;

    fn try_from(request: pb::ListExpiryEventsRequest) -> Result<Self, VaultError> {
        let mut fields = Fields::default();
        let page_size = fields.page_size(request.page_size);
        let page_token = fields.page_token(request.page_token);
        let filter = filter(&mut fields, request.filter);
        let since = fields.instant("since", request.since);
        let until = fields.instant("until", request.until);
        fields.check()?;
        Ok(Self { filter, since, until, oldest_first: request.oldest_first, page_size, page_token })
    }
}

impl TryFrom<pb::AcknowledgeEventsRequest> for AcknowledgeEvents {
    type Error = VaultError;

    fn try_from(request: pb::AcknowledgeEventsRequest) -> Result<Self, VaultError> {
        let mut fields = Fields::default();
        let subscription = fields.keep("subscription", SubscriptionName::parse(request.subscription));
        fields.reject_if(request.cursor.is_empty(), "cursor", "must be set");
        let subscription = fields.finish(subscription)?;
        Ok(Self { subscription, cursor: request.cursor, allow_rewind: request.allow_rewind })
    }
}

impl TryFrom<pb::ListSubscriptionsRequest> for ListSubscriptions {
    type Error = VaultError;

    fn try_from(request: pb::ListSubscriptionsRequest) -> Result<Self, VaultError> {
        let mut fields = Fields::default();
        let page_size = fields.page_size(request.page_size);
        let page_token = fields.page_token(request.page_token);
        fields.check()?;
        Ok(Self { page_size, page_token })
    }
}

impl TryFrom<pb::DeleteSubscriptionRequest> for DeleteSubscription {
    type Error = VaultError;

    fn try_from(request: pb::DeleteSubscriptionRequest) -> Result<Self, VaultError> {
        let mut fields = Fields::default();
        let request_id = fields.request_id(request.request_id);
        let principal = {
            let known = check_principal_name(&request.principal).map(|()| request.principal);
            fields.keep("principal", known)
        };
        let name = fields.keep("name", SubscriptionName::parse(request.name));
        let (principal, name) = fields.finish(principal.zip(name))?;
        Ok(Self { request_id, principal, name })
    }
}

impl From<SeenEvent> for pb::ExpiryEvent {
    fn from(SeenEvent { event, cursor }: SeenEvent) -> Self {
        let word = &event.word;
        Self {
            sequence: event.sequence,
            cursor,
            kind: kind(word.kind).into(),
            severity: severity(word.severity).into(),
            workspace_id: word.workspace.as_ref().map(ToString::to_string).unwrap_or_default(),
            provider: word.provider.to_string(),
            connection_id: word.connection.map(|id| id.to_string()).unwrap_or_default(),
            subject: event.subject.clone().map(Into::into),
            token_version: word.version,
            occurred_at: Some(instant(word.occurred_at)),
            recorded_at: Some(instant(event.recorded_at)),
            status: word.status.map_or(token::Status::Unspecified, status).into(),
            usable: word.usable(),
            expiry: word.connection.map(|_| word.expiry.into()),
            days_left: word.days_left(),
            reason: word.reason.map_or(pb::RefusalReason::Unspecified, refusal_reason).into(),
            provider_code: word.provider_code.clone(),
            remedy: Some(word.remedy.clone().into()),
            incident: word.incident,
            closes: word.closes.iter().map(|closed| closed.sequence).collect(),
            connect_link_id: word.link.as_ref().map(ToString::to_string).unwrap_or_default(),
            detail: detail(&word.detail),
        }
    }
}

fn detail(detail: &Detail) -> Option<PbDetail> {
    use pb::expiry_event::{Changed, Died, Expiring, Renewed, Restored, RotationFailed};
    Some(match detail {
        Detail::None => return None,
        Detail::Expiring { threshold, deadline } => PbDetail::Expiring(Expiring {
            threshold: Some(length(*threshold)),
            deadline: match deadline {
                DeadlineKind::Token => deadline::Kind::Token.into(),
                DeadlineKind::DataAccess => deadline::Kind::DataAccess.into(),
            },
        }),
        Detail::Died { last_known_good, first_known_bad } => PbDetail::Died(Died {
            last_known_good: last_known_good.map(instant),
            first_known_bad: Some(instant(*first_known_bad)),
        }),
        Detail::Restored { gap_start, gap_end, cause } => PbDetail::Restored(Restored {
            gap_start: gap_start.map(instant),
            gap_end: Some(instant(*gap_end)),
            cause: kind(*cause).into(),
        }),
        Detail::Renewed { previous_expiry } => {
            PbDetail::Renewed(Renewed { previous_expiry: Some((*previous_expiry).into()) })
        }
        Detail::RotationFailed { at_ceiling, attempts, next_attempt_at } => {
            PbDetail::RotationFailed(RotationFailed {
                at_ceiling: *at_ceiling,
                attempts: count(*attempts),
                next_attempt_at: next_attempt_at.map(instant),
            })
        }
        Detail::Changed { added, removed } => {
            let (added, removed) = (added.clone(), removed.clone());
            PbDetail::Changed(Changed { added, removed, left_out_added: 0, left_out_removed: 0 })
        }
    })
}

fn kind(kind: EventKind) -> Kind {
    match kind {
        EventKind::Connected => Kind::Connected,
        EventKind::Replaced => Kind::Replaced,
        EventKind::Expiring => Kind::Expiring,
        EventKind::Expired => Kind::Expired,
        EventKind::Invalidated => Kind::Invalidated,
        EventKind::Restored => Kind::Restored,
        EventKind::Rotated => Kind::Rotated,
        EventKind::RotationFailed => Kind::RotationFailed,
        EventKind::ScopesChanged => Kind::ScopesChanged,
        EventKind::AdAccountsChanged => Kind::AdAccountsChanged,
        EventKind::DataAccessExpiring => Kind::DataAccessExpiring,
        EventKind::DataAccessExpired => Kind::DataAccessExpired,
        EventKind::Throttled => Kind::Throttled,
        EventKind::Overdue => Kind::Overdue,
        EventKind::Revoked => Kind::Revoked,
        EventKind::ProviderAlarm => Kind::ProviderAlarm,
        EventKind::ProviderRecovered => Kind::ProviderRecovered,
        EventKind::DeadlinesChanged => Kind::DeadlinesChanged,
        EventKind::Unknown => Kind::Unspecified,
    }
}

/// `None` if this version does not know the kind.
fn known_kind(number: i32) -> Option<EventKind> {
    Some(match Kind::try_from(number).ok()? {
        Kind::Unspecified => return None,
        Kind::Connected => EventKind::Connected,
        Kind::Replaced => EventKind::Replaced,
        Kind::Expiring => EventKind::Expiring,
        Kind::Expired => EventKind::Expired,
        Kind::Invalidated => EventKind::Invalidated,
        Kind::Restored => EventKind::Restored,
        Kind::Rotated => EventKind::Rotated,
        Kind::RotationFailed => EventKind::RotationFailed,
        Kind::ScopesChanged => EventKind::ScopesChanged,
        Kind::AdAccountsChanged => EventKind::AdAccountsChanged,
        Kind::DataAccessExpiring => EventKind::DataAccessExpiring,
        Kind::DataAccessExpired => EventKind::DataAccessExpired,
        Kind::Throttled => EventKind::Throttled,
        Kind::Overdue => EventKind::Overdue,
        Kind::Revoked => EventKind::Revoked,
        Kind::ProviderAlarm => EventKind::ProviderAlarm,
        Kind::ProviderRecovered => EventKind::ProviderRecovered,
        Kind::DeadlinesChanged => EventKind::DeadlinesChanged,
    })
}

/// The responses for one item of a watch: several if one message would be too large.
pub(in crate::api) fn responses(message: WatchMessage) -> VecDeque<pb::WatchExpiryEventsResponse> {
    let server_time = Some(instant(message.server_time));
    let response = |cursor, item| pb::WatchExpiryEventsResponse { cursor, server_time, item: Some(item) };
    match message.item {
        WatchItem::Events(events) => {
            let mut responses: VecDeque<_> = Page::<pb::ExpiryEvent>::split(events)
                .into_iter()
                .map(|events| {
                    let cursor = events.last().map(|last| last.cursor.clone()).unwrap_or_default();
                    response(cursor, Item::Events(EventBatch { events }))
                })
                .collect();
            if let Some(last) = responses.back_mut() {
                // This cursor may be past the last event, because the events after it did not match.
                last.cursor = message.cursor;
            }
            responses
        }
        WatchItem::Snapshot(tokens) => Page::<pb::Token>::split(tokens)
            .into_iter()
            .map(|tokens| response(message.cursor.clone(), Item::Snapshot(SnapshotPage { tokens })))
            .collect(),
        WatchItem::SnapshotComplete { tokens } => {
            let item = Item::SnapshotComplete(SnapshotComplete { token_count: tokens });
            VecDeque::from([response(message.cursor, item)])
        }
        WatchItem::Heartbeat { head, behind } => {
            let item = Item::Heartbeat(Heartbeat { head_sequence: head, behind });
            VecDeque::from([response(message.cursor, item)])
        }
    }
}

impl From<Filled<EventPage, pb::ExpiryEvent>> for pb::ListExpiryEventsResponse {
    fn from(page: Filled<EventPage, pb::ExpiryEvent>) -> Self {
        let EventPage { next_page_token, cursor } = page.rest;
        Self { events: page.elements, next_page_token, cursor }
    }
}

impl From<Subscription> for pb::Subscription {
    fn from(subscription: Subscription) -> Self {
        Self {
            name: subscription.name,
            principal: subscription.principal,
            cursor: subscription.cursor,
            behind: subscription.behind,
            acknowledged_at: Some(instant(subscription.acknowledged_at)),
            created_at: Some(instant(subscription.created_at)),
            compacted: subscription.compacted,
        }
    }
}

impl From<Subscription> for pb::AcknowledgeEventsResponse {
    fn from(subscription: Subscription) -> Self {
        Self { subscription: Some(subscription.into()) }
    }
}

impl From<Filled<NextPage, pb::Subscription>> for pb::ListSubscriptionsResponse {
    fn from(page: Filled<NextPage, pb::Subscription>) -> Self {
        let NextPage(next_page_token) = page.rest;
        Self { subscriptions: page.elements, next_page_token }
    }
}

impl From<Subscription> for pb::DeleteSubscriptionResponse {
    fn from(subscription: Subscription) -> Self {
        Self { subscription: Some(subscription.into()) }
    }
}

#[cfg(test)]
mod tests;
