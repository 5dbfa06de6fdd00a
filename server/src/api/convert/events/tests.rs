//! Requests about the feed, and events as messages.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use token_vault_proto::v1 as pb;
use token_vault_proto::v1::expiry_event::{Detail as PbDetail, Kind};
use token_vault_proto::v1::watch_expiry_events_request::{From as PbFrom, Start};
use token_vault_proto::v1::watch_expiry_events_response::Item;

use super::super::tests::fields;
use super::responses;
use crate::model::{
    Closed, ConnectionId, DeadlineKind, Detail, Event, EventKind, EventWord, Expiry, ExpirySource,
    ProviderId, RefusalReason, Remedy, Severity, Status, Subject, SubjectType, Timestamp, WorkspaceId,
};
use crate::vault::{
    AcknowledgeEvents, DeleteSubscription, ListEvents, ListJobRuns, ListSubscriptions, RunJob, SeenEvent,
    WatchEvents, WatchItem, WatchMessage, WatchStart,
};

const AT: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);
const DAY: Duration = Duration::from_secs(86_400);

fn watch(filter: pb::EventFilter) -> Result<WatchEvents, Vec<String>> {
    let request = pb::WatchExpiryEventsRequest { filter: Some(filter), ..Default::default() };
    WatchEvents::try_from(request).map_err(fields)
}

fn wire(at: Timestamp) -> Option<prost_types::Timestamp> {
    Some(super::super::time::instant(at))
}

#[test]
fn the_least_watch_starts_now_and_leaves_the_heartbeat_to_the_vault() {
    let command = WatchEvents::try_from(pb::WatchExpiryEventsRequest::default()).unwrap();
    assert_eq!((command.start, command.heartbeat), (WatchStart::Now, Duration::ZERO));
    assert!(command.subscription.is_none() && command.filter.workspaces.is_empty());
    assert_eq!(command.filter.min_severity, None);
}

#[test]
fn a_watch_starts_where_the_request_says() {
    let start = |start| {
        WatchEvents::try_from(pb::WatchExpiryEventsRequest { start: Some(start), ..Default::default() })
            .map(|command| command.start)
            .map_err(fields)
    };
    assert_eq!(start(Start::From(PbFrom::Unspecified.into())), Ok(WatchStart::Now));
    assert_eq!(start(Start::From(PbFrom::Now.into())), Ok(WatchStart::Now));
    assert_eq!(start(Start::From(PbFrom::Earliest.into())), Ok(WatchStart::Earliest));
    assert_eq!(start(Start::From(PbFrom::Snapshot.into())), Ok(WatchStart::Snapshot));
    assert_eq!(start(Start::Cursor("1.x".into())), Ok(WatchStart::After("1.x".into())));
    assert_eq!(start(Start::From(9)), Err(vec!["from".to_owned()]));
}

#[test]
fn a_heartbeat_is_zero_or_between_a_second_and_five_minutes() {
    let watch = |seconds, nanos| {
        let heartbeat_interval = Some(prost_types::Duration { seconds, nanos });
        WatchEvents::try_from(pb::WatchExpiryEventsRequest { heartbeat_interval, ..Default::default() })
            .map(|command| command.heartbeat)
            .map_err(fields)
    };
    for good in [0, 1, 300] {
        assert_eq!(watch(good, 0), Ok(Duration::from_secs(u64::try_from(good).unwrap())));
    }
    for (seconds, nanos) in [(0, 1), (0, 999_999_999), (300, 1), (-1, 0)] {
        assert_eq!(watch(seconds, nanos), Err(vec!["heartbeat_interval".to_owned()]), "{seconds} {nanos}");
    }
}

#[test]
fn a_filter_names_what_it_lets_through() {
    let connection = ConnectionId::generate(AT);
    let filter = watch(pb::EventFilter {
        workspace_ids: vec!["acme".into(), "globex".into(), "acme".into()],
        providers: vec!["meta".into()],
        connection_ids: vec![connection.to_string()],
        kinds: vec![Kind::Invalidated.into(), Kind::Overdue.into()],
        min_severity: pb::Severity::Warning.into(),
    })
    .unwrap()
    .filter;
    let workspaces = ["acme", "globex"].map(|id| WorkspaceId::parse(id).unwrap());
    assert_eq!(filter.workspaces, BTreeSet::from(workspaces));
    assert_eq!(filter.providers, BTreeSet::from([ProviderId::parse("meta").unwrap()]));
    assert_eq!(filter.connections, BTreeSet::from([connection]));
    assert_eq!(filter.kinds, BTreeSet::from([EventKind::Invalidated, EventKind::Overdue]));
    assert_eq!(filter.min_severity, Some(Severity::Warning));
}

#[test]
fn every_bad_value_of_a_filter_is_reported_with_its_path() {
    let bad = pb::EventFilter {
        workspace_ids: vec!["acme".into(), "a b".into()],
        providers: vec!["Meta".into()],
        connection_ids: vec!["1".into()],
        kinds: vec![1, 0, 99],
        min_severity: 4,
    };
    let paths = [
        "filter.workspace_ids[1]",
        "filter.providers[0]",
        "filter.connection_ids[0]",
        "filter.kinds[1]",
        "filter.kinds[2]",
        "filter.min_severity",
    ];
    assert_eq!(watch(bad.clone()).unwrap_err(), paths);
    let list = pb::ListExpiryEventsRequest { filter: Some(bad), ..Default::default() };
    assert_eq!(fields(ListEvents::try_from(list).unwrap_err()), paths);
}

#[test]
fn filters_have_bounds() {
    let many = |count: usize| pb::EventFilter {
        workspace_ids: (0..count).map(|at| format!("w{at}")).collect(),
        connection_ids: (0..count).map(|_| ConnectionId::generate(AT).to_string()).collect(),
        providers: (0..count / 10).map(|at| format!("p{at}")).collect(),
        ..Default::default()
    };
    let full = watch(many(1_000)).unwrap().filter;
    assert_eq!((full.workspaces.len(), full.connections.len(), full.providers.len()), (1_000, 1_000, 100));
    let over = watch(many(1_010)).unwrap_err();
    assert_eq!(over, ["filter.workspace_ids", "filter.providers", "filter.connection_ids"]);
}

#[test]
fn every_kind_of_this_version_can_be_filtered_for() {
    let known: Vec<i32> = (1..=18).collect();
    let filter = watch(pb::EventFilter { kinds: known.clone(), ..Default::default() }).unwrap().filter;
    assert_eq!(filter.kinds.len(), known.len());
    let mut kinds: Vec<i32> =
        filter.kinds.iter().map(|kind| event(EventWord { kind: *kind, ..word() }).kind).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, known);
}

#[test]
fn history_is_listed_in_pages_and_between_two_times() {
    let request = pb::ListExpiryEventsRequest {
        since: wire(AT),
        until: wire(AT + DAY),
        oldest_first: true,
        page_token: "next".into(),
        ..Default::default()
    };
    let query = ListEvents::try_from(request).unwrap();
    assert_eq!((query.since, query.until, query.oldest_first), (Some(AT), Some(AT + DAY), true));
    assert_eq!((query.page_size, query.page_token.as_str()), (50, "next"));
    let request = pb::ListExpiryEventsRequest {
        page_size: 1_001,
        page_token: "x".repeat(4_097),
        since: Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }),
        ..Default::default()
    };
    assert_eq!(fields(ListEvents::try_from(request).unwrap_err()), ["page_size", "page_token", "since"]);
}

#[test]
fn a_position_needs_a_name_and_a_cursor() {
    let acknowledge = |subscription: &str, cursor: &str| {
        AcknowledgeEvents::try_from(pb::AcknowledgeEventsRequest {
            subscription: subscription.into(),
            cursor: cursor.into(),
            allow_rewind: true,
        })
        .map_err(fields)
    };
    assert!(acknowledge("alerts", "1.x").unwrap().allow_rewind);
    assert_eq!(acknowledge("", "").unwrap_err(), ["subscription", "cursor"]);
    assert_eq!(acknowledge(&"x".repeat(129), "1.x").unwrap_err(), ["subscription"]);
    let nameless = pb::WatchExpiryEventsRequest { subscription: Some(String::new()), ..Default::default() };
    assert_eq!(fields(WatchEvents::try_from(nameless).unwrap_err()), ["subscription"]);
    let nobodys = DeleteSubscription::try_from(pb::DeleteSubscriptionRequest::default()).unwrap_err();
    assert_eq!(fields(nobodys), ["principal", "name"]);
    let page = pb::ListSubscriptionsRequest { page_size: -1, ..Default::default() };
    assert_eq!(fields(ListSubscriptions::try_from(page).unwrap_err()), ["page_size"]);
}

#[test]
fn a_job_is_named() {
    let nameless = RunJob::try_from(pb::RunJobRequest::default()).unwrap_err();
    assert_eq!(fields(nameless), ["job"]);
    let every = ListJobRuns::try_from(pb::ListJobRunsRequest::default()).unwrap();
    assert_eq!((every.job, every.page_size), (None, 50));
    let bad = pb::ListJobRunsRequest { job: Some("a\nb".into()), page_size: 1_001, ..Default::default() };
    assert_eq!(fields(ListJobRuns::try_from(bad).unwrap_err()), ["page_size", "job"]);
}

fn word() -> EventWord {
    EventWord {
        kind: EventKind::Connected,
        severity: Severity::Info,
        workspace: Some(WorkspaceId::parse("acme").unwrap()),
        provider: ProviderId::parse("meta").unwrap(),
        connection: Some(ConnectionId::generate(AT)),
        version: 3,
        occurred_at: AT,
        status: Some(Status::Active),
        expiry: Expiry::At(AT + DAY + DAY / 2, ExpirySource::Provider),
        reason: None,
        provider_code: String::new(),
        remedy: Remedy::none("All is well."),
        incident: 7,
        closes: Vec::new(),
        link: None,
        detail: Detail::None,
    }
}

fn seen(sequence: i64, word: EventWord) -> SeenEvent {
    let subject =
        word.connection.map(|_| Subject { id: "10".into(), name: "Ana".into(), kind: SubjectType::User });
    let event = Event { sequence, identity: 5, recorded_at: AT + DAY, subject, word };
    SeenEvent { event: Arc::new(event), cursor: format!("after {sequence}") }
}

fn event(word: EventWord) -> pb::ExpiryEvent {
    seen(7, word).into()
}

#[test]
fn an_event_carries_everything_that_is_known() {
    let word = EventWord {
        kind: EventKind::Invalidated,
        severity: Severity::Critical,
        status: Some(Status::Invalid),
        reason: Some(RefusalReason::PasswordChanged),
        provider_code: "190/460".into(),
        closes: vec![
            Closed { sequence: 2, kind: EventKind::Expiring, severity: Severity::Warning },
            Closed { sequence: 4, kind: EventKind::Overdue, severity: Severity::Critical },
        ],
        ..word()
    };
    let connection = word.connection.unwrap().to_string();
    let event = event(word);
    assert_eq!((event.sequence, event.cursor.as_str(), event.incident), (7, "after 7", 7));
    assert_eq!((event.kind(), event.severity()), (Kind::Invalidated, pb::Severity::Critical));
    assert_eq!((event.workspace_id.as_str(), event.provider.as_str()), ("acme", "meta"));
    assert_eq!((event.connection_id, event.token_version), (connection, 3));
    assert_eq!((event.occurred_at, event.recorded_at), (wire(AT), wire(AT + DAY)));
    assert_eq!((event.status, event.usable), (pb::token::Status::Invalid.into(), false));
    assert_eq!((event.days_left, event.expiry.unwrap().at), (Some(2), wire(AT + DAY + DAY / 2)));
    assert_eq!(event.reason, i32::from(pb::RefusalReason::PasswordChanged));
    assert_eq!((event.provider_code.as_str(), event.closes), ("190/460", vec![2, 4]));
    let subject = event.subject.unwrap();
    assert_eq!((subject.id.as_str(), subject.name.as_str()), ("10", "Ana"));
    assert_eq!(event.remedy.unwrap().message, "All is well.");
}

#[test]
fn an_event_of_a_provider_names_no_connection() {
    let word = EventWord {
        kind: EventKind::ProviderAlarm,
        workspace: None,
        connection: None,
        version: 0,
        status: None,
        expiry: Expiry::Unknown,
        ..word()
    };
    let event = event(word);
    assert_eq!((event.workspace_id.as_str(), event.connection_id.as_str()), ("", ""));
    assert!(event.subject.is_none() && event.expiry.is_none() && event.days_left.is_none());
    assert_eq!((event.status(), event.usable), (pb::token::Status::Unspecified, false));
}

#[test]
fn an_unknown_kind_of_a_newer_release_still_has_its_remedy() {
    let event = event(EventWord { kind: EventKind::Unknown, ..word() });
    assert_eq!((event.kind(), event.usable), (Kind::Unspecified, true));
    assert!(event.remedy.is_some());
}

#[test]
fn every_detail_has_its_message() {
    use pb::expiry_event::{Changed, Died, Expiring, Renewed, Restored, RotationFailed};
    let detail_of = |detail| event(EventWord { detail, ..word() }).detail;
    assert_eq!(detail_of(Detail::None), None);
    for (clock, kind) in [
        (DeadlineKind::Token, pb::deadline::Kind::Token),
        (DeadlineKind::DataAccess, pb::deadline::Kind::DataAccess),
    ] {
        assert_eq!(
            detail_of(Detail::Expiring { threshold: DAY, deadline: clock }),
            Some(PbDetail::Expiring(Expiring {
                threshold: Some(super::super::time::length(DAY)),
                deadline: kind.into()
            }))
        );
    }
    assert_eq!(
        detail_of(Detail::Died { last_known_good: None, first_known_bad: AT }),
        Some(PbDetail::Died(Died { last_known_good: None, first_known_bad: wire(AT) }))
    );
    let restored = Detail::Restored { gap_start: Some(AT), gap_end: AT + DAY, cause: EventKind::Invalidated };
    assert_eq!(
        detail_of(restored),
        Some(PbDetail::Restored(Restored {
            gap_start: wire(AT),
            gap_end: wire(AT + DAY),
            cause: Kind::Invalidated.into()
        }))
    );
    assert_eq!(
        detail_of(Detail::Renewed { previous_expiry: Expiry::Never }),
        Some(PbDetail::Renewed(Renewed { previous_expiry: Some(Expiry::Never.into()) }))
    );
    assert_eq!(
        detail_of(Detail::RotationFailed { at_ceiling: true, attempts: 2, next_attempt_at: Some(AT) }),
        Some(PbDetail::RotationFailed(RotationFailed {
            at_ceiling: true,
            attempts: 2,
            next_attempt_at: wire(AT)
        }))
    );
    assert_eq!(
        detail_of(Detail::Changed { added: vec!["a".into()], removed: vec!["b".into()] }),
        Some(PbDetail::Changed(Changed {
            added: vec!["a".into()],
            removed: vec!["b".into()],
            ..Changed::default()
        }))
    );
}

fn watched(item: WatchItem) -> WatchMessage {
    WatchMessage { cursor: "all sent".into(), server_time: AT, item }
}

#[test]
fn a_response_carries_its_cursor() {
    let one = responses(watched(WatchItem::Events((1..=3).map(|at| seen(at, word())).collect())));
    assert_eq!(one.len(), 1);
    assert_eq!((one[0].cursor.as_str(), one[0].server_time), ("all sent", wire(AT)));
    let beat = responses(watched(WatchItem::Heartbeat { head: 9, behind: 2 }));
    let Some(Item::Heartbeat(heartbeat)) = &beat[0].item else { panic!("{beat:?}") };
    assert_eq!((heartbeat.head_sequence, heartbeat.behind), (9, 2));
    let whole = responses(watched(WatchItem::SnapshotComplete { tokens: 4 }));
    let Some(Item::SnapshotComplete(complete)) = &whole[0].item else { panic!("{whole:?}") };
    assert_eq!(complete.token_count, 4);
}

#[test]
fn a_batch_too_large_for_one_message_is_split_and_each_part_can_be_resumed_from() {
    // Each names ten thousand ad accounts: about 200 kB.
    let removed: Vec<String> = (0..10_000).map(|at| format!("act_1020304050{at:05}")).collect();
    let large = EventWord { detail: Detail::Changed { added: Vec::new(), removed }, ..word() };
    let events = (1..=30).map(|at| seen(at, large.clone())).collect();
    let parts = responses(watched(WatchItem::Events(events)));
    assert!(parts.len() > 4, "{} parts", parts.len());
    let (mut sequences, last) = (Vec::new(), parts.len() - 1);
    for (at, part) in parts.iter().enumerate() {
        assert!(part.encoded_len() < 2 * 1024 * 1024, "{} bytes", part.encoded_len());
        let Some(Item::Events(batch)) = &part.item else { panic!("not events") };
        sequences.extend(batch.events.iter().map(|event| event.sequence));
        let expected = if at == last { "all sent" } else { &batch.events.last().unwrap().cursor };
        assert_eq!(part.cursor, expected);
    }
    assert_eq!(sequences, (1..=30).collect::<Vec<_>>());
}
