//! What a change between two states announces, beside the badge that the state after it wears.

use super::*;
use crate::model::{AccountChange, DeadlineKind};

#[test]
fn a_change_is_as_bad_as_what_is_missing_afterwards() {
    let policy = policy();
    let scopes =
        [&["ads_read", "business_management", "x"][..], &["ads_read"], &["business_management"], &["x"]];
    for before in scopes {
        for after in scopes.into_iter().filter(|after| *after != before) {
            let (mut old, mut new) = (connection(), connection());
            (old.facts.scopes, new.facts.scopes) = (names(before), names(after));
            let mut announced = Announced::default();
            announced.changed(&old, &new, Cause::Observation, NOW, &policy);
            let [draft] = &announced.into_drafts()[..] else { panic!("one event") };
            let health = new.health(NOW, &policy);
            let problem = [ProblemReason::ScopesMissing, ProblemReason::OptionalScopesMissing]
                .iter()
                .find_map(|reason| health.problem(*reason));
            assert_eq!(draft.word.kind, EventKind::ScopesChanged);
            assert_eq!(draft.word.severity, problem.map_or(Severity::Info, Problem::severity));
            assert!(problem.is_none_or(|problem| problem.remedy == draft.word.remedy), "{draft:#?}");
            assert_eq!(draft.opens.is_some(), problem.is_some(), "it stays open while something is missing");
        }
    }
    for (reached, lost, severity, color) in [
        (Some(0), 2, Severity::Critical, BadgeColor::Red),
        (Some(0), 0, Severity::Warning, BadgeColor::Amber),
        (Some(2), 1, Severity::Warning, BadgeColor::Amber),
        (Some(2), 0, Severity::Info, BadgeColor::Green),
    ] {
        let mut state = connection();
        (state.seen.ad_accounts, state.seen.unreachable_ad_accounts) = (reached, lost);
        let change = AccountChange { added: names(&["act_1"]), removed: names(&["act_2"]) };
        let mut announced = Announced::default();
        announced.ad_accounts_changed(&state, change, NOW, &policy);
        let [draft] = &announced.into_drafts()[..] else { panic!("one event") };
        let health = state.health(NOW, &policy);
        assert_eq!((draft.word.severity, health.badge().color), (severity, color), "{reached:?} {lost}");
        if let Some(worst) = health.problems().first() {
            assert_eq!(worst.remedy, draft.word.remedy);
        }
    }
}

#[test]
fn a_new_token_settles_all_but_what_it_still_lacks() {
    let (policy, mut before) = (policy(), connection());
    before.facts.scopes = names(&["ads_read"]);
    (before.seen.ad_accounts, before.seen.unreachable_ad_accounts) = (Some(1), 1);
    let mut announced = Announced::default();
    let mut whole = connection();
    whole.seen = before.seen;
    announced.changed(&whole, &before, Cause::Observation, NOW, &policy);
    let lost = AccountChange { added: vec![], removed: names(&["act_1"]) };
    announced.ad_accounts_changed(&before, lost, NOW, &policy);
    let mut after = before.clone();
    after.version = before.version.next();
    announced.changed(&before, &after, Cause::Person(None), NOW, &policy);
    let open: Vec<_> = announced.open().map(|incident| (incident.key.kind, incident.key.version)).collect();
    assert_eq!(open, [(EventKind::ScopesChanged, 2), (EventKind::AdAccountsChanged, 2)]);
    let kinds: Vec<_> = announced.into_drafts().into_iter().map(|draft| draft.word.kind).collect();
    use EventKind::{AdAccountsChanged, Replaced, ScopesChanged};
    assert_eq!(kinds, [ScopesChanged, AdAccountsChanged, Replaced, ScopesChanged, AdAccountsChanged]);
}

#[test]
fn an_end_that_moves_by_itself_also_ends_the_failed_renewal() {
    let (policy, mut before) = (policy(), connection());
    before.facts.expiry = at(NOW + 5 * DAY);
    before.schedule.renewal_failure = Some(RenewalFailure { since: NOW, at_ceiling: true });
    let mut announced = Announced::default();
    announced.catch_up(&before, NOW, &policy);
    announced.rotation_failed(&before, NOW, &policy);
    let mut after = before.clone();
    after.facts.expiry = at(NOW + 60 * DAY);
    after.schedule.renewal_failure = None;
    announced.changed(&before, &after, Cause::Observation, NOW, &policy);
    assert_eq!(announced.open().count(), 0);
    assert!(!announced.is_open(EventKind::RotationFailed, Some(DeadlineKind::Token), 1));
    let kinds: Vec<_> = announced.into_drafts().into_iter().map(|draft| draft.word.kind).collect();
    assert_eq!(kinds, [EventKind::Expiring, EventKind::RotationFailed, EventKind::DeadlinesChanged]);
    assert_eq!(after.health(NOW, &policy).badge().color, BadgeColor::Green);
}

#[test]
fn an_exchange_that_only_taught_the_end_renewed_nothing() {
    let (policy, mut before) = (policy(), connection());
    for (old, new, kind) in [
        (at(NOW + 20 * DAY), at(NOW + 60 * DAY), EventKind::Rotated),
        (at(NOW + 20 * DAY), Expiry::Never, EventKind::Rotated),
        (Expiry::Unknown, at(NOW + 60 * DAY), EventKind::DeadlinesChanged),
        (Expiry::Unknown, Expiry::Never, EventKind::DeadlinesChanged),
        (at(NOW + 60 * DAY), at(NOW + 20 * DAY), EventKind::DeadlinesChanged),
    ] {
        before.facts.expiry = old;
        let mut after = before.clone();
        after.facts.expiry = new;
        let mut announced = Announced::default();
        announced.changed(&before, &after, Cause::Exchange, NOW, &policy);
        let [draft] = &announced.into_drafts()[..] else { panic!("one event") };
        assert_eq!(draft.word.kind, kind, "{old:?} {new:?}");
    }
}

#[test]
fn a_badge_counts_days_upwards_and_says_the_worst() {
    let policy = policy();
    let badge = |left: Duration| {
        let mut state = connection();
        state.facts.expiry = at(NOW + left);
        state.health(NOW, &policy).badge()
    };
    for (left, text, days) in [
        (8 * DAY, "Active", 8),
        (7 * DAY, "Expiring in 7 days", 7),
        (6 * DAY + SECOND, "Expiring in 7 days", 7),
        (DAY, "Expiring in 1 day", 1),
        (SECOND, "Expiring in 1 day", 1),
        (Duration::ZERO, "Token expired", 0),
    ] {
        assert_eq!((badge(left).text.as_str(), badge(left).days_left), (text, Some(days)));
    }
    let mut state = connection();
    state.facts.expiry = at(NOW + 21 * DAY);
    state.schedule.renewal_failure = Some(RenewalFailure { since: NOW, at_ceiling: true });
    let health = state.health(NOW, &policy);
    assert_eq!(
        (health.badge().color, health.badge().text.as_str()),
        (BadgeColor::Amber, "Reconnect within 21 days")
    );
    assert_eq!((health.status, health.renewal), (Status::Active, Renewal::ByPerson));
}
