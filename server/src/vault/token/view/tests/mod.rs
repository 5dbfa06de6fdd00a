//! Badge, problems, events and checks are views of one value: they agree in every state that a token can be in.

mod changes;
mod texts;

use std::collections::BTreeSet;
use std::time::Duration;

use strum::VariantArray;

use crate::model::{
    Announced, BadgeColor, Cause, Check, CheckResult, Connection, Draft, EventKind, EventWord, Expiry,
    ExpirySource, Harm, Health, Policy, Problem, ProblemReason, RefusalReason, Remedy, Renewal,
    RenewalFailure, Schedule, Severity, Standing, Status, Timestamp, TokenKind, UnreadPart, fixture,
};
use crate::provider::GUIDE;

const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const SECOND: Duration = Duration::from_secs(1);

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn policy() -> Policy {
    Policy {
        required_scopes: names(&["ads_read"]),
        optional_scopes: names(&["business_management"]),
        guide: GUIDE,
        ..Policy::default()
    }
}

/// The usual policy, and those that turn a rule off or around.
fn policies() -> [Policy; 4] {
    let usual = policy();
    let mut without_renewal = usual.clone();
    without_renewal.renewal.enabled = false;
    [
        without_renewal,
        // Warned earlier than it counts as expiring, and only then.
        Policy { thresholds: vec![30 * DAY], ..usual.clone() },
        // Counts as expiring earlier than the first warning.
        Policy { warning_window: 20 * DAY, thresholds: vec![DAY], ..usual.clone() },
        usual,
    ]
}

fn connection() -> Connection {
    let mut connection = fixture::connection(Expiry::Never, Standing::Live);
    connection.facts.scopes = names(&["ads_read", "business_management"]);
    connection.seen.ad_accounts = Some(1);
    connection
}

fn at(end: Timestamp) -> Expiry {
    Expiry::At(end, ExpirySource::Provider)
}

/// Ends on both sides of every edge.
fn ends() -> Vec<Expiry> {
    let mut ends = vec![Expiry::Never, Expiry::Unknown, at(NOW - 3 * DAY), at(NOW), at(NOW + SECOND)];
    for days in [1, 3, 7, 20, 30] {
        ends.extend([at(NOW + days * DAY), at(NOW + days * DAY + SECOND)]);
    }
    ends
}

fn standings() -> Vec<Standing> {
    let refused = RefusalReason::VARIANTS.iter().map(|reason| Standing::Invalid {
        since: NOW - DAY,
        reason: *reason,
        provider_code: "190".into(),
    });
    let ended = [Standing::Live, Standing::Revoked { at: NOW - DAY, by: "web".into() }];
    ended.into_iter().chain(refused).collect()
}

fn schedules() -> Vec<Schedule> {
    let mut schedules = Vec::new();
    for renewal_failure in [None, Some(true), Some(false)]
        .map(|at_ceiling| at_ceiling.map(|at_ceiling| RenewalFailure { since: NOW - DAY, at_ceiling }))
    {
        for next_renewal_at in [None, Some(NOW + DAY)] {
            for overdue_since in [None, Some(NOW - DAY)] {
                schedules.push(Schedule {
                    next_renewal_at,
                    renewal_failure,
                    overdue_since,
                    ..Schedule::default()
                });
            }
        }
    }
    schedules
}

/// Every state of a token that makes a difference.
fn each_state(mut look: impl FnMut(&Connection)) {
    let mut state = connection();
    for standing in standings() {
        // A dead token hides all else, so some of the rest is enough for it.
        let few = if standing == Standing::Live { usize::MAX } else { 2 };
        state.standing = standing;
        for expiry in ends() {
            state.facts.expiry = expiry;
            for data_access in [Expiry::Never, Expiry::Unknown, at(NOW + 60 * DAY), at(NOW + DAY), at(NOW)] {
                state.facts.data_access = data_access;
                for scopes in
                    [&["ads_read", "business_management"][..], &["ads_read"], &["business_management"], &[]]
                {
                    state.facts.scopes = names(scopes);
                    for (reached, lost) in [(None, 0), (Some(0), 0), (Some(0), 2), (Some(2), 0), (Some(2), 1)]
                    {
                        state.seen.ad_accounts = reached;
                        state.seen.unreachable_ad_accounts = lost;
                        for schedule in schedules().into_iter().take(few) {
                            state.schedule = schedule;
                            look(&state);
                        }
                    }
                }
            }
        }
    }
}

/// What the list of ad accounts left out matters to nothing else.
fn each_unread(mut look: impl FnMut(&Connection)) {
    for parts in 0..1_usize << UnreadPart::VARIANTS.len() {
        let picked = UnreadPart::VARIANTS.iter().enumerate().filter(|(at, _)| parts & (1 << at) != 0);
        let mut state = connection();
        state.seen.listing.unread = picked.map(|(_, part)| *part).collect();
        look(&state);
    }
}

/// Kinds of tokens matter to little else than renewal, and policies to little else than ends.
fn each_kind_and_policy(mut look: impl FnMut(&Connection, &Policy)) {
    for policy in policies() {
        for kind in
            [TokenKind::ShortLivedUser, TokenKind::LongLivedUser, TokenKind::Page, TokenKind::SystemUser]
        {
            for expiry in ends() {
                for schedule in schedules() {
                    for reached in [Some(0), Some(1)] {
                        let mut state = connection();
                        (state.facts.kind, state.facts.expiry, state.schedule) = (kind, expiry, schedule);
                        state.seen.ad_accounts = reached;
                        look(&state, &policy);
                    }
                }
            }
        }
    }
}

/// The relations between the views, for the worst problem and for every single one.
fn badge_agrees(state: &Connection, health: &Health) {
    let (problems, badge) = (health.problems(), health.badge());
    assert!(problems.is_sorted_by(|one, other| one.harm >= other.harm), "worst first: {state:#?}");
    let reasons: BTreeSet<_> = problems.iter().map(|problem| format!("{:?}", problem.reason)).collect();
    assert_eq!(reasons.len(), problems.len(), "each once: {state:#?}");
    let worst = problems.first();
    let severity = worst.map(Problem::severity);
    assert_eq!(problems.iter().map(Problem::severity).max(), severity, "{state:#?}");
    let expected = match (health.status, worst.map_or(Harm::None, |worst| worst.harm)) {
        (Status::Revoked, _) => BadgeColor::Grey,
        (_, Harm::None) => BadgeColor::Green,
        (_, Harm::Later | Harm::Soon) => BadgeColor::Amber,
        (_, Harm::Now) => BadgeColor::Red,
    };
    assert_eq!(badge.color, expected, "{state:#?}");
    let is_green = badge.color == BadgeColor::Green;
    assert_eq!(is_green, health.status != Status::Revoked && severity.is_none_or(|s| s == Severity::Info));
    assert!(badge.color != BadgeColor::Red || severity == Some(Severity::Critical));
    assert_eq!(badge.text, worst.map_or("Active", |worst| worst.headline.as_str()), "{state:#?}");
    assert!((1..=40).contains(&badge.text.chars().count()), "{}", badge.text);
    assert!(badge.days_left.is_none_or(|days| days >= 0), "{state:#?}");
    let has_end = state.facts.expiry.at().is_some() && health.status != Status::Revoked;
    assert_eq!(badge.days_left.is_some(), has_end, "{state:#?}");
}

fn status_agrees(state: &Connection, health: &Health) {
    use ProblemReason as P;
    let has = |reason| health.problem(reason).is_some();
    assert_eq!(health.is_usable(), matches!(health.status, Status::Active | Status::Expiring));
    assert_eq!(has(P::TokenExpired), health.status == Status::Expired, "{state:#?}");
    assert_eq!(has(P::TokenInvalid), health.status == Status::Invalid, "{state:#?}");
    assert_eq!(has(P::TokenRevoked), health.status == Status::Revoked, "{state:#?}");
    assert!(has(P::ExpiringSoon) || health.status != Status::Expiring, "{state:#?}");
    let works = health
        .problems()
        .iter()
        .all(|problem| !matches!(problem.reason, P::TokenExpired | P::TokenInvalid | P::TokenRevoked));
    assert_eq!(works, health.is_usable(), "{state:#?}");
    match health.renewal {
        Renewal::NotNeeded => assert!(health.is_usable() && state.facts.expiry == Expiry::Never),
        Renewal::ByVault | Renewal::MaybeByVault => {
            assert!(health.is_usable() && state.facts.kind != TokenKind::Page, "{state:#?}");
        }
        Renewal::ByPerson => {}
    }
}

/// What it says is whole, and true for this token.
fn texts_agree(state: &Connection, problem: &Problem) {
    let Remedy { message, action, .. } = &problem.remedy;
    for text in [message, action] {
        let whole = text.starts_with(|first: char| first.is_uppercase() || first.is_ascii_digit())
            && text.ends_with('.')
            && !text.contains("  ");
        assert!(whole, "no whole sentence: {text:?}");
    }
    if state.facts.expiry == Expiry::Never && state.facts.data_access.at().is_none() {
        let promised = [message, action].iter().any(|text| text.contains("before then"));
        assert!(!promised, "nothing ends: {action:?}");
    }
    if state.standing != Standing::Live {
        assert!(!message.contains("keep working"), "it is dead: {message:?}");
        assert!(!action.contains("Paste"), "it is stored: {action:?}");
    }
    assert_eq!(action.contains(" at facebook.com "), problem.remedy.url == "https://www.facebook.com/");
}

/// A check of the same thing says the same, and fails exactly if the token does not do its work.
fn check_agrees(problem: &Problem) {
    let check = Check::of("any", Some(problem.clone()), Remedy::none("Good."));
    assert_eq!((&check.remedy, &check.metadata), (&problem.remedy, &problem.metadata));
    let expected = match problem.severity() {
        Severity::Info => CheckResult::Pass,
        _ if problem.harm == Harm::Now => CheckResult::Fail,
        _ => CheckResult::Warn,
    };
    assert_eq!(check.result, expected);
}

/// All events that would be announced of a token in this state, of which nothing has been announced.
fn announced(state: &Connection, policy: &Policy) -> Vec<EventWord> {
    let mut announced = Announced::default();
    announced.catch_up(state, NOW, policy);
    announced.rotation_failed(state, NOW, policy);
    announced.overdue(state, NOW, policy);
    let mut words: Vec<_> = announced.into_drafts().into_iter().map(|draft: Draft| draft.word).collect();
    if let Standing::Invalid { .. } = state.standing {
        let alive = Connection { standing: Standing::Live, ..state.clone() };
        let mut dying = Announced::default();
        dying.changed(&alive, state, Cause::Observation, NOW, policy);
        words.extend(
            dying
                .into_drafts()
                .into_iter()
                .map(|draft| draft.word)
                .filter(|word| word.kind == EventKind::Invalidated),
        );
    }
    words
}

/// Each event is as severe as its problem, and has the same remedy; and no problem is kept silent about.
fn events_agree(state: &Connection, policy: &Policy, health: &Health) {
    use ProblemReason as P;
    let words = announced(state, policy);
    for word in &words {
        let reasons: &[P] = match word.kind {
            EventKind::Expiring => &[P::ExpiringSoon],
            EventKind::Expired => &[P::TokenExpired],
            EventKind::Invalidated => &[P::TokenInvalid],
            EventKind::DataAccessExpiring | EventKind::DataAccessExpired => &[P::DataAccessEnding],
            EventKind::RotationFailed => &[P::AtCeiling, P::ReauthorizationRequired],
            EventKind::Overdue => &[P::Overdue],
            other => panic!("{other:?} is not announced of a state"),
        };
        let problem = reasons.iter().find_map(|reason| health.problem(*reason));
        let problem = problem.unwrap_or_else(|| panic!("{word:#?} is about nothing in {state:#?}"));
        assert_eq!((word.severity, &word.remedy), (problem.severity(), &problem.remedy), "{state:#?}");
        assert_eq!((word.status, word.usable()), (Some(health.status), health.is_usable()), "{state:#?}");
    }
    let told = |kinds: &[EventKind]| words.iter().any(|word| kinds.contains(&word.kind));
    let crossed = |end: Expiry| end.at().is_some_and(|end| policy.crossed(end, NOW).is_some());
    for problem in health.problems() {
        let is_told = match problem.reason {
            P::TokenExpired => told(&[EventKind::Expired]),
            // A token that was known to be expired does not die again.
            P::TokenInvalid => {
                told(&[EventKind::Invalidated]) || state.facts.expiry.at().is_some_and(|end| end <= NOW)
            }
            P::ExpiringSoon => told(&[EventKind::Expiring]) == crossed(state.facts.expiry),
            P::DataAccessEnding => {
                told(&[EventKind::DataAccessExpiring, EventKind::DataAccessExpired])
                    == crossed(state.facts.data_access)
            }
            P::AtCeiling | P::ReauthorizationRequired => told(&[EventKind::RotationFailed]),
            P::Overdue => told(&[EventKind::Overdue]),
            // A change tells of these, and not a state.
            P::TokenRevoked
            | P::ScopesMissing
            | P::OptionalScopesMissing
            | P::ExpiryUnknown
            | P::AdAccountsUnreachable
            | P::AdAccountsUnread
            | P::NoAdAccounts => true,
        };
        assert!(is_told, "{problem:#?} of {state:#?}");
    }
}

#[test]
fn all_views_agree_in_every_state() {
    let (mut states, mut met, policy) = (0, BTreeSet::new(), policy());
    let mut look = |state: &Connection, policy: &Policy| {
        let health = state.health(NOW, policy);
        badge_agrees(state, &health);
        status_agrees(state, &health);
        for problem in health.problems() {
            texts_agree(state, problem);
            check_agrees(problem);
            met.insert(format!("{:?}", problem.reason));
        }
        events_agree(state, policy, &health);
        states += 1;
    };
    each_state(|state| look(state, &policy));
    each_unread(|state| look(state, &policy));
    each_kind_and_policy(look);
    let all: BTreeSet<_> = ProblemReason::VARIANTS.iter().map(|reason| format!("{reason:?}")).collect();
    assert_eq!(met, all, "a reason that no state has is dead");
    assert!(states > 20_000, "{states}");
}
