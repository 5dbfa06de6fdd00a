//! Time as an input: every process of the vault follows the sandbox's clock if it is configured to.

use std::time::{Duration, Instant};

use token_vault_tests::Process;
use token_vault_tests::prelude::*;

const DAY: Duration = Duration::from_secs(86_400);

async fn server_time(admin: &Caller) -> i64 {
    let status = admin.get_vault_status(pb::GetVaultStatusRequest {}).await.expect("the admin may ask");
    status.server_time.expect("a status tells the time").seconds
}

async fn status(caller: &Caller, connection: &str) -> pb::token::Status {
    caller.get(connection).await.expect("it is there").status()
}

on_both_databases! {
    // A token that the vault renews by itself does not age.
    with |builder| builder.moving_time().config("rotation.enabled", "false");

    async fn a_token_ages_as_fast_as_time_is_moved(world: World) {
        let connector = world.connector().await;
        let id = connector.connect(ACME, &world.person("ana").long_lived_token()).await;
        assert_eq!(status(&connector, &id).await, pb::token::Status::Active);
        world.advance(54 * DAY).await;
        assert_eq!(status(&connector, &id).await, pb::token::Status::Expiring);
        assert!(world.ingestion().await.fetch(&id).await.is_ok());
        world.advance(7 * DAY).await;
        assert_eq!(status(&connector, &id).await, pb::token::Status::Expired);
        let refused = world.ingestion().await.fetch(&id).await.expect_err("its end has passed");
        refused.is(Code::FailedPrecondition, Reason::TokenExpired);
        assert!(world.logs().contains("never in production"), "a warning stands in the log");
    }

    async fn time_is_the_sandboxs_from_the_start_and_while_it_stands(world: World) {
        world.sandbox.clock().set(1_763_859_600);
        world.sandbox.clock().freeze();
        world.restart();
        let admin = world.admin();
        assert_eq!(server_time(&admin).await, 1_763_859_600);
        world.advance(Duration::from_micros(1)).await;
        world.advance(DAY).await;
        assert_eq!(server_time(&admin).await, 1_763_859_600 + 86_400);
        world.sandbox.clock().run_at(86_400);
        let start = Instant::now();
        while server_time(&admin).await < 1_763_859_600 + 3 * 86_400 {
            assert!(start.elapsed() < Duration::from_secs(20), "two days take two seconds");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_moves_in_every_process_that_runs() {
    let world = World::builder(Backend::Postgres).moving_time().config("log.level", "info").start().await;
    let (stays, dies) = (world.replica(), world.replica());
    dies.kill();
    world.sandbox.clock().freeze();
    world.advance(30 * DAY).await;
    let now = world.sandbox.clock().now();
    assert_eq!(server_time(&world.admin()).await, now);
    assert_eq!(server_time(&world.admin().at(&stays)).await, now);

    world.kill();
    world.advance(DAY).await;
    assert_eq!(server_time(&world.admin_of(&stays)).await, now + 86_400, "also without the first one");
    let mut stays = stays;
    stays.terminate();
    assert_eq!(Process::wait(&mut stays).code(), Some(0));
    world.start_again();
    assert_eq!(server_time(&world.admin()).await, now + 86_400);
}
