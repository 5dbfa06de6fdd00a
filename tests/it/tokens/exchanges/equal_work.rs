//! Equal work at once is done once, and a short-lived token is exchanged once while it lives.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use pb::intake_result::Outcome;
use token_vault_proto::v1::exchange_token_request::{NewToken, SubjectOfExchange};
use token_vault_tests::prelude::*;
use token_vault_tests::{eventually, eventually_async, request_id};
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(60);

type Stored = Result<pb::IntakeResult, Denial>;

/// Stores that the provider answers only when the faults are cleared.
struct Crowd {
    requests: Vec<pb::StoreTokenRequest>,
    calls: Vec<JoinHandle<Stored>>,
}

impl Crowd {
    /// Every request is under way, and the provider has been asked about the first one of them.
    async fn gather(
        world: &World,
        callers: &[Caller],
        requests: impl IntoIterator<Item = pb::StoreTokenRequest>,
    ) -> Self {
        world.sandbox.clear_requests();
        world.sandbox.fault(Fault::on(Endpoint::DebugToken).always().with(FaultKind::Hang));
        let with_id = |request| pb::StoreTokenRequest { request_id: request_id(), ..request };
        let requests: Vec<_> = requests.into_iter().map(with_id).collect();
        let calls: Vec<_> = requests
            .iter()
            .zip(callers.iter().cycle())
            .map(|(request, caller)| {
                let (caller, request) = (caller.clone(), request.clone());
                tokio::spawn(async move { caller.store_with(request).await })
            })
            .collect();
        all_begun(world, callers, requests.len()).await;
        eventually("the provider is asked", PATIENCE, || world.sandbox.unanswered(Endpoint::DebugToken) > 0);
        Self { requests, calls }
    }

    async fn answers(self, world: &World) -> Vec<Stored> {
        world.sandbox.clear_faults();
        join_all(self.calls).await.into_iter().map(|call| call.expect("a call ends")).collect()
    }
}

/// Waits until so many requests are written down, and the calls behind them have gone on to wait for the first one: the
/// vault answers each of these lists after it has run what was ready before.
async fn all_begun(world: &World, callers: &[Caller], wanted: usize) {
    let wanted = u64::try_from(wanted).expect("few requests");
    eventually_async("every request is begun", PATIENCE, async || {
        let begun = "SELECT count(*) FROM requests WHERE outcome IS NULL";
        (world.database.count(begun).await == wanted).then_some(())
    })
    .await;
    for _ in 0..5 {
        for caller in callers {
            caller.list().await.expect("a list");
        }
    }
}

fn exchanges(world: &World) -> usize {
    world.sandbox.requests().iter().filter(|request| request.param("fb_exchange_token").is_some()).count()
}

/// The connection that all of them were given, at its only version.
fn only_one(answers: &[Stored]) -> String {
    let tokens = answers.iter().map(|answer| answer.as_ref().expect("it is stored").token.clone().unwrap());
    let all: BTreeSet<_> = tokens.map(|token| (token.connection_id, token.token_version)).collect();
    assert_eq!(all.len(), 1, "{all:?}");
    let (id, version) = all.into_iter().next().expect("one");
    assert_eq!(version, 1);
    id
}

async fn events_of(world: &World, id: &str) -> Vec<Kind> {
    let filter = Some(pb::EventFilter { connection_ids: vec![id.into()], ..Default::default() });
    let request = pb::ListExpiryEventsRequest { filter, oldest_first: true, ..Default::default() };
    let page = world.viewer().await.list_expiry_events(request).await.unwrap();
    page.events.iter().map(pb::ExpiryEvent::kind).collect()
}

fn new_token(token: &str) -> pb::ExchangeTokenRequest {
    let new = NewToken { workspace_id: ACME.into(), provider: "meta".into(), access_token: token.to_owned() };
    pb::ExchangeTokenRequest {
        subject_of_exchange: Some(SubjectOfExchange::NewToken(new)),
        request_id: request_id(),
        ..Default::default()
    }
}

on_both_databases! {
    with |builder| builder.moving_time();

    async fn eight_pastes_of_one_short_lived_token_are_one_intake(world: World) {
        let callers = [world.connector().await, world.caller(Role::Connector, &[ACME]).await];
        let token = world.person("ana").short_lived_token();
        let pastes = std::iter::repeat_n(world.pasted(ACME, &token), 8);
        let crowd = Crowd::gather(&world, &callers, pastes).await;
        let requests = crowd.requests.clone();
        let answers = crowd.answers(&world).await;
        let id = only_one(&answers);
        assert_eq!(exchanges(&world), 1);
        assert_eq!(events_of(&world, &id).await, [Kind::Connected]);
        let outcomes: Vec<_> = answers.iter().map(|answer| answer.as_ref().unwrap().outcome()).collect();
        assert_eq!(outcomes, [Outcome::Created; 8]);
        // Each request's own outcome was written down.
        world.sandbox.clear_requests();
        for (request, caller) in requests.into_iter().zip(callers.iter().cycle()) {
            let again = caller.store_with(request).await.unwrap();
            assert_eq!((again.outcome(), again.token.unwrap().connection_id), (Outcome::Created, id.clone()));
        }
        assert_eq!(world.sandbox.count(Endpoint::Any), 0, "the provider was asked again");
    }

    async fn twenty_equal_stores_of_a_long_lived_token_ask_once(world: World) {
        let connector = world.connector().await;
        // How often one store asks.
        world.sandbox.clear_requests();
        connector.connect(ACME, &world.person("bob").long_lived_token()).await;
        let once = world.sandbox.count(Endpoint::Any);
        let token = world.person("ana").long_lived_token();
        let pastes = std::iter::repeat_n(world.pasted(ACME, &token), 20);
        let crowd = Crowd::gather(&world, &[connector], pastes).await;
        only_one(&crowd.answers(&world).await);
        assert_eq!(world.sandbox.count(Endpoint::Any), once);
    }

    async fn eight_exchanges_of_one_new_token_are_one(world: World) {
        let connector = world.connector().await;
        let token = world.person("ana").short_lived_token();
        world.sandbox.fault(Fault::on(Endpoint::DebugToken).always().with(FaultKind::Hang));
        let calls: Vec<_> = (0..8)
            .map(|_| {
                let (connector, request) = (connector.clone(), new_token(&token));
                tokio::spawn(async move { connector.exchange_token(request).await })
            })
            .collect();
        all_begun(&world, std::slice::from_ref(&connector), 8).await;
        world.sandbox.clear_faults();
        let mut tokens = BTreeSet::new();
        for call in calls {
            let answer = call.await.unwrap().unwrap();
            assert_eq!(answer.outcome(), pb::exchange_token_response::Outcome::Extended);
            let token = answer.token.unwrap();
            tokens.insert((token.connection_id, token.token_version));
        }
        assert_eq!((tokens.len(), exchanges(&world)), (1, 1), "{tokens:?}");
    }

    async fn a_failure_reaches_everybody_as_the_same_error(world: World) {
        let connector = world.connector().await;
        let token = world.person("ana").short_lived_token();
        world.sandbox.kill(&token, Some(467));
        let pastes = std::iter::repeat_n(world.pasted(ACME, &token), 8);
        let crowd = Crowd::gather(&world, std::slice::from_ref(&connector), pastes).await;
        let requests = crowd.requests.clone();
        for answer in crowd.answers(&world).await {
            let no = answer.unwrap_err();
            no.is(Code::InvalidArgument, Reason::ProviderRefusedToken).says("refusal", "LOGGED_OUT");
        }
        assert_eq!(world.sandbox.count(Endpoint::DebugToken), 1);
        world.sandbox.revive(&token);
        for request in requests {
            connector.store_with(request).await.expect("each may be tried again under its own id");
        }
    }

    async fn a_caller_who_hangs_up_takes_nothing_from_the_others(world: World) {
        let connector = world.connector().await;
        let token = world.person("ana").short_lived_token();
        let pastes = std::iter::repeat_n(world.pasted(ACME, &token), 4);
        let mut crowd = Crowd::gather(&world, &[connector], pastes).await;
        // One of them began the work. All but the last leave.
        let last = crowd.calls.split_off(3);
        for call in std::mem::take(&mut crowd.calls) {
            call.abort();
            assert!(call.await.is_err());
        }
        crowd.calls = last;
        only_one(&crowd.answers(&world).await);
        assert_eq!(exchanges(&world), 1);
    }

    async fn other_workspaces_options_and_tokens_are_not_mixed_up(world: World) {
        let connector = world.connector().await;
        let bob = world.person("bob").declines(["ads_management"]);
        let (anas, bobs) = (world.person("ana").short_lived_token(), bob.short_lived_token());
        let options = Some(pb::IntakeOptions { allow_missing_scopes: true, ..Default::default() });
        let requests = [
            world.pasted(ACME, &anas),
            world.pasted("globex", &anas),
            world.pasted(ACME, &bobs),
            pb::StoreTokenRequest { options, ..world.pasted(ACME, &bobs) },
            pb::StoreTokenRequest { if_token_version: Some(7), ..world.pasted("initech", &anas) },
        ];
        let answers = Crowd::gather(&world, &[connector], requests).await.answers(&world).await;
        let [here, there, declined, allowed, other] = <[Stored; 5]>::try_from(answers).expect("five answers");
        let workspace = |stored: &Stored| stored.as_ref().unwrap().token.as_ref().unwrap().workspace_id.clone();
        assert_eq!((workspace(&here).as_str(), workspace(&there).as_str()), (ACME, "globex"));
        declined.unwrap_err().is(Code::FailedPrecondition, Reason::ScopesMissing);
        assert_eq!(allowed.unwrap().token.unwrap().subject.unwrap().id, bob.id());
        other.unwrap_err().is(Code::InvalidArgument, Reason::FieldInvalid).field("if_token_version");
    }

    async fn the_second_paste_of_a_short_lived_token_is_unchanged(world: World) {
        let connector = world.connector().await;
        let ana = world.person("ana");
        let token = ana.short_lived_token();
        let id = connector.connect(ACME, &token).await;
        let secret = world.ingestion().await.secret(&id).await;
        // Some exchanges end the token that they are given.
        world.sandbox.kill(&token, Some(466));
        for _ in 0..2 {
            let again = connector.store(ACME, &token).await.unwrap();
            assert_eq!(again.outcome(), Outcome::Unchanged);
            assert_eq!(again.token.unwrap().connection_id, id);
            let answer = connector.exchange_token(new_token(&token)).await.unwrap();
            assert_eq!(answer.token.unwrap().token_version, 1);
        }
        assert_eq!(exchanges(&world), 1);
        assert_eq!(world.ingestion().await.secret(&id).await, secret);
        assert_eq!(events_of(&world, &id).await, [Kind::Connected]);
        // In another workspace it is another paste, and the provider refuses it there.
        let no = connector.store("globex", &token).await.unwrap_err();
        no.is(Code::InvalidArgument, Reason::ProviderRefusedToken);
    }

    async fn a_second_paste_works_honestly_where_the_first_result_is_gone(world: World) {
        let connector = world.connector().await;
        let ana = world.person("ana");
        let token = ana.short_lived_token();
        let id = connector.connect(ACME, &token).await;
        // Replaced meanwhile.
        assert_eq!(connector.connect(ACME, &ana.long_lived_token()).await, id);
        let again = connector.store(ACME, &token).await.unwrap();
        assert_eq!((again.outcome(), again.token.unwrap().token_version), (Outcome::Replaced, 3));
        // Dead at the provider, and the vault has not noticed.
        let held = world.ingestion().await.secret(&id).await;
        world.sandbox.kill(&held, Some(467));
        let again = connector.store(ACME, &token).await.unwrap();
        assert_eq!((again.outcome(), again.token.unwrap().token_version), (Outcome::Replaced, 4));
        // Revoked: nothing of the paste is kept.
        connector.revoke(&id).await.unwrap();
        assert_eq!(world.database.count("SELECT count(*) FROM exchanged_tokens").await, 0);
        assert_eq!(connector.store(ACME, &token).await.unwrap().outcome(), Outcome::Restored);
        assert_eq!(exchanges(&world), 4);
        // Ended: it is forgotten, and refused like any other.
        world.advance(Duration::from_secs(3 * 3_600)).await;
        world.admin().run("housekeeping").await;
        assert_eq!(world.database.count("SELECT count(*) FROM exchanged_tokens").await, 0);
        let no = connector.store(ACME, &token).await.unwrap_err();
        no.is(Code::InvalidArgument, Reason::ProviderRefusedToken).says("refusal", "EXPIRED");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pastes_of_one_short_lived_token_at_two_replicas_are_exchanged_once() {
    let world = World::start(Backend::Postgres).await;
    let other = world.replica();
    let connector = world.connector().await;
    let callers = [connector.clone(), connector.at(&other)];
    for (n, count) in [8, 20].into_iter().enumerate() {
        let token = world.person(&format!("person-{n}")).short_lived_token();
        let pastes = std::iter::repeat_n(world.pasted(ACME, &token), count);
        let crowd = Crowd::gather(&world, &callers, pastes).await;
        let answers = crowd.answers(&world).await;
        let id = only_one(&answers);
        assert_eq!((exchanges(&world), events_of(&world, &id).await), (1, vec![Kind::Connected]));
        let unchanged = |stored: &&Stored| stored.as_ref().unwrap().outcome() == Outcome::Unchanged;
        assert_eq!(answers.iter().filter(unchanged).count(), count / 2, "the other replica's callers");
    }
    assert_eq!(world.database.count("SELECT count(*) FROM claims WHERE scope LIKE 'paste:%'").await, 0);
}
