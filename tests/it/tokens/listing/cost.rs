//! What a page costs, as the databases report it for the vault's own statements.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use serde_json::Value;
use sqlx::{AssertSqlSafe, Row};
use token_vault_proto::v1::list_tokens_request::Order;
use token_vault_proto::v1::token::Status;
use token_vault_tests::prelude::*;
use token_vault_tests::{Database, eventually_async, shared_cluster};

use super::pages;
use super::planted::plant;

/// What a page cost PostgreSQL: rows that its plans touched, and their nodes, each with the table it reads.
#[derive(Debug, Default)]
struct Cost {
    rows: f64,
    nodes: Vec<String>,
    texts: Vec<String>,
    /// Rows of the largest set that was sorted.
    sorted: f64,
}

impl Cost {
    fn add(&mut self, plan: &Value) {
        let number = |key: &str| plan[key].as_f64().unwrap_or(0.0);
        let removed = number("Rows Removed by Filter") + number("Rows Removed by Index Recheck");
        self.rows += (number("Actual Rows") + removed) * number("Actual Loops");
        let word = |key: &str| plan[key].as_str().unwrap_or_default();
        self.nodes.push(format!("{} {}", word("Node Type"), word("Relation Name")).trim_end().to_owned());
        if word("Node Type").contains("Sort") {
            self.sorted = self.sorted.max(plan["Plans"][0]["Actual Rows"].as_f64().unwrap_or(f64::MAX));
        }
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
    let walked = pages(viewer, &pb::ListTokensRequest { page_size: 1_000, ..query.clone() }).await;
    // Positions depend on the query alone, not on the size of its pages.
    let last = &walked[walked.len().checked_sub(3).expect("many pages")].next_page_token;
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
        let plans = async || Some(cost_since(&world.database, from)).filter(|cost| cost.texts.len() >= 2);
        costs.push(eventually_async("the plans of both walks", Duration::from_secs(60), plans).await);
    }
    costs.try_into().expect("two pages")
}

/// SQLite's query plan of a statement.
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
        (
            "workspace by end",
            pb::ListTokensRequest { workspace_ids: here.clone(), ..ordered(Order::ExpiresFirst) },
        ),
        (
            "workspace oldest",
            pb::ListTokensRequest { workspace_ids: here.clone(), ..ordered(Order::CreatedFirst) },
        ),
        ("workspace youngest", pb::ListTokensRequest { workspace_ids: here, ..ordered(Order::CreatedLast) }),
        (
            "expired or dead",
            pb::ListTokensRequest {
                statuses: vec![Status::Expired.into(), Status::Invalid.into()],
                ..Default::default()
            },
        ),
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
    plant(&world.database, world.sandbox.clock().now()).await;
    let viewer = world.viewer().await;
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
