//! Every fate of the token held against everything that an exchange may give for it: by hand and by the renewal job.

use std::time::Duration;

use token_vault_proto::v1::exchange_token_response::Outcome;
use token_vault_proto::v1::token::Status;
use token_vault_sandbox::{TokenOrder, User};
use token_vault_tests::prelude::*;

const DAY: Duration = Duration::from_secs(86_400);
const LIFE: Duration = Duration::from_secs(40 * 86_400);

/// The token held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Old {
    Lives,
    /// The exchange ends it.
    DiesByIt,
    /// It was dead before, and the exchange answers as if it had worked.
    WasDead,
}

/// What the exchange gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum New {
    Longer,
    SameEnd,
    Shorter,
    FewerScopes,
    NoRequiredScope,
    Dead,
    OfSomebodyElse,
    OfAnotherApp,
    /// The provider says nothing about it now.
    Unreadable,
    SameString,
}

const OLDS: [Old; 3] = [Old::Lives, Old::DiesByIt, Old::WasDead];
const NEWS: [New; 10] = [
    New::Longer,
    New::SameEnd,
    New::Shorter,
    New::FewerScopes,
    New::NoRequiredScope,
    New::Dead,
    New::OfSomebodyElse,
    New::OfAnotherApp,
    New::SameString,
    New::Unreadable,
];

/// Which token is handed out afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handed {
    Old,
    New,
    Neither,
}

/// What must come of a case.
struct Right {
    handed: Handed,
    by_hand: Result<Outcome, Reason>,
    /// The events of an exchange by hand; a renewal adds `RotationFailed` if `asks_for_a_person`.
    events: Vec<Kind>,
    asks_for_a_person: bool,
}

fn right(old: Old, new: New) -> Right {
    let lives = old == Old::Lives;
    let is_kept =
        matches!(new, New::Longer | New::SameEnd | New::Shorter | New::FewerScopes | New::NoRequiredScope);
    let handed = match (lives, new) {
        (_, New::Longer) => Handed::New,
        (true, _) => Handed::Old,
        (false, _) if is_kept => Handed::New,
        (false, _) => Handed::Neither,
    };
    let by_hand = match (handed, new) {
        (Handed::Neither, _) => Err(Reason::TokenInvalid),
        (_, New::Longer) => Ok(Outcome::Extended),
        (_, New::SameEnd | New::SameString) => Ok(Outcome::AtCeiling),
        (_, New::Shorter) => Ok(Outcome::Shortened),
        (Handed::New, _) => Ok(Outcome::Extended),
        (Handed::Old, New::Unreadable) => Err(Reason::ProviderUnavailable),
        (Handed::Old, _) => Err(Reason::ExchangeNotPossible),
    };
    let fewer = matches!(new, New::FewerScopes | New::NoRequiredScope);
    let events = match handed {
        Handed::Old => vec![],
        Handed::New if fewer => vec![Kind::Rotated, Kind::ScopesChanged],
        Handed::New => vec![Kind::Rotated],
        Handed::Neither => vec![Kind::Invalidated],
    };
    let asks_for_a_person =
        handed != Handed::Neither && !matches!(new, New::Longer) && !(lives && new == New::Unreadable);
    Right { handed, by_hand, events, asks_for_a_person }
}

/// A connection with the token that is exchanged, and the one that the exchange gives.
pub(super) struct Case {
    pub(super) id: String,
    pub(super) old: String,
    pub(super) new: String,
}

impl Case {
    /// Stores a person's token, and makes the next exchange give `new`.
    pub(super) async fn set(world: &World, name: &str, old: Old, new: New) -> Self {
        let person = world.person(name);
        let held = person.long_lived_token_with_life(LIFE);
        let id = world.connector().await.connect(ACME, &held).await;
        let given = Self::given(world, &person, &held, new);
        world.know("exchanged token", &given);
        if new == New::Unreadable {
            let nothing = Fault::on(Endpoint::DebugToken).always().token(&given);
            world.sandbox.fault(nothing.with(FaultKind::error(500, 2)));
        }
        Self::answer(world, &held, &given, old);
        Self { id, old: held, new: given }
    }

    /// Mints the token that the exchange gives.
    fn given(world: &World, person: &User, held: &str, new: New) -> String {
        let of_life = |days: u32| person.long_lived_token_with_life(DAY * days);
        let with = |scopes: &[&str]| person.order(TokenOrder::long().scopes(scopes));
        match new {
            New::Longer | New::Unreadable => of_life(60),
            New::SameEnd | New::Shorter => {
                let (token, now) = (of_life(40), world.sandbox.clock().now());
                let end = world.sandbox.expiry_of(held).expect("it is known");
                let end = if new == New::SameEnd { end } else { now + (end - now) / 2 };
                world.sandbox.expires_at(&token, end);
                token
            }
            New::FewerScopes => with(&["ads_read", "ads_management"]),
            New::NoRequiredScope => with(&["business_management", "ads_read"]),
            New::Dead => {
                let token = of_life(60);
                world.sandbox.kill(&token, Some(467));
                token
            }
            New::OfSomebodyElse => world.person("somebody-else").long_lived_token(),
            New::OfAnotherApp => person.token_of_app("4242"),
            New::SameString => held.to_owned(),
        }
    }

    fn answer(world: &World, held: &str, given: &str, old: Old) {
        let fault = Fault::on(Endpoint::OauthAccessToken).token(held);
        let given_token = FaultKind::Set("/access_token".into(), given.into());
        world.sandbox.fault(match old {
            Old::Lives => fault.with(given_token),
            Old::DiesByIt => fault.with(given_token).with(FaultKind::ThenKill(Some(460))),
            Old::WasDead => {
                world.sandbox.kill(held, Some(460));
                let text =
                    format!(r#"{{"access_token":"{given}","token_type":"bearer","expires_in":5184000}}"#);
                fault.with(FaultKind::Text { status: 200, text })
            }
        });
    }

    /// Asserts everything but what the caller was told.
    async fn came_out(&self, cast: &Cast, handed: Handed, events: &[Kind], before: &pb::Token, case: &str) {
        let now = cast.viewer.get(&self.id).await.unwrap();
        let lives = handed != Handed::Neither;
        if lives {
            let right = if handed == Handed::Old { &self.old } else { &self.new };
            assert_eq!(cast.ingestion.secret(&self.id).await, *right, "{case}");
        } else {
            let no = cast.ingestion.fetch(&self.id).await.unwrap_err();
            no.is(Code::FailedPrecondition, Reason::TokenInvalid);
        }
        assert_eq!(now.token_version, if handed == Handed::New { 2 } else { 1 }, "{case}");
        assert_eq!((now.usable, now.status() != Status::Invalid), (lives, lives), "{case}");
        let good = |token: &pb::Token| token.last_known_good.map(|at| (at.seconds, at.nanos));
        assert_eq!(good(&now) > good(before), lives, "{case}: only proof of life moves last_known_good");
        let expected: Vec<_> = [Kind::Connected].iter().chain(events).copied().collect();
        cast.feed.caught_up().await;
        assert_eq!(cast.feed.kinds_of(&self.id), expected, "{case}");
    }
}

/// The callers of a test, and its feed.
struct Cast {
    connector: Caller,
    ingestion: Caller,
    viewer: Caller,
    feed: Feed,
}

impl Cast {
    async fn of(world: &World) -> Self {
        let viewer = world.viewer().await;
        Self {
            connector: world.connector().await,
            ingestion: world.ingestion().await,
            feed: viewer.watch_all().await,
            viewer,
        }
    }
}

on_both_databases! {
    with |builder| builder
        .moving_time()
        .config("jobs.meta_token_expiry", "off")
        .config("jobs.rotation", "off");

    async fn every_old_and_every_new_token_by_hand(world: World) {
        let cast = Cast::of(&world).await;
        for (n, (old, new)) in cases().enumerate() {
            let (case, wanted) = (format!("{old:?} {new:?}"), right(old, new));
            let set = Case::set(&world, &format!("person-{n}"), old, new).await;
            let before = cast.viewer.get(&set.id).await.unwrap();
            world.advance(Duration::from_secs(3_600)).await;
            match (cast.connector.exchange(&set.id).await, wanted.by_hand) {
                (Ok(answer), Ok(outcome)) => assert_eq!(answer.outcome(), outcome, "{case}"),
                (Err(no), Err(Reason::ProviderUnavailable)) => {
                    no.is(Code::Unavailable, Reason::ProviderUnavailable);
                }
                (Err(no), Err(reason)) => {
                    no.is(Code::FailedPrecondition, reason).says("connection_id", &set.id);
                }
                (answer, _) => panic!("{case}: {answer:?}"),
            }
            set.came_out(&cast, wanted.handed, &wanted.events, &before, &case).await;
            world.sandbox.clear_faults();
        }
    }

    async fn every_old_and_every_new_token_by_the_job(world: World) {
        let cast = Cast::of(&world).await;
        for (n, (old, new)) in cases().enumerate() {
            let (case, wanted) = (format!("{old:?} {new:?}"), right(old, new));
            let set = Case::set(&world, &format!("person-{n}"), old, new).await;
            let before = cast.viewer.get(&set.id).await.unwrap();
            world.advance(Duration::from_secs(3_600)).await;
            renew_now(&world, &set.id).await;
            let person = wanted.asks_for_a_person.then_some(Kind::RotationFailed);
            let events: Vec<_> = wanted.events.iter().copied().chain(person).collect();
            set.came_out(&cast, wanted.handed, &events, &before, &case).await;
            world.sandbox.clear_faults();
        }
    }

    async fn at_intake_no_bad_result_touches_the_token_held(world: World) {
        let cast = Cast::of(&world).await;
        for (n, (old, new)) in cases().enumerate() {
            let (case, person) = (format!("{old:?} {new:?}"), world.person(&format!("person-{n}")));
            let held = person.long_lived_token_with_life(LIFE);
            let id = cast.connector.connect(ACME, &held).await;
            let pasted = person.short_lived_token();
            let given = Case::given(&world, &person, &pasted, new);
            world.know("exchanged token", &given);
            if new == New::Unreadable {
                let nothing = Fault::on(Endpoint::DebugToken).always().token(&given);
                world.sandbox.fault(nothing.with(FaultKind::error(500, 2)));
            }
            Case::answer(&world, &pasted, &given, old);
            let lives = old == Old::Lives;
            let wanted = match new {
                // Nothing of it is exchanged.
                _ if old == Old::WasDead => Some(Reason::ProviderRefusedToken),
                New::Longer => None,
                New::FewerScopes => Some(Reason::ScopesShrunk),
                New::NoRequiredScope => Some(Reason::ScopesMissing),
                New::OfSomebodyElse => Some(Reason::SubjectMismatch),
                New::Unreadable => Some(Reason::ProviderUnavailable),
                New::SameEnd | New::Shorter => Some(Reason::ExchangeNotPossible),
                New::Dead | New::OfAnotherApp | New::SameString if lives => Some(Reason::ExchangeNotPossible),
                New::Dead | New::OfAnotherApp | New::SameString => Some(Reason::ProviderRefusedToken),
            };
            match (cast.connector.store(ACME, &pasted).await, wanted) {
                (Ok(intake), None) => assert_eq!(intake.token.unwrap().token_version, 2, "{case}"),
                (Err(no), Some(reason)) => assert_eq!(no.reason(), reason.reason(), "{case}: {no:?}"),
                (answer, _) => panic!("{case}: {answer:?}"),
            }
            let right = if wanted.is_none() { &given } else { &held };
            assert_eq!(cast.ingestion.secret(&id).await, *right, "{case}");
            assert!(cast.viewer.get(&id).await.unwrap().usable, "{case}");
            world.sandbox.clear_faults();
        }
    }

    async fn a_token_that_could_not_be_read_at_first_is_kept_and_taken_later(world: World) {
        let cast = Cast::of(&world).await;
        for (n, old) in OLDS.into_iter().enumerate() {
            let set = Case::set(&world, &format!("person-{n}"), old, New::Unreadable).await;
            cast.connector.exchange(&set.id).await.unwrap_err();
            world.sandbox.clear_faults();
            world.sandbox.clear_requests();
            world.advance(Duration::from_secs(120)).await;
            world.admin().run("rotation").await;
            assert_eq!(cast.ingestion.secret(&set.id).await, set.new, "{old:?}");
            assert_eq!(world.sandbox.count(Endpoint::OauthAccessToken), 0, "{old:?}: it was exchanged again");
            let last = if old == Old::Lives { Kind::Rotated } else { Kind::Restored };
            cast.feed.first(&set.id, last).await;
        }
    }
}

fn cases() -> impl Iterator<Item = (Old, New)> {
    OLDS.into_iter().flat_map(|old| NEWS.into_iter().map(move |new| (old, new)))
}

/// Makes one connection's renewal due, and runs the job.
pub(super) async fn renew_now(world: &World, id: &str) {
    let due = match world.database.backend() {
        Backend::Sqlite => format!("unhex('{}')", id.replace('-', "")),
        Backend::Postgres => format!("'{id}'"),
    };
    let sql = format!("UPDATE ad_platform_connections SET next_renewal_at = 1 WHERE connection_id = {due}");
    world.database.execute(&sql).await;
    world.admin().run("rotation").await;
}
