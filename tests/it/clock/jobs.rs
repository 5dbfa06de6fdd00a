//! Jobs and their runs, and what a vault catches up on after it was down.

use std::time::Duration;

use token_vault_proto::v1::expiry_event::Detail;
use token_vault_proto::v1::job_run::State;
use token_vault_proto::v1::provider_status::Circuit;
use token_vault_proto::v1::watch_expiry_events_request::{From as StartFrom, Start};
use token_vault_proto::v1::{self, Severity, WatchExpiryEventsRequest as Watch};
use token_vault_tests::eventually_async;
use token_vault_tests::prelude::*;

const DAY: Duration = Duration::from_secs(86_400);
const LIMIT: Duration = Duration::from_secs(60);
const DAILY: &str = "meta-token-expiry";

/// Waits for one more run of a job to end, after the `after` runs that it already had.
async fn next_run(admin: &Caller, job: &str, after: usize) -> pb::JobRun {
    eventually_async(&format!("run {} of {job}", after + 1), LIMIT, async || {
        let mut runs = admin.runs(job).await;
        runs.reverse();
        runs.into_iter().nth(after).filter(|run| run.ended_at.is_some())
    })
    .await
}

fn threshold_days(event: &pb::ExpiryEvent) -> i64 {
    match &event.detail {
        Some(Detail::Expiring(expiring)) => expiring.threshold.expect("it tells which").seconds / 86_400,
        other => panic!("no warning: {other:?}"),
    }
}

async fn status(world: &World) -> pb::GetVaultStatusResponse {
    world.admin().get_vault_status(pb::GetVaultStatusRequest {}).await.expect("the admin may ask")
}

on_both_databases! {
    with |builder| builder.moving_time();

    async fn jobs_are_listed_and_run_on_demand(world: World) {
        let admin = world.admin();
        let jobs = admin.list_jobs(pb::ListJobsRequest {}).await.unwrap().jobs;
        let names: Vec<_> = jobs.iter().map(|job| job.name.as_str()).collect();
        for name in [DAILY, "rotation", "expiry-deadlines", "event-retention", "housekeeping"] {
            let job = jobs.iter().find(|job| job.name == name).unwrap_or_else(|| panic!("{name} in {names:?}"));
            assert!(job.next_run_at.is_some() && job.cron.split(' ').count() == 6, "{job:?}");
            assert_eq!(admin.run(name).await.state(), State::Succeeded, "{name}");
        }
        let limited = world.caller(Role::Admin, &[ACME]).await;
        let everywhere = pb::RunJobRequest { job: DAILY.into(), ..Default::default() };
        limited.run_job(everywhere).await.unwrap_err().is(Code::PermissionDenied, Reason::RoleInsufficient);
        let wrong = pb::RunJobRequest { job: "nightly".into(), ..Default::default() };
        admin.run_job(wrong).await.unwrap_err().is(Code::NotFound, Reason::JobNotFound).says("job", "nightly");
        let once = pb::RunJobRequest { job: DAILY.into(), request_id: "once".into() };
        let first = admin.run_job(once.clone()).await.unwrap().run.unwrap();
        assert_eq!(admin.run_job(once).await.unwrap().run.unwrap().run_id, first.run_id, "a repeat runs nothing");
    }

    async fn the_daily_pass_runs_in_its_slot_and_finds_what_nobody_reported(world: World) {
        let (ana, ben) = (world.person("ana"), world.person("ben").with_ad_accounts(2));
        let (connector, feed) = (world.connector().await, world.viewer().await.watch_all().await);
        let (hers, his) = (
            connector.connect(ACME, &ana.long_lived_token()).await,
            connector.connect(ACME, &ben.long_lived_token()).await,
        );
        let admin = world.admin();
        let before = admin.runs(DAILY).await.len();
        assert_eq!(before, 0, "no slot from before the vault was founded is run");
        ana.changes_password();
        ben.with_ad_accounts(1);
        world.advance(DAY).await;
        let run = next_run(&admin, DAILY, 0).await;
        assert_eq!((run.state(), run.done, run.total, run.failed), (State::Succeeded, 2, 2, 0));
        assert_eq!(run.scheduled_for.unwrap().seconds % 86_400, 6 * 3_600, "its slot is at six");
        let died = feed.first(&hers, Kind::Invalidated).await;
        assert_eq!((died.severity(), died.usable), (Severity::Critical, false));
        let Some(Detail::Died(died)) = died.detail else { panic!("{died:?}") };
        assert!(died.last_known_good.unwrap().seconds <= died.first_known_bad.unwrap().seconds - 80_000);
        assert_eq!(feed.first(&his, Kind::AdAccountsChanged).await.severity(), Severity::Warning);
        let logs = world.logs();
        assert!(logs.contains("token checked") && logs.contains("days_left"), "a line for each");
        assert!(logs.contains("every token was checked"), "and a summary");

        // A token behind a checkpoint works again once the person has passed it.
        ben.hits_checkpoint();
        world.advance(DAY).await;
        feed.first(&his, Kind::Invalidated).await;
        next_run(&admin, DAILY, 1).await;
        ben.heals();
        world.advance(DAY).await;
        let restored = feed.first(&his, Kind::Restored).await;
        assert_eq!((restored.token_version, restored.usable), (1, true));
    }

    async fn a_row_that_was_damaged_holds_up_no_other(world: World) {
        let (ana, ben) = (world.person("ana"), world.person("ben"));
        let (connector, feed) = (world.connector().await, world.viewer().await.watch_all().await);
        let hers = connector.connect(ACME, &ana.long_lived_token()).await;
        let his = connector.connect(ACME, &ben.long_lived_token()).await;
        let damage = format!("UPDATE ad_platform_connections SET token_version = 0 WHERE connection_id = {}", world.database.uuid(&hers));
        world.database.execute(damage).await;
        ben.changes_password();
        world.advance(DAY).await;
        let run = next_run(&world.admin(), DAILY, 0).await;
        assert_eq!((run.state(), run.done, run.total, run.failed), (State::Incomplete, 2, 2, 1));
        assert_eq!(run.remaining, 1, "it stays due");
        feed.first(&his, Kind::Invalidated).await;
        assert!(world.logs().contains("a connection's row can't be read"), "and the operator is told which");
    }

    async fn a_clock_that_is_set_back_an_hour_says_nothing_twice_and_takes_nothing_back(world: World) {
        let (connector, feed) = (world.connector().await, world.viewer().await.watch_all().await);
        let life = Duration::from_secs(7 * 86_400 + 1_800);
        let hers = connector.connect(ACME, &world.person("ana").long_lived_token_with_life(life)).await;
        world.advance(Duration::from_secs(3_600)).await;
        let warned = feed.first(&hers, Kind::Expiring).await;
        let before = world.sandbox.clock().now();
        world.sandbox.clock().set(before - 3_600);
        eventually_async("the vault's clock is back", LIMIT, async || {
            let time = status(&world).await.server_time.expect("a status tells the time");
            (time.seconds < before - 1_800).then_some(())
        })
        .await;
        assert!(world.ingestion().await.fetch(&hers).await.is_ok(), "custody goes on");
        let his = connector.connect(ACME, &world.person("ben").long_lived_token()).await;
        let born = feed.first(&his, Kind::Connected).await;
        let micros = |at: Option<prost_types::Timestamp>| at.map(|at| (at.seconds, at.nanos)).expect("a time");
        assert!(micros(born.recorded_at) >= micros(warned.recorded_at), "recorded_at never decreases");
        world.advance(Duration::from_secs(7_200)).await;
        assert_eq!(feed.kinds_of(&hers), [Kind::Connected, Kind::Expiring], "one warning");
        let output = world.launch().env("TOKEN_VAULT__LOG__LEVEL", "warn").instead(["audit", "verify"]).run();
        assert_eq!(output.code, Some(0), "{output:?}");
    }

    async fn a_vault_that_was_down_for_days_makes_up_once(world: World) {
        let connector = world.connector().await;
        let life = |days: u64| Duration::from_secs(days * 86_400 + 3_600);
        let close = world.person("ana").long_lived_token_with_life(life(10));
        let dying = world.person("ben").long_lived_token_with_life(life(9));
        let (hers, his) = (connector.connect(ACME, &close).await, connector.connect(ACME, &dying).await);
        let ends = world.sandbox.expiry_of(&dying).unwrap();
        world.stop();
        world.sandbox.clock().advance(Duration::from_secs(9 * 86_400 + 7_200));
        world.start_again();
        world.time_is_here().await;
        let feed = world.viewer().await.watch_all().await;
        let expired = feed.first(&his, Kind::Expired).await;
        assert_eq!(expired.occurred_at.unwrap().seconds, ends, "the true moment");
        assert!(expired.recorded_at.unwrap().seconds > ends + 3_000, "told when the vault was back");
        assert_eq!(feed.kinds_of(&his), [Kind::Connected, Kind::Expired], "no warning about what is over");
        let warned = feed.first(&hers, Kind::Expiring).await;
        assert_eq!((threshold_days(&warned), warned.severity()), (1, Severity::Critical));
        let run = next_run(&world.admin(), DAILY, 0).await;
        assert!(run.catch_up && run.state() == State::Succeeded, "{run:?}");
        feed.caught_up().await;
        let warnings = feed.kinds_of(&hers).into_iter().filter(|kind| *kind == Kind::Expiring);
        assert_eq!(warnings.count(), 1, "only the tightest");
        assert_eq!(world.admin().runs(DAILY).await.len(), 1, "one run for all that was missed");
    }

    async fn a_run_says_that_it_makes_up_for_a_downtime_of_seconds(world: World) {
        world.connector().await.connect(ACME, &world.person("ana").token_never()).await;
        let clock = world.sandbox.clock();
        let next_six = |after: i64| (after - 6 * 3_600).div_euclid(86_400) * 86_400 + 86_400 + 6 * 3_600;
        let run_of = async |slot: i64| {
            let admin = world.admin();
            eventually_async(&format!("the run of slot {slot}"), LIMIT, async || {
                let runs = admin.runs(DAILY).await.into_iter();
                runs.into_iter().find(|run| run.scheduled_for.is_some_and(|at| at.seconds == slot))
            })
            .await
        };
        let first = next_six(clock.now());
        clock.set(first - 2);
        world.time_is_here().await;
        assert!(!run_of(first).await.catch_up, "the vault ran when its time came");

        let second = first + 86_400;
        world.stop();
        clock.set(second + 10);
        world.start_again();
        let run = run_of(second).await;
        assert!(run.catch_up && run.started_at.unwrap().seconds >= second + 10, "{run:?}");
        // A killed process leaves a row behind that says it lives.
        world.kill();
        clock.set(second + 86_400 + 10);
        world.start_again();
        assert!(run_of(second + 86_400).await.catch_up);
    }

    async fn warnings_come_at_each_threshold_and_at_the_end(world: World) {
        let token = world.person("ana").long_lived_token_with_life(20 * DAY);
        let feed = world.viewer().await.watch_all().await;
        let id = world.connector().await.connect(ACME, &token).await;
        world.sandbox.set_mood(token_vault_sandbox::ExchangeMood::SameExpiry);
        let end = world.sandbox.expiry_of(&token).unwrap();
        for (days, expected) in [(14, 7), (3, 3), (2, 1)] {
            world.advance(days * DAY).await;
            let event = feed
                .until(&format!("the warning of {expected} days"), |all| {
                    let mut mine = all.iter().filter(|e| e.connection_id == id && e.kind() == Kind::Expiring);
                    mine.next_back().filter(|event| threshold_days(event) == expected).cloned()
                })
                .await;
            assert_eq!(event.occurred_at.unwrap().seconds, end - expected * 86_400);
            let worst = if expected == 1 { Severity::Critical } else { Severity::Warning };
            assert_eq!((event.severity(), event.usable), (worst, true));
        }
        world.advance(DAY).await;
        assert_eq!(feed.first(&id, Kind::Expired).await.occurred_at.unwrap().seconds, end);
        // A new token of the person settles every open event.
        let open: Vec<_> = feed.of(&id).iter().filter(|e| e.severity() > Severity::Info).map(|e| e.sequence).collect();
        world.connector().await.connect(ACME, &world.person("ana").long_lived_token()).await;
        let mut closes = feed.first(&id, Kind::Restored).await.closes;
        closes.sort_unstable();
        assert_eq!(closes, open);
    }

    async fn history_is_kept_for_its_time_and_a_position_before_it_says_so(world: World) {
        let (connector, viewer) = (world.connector().await, world.viewer().await);
        let feed = viewer.watch_all().await;
        let id = connector.connect(ACME, &world.person("ana").token_never()).await;
        let first = feed.first(&id, Kind::Connected).await;
        connector.revoke(&id).await.unwrap();
        let second = feed.first(&id, Kind::Revoked).await;
        world.advance(91 * DAY).await;
        let other = connector.connect(ACME, &world.person("ben").token_never()).await;
        world.admin().run("event-retention").await;
        let shown = status(&world).await;
        assert_eq!((shown.oldest_sequence, shown.head_sequence), (3, 3));
        let refused = viewer.watch_after(&first.cursor).await;
        let refused = match refused {
            Err(refused) => refused,
            Ok(feed) => feed.ended().await.expect("a position that is gone"),
        };
        refused.is(Code::OutOfRange, Reason::EventsCompacted).says("oldest_sequence", "3");
        let kept = viewer.watch_after(&second.cursor).await.expect("just before the oldest is kept");
        assert_eq!(kept.first(&other, Kind::Connected).await.sequence, 3);
        let earliest = Watch { start: Some(Start::From(StartFrom::Earliest.into())), ..Default::default() };
        let earliest = viewer.watch(earliest).await.unwrap();
        assert_eq!(earliest.first(&other, Kind::Connected).await.sequence, 3);
        assert_eq!(viewer.watch_snapshot().await.snapshot().await.len(), 1, "the way out");
        world.admin().run("event-retention").await;
        assert_eq!(status(&world).await.head_sequence, 3, "the last one stays");
        connector.revoke(&other).await.unwrap();
        assert_eq!(kept.first(&other, Kind::Revoked).await.sequence, 4, "numbers go on");
    }

    async fn a_new_threshold_that_has_passed_is_not_told_and_the_next_one_is(world: World) {
        let token = world.person("ana").long_lived_token_with_life(10 * DAY);
        world.sandbox.set_mood(token_vault_sandbox::ExchangeMood::SameExpiry);
        let id = world.connector().await.connect(ACME, &token).await;
        world.stop();
        let changed = world.launch().env("TOKEN_VAULT__EXPIRY__THRESHOLDS", r#"["14d", "6d"]"#);
        world.try_start_as(&changed).expect("it starts with another policy");
        let run = next_run(&world.admin(), "policy-change", 0).await;
        assert_eq!((run.state(), run.done), (State::Succeeded, 1));
        let feed = world.viewer().await.watch_all().await;
        world.advance(DAY).await;
        feed.caught_up().await;
        assert_eq!(feed.kinds_of(&id), [Kind::Connected], "14 days had passed before there was such a warning");
        world.advance(3 * DAY).await;
        assert_eq!(threshold_days(&feed.first(&id, Kind::Expiring).await), 6);
    }

    async fn a_provider_that_is_down_is_an_alarm_and_not_a_death(world: World) {
        let (connector, ingestion) = (world.connector().await, world.ingestion().await);
        let feed = world.viewer().await.watch_all().await;
        let id = connector.connect(ACME, &world.person("ana").long_lived_token()).await;
        world.sandbox.fault(Fault::on(Endpoint::Any).always().with(FaultKind::error(500, 2)));
        let alarm = eventually_async("the alarm", LIMIT, async || {
            connector.validate(&id).await.expect("it is there");
            feed.events().into_iter().find(|event| event.kind() == Kind::ProviderAlarm)
        })
        .await;
        assert_eq!((alarm.severity(), alarm.connection_id.as_str()), (Severity::Critical, ""));
        let provider = status(&world).await.providers.remove(0);
        assert_eq!(provider.circuit(), Circuit::Open);
        assert_eq!(provider.problems.len(), 1);
        assert!(ingestion.fetch(&id).await.is_ok(), "custody goes on");
        let refused = connector.store(ACME, &world.person("ben").long_lived_token()).await.unwrap_err();
        refused.is(Code::Unavailable, Reason::ProviderUnavailable);
        world.advance(DAY).await;
        world.sandbox.clear_faults();
        let recovered = feed
            .until("the recovery", |all| all.iter().find(|e| e.kind() == Kind::ProviderRecovered).cloned())
            .await;
        assert_eq!(recovered.closes, [alarm.sequence]);
        assert!(connector.store(ACME, &world.person("ben").long_lived_token()).await.is_ok());
        // The sweep that waited continues.
        assert_eq!(next_run(&world.admin(), DAILY, 0).await.failed, 0);
        assert_eq!(feed.kinds_of(&id), [Kind::Connected], "nobody died");
    }

    async fn a_wrong_app_secret_alarms_the_operator_and_blames_no_token(world: World) {
        let feed = world.viewer().await.watch_all().await;
        let id = world.connector().await.connect(ACME, &world.person("ana").long_lived_token()).await;
        world.sandbox.roll_app_secret(&world.sandbox.app().id, "another-secret-of-the-app-000000");
        world.connector().await.validate(&id).await.unwrap();
        let alarm = feed
            .until("the alarm", |all| all.iter().find(|e| e.kind() == Kind::ProviderAlarm).cloned())
            .await;
        assert_eq!(alarm.remedy.unwrap().fixer(), v1::Fixer::Operator);
        assert_eq!(status(&world).await.providers[0].circuit(), Circuit::Closed);
        assert_eq!(feed.kinds_of(&id), [Kind::Connected]);
    }

    async fn too_many_deaths_at_once_are_not_believed_for_a_while(world: World) {
        let (connector, ingestion) = (world.connector().await, world.ingestion().await);
        let feed = world.viewer().await.watch_all().await;
        let mut people = Vec::new();
        for n in 0..26 {
            let person = world.person(&format!("person-{n}"));
            let id = connector.connect(ACME, &person.long_lived_token()).await;
            people.push((person, id));
        }
        people.iter().for_each(|(person, _)| person.changes_password());
        let body = r#"{"error":{"message":"x","type":"OAuthException","code":190,"error_subcode":460}}"#;
        let mut verdicts = Vec::new();
        for (_, id) in &people {
            verdicts.push(ingestion.report(id, 1, 400, body).await.unwrap().verdict());
        }
        use token_vault_proto::v1::report_token_error_response::Verdict;
        assert!(verdicts[..20].iter().all(|verdict| *verdict == Verdict::Invalidated), "{verdicts:?}");
        assert!(verdicts[20..].iter().all(|verdict| *verdict == Verdict::Unconfirmed), "{verdicts:?}");
        let alarms = |all: &[pb::ExpiryEvent]| all.iter().filter(|e| e.kind() == Kind::ProviderAlarm).count();
        feed.until("the alarm", |all| (alarms(all) == 1).then_some(())).await;
        assert!(ingestion.fetch(&people[25].1).await.is_ok(), "it is handed out until it is certain");
        world.advance(Duration::from_secs(16 * 60)).await;
        let again = ingestion.report(&people[25].1, 1, 400, body).await.unwrap();
        assert_eq!(again.verdict(), Verdict::Invalidated, "confirmed again, it is believed");
        feed.until("it is over", |all| all.iter().find(|e| e.kind() == Kind::ProviderRecovered).cloned()).await;
        assert_eq!(alarms(&feed.caught_up().await), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_runs_once_across_replicas_and_status_knows_them() {
    let world = World::builder(Backend::Postgres).moving_time().start().await;
    let id = world.connector().await.connect(ACME, &world.person("ana").long_lived_token()).await;
    let others = [world.replica(), world.replica()];
    world.advance(DAY).await;
    let run = next_run(&world.admin(), DAILY, 0).await;
    assert_eq!((run.state(), run.done), (State::Succeeded, 1));
    for other in &others {
        let admin = world.admin_of(other);
        assert_eq!(admin.runs(DAILY).await.len(), 1);
        let status = admin.get_vault_status(pb::GetVaultStatusRequest {}).await.unwrap();
        assert_eq!(status.replicas.len(), 3, "{status:?}");
        assert_eq!(status.replicas.iter().filter(|replica| replica.this_one).count(), 1);
    }
    assert!(world.viewer().await.get(&id).await.unwrap().last_validated_at.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_lies_is_told_and_settled_when_it_is_done() {
    let world = World::builder(Backend::Sqlite)
        .moving_time()
        .config("jobs.rotation", "off")
        .config("jobs.meta_token_expiry", "off")
        .config("jobs.overdue_after", "1s")
        .start()
        .await;
    let feed = world.viewer().await.watch_all().await;
    let id = world.connector().await.connect(ACME, &world.person("ana").long_lived_token()).await;
    world.sandbox.set_mood(token_vault_sandbox::ExchangeMood::SameExpiry);
    world.advance(43 * DAY).await;
    let overdue = feed.first(&id, Kind::Overdue).await;
    assert_eq!(overdue.severity(), Severity::Critical);
    assert_eq!(status(&world).await.overdue_tokens, 1);
    let viewer = world.viewer().await;
    let token = viewer.get(&id).await.unwrap();
    assert_eq!((token.problems[0].reason(), &token.problems[0].remedy), (Reason::Overdue, &overdue.remedy));
    assert_eq!(token.badge.unwrap().color(), pb::token::badge::Color::Amber);
    world.admin().run("rotation").await;
    let settled = feed.first(&id, Kind::DeadlinesChanged).await;
    assert_eq!(settled.closes, [overdue.sequence]);
    assert_eq!(status(&world).await.overdue_tokens, 0);
    let problems = viewer.get(&id).await.unwrap().problems;
    assert!(problems.iter().all(|problem| problem.reason() != Reason::Overdue), "{problems:#?}");
}
