//! Fills a vault with more than fits into one response.

use std::time::Duration;

use futures::StreamExt;
use token_vault_tests::eventually_async;
use token_vault_tests::prelude::*;
use uuid::Uuid;

/// As many ids as one wants, of a length that is common at a provider.
pub(super) fn ids(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|at| format!("{prefix}10203040{at:07}")).collect()
}

/// Stores tokens of people of an agency, each of them limited to many targets in two scopes.
pub(super) async fn agency(world: &World, people: usize, targets: usize) -> Vec<String> {
    let connector = world.connector().await;
    let targets = ids("10", targets);
    let targets: Vec<_> = targets.iter().map(String::as_str).collect();
    let mut connections = Vec::new();
    for at in 0..people {
        let person = world.person(&format!("person {at}"));
        person.limits("ads_read", &targets).limits("ads_management", &targets);
        connections.push(connector.connect(ACME, &person.long_lived_token()).await);
    }
    connections
}

/// Writes connections into the table, each with a scope that is limited to so many targets.
pub(super) async fn plant_tokens(world: &World, targets: &[usize]) -> Vec<String> {
    let (mut planted, now) = (Vec::new(), world.sandbox.clock().now_micros());
    world.database.execute("INSERT INTO workspaces (workspace_id, created_at) VALUES ('crowd', 0)").await;
    for (at, &count) in targets.iter().enumerate() {
        let id = Uuid::now_v7().to_string();
        let (uuid, end) =
            (world.database.uuid(&id), 4_000_000_000_000_000_i64 + i64::try_from(at % 10).unwrap());
        let granular = serde_json::json!([["ads_read", ids("10", count)]]);
        let sql = format!(
            "INSERT INTO ad_platform_connections (connection_id, workspace_id, provider, app_id, subject_key,
                 subject_id, subject_name, subject_kind, token_version, secret_id, revision, kind, expires_at,
                 expiry_source, expires_sort, scopes, granular_scopes, standing, last_validated_at, next_validation_at,
                 created_at, updated_at)
             VALUES ({uuid}, 'crowd', 'meta', '1', '{id}', '{id}', 'Person', 'USER', 1, {uuid}, 1, 'LONG_LIVED_USER',
                     {end}, 'PROVIDER', {end}, '[]', '{granular}', 'LIVE', {now}, NULL, {now}, {now})"
        );
        world.database.execute(sql).await;
        planted.push(id);
    }
    planted
}

/// Writes events into the feed, each of which lists so many ad accounts.
pub(super) async fn plant_events(world: &World, connection: &str, accounts: &[usize]) {
    let uuid = world.database.uuid(connection);
    for &count in accounts {
        let body = serde_json::json!({
            "status": "ACTIVE", "expiry": ["NEVER", null], "remedy": ["NOBODY", "It changed.", "Nothing to do."],
            "incident": 0, "detail": { "changed": { "added": ids("act_", count), "removed": [] } }
        });
        let sql = format!(
            "INSERT INTO events (sequence, identity, kind, severity, workspace_id, provider, connection_id,
                                 token_version, occurred_at, recorded_at, body)
             SELECT coalesce(max(sequence), 0) + 1, 7, 'AD_ACCOUNTS_CHANGED', 1, 'acme', 'meta', {uuid}, 1, 0,
                    coalesce(max(recorded_at), 0), '{body}' FROM events"
        );
        world.database.execute(sql).await;
    }
    let last = world.database.count("SELECT max(sequence) FROM events").await;
    let filter = pb::EventFilter { kinds: vec![Kind::Revoked.into()], ..Default::default() };
    let watch = pb::WatchExpiryEventsRequest { filter: Some(filter), ..Default::default() };
    let feed = world.viewer().await.watch(watch).await.expect("a watch");
    eventually_async("the vault sees them", Duration::from_secs(60), async || {
        (feed.heartbeat().head_sequence.unsigned_abs() >= last).then_some(())
    })
    .await;
}

/// Creates keys that name a thousand workspaces each.
pub(super) async fn plant_keys(world: &World, count: usize) {
    let workspace_ids: Vec<_> = (0..1_000).map(|at| format!("{at:0>100}")).collect();
    for at in 0..count {
        let named = pb::WorkspaceList { workspace_ids: workspace_ids.clone() };
        let request = pb::CreateApiKeyRequest {
            principal: format!("service-{at}"),
            role: Role::Viewer.into(),
            workspaces: Some(pb::create_api_key_request::Workspaces::Named(named)),
            ..Default::default()
        };
        let made = world.admin().create_api_key(request).await.expect("a thousand workspaces are allowed");
        world.know("a key", token_vault_tests::secret_part(&made.key));
    }
}

/// Creates connect links with long return URLs.
pub(super) async fn plant_links(world: &World, count: usize) {
    let admin = world.admin();
    let mut made = futures::stream::iter(0..count)
        .map(|at| {
            let query = format!("{at}{}", "x".repeat(2_000));
            let request = pb::CreateConnectLinkRequest {
                workspace_id: ACME.into(),
                return_url: format!("https://app.example/settings?of={query}"),
                ..Default::default()
            };
            let admin = admin.clone();
            async move { admin.link_with(request).await.expect("a link is made") }
        })
        .buffer_unordered(8);
    while made.next().await.is_some() {}
}

/// Writes many workspaces, runs and subscriptions into their tables, with long texts.
pub(super) async fn plant_rows(world: &World) {
    let (series, text, json) = match world.database.backend() {
        Backend::Sqlite => (
            "WITH RECURSIVE s(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s WHERE n < 999)",
            "printf('%04d', n)",
            "json_array(printf('%.*c', 3000, 'x'))",
        ),
        Backend::Postgres => (
            "WITH s AS (SELECT n::bigint FROM generate_series(0, 999) n)",
            "lpad(n::text, 4, '0')",
            "jsonb_build_array(repeat('x', 3000))",
        ),
    };
    let id = match world.database.backend() {
        Backend::Sqlite => format!("unhex('019000000000700080000000' || '0000' || {text})"),
        Backend::Postgres => format!("('019000000000700080000000' || '0000' || {text})::uuid"),
    };
    let long = "x".repeat(9_000);
    let sql = format!(
        "INSERT INTO workspaces (workspace_id, display_name, alert_emails, created_at)
         {series} SELECT 'ws-' || {text}, 'Workspace', {json}, 0 FROM s;
         INSERT INTO job_runs (run_id, job, cause, state, scheduled_for, error, incarnation, generation, replica,
                               started_at, ended_at)
         {series} SELECT {id}, 'policy-change', 'REQUEST', 'FAILED', 0, '{long}', {id}, 1, 'vault', 0, 4000000000000000
           FROM s;
         INSERT INTO subscriptions (principal, name, epoch, sequence, identity, acknowledged_at, created_at)
         {series} SELECT 'service-' || {text}, 'bookmark-' || {text}, {id}, 0, 0, 0, 0 FROM s"
    );
    world.database.execute(sql).await;
}

/// Adds ad accounts to a connection, each with long names. The first one is [`PLANTED`](super::walk::PLANTED).
pub(super) async fn plant_ad_accounts(world: &World, connection: &str, count: usize) {
    let (id, long) = (world.database.uuid(connection), "x".repeat(200));
    let (series, number) = match world.database.backend() {
        Backend::Sqlite => (
            format!(
                "WITH RECURSIVE s(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s WHERE n < {})",
                count - 1
            ),
            "printf('%05d', n)",
        ),
        Backend::Postgres => (
            format!("WITH s AS (SELECT n FROM generate_series(0, {}) n)", count - 1),
            "lpad(n::text, 5, '0')",
        ),
    };
    let sql = format!(
        "INSERT INTO connection_ad_accounts (connection_id, ad_account_id, name, currency, time_zone, state, provider_state,
                                             owner_id, owner_name, last_reachable_at, unreachable_since, checked_at)
         {series} SELECT {id}, 'act_planted_' || {number}, '{long}', 'EUR', 'Europe/Berlin', 'ACTIVE', '1', '17', '{long}',
                         1, NULL, 1 FROM s"
    );
    assert_eq!(world.database.execute(sql).await, count as u64);
}
