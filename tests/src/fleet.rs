//! Helpers for tests with many replicas, connections and watchers.

use std::time::{Duration, Instant};

use crate::prelude::*;
use token_vault_proto::v1::expiry_event::Kind;
use token_vault_proto::v1::watch_expiry_events_request::{From as StartFrom, Start};
use token_vault_proto::v1::watch_expiry_events_response::Item;
use token_vault_proto::v1::{ExpiryEvent, WatchExpiryEventsRequest as Watch};
use uuid::Uuid;

/// A random generator that produces the same numbers in every run.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) >> 8).expect("fewer bits than a number has") % bound
    }

    pub fn time(&mut self, bound: Duration) -> Duration {
        Duration::from_micros(self.below(usize::try_from(bound.as_micros()).expect("seconds")) as u64)
    }

    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// Waits for its turn, because tests that keep every processor busy must run one after the other.
pub async fn turn() -> tokio::sync::MutexGuard<'static, ()> {
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    TURN.lock().await
}

/// Connections without a token, written into the tables directly.
pub struct Crowd<'a> {
    pub ids: &'a [Uuid],
    pub name: &'a str,
    /// When the first of their tokens ends, in microseconds since 1970, and how much later each further one does.
    pub ends: Option<(i64, i64)>,
    /// How long before its end a connection is due for the deadline job.
    pub due_before: i64,
}

pub fn ids(count: usize) -> Vec<Uuid> {
    (0..count).map(|_| Uuid::now_v7()).collect()
}

impl Crowd<'_> {
    pub async fn plant(&self, world: &World) {
        let ids: Vec<_> = self.ids.iter().map(Uuid::to_string).collect();
        let (ids, name, app) = (ids.join(","), self.name, world.sandbox.app().id);
        let (end, source, due) = match self.ends {
            Some((first, step)) => {
                let end = format!("({first} + (n - 1) * {step})");
                (end.clone(), "PROVIDER", format!("{end} - {}", self.due_before))
            }
            None => ("NULL::bigint".into(), "UNKNOWN", "NULL::bigint".into()),
        };
        let sql = format!(
            "INSERT INTO workspaces (workspace_id, created_at) VALUES ('crowd', 0) ON CONFLICT DO NOTHING;
             INSERT INTO ad_platform_connections (connection_id, workspace_id, provider, app_id, subject_key,
                 subject_id, subject_name, subject_kind, token_version, secret_id, revision, kind, expires_at,
                 expiry_source, expires_sort, scopes, granular_scopes, standing, next_deadline_at, created_at,
                 updated_at)
             SELECT id, 'crowd', 'meta', '{app}', id::text, id::text, '{name}', 'USER', 1, id, 1, 'LONG_LIVED_USER',
                    {end}, '{source}', coalesce({end}, 0), '[]', '[]', 'LIVE', {due}, 0, 0
               FROM unnest('{{{ids}}}'::uuid[]) WITH ORDINALITY AS p (id, n)"
        );
        world.database.execute(sql).await;
    }
}

/// How a visit of a watcher to the feed ended.
#[derive(Debug)]
pub enum Left {
    Went,
    /// The stream ended, or did not begin. `None`: the vault gave no reason.
    Ended(Option<Denial>),
}

/// What a watcher saw in all its visits: every event from the first on, without a gap or a repeat.
#[derive(Default)]
pub struct Memory {
    pub events: Vec<(Kind, String)>,
    pub cursor: String,
}

impl Memory {
    /// Watches from the last position until a moment, or until `enough` accepts an event.
    pub async fn stay(
        &mut self,
        caller: &Caller,
        until: Instant,
        mut enough: impl FnMut(&ExpiryEvent) -> bool,
    ) -> Left {
        let start = match self.cursor.as_str() {
            "" => Start::From(StartFrom::Earliest.into()),
            cursor => Start::Cursor(cursor.into()),
        };
        let until = tokio::time::Instant::from_std(until);
        let watch = Watch { start: Some(start), ..Watch::default() };
        let mut stream = match tokio::time::timeout_at(until, caller.stream(watch)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(refusal)) => return Left::Ended(Some(refusal)),
            Err(_) => return Left::Went,
        };
        loop {
            let answer = match tokio::time::timeout_at(until, stream.message()).await {
                Ok(Ok(Some(answer))) => answer,
                Ok(Ok(None)) => return Left::Ended(None),
                Ok(Err(status)) => return Left::Ended(Some(Denial::from(status))),
                Err(_) => return Left::Went,
            };
            if let Some(Item::Events(batch)) = answer.item {
                for event in batch.events {
                    let next = self.events.len() as i64 + 1;
                    assert_eq!(event.sequence, next, "a hole, or a repeat, after {:?}", self.events.last());
                    self.events.push((event.kind(), event.connection_id.clone()));
                    self.cursor.clone_from(&event.cursor);
                    if enough(&event) {
                        return Left::Went;
                    }
                }
            }
            if !answer.cursor.is_empty() {
                self.cursor = answer.cursor;
            }
        }
    }
}

/// The feed in the database: the kind and connection of each event. Asserts that it has no gap and is in order of time.
pub async fn history(world: &World) -> Vec<(Kind, String)> {
    let rows = "SELECT sequence || ' ' || kind || ' ' || coalesce(connection_id::text, '') FROM events ORDER BY sequence";
    let rows = world.database.texts(rows).await;
    let disorder = "SELECT count(*) FROM events a JOIN events b ON b.sequence = a.sequence + 1
                     WHERE b.recorded_at < a.recorded_at";
    assert_eq!(world.database.count(disorder).await, 0, "recorded_at goes back");
    let event = |(n, row): (usize, &String)| {
        let mut words = row.split(' ');
        assert_eq!(words.next(), Some((n + 1).to_string().as_str()), "a hole in the feed");
        let kind = words.next().expect("three words");
        let kind = Kind::from_str_name(&format!("KIND_{kind}")).unwrap_or_else(|| panic!("no kind {kind}"));
        (kind, words.next().unwrap_or_default().to_owned())
    };
    rows.iter().enumerate().map(event).collect()
}
