//! Callers who hang up or run out of time, and one connection for which Meta stalls: neither takes anything from other
//! calls of the same principal.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::select_all;
use pb::check::Result;
use pb::intake_result::Outcome;
use pb::report_token_error_response::Verdict;
use token_vault_tests::prelude::*;
use token_vault_tests::{eventually, eventually_async, request_id};
use tokio::task::JoinHandle;

use super::matrix::methods;
use super::rpcs::InProvider::{Cut, GoesOn, Never};
use super::rpcs::{DEAD, RPCS, Stalled, call, connected};

const LIMIT: Duration = Duration::from_secs(60);
/// From now on, the provider does not reply to requests with these tokens, until the faults are cleared.
fn hang(world: &World, stalled: &Stalled) {
    for token in &stalled.tokens {
        world.sandbox.fault(Fault::on(Endpoint::Any).token(token).always().with(FaultKind::Hang));
    }
}

fn stalls(world: &World) -> usize {
    world.sandbox.unanswered(Endpoint::Any)
}

/// The same principal stores, validates and reports for another connection. Nothing of that has to wait.
async fn works_elsewhere(world: &World, caller: &Caller, name: &str) {
    let token = world.person(name).long_lived_token();
    // The vault may notice a moment later that a caller hung up.
    let intake =
        eventually_async("a store elsewhere", LIMIT, async || match caller.store(ACME, &token).await {
            Err(no) if no.reason() == Reason::RateLimited.reason() => None,
            stored => Some(stored.expect("it is stored")),
        })
        .await;
    let tried = |check: &pb::Check| !matches!(check.result(), Result::Skipped | Result::Unknown);
    assert!(intake.checks.iter().all(tried), "{:?}", intake.checks);
    let id = intake.token.expect("a token").connection_id;
    caller.validate(&id).await.expect("a validation elsewhere");
    let verdict = caller.report(&id, 1, 400, DEAD).await.expect("a report elsewhere").verdict();
    assert_eq!(verdict, Verdict::StillValid);
}

/// Hangs up on a call that is under way.
async fn hang_up(call: JoinHandle<core::result::Result<(), Denial>>) {
    call.abort();
    let _ = call.await;
}

#[test]
fn every_rpc_has_a_row() {
    let rows: BTreeSet<_> = RPCS.iter().map(|(rpc, _)| (*rpc).to_owned()).collect();
    assert_eq!(rows, methods());
}

on_both_databases! {
    // A place that is not given back shows at once: there are only two.
    with |builder| builder
        .config("server.limits.max_calls_per_principal", "2")
        .config("providers.meta.request_timeout", "20s");

    async fn whoever_hangs_up_at_any_moment_of_any_rpc_leaves_nothing_behind(world: World) {
        let busy = world.key_of("busy", Role::Admin).await;
        for (row, (rpc, in_provider)) in RPCS.into_iter().enumerate() {
            let name = |moment: &str| format!("{row} {moment}");
            let stalled = connected(&world, &name("stalled")).await;
            hang(&world, &stalled);

            // Before the work begins.
            for nth in 0..4 {
                let begun = tokio::spawn(call(&busy, rpc, &stalled, nth));
                tokio::task::yield_now().await;
                hang_up(begun).await;
            }
            if in_provider == GoesOn {
                // One of them may have begun, and goes on to its end.
                world.sandbox.clear_faults();
            }
            works_elsewhere(&world, &busy, &name("before")).await;
            eventually(&format!("{rpc}: nothing is asked for nobody"), LIMIT, || stalls(&world) == 0);
            let stalled = connected(&world, &name("stalled again")).await;
            hang(&world, &stalled);

            if in_provider != Never {
                // In the provider call, and another one that waits for its turn.
                let first = tokio::spawn(call(&busy, rpc, &stalled, 0));
                eventually(&format!("{rpc} asks the provider"), LIMIT, || stalls(&world) >= 1);
                let second = tokio::spawn(call(&busy, rpc, &stalled, 1));
                works_elsewhere(&world, &busy, &name("waiting")).await;
                // One piece of work may ask two questions at once.
                assert!(stalls(&world) <= 2, "{rpc}: one at a time for one connection");
                hang_up(second).await;
                hang_up(first).await;
                works_elsewhere(&world, &busy, &name("in the provider call")).await;
                if in_provider == Cut {
                    eventually(&format!("{rpc} is cut off"), LIMIT, || stalls(&world) == 0);
                } else {
                    assert!(stalls(&world) >= 1, "{rpc} goes on");
                }
            }

            // After the work.
            world.sandbox.clear_faults();
            eventually(&format!("{rpc} ends"), LIMIT, || stalls(&world) == 0);
            let fresh = connected(&world, &name("fresh")).await;
            for nth in 0..3 {
                let outcome = eventually_async(&format!("{rpc} is let in"), LIMIT, async || {
                    match call(&busy, rpc, &fresh, nth).await {
                        Err(no) if no.reason() == Reason::RateLimited.reason() => None,
                        outcome => Some(outcome),
                    }
                })
                .await;
                // Some name nothing, and some can't be done twice.
                let clear = [Code::NotFound, Code::FailedPrecondition, Code::Aborted];
                assert!(outcome.as_ref().err().is_none_or(|no| clear.contains(&no.code())), "{rpc}: {outcome:?}");
            }
            works_elsewhere(&world, &busy, &name("after")).await;
        }
    }

    async fn the_callers_deadline_reaches_the_provider_call(world: World) {
        let hasty = world.key_of("hasty", Role::Admin).await.within(Duration::from_secs(8));
        let stalled = connected(&world, "ana").await;
        let result = |checks: &[pb::Check], name: &str| {
            checks.iter().find(|check| check.name == name).map(pb::Check::result)
        };
        let cut = |what: &str| eventually(what, LIMIT, || stalls(&world) == 0);

        // The inspector replies, and the list of ad accounts does not.
        for token in &stalled.tokens {
            world.sandbox.fault(Fault::on(Endpoint::AdAccounts).token(token).always().with(FaultKind::Hang));
        }
        let validation = hasty.validate(&stalled.connection).await.expect("a validation is always answered");
        assert_eq!(result(&validation.checks, "token_accepted"), Some(Result::Pass));
        assert_eq!(result(&validation.checks, "ad_accounts"), Some(Result::Skipped));
        assert_eq!(result(&validation.checks, "smoke_test"), Some(Result::Skipped));
        cut("the list of ad accounts is cut off");
        let intake = hasty.store(ACME, &stalled.tokens[1]).await.expect("after the commit there is no error");
        assert_eq!(intake.outcome(), Outcome::Replaced);
        assert_eq!(result(&intake.checks, "ad_accounts"), Some(Result::Skipped));
        assert_eq!(result(&intake.checks, "expiry"), Some(Result::Pass));
        cut("the checks of a stored token are cut off");

        // Nothing replies.
        hang(&world, &stalled);
        let validation = hasty.validate(&stalled.connection).await.expect("a validation is always answered");
        for name in ["token_accepted", "required_scopes", "ad_accounts", "smoke_test"] {
            assert_eq!(result(&validation.checks, name), Some(Result::Skipped), "{name}");
        }
        cut("the inspection of a validation is cut off");
        let report = hasty.report(&stalled.connection, 2, 400, DEAD).await.expect("a report is answered");
        assert_eq!(report.verdict(), Verdict::Unconfirmed);
        cut("the inspection of a report is cut off");
        let no = hasty.store(ACME, &stalled.tokens[0]).await.expect_err("nothing is known about the token");
        no.is(Code::Unavailable, Reason::ProviderUnavailable).has_retry();
        cut("the inspection of a new token is cut off");
        world.sandbox.clear_faults();
        assert_eq!(hasty.get(&stalled.connection).await.unwrap().token_version, 2, "nothing was replaced");
    }

    async fn a_store_that_began_at_the_provider_ends_once_without_its_caller(world: World) {
        let busy = world.key_of("busy", Role::Admin).await;
        let token = world.person("ana").short_lived_token();
        world.sandbox.fault(
            Fault::on(Endpoint::OauthAccessToken).token(&token).always().with(FaultKind::Hang),
        );
        let exchanges = || world.sandbox.unanswered(Endpoint::OauthAccessToken);
        let store = tokio::spawn({
            let (busy, token) = (busy.clone(), token.clone());
            async move { busy.store(ACME, &token).await.map(drop) }
        });
        eventually("it is exchanged", LIMIT, || exchanges() == 1);
        hang_up(store).await;
        works_elsewhere(&world, &busy, "bob").await;
        assert_eq!(exchanges(), 1, "the exchange goes on");
        let stored = async || {
            let tokens = busy.list().await.ok()?.tokens;
            let named = |token: &pb::Token| token.subject.as_ref().is_some_and(|who| who.name == "ana");
            Some(tokens.into_iter().filter(named).collect::<Vec<_>>())
        };
        assert_eq!(stored().await.unwrap().len(), 0, "nothing is stored yet");
        world.sandbox.clear_faults();
        let stored = eventually_async("it is stored", LIMIT, async || stored().await.filter(|all| !all.is_empty()));
        let stored = stored.await;
        assert_eq!((stored.len(), stored[0].token_version), (1, 1));
        assert_eq!(world.sandbox.count(Endpoint::OauthAccessToken), 1, "and was exchanged once");
    }
}

/// Stores that began at the provider must end, whether or not their callers wait, so each workspace may have 64 of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_that_one_workspace_began_and_left_are_bounded_and_cost_no_other_workspace() {
    const BEGUN: usize = 64;
    let world = World::builder(Backend::Sqlite).config("providers.meta.request_timeout", "20s").start().await;
    let busy = world.key_of("busy", Role::Admin).await;
    let exchanges = || world.sandbox.unanswered(Endpoint::OauthAccessToken);
    let store = |name: String| {
        let (busy, token) = (busy.clone(), world.person(&name).short_lived_token());
        let fault = Fault::on(Endpoint::OauthAccessToken).token(&token).always();
        world.sandbox.fault(fault.with(FaultKind::Hang));
        tokio::spawn(async move { busy.store(ACME, &token).await.map(drop) })
    };
    // An exchange that hangs is given up after 20 s. A machine that is too slow to begin 65 in that time tries again.
    let mut left = Vec::new();
    for attempt in 0.. {
        assert!(attempt < 5, "it is never full");
        let stores: Vec<_> = (0..=BEGUN).map(|n| store(format!("ana {attempt} {n}"))).collect();
        let (first, _, others) = select_all(stores).await;
        left.extend(others);
        let no = first.expect("no panic").expect_err("every exchange hangs");
        // What has begun in the vault reaches the provider a little later.
        let arrived = async {
            while exchanges() < BEGUN {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let arrived = tokio::time::timeout(Duration::from_secs(10), arrived).await.is_ok();
        if no.reason() == Reason::RateLimited.reason() && arrived {
            no.is(Code::ResourceExhausted, Reason::RateLimited).has_retry();
            break;
        }
    }
    for store in left {
        hang_up(store).await;
    }
    busy.connect("beta", &world.person("bob").short_lived_token()).await;
    assert!(exchanges() > 0, "they go on");
    world.sandbox.clear_faults();
    let token = world.person("carl").short_lived_token();
    eventually_async("the workspace stores again", LIMIT, async || busy.store(ACME, &token).await.ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_that_stalls_shuts_nobody_out() {
    let world = World::builder(Backend::Sqlite).config("providers.meta.request_timeout", "20s").start().await;
    let busy = world.key_of("busy", Role::Admin).await;
    let stalled = connected(&world, "ana").await;
    hang(&world, &stalled);
    // 150 calls to one connection: as many equal validations as others, as reports, and as stores.
    let calls: Vec<_> = (0..150)
        .map(|n| {
            let rpc = ["ValidateToken", "ReportTokenError", "StoreToken"][n % 3];
            tokio::spawn(call(&busy, &format!("TokenVault/{rpc}"), &stalled, n / 3))
        })
        .collect();
    eventually("the provider is asked", LIMIT, || stalls(&world) >= 1);
    for n in 0..5 {
        works_elsewhere(&world, &busy, &format!("other {n}")).await;
        assert!(stalls(&world) >= 1, "it still stalls");
    }
    assert!(stalls(&world) <= 3, "one inspection and one intake at a time");
    world.sandbox.clear_faults();
    for call in calls {
        if let Err(no) = call.await.expect("no panic") {
            assert_ne!(no.reason(), Reason::RateLimited.reason(), "{no:?}");
        }
    }
    works_elsewhere(&world, &busy, "afterwards").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_questions_in_flight_share_one_answer() {
    let world = World::start(Backend::Sqlite).await;
    let busy = world.key_of("busy", Role::Admin).await;
    let stalled = connected(&world, "ana").await;
    let requests = || world.sandbox.count(Endpoint::DebugToken);
    let before = requests();
    hang(&world, &stalled);
    let validations: Vec<_> = (0..40)
        .map(|_| {
            let (busy, id) = (busy.clone(), stalled.connection.clone());
            tokio::spawn(async move { busy.validate(&id).await })
        })
        .collect();
    eventually("the provider is asked", LIMIT, || requests() == before + 1);
    // Who asked first is among those who hang up, and the others get the answer all the same.
    validations[..10].iter().for_each(JoinHandle::abort);
    works_elsewhere(&world, &busy, "bob").await;
    let before = requests();
    world.sandbox.clear_faults();
    let mut answers = BTreeSet::new();
    for validation in validations {
        if let Ok(answer) = validation.await {
            let token = answer.expect("an answer").token.expect("a token");
            answers.insert(format!("{:?}", token.last_validated_at));
        }
    }
    // One that came late may have asked once more.
    assert!(answers.len() <= 2, "{answers:?}");
    assert!(requests() <= before + 1, "the others did not ask again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_whose_caller_hung_up_can_be_repeated_at_another_replica() {
    let world =
        World::builder(Backend::Postgres).config("providers.meta.request_timeout", "20s").start().await;
    let replica = world.replica();
    let busy = world.key_of("busy", Role::Admin).await;
    let stalled = connected(&world, "ana").await;
    hang(&world, &stalled);
    let request =
        pb::StoreTokenRequest { request_id: request_id(), ..world.pasted(ACME, &stalled.tokens[1]) };
    let first = tokio::spawn({
        let (busy, request) = (busy.clone(), request.clone());
        async move { busy.store_with(request).await.map(drop) }
    });
    eventually("the provider is asked", LIMIT, || stalls(&world) >= 1);
    hang_up(first).await;
    eventually("it is cut off", LIMIT, || stalls(&world) == 0);
    world.sandbox.clear_faults();
    let elsewhere = busy.at(&replica);
    let intake = eventually_async("nobody works on it any more", LIMIT, async || {
        match elsewhere.store_with(request.clone()).await {
            Err(no) if no.reason() == Reason::RequestInProgress.reason() => None,
            outcome => Some(outcome.expect("it is carried out there")),
        }
    })
    .await;
    assert_eq!(intake.outcome(), Outcome::Replaced);
}
