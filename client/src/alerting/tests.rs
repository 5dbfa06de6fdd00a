//! Which incidents the items of a watch open, change and resolve.

use super::*;
use crate::v1::expiry_event::Kind;
use crate::v1::{ErrorReason, Problem};

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

/// A snapshot that holds only connection "c", and covers its events up to 50.
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

/// Describes an alert in a few words, such as "opened 3 Expiry Warning".
fn in_words(alert: &Alert) -> String {
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
            found.extend(alerts.take(item).iter().map(in_words));
        }
        assert_eq!(found, expected, "{name}");
        let still = expected.iter().filter(|word| word.starts_with("opened")).count()
            - expected.iter().filter(|word| word.starts_with("resolved")).count();
        assert_eq!(alerts.open().count(), still, "{name}");
    }
}

#[test]
fn an_incident_from_before_a_restart_is_resolved_after_it() {
    let mut before = Alerts::new();
    assert_eq!(before.take(&critical(Kind::Expired, 3, 3)).len(), 1);
    let mut after = Alerts::restore(before.open().cloned());
    assert!(after.take(&critical(Kind::Expired, 3, 3)).is_empty(), "known");
    let alerts = after.take(&closing(Kind::Restored, 5, &[3]));
    assert_eq!(alerts.iter().map(in_words).collect::<Vec<_>>(), ["resolved 3 Expiry Critical"]);
}
