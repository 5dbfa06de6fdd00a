//! Passes over many connections, and refusals that are not about tokens: a pass that learned nothing is no pass.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use token_vault_proto::v1::job_run::State;
use token_vault_proto::v1::provider_status::Circuit;
use token_vault_proto::v1::{Fixer, Severity};
use token_vault_sandbox::{AppBlock, ExchangeMood, RecordedRequest, User};
use token_vault_tests::eventually_async;
use token_vault_tests::prelude::*;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
const LIMIT: Duration = Duration::from_secs(60);
const DAILY: &str = "meta-token-expiry";
const RENEWAL: &str = "rotation";
/// The most calls of a pass after the first refusal that is not about a token.
const PROBES: usize = 20;

/// Something that makes the provider refuse every inspection, whoever the token belongs to.
#[derive(Clone)]
pub(super) enum Trouble {
    Fault(FaultKind),
    WrongSecret,
    Blocked(AppBlock),
}

/// A trouble, the event that announces it, who can fix it, and the code that the event shows.
type Row = (Trouble, Kind, Fixer, &'static str);

fn code(http: u16, code: i64, kind: Kind, fixer: Fixer, shown: &'static str) -> Row {
    (Trouble::Fault(FaultKind::error(http, code)), kind, fixer, shown)
}

/// Connects `count` people, several at once.
pub(super) async fn connect_many(world: &World, name: &str, count: usize) -> Vec<String> {
    connect_with(world, name, count, |person| person.long_lived_token()).await
}

async fn connect_with(world: &World, name: &str, count: usize, token: fn(User) -> String) -> Vec<String> {
    let connector = world.connector().await;
    let tokens: Vec<_> = (0..count).map(|n| token(world.person(&format!("{name}-{n}")))).collect();
    futures::stream::iter(&tokens)
        .map(|token| connector.connect(ACME, token))
        .buffer_unordered(8)
        .collect()
        .await
}

pub(super) fn begin(world: &World, trouble: &Trouble, after: u32) {
    let app = world.sandbox.app().id;
    match trouble {
        Trouble::Fault(kind) => {
            world.sandbox.fault(Fault::on(Endpoint::DebugToken).after(after).always().with(kind.clone()));
        }
        Trouble::WrongSecret => world.sandbox.roll_app_secret(&app, "another-secret-of-the-app-000000"),
        Trouble::Blocked(block) => world.sandbox.block_app(&app, *block),
    }
}

pub(super) fn end(world: &World, secrets: &[String]) {
    let app = world.sandbox.app().id;
    world.sandbox.clear_faults();
    world.sandbox.block_app(&app, None);
    world.sandbox.change_app(&app, |app| app.secrets = secrets.to_vec());
}

/// The first run of a job that began after those with these ids and has ended.
async fn next_run(admin: &Caller, job: &str, known: &[pb::JobRun], wanted: State) -> pb::JobRun {
    eventually_async(&format!("{job} ends {wanted:?}"), LIMIT, async || {
        let mut runs = admin.runs(job).await;
        runs.retain(|run| known.iter().all(|known| known.run_id != run.run_id));
        runs.into_iter().rev().find(|run| run.ended_at.is_some() && run.state() == wanted)
    })
    .await
}

/// The paths of the calls after the inspection number `after`, which was the first to be refused. What follows for
/// tokens whose inspection was answered before is no part of the trouble.
fn calls_after(world: &World, after: u32) -> Vec<String> {
    let requests = world.sandbox.requests();
    let inspected = |request: &RecordedRequest| request.param("input_token").map(str::to_owned);
    let mut inspections =
        requests.iter().enumerate().filter(|(_, request)| request.path.ends_with("/debug_token"));
    let answered: Vec<_> =
        inspections.by_ref().take(after as usize).filter_map(|(_, request)| inspected(request)).collect();
    let first = inspections.next().expect("one was refused").0;
    let of_answered = |request: &RecordedRequest| {
        let bearer = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        bearer.is_some_and(|bearer| answered.iter().any(|token| token == bearer))
    };
    requests[first + 1..].iter().filter(|r| !of_answered(r)).map(|request| request.path.clone()).collect()
}

/// When each token was last validated, in seconds since 1970.
pub(super) async fn validated(world: &World) -> BTreeMap<String, i64> {
    let ask = pb::ListTokensRequest { page_size: 1_000, ..Default::default() };
    let tokens = world.viewer().await.list_tokens(ask).await.expect("a list").tokens;
    let at = |token: &pb::Token| token.last_validated_at.expect("it was validated").seconds;
    tokens.iter().map(|token| (token.connection_id.clone(), at(token))).collect()
}

/// The number of the feed's last event.
async fn head(admin: &Caller) -> i64 {
    admin.get_vault_status(pb::GetVaultStatusRequest {}).await.expect("the admin may ask").head_sequence
}

/// The first event of a kind after a number.
async fn told(feed: &Feed, kind: Kind, after: i64) -> pb::ExpiryEvent {
    let find = |all: &[pb::ExpiryEvent]| {
        all.iter().find(|event| event.kind() == kind && event.sequence > after).cloned()
    };
    feed.until(&format!("{kind:?}"), find).await
}

/// The provider breaks down during a daily pass, and recovers.
async fn breaks_down(world: &World, (trouble, kind, fixer, shown): &Row, after: u32) {
    // Only a fault waits for its turn. The others refuse everything from now on.
    let after = if matches!(trouble, Trouble::Fault(_)) { after } else { 0 };
    let secrets = world.sandbox.app().secrets;
    let (admin, feed) = (world.admin(), world.viewer().await.watch_all().await);
    let (count, known) = (validated(world).await.len() as i64, admin.runs(DAILY).await);
    let start = head(&admin).await;
    world.sandbox.clear_requests();
    begin(world, trouble, after);
    world.advance(DAY).await;
    let since = world.sandbox.clock().now() - 60;
    let run = next_run(&admin, DAILY, &known, State::Incomplete).await;
    let calls = calls_after(world, after);
    assert!(calls.len() <= PROBES, "{shown} after {after} of {count}: {calls:#?}");
    assert!(!run.error.is_empty() && run.remaining > 0, "{run:?}");
    assert!(run.done - run.failed >= i64::from(after.saturating_sub(8)), "{run:?}");
    assert_eq!(run.done - run.failed + run.remaining, count, "{run:?}");
    let alarm = told(&feed, *kind, start).await;
    assert_eq!((alarm.connection_id.as_str(), alarm.provider_code.as_str()), ("", *shown));
    assert_eq!(alarm.remedy.as_ref().expect("what to do").fixer(), *fixer, "{shown}");
    let severity = if *kind == Kind::Throttled { Severity::Warning } else { Severity::Critical };
    assert_eq!(alarm.severity(), severity, "{shown}");
    end(world, &secrets);
    let recovered = told(&feed, Kind::ProviderRecovered, start).await;
    assert_eq!(recovered.closes, [alarm.sequence], "{shown}");
    eventually_async("every token is validated", LIMIT, async || {
        validated(world).await.values().all(|at| *at >= since).then_some(())
    })
    .await;
    let all = feed.caught_up().await;
    let blamed: Vec<_> =
        all.iter().filter(|e| !e.connection_id.is_empty() && e.kind() != Kind::Connected).collect();
    assert!(blamed.is_empty(), "{shown}: no token is blamed: {blamed:?}");
}

/// Lets each trouble come at one of the first ten of twenty tokens: with eight asked at once, three are left to be refused
/// one after the other, whichever replies come late. A trouble has one position on each database, and every one where this
/// is set: fifty passes for five troubles are too many for every run.
const ALL_POSITIONS: &str = "TOKEN_VAULT_ALL_POSITIONS";

async fn each_breaks_down(world: &World, rows: &[Row]) {
    const POSITIONS: usize = 10;
    // So many days may pass that tokens with an end would be renewed, which takes calls too.
    connect_with(world, "person", 2 * POSITIONS, |person| person.token_never()).await;
    let first = if world.database.backend() == Backend::Sqlite { 0 } else { 5 };
    for (n, row) in rows.iter().enumerate() {
        if std::env::var_os(ALL_POSITIONS).is_some() {
            for position in 0..POSITIONS as u32 {
                breaks_down(world, row, position).await;
            }
        } else {
            breaks_down(world, row, ((first + n * 3) % POSITIONS) as u32).await;
        }
    }
}

on_both_databases! {
    with |builder| builder.moving_time();

    async fn refusals_of_the_vaults_own_request_end_a_pass(world: World) {
        let rows = [
            code(400, 100, Kind::ProviderAlarm, Fixer::Operator, "100"),
            code(400, 2_500, Kind::ProviderAlarm, Fixer::Operator, "2500"),
            code(404, 803, Kind::ProviderAlarm, Fixer::Operator, "803"),
            code(400, 987_654, Kind::ProviderAlarm, Fixer::Operator, "987654"),
            code(400, 2_635, Kind::ProviderAlarm, Fixer::Operator, "2635"),
        ];
        each_breaks_down(&world, &rows).await;
    }

    async fn a_blocked_app_and_a_wrong_secret_end_a_pass(world: World) {
        let blocked = (Trouble::Blocked(AppBlock::Blocked), Kind::ProviderAlarm, Fixer::AppAdmin, "200");
        let rows = [
            blocked,
            code(403, 200, Kind::ProviderAlarm, Fixer::AppAdmin, "200"),
            code(403, 10, Kind::ProviderAlarm, Fixer::AppAdmin, "10"),
            code(401, 102, Kind::ProviderAlarm, Fixer::Operator, "102"),
        ];
        each_breaks_down(&world, &rows).await;
    }

    async fn limits_and_silence_end_a_pass(world: World) {
        let html = (Trouble::Fault(FaultKind::Html { status: 502 }), Kind::ProviderAlarm, Fixer::Nobody, "");
        let cut = (Trouble::Fault(FaultKind::Reset), Kind::ProviderAlarm, Fixer::Nobody, "");
        let rows = [
            code(400, 4, Kind::Throttled, Fixer::Nobody, "4"),
            code(400, 17, Kind::Throttled, Fixer::Nobody, "17"),
            code(500, 2, Kind::ProviderAlarm, Fixer::Nobody, "2"),
            code(500, 1, Kind::ProviderAlarm, Fixer::Nobody, "1"),
            html,
            cut,
        ];
        each_breaks_down(&world, &rows).await;
    }

    async fn refusals_of_data_calls_alone_end_a_pass_too(world: World) {
        connect_many(&world, "person", 12).await;
        let (admin, feed) = (world.admin(), world.viewer().await.watch_all().await);
        let blocked = FaultKind::GraphError {
            http: 403,
            code: 200,
            subcode: None,
            transient: None,
            message: Some("API access blocked.".into()),
            kind: None,
        };
        for (fault, kind, shown) in [
            (blocked, Kind::ProviderAlarm, "200"),
            (FaultKind::error(400, 4), Kind::Throttled, "4"),
            (FaultKind::error(400, 100), Kind::ProviderAlarm, "100"),
            (FaultKind::error(400, 987_654), Kind::ProviderAlarm, "987654"),
            (FaultKind::error(503, 2), Kind::ProviderAlarm, "2"),
        ] {
            let (known, start) = (admin.runs(DAILY).await, head(&admin).await);
            // The inspector goes on calling every token valid.
            for endpoint in [Endpoint::AdAccounts, Endpoint::Me, Endpoint::Permissions] {
                world.sandbox.fault(Fault::on(endpoint).always().with(fault.clone()));
            }
            world.advance(DAY).await;
            let since = world.sandbox.clock().now() - 60;
            let run = next_run(&admin, DAILY, &known, State::Incomplete).await;
            assert_eq!((run.done - run.failed, run.remaining), (0, 12), "{shown}: {run:?}");
            assert!(run.error.contains(shown), "{shown}: {run:?}");
            let alarm = told(&feed, kind, start).await;
            assert_eq!((alarm.connection_id.as_str(), alarm.provider_code.as_str()), ("", shown));
            world.sandbox.clear_faults();
            let recovered = told(&feed, Kind::ProviderRecovered, start).await;
            assert_eq!(recovered.closes, [alarm.sequence], "{shown}");
            eventually_async("every token is validated", LIMIT, async || {
                validated(&world).await.values().all(|at| *at >= since).then_some(())
            })
            .await;
            world.nothing_is_due().await;
        }
        let blamed: Vec<_> = feed.caught_up().await.into_iter().filter(|event| {
            !event.connection_id.is_empty() && event.kind() != Kind::Connected
        }).collect();
        assert!(blamed.is_empty(), "{blamed:?}");
    }

    async fn one_token_whose_data_calls_fail_ends_nothing(world: World) {
        let odd = world.person("odd").long_lived_token();
        world.connector().await.connect(ACME, &odd).await;
        connect_many(&world, "person", 12).await;
        let (admin, feed) = (world.admin(), world.viewer().await.watch_all().await);
        let known = admin.runs(DAILY).await;
        for endpoint in [Endpoint::AdAccounts, Endpoint::Me, Endpoint::Permissions] {
            world.sandbox.fault(Fault::on(endpoint).token(&odd).always().with(FaultKind::error(503, 2)));
        }
        world.advance(DAY).await;
        let run = next_run(&admin, DAILY, &known, State::Incomplete).await;
        assert_eq!((run.done, run.failed, run.remaining), (13, 1, 1), "{run:?}");
        let all = feed.caught_up().await;
        assert!(all.iter().all(|event| event.kind() == Kind::Connected), "neither an alarm nor a death");
    }

    async fn renewals_are_held_until_an_exchange_works_whatever_else_does(world: World) {
        let ids = connect_many(&world, "person", 8).await;
        world.sandbox.set_mood(ExchangeMood::Extends);
        let (admin, feed) = (world.admin(), world.viewer().await.watch_all().await);
        world.sandbox.fault(Fault::on(Endpoint::OauthAccessToken).always().with(FaultKind::error(400, 100)));
        world.advance(43 * DAY).await;
        next_run(&admin, RENEWAL, &[], State::Incomplete).await;
        told(&feed, Kind::ProviderAlarm, 0).await;
        // The first in line: it needs an inspection, which works.
        let unknown = "expires_at = NULL, expiry_source = 'UNKNOWN', expires_sort = 0, next_renewal_at = 0";
        let id = world.database.uuid(&ids[0]);
        world.database.execute(format!("UPDATE ad_platform_connections SET {unknown} WHERE connection_id = {id}")).await;
        let asked = world.sandbox.count(Endpoint::OauthAccessToken);
        eventually_async("it was asked about, and an exchange was tried", LIMIT, async || {
            let waiting = "SELECT count(*) FROM ad_platform_connections WHERE expiry_source = 'UNKNOWN'";
            let tried = world.sandbox.count(Endpoint::OauthAccessToken) > asked;
            (tried && world.database.count(waiting).await == 0).then_some(())
        })
        .await;
        let recovered = |all: &[pb::ExpiryEvent]| all.iter().any(|e| e.kind() == Kind::ProviderRecovered);
        assert!(!recovered(&feed.caught_up().await), "exchanges are refused still");
        world.sandbox.clear_faults();
        for id in &ids {
            feed.first(id, Kind::Rotated).await;
        }
        assert!(recovered(&feed.events()));
    }

    async fn what_is_dead_is_not_due_for_renewal_whatever_its_row_says(world: World) {
        let ids = connect_many(&world, "person", 2).await;
        world.admin().revoke(&ids[0]).await.unwrap();
        // As an early release left it.
        let id = world.database.uuid(&ids[0]);
        let sql = format!("UPDATE ad_platform_connections SET next_renewal_at = 0 WHERE connection_id = {id}");
        assert_eq!(world.database.execute(sql).await, 1);
        let run = world.admin().run(RENEWAL).await;
        assert_eq!((run.state(), run.done, run.remaining), (State::Succeeded, 0, 0), "{run:?}");
    }

    async fn cut_connections_open_the_circuit_for_fifty_tokens_too(world: World) {
        connect_many(&world, "person", 50).await;
        let (admin, known) = (world.admin(), world.admin().runs(DAILY).await);
        world.sandbox.fault(Fault::on(Endpoint::Any).always().with(FaultKind::Reset));
        world.advance(DAY).await;
        let since = world.sandbox.clock().now() - 60;
        let run = next_run(&admin, DAILY, &known, State::Incomplete).await;
        assert_eq!((run.done - run.failed, run.remaining), (0, 50), "{run:?}");
        eventually_async("the circuit opens", LIMIT, async || {
            let status = admin.get_vault_status(pb::GetVaultStatusRequest {}).await.ok()?;
            (status.providers[0].circuit() == Circuit::Open).then_some(())
        })
        .await;
        world.sandbox.clear_faults();
        eventually_async("all are asked about again", LIMIT, async || {
            validated(&world).await.values().all(|at| *at >= since).then_some(())
        })
        .await;
    }

    async fn one_odd_answer_for_one_token_ends_nothing(world: World) {
        let odd = world.person("odd").long_lived_token();
        let id = world.connector().await.connect(ACME, &odd).await;
        connect_many(&world, "person", 24).await;
        let (admin, feed) = (world.admin(), world.viewer().await.watch_all().await);
        let known = admin.runs(DAILY).await;
        let fault = Fault::on(Endpoint::DebugToken).token(&odd).always();
        world.sandbox.fault(fault.with(FaultKind::error(400, 987_654)));
        world.advance(DAY).await;
        let since = world.sandbox.clock().now() - 60;
        let run = next_run(&admin, DAILY, &known, State::Incomplete).await;
        assert_eq!((run.done, run.failed, run.remaining), (25, 1, 1), "{run:?}");
        assert!(run.error.contains("987654"), "it says why: {run:?}");
        let unchecked: Vec<_> =
            validated(&world).await.into_iter().filter(|(_, at)| *at < since).map(|(id, _)| id).collect();
        assert_eq!(unchecked, [id]);
        let all = feed.caught_up().await;
        assert!(all.iter().all(|event| event.kind() == Kind::Connected), "neither an alarm nor a death");
        world.sandbox.clear_faults();
        world.advance(2 * MINUTE).await;
        eventually_async("it is asked about again", LIMIT, async || {
            validated(&world).await.values().all(|at| *at >= since).then_some(())
        })
        .await;
    }

    async fn renewal_stops_at_the_first_limit_and_goes_on_after_it(world: World) {
        let ids = connect_many(&world, "person", 30).await;
        world.sandbox.set_mood(ExchangeMood::Extends);
        let (admin, feed) = (world.admin(), world.viewer().await.watch_all().await);
        world.sandbox.fault(Fault::on(Endpoint::OauthAccessToken).always().with(FaultKind::error(400, 4)));
        world.sandbox.clear_requests();
        world.advance(43 * DAY).await;
        let run = next_run(&admin, RENEWAL, &[], State::Incomplete).await;
        let exchanges =
            world.sandbox.requests().iter().filter(|r| r.param("fb_exchange_token").is_some()).count();
        assert!(exchanges <= PROBES, "{exchanges} exchanges for 30 tokens");
        assert_eq!(run.remaining, 30, "{run:?}");
        let limited =
            feed.until("the limit", |all| all.iter().find(|e| e.kind() == Kind::Throttled).cloned()).await;
        assert_eq!(limited.provider_code, "4");
        world.sandbox.clear_faults();
        for id in &ids {
            feed.first(id, Kind::Rotated).await;
        }
        let recoveries = feed.events().iter().filter(|e| e.kind() == Kind::ProviderRecovered).count();
        assert_eq!(recoveries, 1, "it was over once");
    }

    async fn a_pass_goes_on_where_a_killed_process_stopped(world: World) {
        connect_many(&world, "person", 40).await;
        let (admin, known) = (world.admin(), world.admin().runs(DAILY).await);
        world.sandbox.clear_requests();
        let stall = FaultKind::StallFirstByte(Duration::from_secs(5));
        world.sandbox.fault(Fault::on(Endpoint::DebugToken).after(30).always().with(stall));
        world.advance(DAY).await;
        eventually_async("thirty were asked about", LIMIT, async || {
            (world.sandbox.count(Endpoint::DebugToken) > 30).then_some(())
        })
        .await;
        world.kill();
        drop(admin);
        world.sandbox.clear_faults();
        world.start_again();
        world.time_is_here().await;
        let run = next_run(&world.admin(), DAILY, &known, State::Succeeded).await;
        assert_eq!(run.remaining, 0, "{run:?}");
        // Those in flight are asked about again, and none of the others.
        let asked = world.sandbox.count(Endpoint::DebugToken);
        assert!((40..=56).contains(&asked), "{asked} inspections of 40 tokens");
    }

    async fn a_new_grant_makes_all_tokens_of_its_person_due(world: World) {
        let ana = world.person("ana").with_ad_accounts(2);
        let (connector, feed) = (world.connector().await, world.viewer().await.watch_all().await);
        let first = connector.connect(ACME, &ana.long_lived_token()).await;
        let other = connector.connect("beta", &ana.long_lived_token()).await;
        ana.with_ad_accounts(1);
        connector.connect("gamma", &ana.long_lived_token()).await;
        for id in [first, other] {
            feed.first(&id, Kind::AdAccountsChanged).await;
        }
    }
}

/// A limit after 40 of 300 tokens: few more calls, an event, and no token is left out after the recovery.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_after_forty_of_three_hundred_leaves_none_out() {
    let world = World::builder(Backend::Sqlite).moving_time().start().await;
    connect_many(&world, "person", 300).await;
    breaks_down(&world, &code(400, 4, Kind::Throttled, Fixer::Nobody, "4"), 40).await;
}

/// The same with a wrong app secret, and 150 tokens.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_app_secret_costs_few_calls_and_a_new_pass_follows_its_correction() {
    let world = World::builder(Backend::Sqlite).moving_time().start().await;
    connect_many(&world, "person", 150).await;
    let row = (Trouble::WrongSecret, Kind::ProviderAlarm, Fixer::Operator, "190");
    breaks_down(&world, &row, 0).await;
}
