//! Every offer against everything that the provider may say of the token held.

use std::ops::ControlFlow::{Break, Continue};
use std::sync::Arc;
use std::time::Duration;

use super::save::ExchangeOutcome;
use super::weigh::{Aim, Decision, Drawback, Health, Living, Offer, weigh};
use crate::model::{
    Connection, Expiry, ExpirySource, Misconfiguration, Policy, ProviderId, Refusal, RefusalKind,
    RefusalReason, Secret, Standing, Subject, SubjectType, Timestamp, TokenKind, ToldFacts, ToldScopes,
    WorkspaceId,
};
use crate::provider::Inspected;
use crate::vault::token::store::save::new_connection;

type Inspection = Result<Inspected, Refusal>;

const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);
const DAY: Duration = Duration::from_secs(86_400);

fn in_days(days: u32) -> Expiry {
    Expiry::At(NOW + DAY * days, ExpirySource::Provider)
}

fn inspected(expiry: Expiry, scopes: &[&str]) -> Inspected {
    Inspected {
        app_id: "1".into(),
        subject: Subject { id: "10".into(), name: "Ana".into(), kind: SubjectType::User },
        facts: ToldFacts {
            kind: Some(TokenKind::LongLivedUser),
            expiry,
            data_access: Expiry::Never,
            issued_at: None,
            scopes: ToldScopes {
                listed: Some(scopes.iter().map(|scope| (*scope).to_owned()).collect()),
                grants: Some(Vec::new()),
            },
            granular_scopes: Some(Vec::new()),
        },
    }
}

fn of_somebody_else(change: fn(&mut Inspected)) -> Inspected {
    let mut other = inspected(in_days(60), &BOTH);
    change(&mut other);
    other
}

const BOTH: [&str; 2] = ["ads_management", "ads_read"];

fn held(standing: Standing) -> Connection {
    let (workspace, provider) = (WorkspaceId::parse("acme").unwrap(), ProviderId::parse("meta").unwrap());
    Connection { standing, ..new_connection(&workspace, &provider, &inspected(in_days(20), &BOTH), NOW) }
}

fn invalid() -> Standing {
    Standing::Invalid { since: NOW, reason: RefusalReason::LoggedOut, provider_code: "190/467".into() }
}

fn refusals() -> Vec<RefusalKind> {
    vec![
        RefusalKind::Transient { retry_after: None },
        RefusalKind::OutOfTime,
        RefusalKind::Throttled { scope: "app".into(), retry_after: DAY },
        RefusalKind::Permission { object_only: false },
        RefusalKind::Blocked,
        RefusalKind::Ours(Misconfiguration::AppSecret),
    ]
}

fn refusal(kind: RefusalKind) -> Refusal {
    Refusal::new(kind, "")
}

fn dead() -> Refusal {
    refusal(RefusalKind::Dead { reason: RefusalReason::LoggedOut })
}

/// The offer for a reply to the inspection of another token than the one held.
fn offer(inspection: Inspection, held: &Connection, aim: Aim) -> Offer {
    match inspection {
        Ok(inspected) => {
            let living = Living { secret: Arc::new(Secret::new("EAA".into())), inspected };
            Offer::of(living, held, false, aim, NOW, &Policy::default())
        }
        Err(refusal) => refusal.into(),
    }
}

fn decided(offer: Offer, held: Health) -> Decision {
    match weigh(offer, Some(held)) {
        Break(decision) => decision,
        Continue(offer) => panic!("everything is known, and yet {offer:?} is undecided"),
    }
}

/// Every reply to the inspection of the offered token, and the drawback that follows; `Err` if nothing is known of it.
fn offers() -> Vec<(Inspection, Result<Option<Drawback>, ()>)> {
    let fewer = |lost: &str| Ok(Some(Drawback::FewerScopes(vec![lost.into()])));
    let mut all = vec![
        (Ok(inspected(in_days(60), &BOTH)), Ok(None)),
        (Ok(inspected(Expiry::Never, &BOTH)), Ok(None)),
        (Ok(inspected(in_days(60), &["ads_management", "ads_read", "pages_show_list"])), Ok(None)),
        (Ok(inspected(in_days(20), &BOTH)), Ok(Some(Drawback::AtCeiling))),
        (Ok(inspected(Expiry::Unknown, &BOTH)), Ok(Some(Drawback::AtCeiling))),
        (Ok(inspected(in_days(5), &BOTH)), Ok(Some(Drawback::Shortened))),
        (Ok(inspected(in_days(60), &["ads_read"])), fewer("ads_management")),
        (Ok(inspected(in_days(5), &["ads_management"])), fewer("ads_read")),
        (Ok(inspected(in_days(0), &BOTH)), Ok(Some(Drawback::Dead))),
        (Ok(of_somebody_else(|other| other.subject.id = "11".into())), Ok(Some(Drawback::Foreign))),
        (Ok(of_somebody_else(|other| other.subject.id.clear())), Err(())),
        (Ok(of_somebody_else(|other| other.app_id = "2".into())), Ok(Some(Drawback::Foreign))),
        (Err(refusal(RefusalKind::OtherApp)), Ok(Some(Drawback::Foreign))),
        (Err(dead()), Ok(Some(Drawback::Dead))),
    ];
    all.extend(refusals().into_iter().map(|kind| (Err(refusal(kind)), Err(()))));
    all
}

#[test]
fn every_offer_against_every_health_of_the_token_held() {
    let connection = held(Standing::Live);
    for (inspection, expected) in offers() {
        let fresh = || offer(inspection.clone(), &connection, Aim::Lengthen);
        let lives =
            inspection.is_ok() && !matches!(expected, Ok(Some(Drawback::Foreign | Drawback::Dead)) | Err(()));
        let case = format!("{inspection:?}");

        match weigh(fresh(), None) {
            Break(Decision::Replace { drawback: None, .. }) => assert_eq!(expected, Ok(None), "{case}"),
            Continue(_) => assert_ne!(expected, Ok(None), "the old token is asked about first: {case}"),
            other => panic!("{case}: {other:?}"),
        }

        let alive = Health::Alive(inspected(in_days(20), &BOTH));
        match (decided(fresh(), alive), &expected) {
            (Decision::Replace { drawback: None, .. }, Ok(None)) | (Decision::KeepBoth { .. }, Err(())) => {}
            (Decision::Keep { drawback, .. }, Ok(Some(wanted))) => assert_eq!(drawback, *wanted, "{case}"),
            other => panic!("{case}: {other:?}"),
        }

        for death in [dead(), refusal(RefusalKind::OtherApp)] {
            match (decided(fresh(), Err(death).into()), &expected) {
                (Decision::Replace { drawback, .. }, Ok(wanted)) if lives => {
                    assert_eq!(drawback, *wanted, "{case}");
                }
                (Decision::Bury { keep_offer: false, .. }, Ok(_)) if !lives => {}
                (Decision::Bury { keep_offer: true, .. }, Err(())) => {}
                other => panic!("{case}: {other:?}"),
            }
        }

        for kind in refusals() {
            let unknown = Health::from(Err(refusal(kind.clone())));
            match (decided(fresh(), unknown), &expected) {
                (Decision::Replace { drawback: None, .. }, Ok(None)) => {}
                (Decision::Wait { refusal, keep_offer }, Ok(Some(_)) | Err(())) => {
                    assert_eq!((refusal.kind, keep_offer), (kind, lives || expected.is_err()), "{case}");
                }
                other => panic!("{case}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_refused_exchange_keeps_a_living_token_and_buries_a_dead_one() {
    let refused = || Offer::Useless(Drawback::Refused);
    assert!(weigh(refused(), None).is_continue(), "the refusal alone says nothing");
    let alive = Health::Alive(inspected(in_days(20), &BOTH));
    let kept = decided(refused(), alive);
    assert!(matches!(kept, Decision::Keep { drawback: Drawback::Refused, .. }), "{kept:?}");
    let buried = decided(refused(), Err(dead()).into());
    assert!(matches!(buried, Decision::Bury { keep_offer: false, .. }), "{buried:?}");
}

#[test]
fn in_place_of_a_dead_token_fewer_scopes_are_no_drawback() {
    for standing in [Standing::Live, invalid()] {
        let works = standing == Standing::Live;
        let fewer = offer(Ok(inspected(in_days(60), &["ads_read"])), &held(standing), Aim::Lengthen);
        assert_eq!(matches!(fewer, Offer::Better(_)), !works, "{fewer:?}");
    }
}

#[test]
fn the_token_held_loses_nothing_to_itself() {
    let connection = held(Standing::Live);
    for (aim, better) in [(Aim::Refresh, true), (Aim::Lengthen, false)] {
        let secret = Arc::new(Secret::new("EAA".into()));
        let living = Living { secret, inspected: inspected(in_days(20), &["ads_read"]) };
        let same = Offer::of(living, &connection, true, aim, NOW, &Policy::default());
        assert_eq!(matches!(same, Offer::Better(_)), better, "{same:?}");
    }
}

#[test]
fn a_token_that_was_read_again_only_has_to_work() {
    let connection = held(Standing::Live);
    for (inspection, expected) in offers() {
        let offer = offer(inspection, &connection, Aim::Refresh);
        let unchanged_end = matches!(expected, Ok(Some(Drawback::AtCeiling | Drawback::Shortened)));
        let better = unchanged_end || expected == Ok(None);
        assert_eq!(matches!(offer, Offer::Better(_)), better, "{offer:?}");
    }
}

#[test]
fn a_caller_is_told_an_outcome_only_where_the_end_alone_is_wrong() {
    for (drawback, outcome) in [
        (Drawback::AtCeiling, Some(ExchangeOutcome::AtCeiling)),
        (Drawback::Shortened, Some(ExchangeOutcome::Shortened)),
        (Drawback::FewerScopes(vec!["ads_read".into()]), None),
        (Drawback::Foreign, None),
        (Drawback::Dead, None),
        (Drawback::Refused, None),
    ] {
        assert_eq!(drawback.outcome(), outcome, "{drawback:?}");
    }
}
