//! ListTokens over a hundred thousand connections: complete, exact, and as cheap at the end as at the start.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use serde_json::Value;
use sqlx::{AssertSqlSafe, Row};
use token_vault_proto::v1::list_tokens_request::Order;
use token_vault_proto::v1::token::Status;
use token_vault_tests::prelude::*;
use token_vault_tests::{Database, days, eventually_async, shared_cluster};

const COUNT: i64 = 100_000;
const DAY: i64 = 86_400;
/// Connections of one ad account.
const OF_ACCOUNT: i64 = 100;
const ACCOUNT: &str = "act_4711000815";

/// The planted connection number `n`. `SQL` says the same to the database.
struct Planted(i64);

impl Planted {
    fn workspace(&self) -> String {
        format!("ws-{}", self.0 / 10 % 20)
    }

    fn subject(&self) -> String {
        (self.0 % 49_999).to_string()
    }

    /// Seconds from now to the end; `None` where there is none, or none is known.
    fn life_left(&self) -> Option<i64> {
        let spread = self.0 * 7_919 % 100_003;
        match self.0 % 7 {
            0 | 1 => None,
            2 => Some(-DAY - spread),
            3 => Some(DAY + self.0 % 2 * 3 * DAY + spread),
            _ => Some(30 * DAY + spread),
        }
    }

    fn status(&self) -> Status {
        match (self.0 % 10, self.life_left()) {
            (0, _) => Status::Invalid,
            (1, _) => Status::Revoked,
            (_, Some(left)) if left <= 0 => Status::Expired,
            (_, Some(left)) if left <= 7 * DAY => Status::Expiring,
            _ => Status::Active,
        }
    }

    fn reaches_account(&self) -> bool {
        self.0 % (COUNT / OF_ACCOUNT) == 5
    }

    fn id(&self) -> String {
        format!("01900000-0000-7000-8000-{:012x}", self.0)
    }

    fn of(id: &str) -> i64 {
        i64::from_str_radix(&id[24..], 16).expect("a planted id")
    }
}

/// Inserts them all, straight into the tables.
async fn plant(database: &Database, now: i64) {
    let (series, id, analyze) = match database.backend() {
        Backend::Sqlite => (
            "WITH RECURSIVE s(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s WHERE n < 99999)",
            "unhex('01900000000070008000' || printf('%012x', n))",
            "",
        ),
        Backend::Postgres => (
            "WITH s AS (SELECT n::bigint FROM generate_series(0, 99999) n)",
            "('01900000000070008000' || lpad(to_hex(n), 12, '0'))::uuid",
            "ANALYZE",
        ),
    };
    let sql = format!(
        "INSERT INTO workspaces (workspace_id, created_at)
         {series} SELECT 'ws-' || n, 0 FROM s WHERE n < 20;
         INSERT INTO ad_platform_connections (connection_id, workspace_id, provider, app_id, subject_key, subject_id,
             subject_name, subject_kind, token_version, secret_id, revision, kind, expires_at, expiry_source,
             expires_sort, scopes, granular_scopes, standing, standing_since, standing_reason, created_at, updated_at)
         {series}, e AS (
             SELECT n, {now} + CASE n % 7 WHEN 2 THEN -{DAY} - n * 7919 % 100003
                                          WHEN 3 THEN {DAY} + n % 2 * 3 * {DAY} + n * 7919 % 100003
                                          ELSE 30 * {DAY} + n * 7919 % 100003 END AS ends FROM s)
         SELECT {id}, 'ws-' || (n / 10 % 20), 'meta', '1', n, n % 49999, 'Person ' || n, 'USER', 1, {id}, 1,
                'LONG_LIVED_USER', CASE WHEN n % 7 > 1 THEN ends * 1000000 END,
                CASE n % 7 WHEN 0 THEN 'NEVER' WHEN 1 THEN 'UNKNOWN' ELSE 'PROVIDER' END,
                CASE n % 7 WHEN 0 THEN 9223372036854775807 WHEN 1 THEN 0 ELSE ends * 1000000 END, '[]', '[]',
                CASE n % 10 WHEN 0 THEN 'INVALID' WHEN 1 THEN 'REVOKED' ELSE 'LIVE' END,
                CASE WHEN n % 10 < 2 THEN {now}000000 END, CASE n % 10 WHEN 0 THEN 'EXPIRED' ELSE '' END, 0, 0
           FROM e;
         INSERT INTO connection_ad_accounts (connection_id, ad_account_id, name, currency, time_zone, state,
             provider_state, owner_id, owner_name, checked_at)
         {series} SELECT {id}, '{ACCOUNT}', '', 'EUR', 'UTC', 'ACTIVE', '1', '', '', 0 FROM s
           WHERE n % ({COUNT} / {OF_ACCOUNT}) = 5;
         {analyze}"
    );
    database.execute(sql).await;
    assert_eq!(database.count("SELECT count(*) FROM ad_platform_connections").await, COUNT.unsigned_abs());
}

async fn planted(world: &World) -> Caller {
    plant(&world.database, world.sandbox.clock().now()).await;
    world.viewer().await
}

/// Every page, one after the other.
async fn pages(caller: &Caller, query: &pb::ListTokensRequest) -> Vec<pb::ListTokensResponse> {
    let mut all = Vec::new();
    let mut query = query.clone();
    loop {
        let page = caller.list_tokens(query.clone()).await.expect("a page");
        query.page_token.clone_from(&page.next_page_token);
        all.push(page);
        if query.page_token.is_empty() {
            return all;
        }
        assert!(all.len() <= 1_000, "it never ends");
    }
}

fn numbers(pages: &[pb::ListTokensResponse]) -> Vec<i64> {
    pages.iter().flat_map(|page| &page.tokens).map(|token| Planted::of(&token.connection_id)).collect()
}

fn query(page_size: i32) -> pb::ListTokensRequest {
    pb::ListTokensRequest { page_size, ..Default::default() }
}

fn end(token: &pb::Token) -> Option<i64> {
    Some(token.expiry.as_ref()?.at.as_ref()?.seconds)
}

fn all_that(wanted: impl Fn(&Planted) -> bool) -> Vec<i64> {
    (0..COUNT).filter(|&n| wanted(&Planted(n))).collect()
}

on_both_databases! {
    async fn pages_find_every_connection_exactly_once_in_order(world: World) {
        let viewer = planted(&world).await;
        let not_revoked = all_that(|row| row.status() != Status::Revoked);
        let told = pages(&viewer, &query(1_000)).await;
        assert!(told.iter().rev().skip(1).all(|page| page.tokens.len() == 1_000), "pages are full");
        assert!(told.windows(2).all(|two| (&two[0].as_of, &two[0].cursor) == (&two[1].as_of, &two[1].cursor)));
        let ends: Vec<_> = told.iter().flat_map(|page| &page.tokens).filter_map(end).collect();
        assert!(ends.is_sorted(), "the next to end comes first");
        let mut found = numbers(&told);
        found.sort_unstable();
        assert_eq!(found, not_revoked);
        for order in [Order::CreatedFirst, Order::CreatedLast] {
            let mut found = numbers(&pages(&viewer, &pb::ListTokensRequest { order: order.into(), ..query(1_000) }).await);
            if order == Order::CreatedLast {
                found.reverse();
            }
            assert_eq!(found, not_revoked, "{order:?}");
        }
    }

    async fn connections_that_change_between_pages_neither_hide_nor_repeat_others(world: World) {
        let viewer = planted(&world).await;
        let now = world.sandbox.clock().now();
        let touched = |n: i64| n % 97 == 3 && !Planted(n).reaches_account();
        for order in [Order::ExpiresFirst, Order::CreatedLast] {
            let mut query = pb::ListTokensRequest { order: order.into(), ..query(1_000) };
            let (mut found, mut page) = (Vec::new(), 0_i64);
            loop {
                let told = viewer.list_tokens(query.clone()).await.unwrap();
                found.extend(numbers(std::slice::from_ref(&told)));
                query.page_token = told.next_page_token;
                if query.page_token.is_empty() {
                    break;
                }
                // Before and behind the page that comes: some end, some move, some go.
                let ids = |part: i64| {
                    let some = (0..COUNT).filter(|&n| touched(n) && n / 97 % 100 == page && n % 3 == part);
                    some.map(|n| world.database.uuid(&Planted(n).id())).collect::<Vec<_>>().join(", ")
                };
                let moved = (now + page * DAY) * 1_000_000;
                world.database.execute(format!(
                    "UPDATE ad_platform_connections SET standing = 'REVOKED', standing_since = 1 WHERE connection_id IN ({});
                     UPDATE ad_platform_connections SET expiry_source = 'PROVIDER', expires_at = {moved}, expires_sort = {moved}
                      WHERE connection_id IN ({});
                     DELETE FROM ad_platform_connections WHERE connection_id IN ({})", ids(0), ids(1), ids(2))).await;
                page += 1;
            }
            assert!(page > 80, "{page} pages");
            found.retain(|&n| !touched(n));
            found.sort_unstable();
            assert_eq!(found, all_that(|row| !touched(row.0) && row.status() != Status::Revoked), "{order:?}");
        }
    }

    async fn filters_give_exactly_what_they_say(world: World) {
        type Wanted = fn(&Planted) -> bool;
        let viewer = planted(&world).await;
        let of = |statuses: &[Status]| pb::ListTokensRequest {
            statuses: statuses.iter().map(|&status| status.into()).collect(),
            ..query(1_000)
        };
        let places = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let cases: [(pb::ListTokensRequest, Wanted); 14] = [
            (of(&[Status::Active]), |row| row.status() == Status::Active),
            (of(&[Status::Expiring]), |row| row.status() == Status::Expiring),
            (of(&[Status::Expired]), |row| row.status() == Status::Expired),
            (of(&[Status::Invalid]), |row| row.status() == Status::Invalid),
            (of(&[Status::Revoked, Status::Expired]), |row| [Status::Revoked, Status::Expired].contains(&row.status())),
            (pb::ListTokensRequest { workspace_ids: places(&["ws-7"]), ..query(999) }, |row| row.workspace() == "ws-7" && row.status() != Status::Revoked),
            (pb::ListTokensRequest { workspace_ids: places(&["ws-7", "ws-19"]), ..of(&[Status::Expiring]) }, |row| ["ws-7", "ws-19"].contains(&row.workspace().as_str()) && row.status() == Status::Expiring),
            (pb::ListTokensRequest { expiring_within: days(3), ..query(1_000) }, |row| row.life_left().is_some_and(|left| left <= 3 * DAY) && row.status() != Status::Revoked),
            (pb::ListTokensRequest { expiring_within: days(3), workspace_ids: places(&["ws-0"]), ..of(&[Status::Expiring]) }, |row| row.life_left().is_some_and(|left| left <= 3 * DAY) && row.workspace() == "ws-0" && row.status() == Status::Expiring),
            (pb::ListTokensRequest { subject_id: Some("3".into()), ..query(1_000) }, |row| row.subject() == "3" && row.status() != Status::Revoked),
            (pb::ListTokensRequest { subject_id: Some("3".into()), workspace_ids: places(&["ws-0"]), ..query(1_000) }, |row| row.subject() == "3" && row.workspace() == "ws-0" && row.status() != Status::Revoked),
            (pb::ListTokensRequest { ad_account_id: Some(ACCOUNT.into()), ..query(7) }, Planted::reaches_account),
            (pb::ListTokensRequest { ad_account_id: Some(ACCOUNT.into()), workspace_ids: places(&["ws-0"]), ..query(7) }, |row| row.reaches_account() && row.workspace() == "ws-0"),
            (pb::ListTokensRequest { providers: places(&["meta"]), workspace_ids: places(&["ws-4"]), ..query(1_000) }, |row| row.workspace() == "ws-4" && row.status() != Status::Revoked),
        ];
        for (query, wanted) in cases {
            let told = pages(&viewer, &query).await;
            for token in told.iter().flat_map(|page| &page.tokens) {
                let row = Planted(Planted::of(&token.connection_id));
                assert_eq!((token.status(), &token.workspace_id), (row.status(), &row.workspace()), "{token:#?}");
            }
            let mut found = numbers(&told);
            found.sort_unstable();
            let wanted = all_that(wanted);
            assert!(!wanted.is_empty() && found == wanted, "{query:?}: {} instead of {}", found.len(), wanted.len());
        }

        // A position of this many rows is bound to its query as well.
        let token = viewer.list_tokens(query(10)).await.unwrap().next_page_token;
        let flipped: String = token.chars().enumerate().map(|(at, c)| if at == 30 { if c == 'x' { 'y' } else { 'x' } } else { c }).collect();
        let asked = |page_token: &str| pb::ListTokensRequest { page_token: page_token.into(), ..query(10) };
        viewer.list_tokens(asked(&flipped)).await.unwrap_err().is(Code::InvalidArgument, Reason::PageTokenInvalid);
        let other = pb::ListTokensRequest { workspace_ids: places(&["ws-1"]), ..asked(&token) };
        viewer.list_tokens(other).await.unwrap_err().is(Code::InvalidArgument, Reason::PageTokenMismatch);
    }
}

/// What a page cost PostgreSQL: rows that its plans touched, and their nodes, each with the table it reads.
#[derive(Debug, Default)]
struct Cost {
    rows: f64,
    nodes: Vec<String>,
    texts: Vec<String>,
}

impl Cost {
    fn add(&mut self, plan: &Value) {
        let number = |key: &str| plan[key].as_f64().unwrap_or(0.0);
        let removed = number("Rows Removed by Filter") + number("Rows Removed by Index Recheck");
        self.rows += (number("Actual Rows") + removed) * number("Actual Loops");
        let word = |key: &str| plan[key].as_str().unwrap_or_default();
        self.nodes.push(format!("{} {}", word("Node Type"), word("Relation Name")).trim_end().to_owned());
        plan["Plans"].as_array().into_iter().flatten().for_each(|plan| self.add(plan));
    }
}

/// The plans of list statements that the cluster's log holds for this database, from `from` bytes on.
fn cost_since(database: &Database, from: usize) -> Cost {
    let log = fs::read(shared_cluster().log()).expect("the cluster writes a log");
    let log = String::from_utf8_lossy(&log[from..]).into_owned();
    let head = format!("{} LOG:  duration: ", database.name());
    let mut cost = Cost::default();
    for entry in log.split(&head).skip(1).filter_map(|entry| entry.split_once("plan:\n")) {
        let json: String = entry.1.lines().take_while(|line| line.starts_with('\t')).collect();
        let plan: Value = serde_json::from_str(&json).expect("auto_explain writes JSON");
        let text = plan["Query Text"].as_str().unwrap_or_default();
        if text.contains("AS shared") {
            cost.texts.push(text.to_owned());
            cost.add(&plan["Plan"]);
        }
    }
    cost
}

/// Costs of the first and the last full page of a query.
async fn first_and_last(world: &World, viewer: &Caller, query: &pb::ListTokensRequest) -> [Cost; 2] {
    let told = pages(viewer, &pb::ListTokensRequest { page_size: 1_000, ..query.clone() }).await;
    // Positions depend on the query alone, not on the size of its pages.
    let last = &told[told.len().checked_sub(3).expect("many pages")].next_page_token;
    let mut costs = Vec::new();
    for page_token in [String::new(), last.clone()] {
        let from = fs::metadata(shared_cluster().log()).expect("a log").len();
        let page = viewer
            .list_tokens(pb::ListTokensRequest { page_size: 100, page_token, ..query.clone() })
            .await
            .unwrap();
        assert_eq!(page.tokens.len(), 100);
        let from = usize::try_from(from).expect("a size");
        // Two walks each. The server writes a plan after it has sent the rows.
        let told = async || Some(cost_since(&world.database, from)).filter(|cost| cost.texts.len() >= 2);
        costs.push(eventually_async("the plans of both walks", Duration::from_secs(10), told).await);
    }
    costs.try_into().expect("two pages")
}

/// How SQLite goes about a statement.
async fn sqlite_plan(database: &Database, text: &str) -> String {
    let mut session = database.sqlite_connection().await;
    let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {text}"));
    let rows = sqlx::query(explain).fetch_all(&mut session).await.expect("a statement of the vault's");
    rows.iter().map(|row| row.get::<String, _>("detail")).collect::<Vec<_>>().join("; ")
}

fn queries() -> BTreeMap<&'static str, pb::ListTokensRequest> {
    let here = vec!["ws-3".to_owned()];
    let ordered = |order: Order| pb::ListTokensRequest { order: order.into(), ..Default::default() };
    BTreeMap::from([
        ("by end", ordered(Order::ExpiresFirst)),
        ("oldest", ordered(Order::CreatedFirst)),
        ("youngest", ordered(Order::CreatedLast)),
        (
            "workspace by end",
            pb::ListTokensRequest { workspace_ids: here.clone(), ..ordered(Order::ExpiresFirst) },
        ),
        ("workspace oldest", pb::ListTokensRequest { workspace_ids: here, ..ordered(Order::CreatedFirst) }),
        ("active", pb::ListTokensRequest { statuses: vec![Status::Active.into()], ..Default::default() }),
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_page_visits_as_many_rows_as_the_first_and_no_page_sorts_or_scans() {
    let world = World::builder(Backend::Postgres).prepare().await;
    let name = world.database.name();
    for setting in [
        "session_preload_libraries='auto_explain'",
        "auto_explain.log_min_duration=0",
        "auto_explain.log_analyze=on",
        "auto_explain.log_format=json",
    ] {
        world.database.execute(format!("ALTER DATABASE {name} SET {setting}")).await;
    }
    world.start_again();
    let viewer = planted(&world).await;
    let mut texts = BTreeMap::new();
    for (case, query) in queries() {
        let [first, last] = first_and_last(&world, &viewer, &query).await;
        assert!(first.rows >= 100.0, "{case}: the plans were not read: {first:?}");
        assert!(
            last.rows <= first.rows * 1.2 + 50.0,
            "{case}: {} rows at first, {} at last",
            first.rows,
            last.rows
        );
        for node in first.nodes.iter().chain(&last.nodes) {
            assert!(
                !node.starts_with("Seq Scan") && !node.contains("Sort"),
                "{case}: {node} in {:?}",
                last.nodes
            );
        }
        texts.extend(first.texts.into_iter().chain(last.texts).map(|text| (text, case)));
    }
    assert!(texts.len() >= 5, "{texts:?}");

    // The very same statements on SQLite.
    let sqlite = World::start(Backend::Sqlite).await;
    plant(&sqlite.database, sqlite.sandbox.clock().now()).await;
    for (text, case) in texts {
        let plan = sqlite_plan(&sqlite.database, &text).await;
        assert!(plan.contains("SEARCH c USING") && plan.contains("INDEX"), "{case}: {plan}");
        assert!(!plan.contains("SCAN") && !plan.contains("TEMP B-TREE"), "{case}: {plan}");
    }
}
