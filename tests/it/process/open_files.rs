//! The limit of open files: raised as far as the system allows, and told where that is not enough.

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use token_vault_tests::prelude::*;

/// Files that the vault keeps for itself, and the fewest connections that it starts with.
const OWN: u64 = 256;
const FEWEST: u64 = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_soft_limit_is_raised_to_the_hard_one() {
    let world =
        World::builder(Backend::Sqlite).config("server.limits.max_connections", "400").prepare().await;
    world.try_start_as(&world.launch().open_files(256, 1_024)).expect("the hard limit is high enough");
    let pid = Pid::from_raw(i32::try_from(world.process(|process| process.id())).unwrap());
    // Setting the limit that it has returns it.
    let limit = Rlimit { current: Some(1_024), maximum: Some(1_024) };
    let found = prlimit(pid, Resource::Nofile, limit).expect("the process is ours");
    assert_eq!((found.current, found.maximum), (Some(1_024), Some(1_024)));
    assert!(!world.logs().contains("open files"), "there is room for 400 connections");
    let (admin, endpoint) = (world.admin(), world.endpoint());
    let mut open = Vec::new();
    for _ in 0..300 {
        let caller = admin.clone().through(World::channel_to(&endpoint));
        caller.list().await.expect("everybody is served");
        open.push(caller);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_few_open_files_are_refused_with_the_number_that_is_needed() {
    let world = World::builder(Backend::Sqlite).prepare().await;
    for (limit, connections, least) in
        [(256, "16384", 320), (OWN + FEWEST - 1, "16384", 320), (270, "40", 296)]
    {
        let launch = world.launch().env("TOKEN_VAULT__SERVER__LIMITS__MAX_CONNECTIONS", connections);
        let refused = launch.open_files(limit, limit).serve(world.folder(), "refused").expect_err("too few");
        assert_eq!(refused.code, Some(1), "{refused:?}");
        let all = OWN + connections.parse::<u64>().unwrap();
        for words in [
            format!("at most {limit} open files are allowed"),
            format!("at least {least} are needed"),
            format!("{all} for server.limits.max_connections"),
            "LimitNOFILE=".to_owned(),
        ] {
            assert!(refused.stderr.contains(&words), "{words} is missing: {}", refused.stderr);
        }
    }
    assert!(!world.data().exists(), "nothing was made");
}

async fn serves_with_the_fewest(backend: Backend) {
    let world = World::builder(backend).prepare().await;
    world.try_start_as(&world.launch().open_files(OWN + FEWEST, OWN + FEWEST)).expect("this is just enough");
    let logs = world.logs();
    assert!(logs.contains("room for 64 connections: 16640 are needed"), "{logs}");
    let (admin, endpoint) = (world.admin(), world.endpoint());
    let mut open = Vec::new();
    // The admin's own connection is one of them.
    for number in 1..FEWEST {
        let caller = admin.clone().through(World::channel_to(&endpoint));
        if number % 8 == 0 {
            caller.connect(ACME, &world.person(&format!("person-{number}")).long_lived_token()).await;
        }
        caller.list().await.expect("everybody is served");
        open.push(caller);
    }
    for caller in &open {
        assert!(!caller.list().await.expect("everybody is served").tokens.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_fewest_open_files_everybody_is_served() {
    serves_with_the_fewest(Backend::Sqlite).await;
    serves_with_the_fewest(Backend::Postgres).await;
}
