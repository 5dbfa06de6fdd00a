//! An authorization is good for one code, whoever brings it, how often, and whatever breaks down meanwhile.

use super::*;
use token_vault_tests::{eventually, eventually_async};

on_both_databases! {
    async fn a_callback_that_is_delivered_again_gets_the_first_answer(world: World) {
        let (ana, connector) = (world.person("ana"), world.connector().await);
        let callback = consented(&world, &connector, new(), &ana, Decision::Allow).await;
        let at_once = futures::future::join_all((0..8).map(|_| complete(&connector, &callback))).await;
        let mut all: Vec<_> = at_once.into_iter().map(|one| one.expect("it is stored")).collect();
        all.push(complete(&connector, callback.split_once('?').unwrap().1).await.expect("later, without the URL"));
        for intake in &all {
            let token = intake.token.as_ref().expect("a token");
            assert_eq!((intake.outcome(), token.token_version), (Outcome::Created, 1));
        }
        assert_eq!((codes(&world), connector.list().await.unwrap().tokens.len()), (1, 1));
    }

    async fn beginning_may_be_repeated(world: World) {
        let connector = world.connector().await;
        let request = new();
        let first = connector.begin_authorization(request.clone()).await.expect("it begins");
        let again = connector.begin_authorization(request.clone()).await.expect("it has begun");
        assert!(first.state == again.state && first.authorization_url == again.authorization_url);
        assert_eq!(first.expires_at, again.expires_at);
        let other = pb::BeginAuthorizationRequest { session_binding: "another".into(), ..request };
        let no = connector.begin_authorization(other).await.expect_err("another request");
        no.is(Code::InvalidArgument, Reason::RequestIdReused);
        assert_ne!(connector.begin_authorization(new()).await.unwrap().state, first.state);
        assert_eq!(world.database.rows("authorizations").await.len(), 2);
    }

    async fn a_lost_reply_is_begun_again_and_not_guessed(world: World) {
        let (ana, connector) = (world.person("ana"), world.connector().await);
        for fault in [
            FaultKind::ResetAfter,
            FaultKind::Truncated,
            FaultKind::EmptyBody,
            FaultKind::Html { status: 502 },
            FaultKind::error(500, 2),
        ] {
            let before = codes(&world);
            let callback = consented(&world, &connector, new(), &ana, Decision::Allow).await;
            world.sandbox.fault(Fault::on(Endpoint::OauthAccessToken).always().with(fault.clone()));
            is_over(&complete(&connector, &callback).await.expect_err("nobody knows"));
            world.sandbox.clear_faults();
            is_over(&complete(&connector, &callback).await.expect_err("begin again"));
            assert_eq!(codes(&world) - before, 1, "{fault:?}: a code is sent once");
        }
        assert!(connector.list().await.unwrap().tokens.is_empty());
        let callback = consented(&world, &connector, new(), &ana, Decision::Allow).await;
        complete(&connector, &callback).await.expect("it is stored");
    }

    async fn once_the_code_is_exchanged_nobody_is_told_to_try_the_same_again(world: World) {
        let (ana, connector) = (world.person("ana"), world.connector().await);
        for fault in [FaultKind::error(400, 4), FaultKind::error(500, 2), FaultKind::Reset] {
            let before = codes(&world);
            let callback = consented(&world, &connector, new(), &ana, Decision::Allow).await;
            world.sandbox.fault(Fault::on(Endpoint::DebugToken).always().with(fault.clone()));
            is_over(&complete(&connector, &callback).await.expect_err("the token can't be inspected"));
            world.sandbox.clear_faults();
            is_over(&complete(&connector, &callback).await.expect_err("begin again"));
            assert_eq!(codes(&world) - before, 1, "{fault:?}: a code is sent once");
        }
        assert!(connector.list().await.unwrap().tokens.is_empty());
    }

    async fn a_refusal_is_the_first_answer_too(world: World) {
        let (ana, bob, connector) = (world.person("ana"), world.person("bob"), world.connector().await);
        let id = connector.connect(ACME, &ana.long_lived_token()).await;
        let callback = consented(&world, &connector, reconnect(&id), &bob, Decision::Allow).await;
        for _ in 0..2 {
            let no = complete(&connector, &callback).await.expect_err("another person");
            no.is(Code::FailedPrecondition, Reason::SubjectMismatch).says("connection_id", &id);
        }
        let most = Decision::AllowExcept(vec!["ads_read".into()]);
        let callback = consented(&world, &connector, new(), &world.sandbox.user("eve"), most).await;
        for _ in 0..2 {
            let no = complete(&connector, &callback).await.expect_err("a required scope is missing");
            no.is(Code::FailedPrecondition, Reason::ScopesMissing).says("missing", "ads_read");
        }
        assert_eq!(codes(&world), 2);
        let kept = world.database.rows("authorizations").await.join("\n");
        assert!(!kept.contains(&bob.id()) && !kept.contains(&ana.id()), "it names nobody");
    }

    async fn what_is_stored_is_told_while_the_provider_is_away(world: World) {
        let (ana, connector) = (world.person("ana"), world.connector().await);
        let callback = consented(&world, &connector, new(), &ana, Decision::Allow).await;
        complete(&connector, &callback).await.expect("it is stored");
        world.sandbox.fault(Fault::on(Endpoint::Any).always().with(FaultKind::Reset));
        assert_eq!(complete(&connector, &callback).await.expect("no call is needed").outcome(), Outcome::Created);
    }

    async fn what_the_provider_says_of_a_code_is_told(world: World) {
        let (ana, connector) = (world.person("ana"), world.connector().await);
        for (fault, code, reason) in [
            (FaultKind::error(400, 4), Code::ResourceExhausted, Reason::ProviderThrottled),
            (FaultKind::error(400, 101), Code::FailedPrecondition, Reason::ProviderMisconfigured),
            (FaultKind::error(400, 191), Code::FailedPrecondition, Reason::ProviderMisconfigured),
        ] {
            let callback = consented(&world, &connector, new(), &ana, Decision::Allow).await;
            world.sandbox.fault(Fault::on(Endpoint::OauthAccessToken).always().with(fault));
            let no = complete(&connector, &callback).await.expect_err("the code is not exchanged");
            no.is(code, reason);
            world.sandbox.clear_faults();
            if reason == Reason::ProviderThrottled {
                no.has_retry();
                complete(&connector, &callback).await.expect("a limit uses no code up");
            } else {
                is_over(&complete(&connector, &callback).await.expect_err("begin again"));
            }
        }
        // Somebody else has exchanged the code.
        let callback = consented(&world, &connector, new(), &ana, Decision::Allow).await;
        let forged = callback.replace("code=AQD", "code=AQDx");
        is_over(&complete(&connector, &forged).await.expect_err("no such code"));
        is_over(&complete(&connector, &callback).await.expect_err("the authorization is over"));
    }

    async fn a_completion_goes_on_without_its_caller(world: World) {
        let (ana, connector) = (world.person("ana"), world.connector().await);
        let callback = consented(&world, &connector, new(), &ana, Decision::Allow).await;
        world.sandbox.fault(Fault::on(Endpoint::OauthAccessToken).with(FaultKind::Hang));
        let call = tokio::spawn({
            let (connector, callback) = (connector.clone(), callback.clone());
            async move { complete(&connector, &callback).await.map(drop) }
        });
        eventually("the code is sent", LIMIT, || world.sandbox.unanswered(Endpoint::OauthAccessToken) == 1);
        call.abort();
        let _ = call.await;
        // The person clicks again, while the first click is still being worked on.
        let again = tokio::spawn({
            let (connector, callback) = (connector.clone(), callback.clone());
            async move { complete(&connector, &callback).await }
        });
        tokio::task::yield_now().await;
        world.sandbox.clear_faults();
        let intake = again.await.expect("no panic").expect("it waits for the first");
        assert_eq!((intake.outcome(), codes(&world)), (Outcome::Created, 1));
    }

    async fn a_process_that_is_killed_with_the_code_leaves_it_to_be_begun_again(world: World) {
        let ana = world.person("ana");
        let callback = consented(&world, &world.connector().await, new(), &ana, Decision::Allow).await;
        world.sandbox.fault(Fault::on(Endpoint::OauthAccessToken).with(FaultKind::Hang));
        let call = tokio::spawn({
            let (connector, callback) = (world.connector().await, callback.clone());
            async move { complete(&connector, &callback).await.map(drop) }
        });
        eventually("the code is sent", LIMIT, || world.sandbox.unanswered(Endpoint::OauthAccessToken) == 1);
        world.kill();
        call.await.expect("no panic").expect_err("the process is gone");
        world.sandbox.clear_faults();
        world.start_again();
        let connector = world.connector().await;
        let no = eventually_async("it is known to be over", LIMIT, async || {
            complete(&connector, &callback).await.err().filter(|no| no.code() != Code::Unavailable)
        });
        is_over(&no.await);
        let callback = consented(&world, &connector, new(), &ana, Decision::Allow).await;
        assert_eq!(complete(&connector, &callback).await.expect("it is stored").outcome(), Outcome::Created);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_with_one_callback_make_one_connection() {
    let world = World::builder(Backend::Postgres).start().await;
    let other = world.replica();
    let (ana, connector) = (world.person("ana"), world.connector().await);
    let there = connector.at(&other);
    for round in 0..5 {
        let before = codes(&world);
        let callback = consented(&world, &connector, new(), &ana, Decision::Allow).await;
        let both = tokio::join!(complete(&connector, &callback), complete(&there, &callback));
        let ids = [both.0, both.1].map(|one| one.expect("both are answered").token.unwrap().connection_id);
        assert_eq!((ids[0] == ids[1], codes(&world) - before), (true, 1), "round {round}");
    }
    assert_eq!(connector.list().await.unwrap().tokens.len(), 1);
}
