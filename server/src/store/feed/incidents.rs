//! Table `incidents`: what has been announced, so that each thing is announced once; and announcing it.

use std::collections::HashMap;

use serde::Serialize;
use sqlx::types::Json;

use super::event_rows::{length, micros, severity_from, severity_number};
use crate::model::{
    Announced, ConnectionId, DeadlineKind, Draft, EventKind, Incident, IncidentKey, ProviderId, Severity,
};
use crate::store::sql::{Session, StoreError, Tx};

/// What incidents are about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    Connection(ConnectionId),
    Provider(ProviderId, String),
}

impl Scope {
    fn key(&self) -> String {
        match self {
            Self::Connection(id) => format!("connection:{id}"),
            Self::Provider(provider, app_id) => format!("provider:{provider}:{app_id}"),
        }
    }
}

#[derive(sqlx::FromRow)]
struct IncidentRow {
    scope: String,
    kind: String,
    deadline_kind: String,
    threshold: i64,
    token_version: i64,
    episode: i64,
    severity: i64,
    opened_sequence: i64,
    closed_sequence: Option<i64>,
}

impl IncidentRow {
    fn into_incident(self) -> (String, Incident) {
        let key = IncidentKey {
            kind: EventKind::from_name(&self.kind),
            deadline: DeadlineKind::from_name(&self.deadline_kind),
            threshold: length(self.threshold),
            version: i32::try_from(self.token_version).unwrap_or(0),
            episode: self.episode,
        };
        let incident = Incident {
            key,
            severity: severity_from(self.severity),
            opened: self.opened_sequence,
            is_open: self.closed_sequence.is_none(),
        };
        (self.scope, incident)
    }
}

/// An incident as a parameter of a statement.
#[derive(Serialize, Clone)]
struct IncidentParameter {
    scope: String,
    kind: &'static str,
    deadline_kind: &'static str,
    threshold: i64,
    token_version: i64,
    episode: i64,
    severity: i64,
    number: i64,
}

impl IncidentParameter {
    fn new(scope: &Scope, key: &IncidentKey, severity: Severity, number: i64) -> Self {
        Self {
            scope: scope.key(),
            kind: key.kind.as_str(),
            deadline_kind: key.deadline.map_or("", DeadlineKind::as_str),
            threshold: micros(key.threshold),
            token_version: i64::from(key.version),
            episode: key.episode,
            severity: severity_number(severity),
            number,
        }
    }
}

impl Session {
    /// What has been announced about several scopes: open incidents, and closed ones of this episode.
    pub async fn incidents(
        &mut self,
        scopes: &[Scope],
    ) -> Result<HashMap<String, Vec<Incident>>, StoreError> {
        let keys: Vec<String> = scopes.iter().map(Scope::key).collect();
        let rows: Vec<IncidentRow> = self
            .query_for(
                "SELECT scope, kind, deadline_kind, threshold, token_version, episode, severity, opened_sequence,
                        closed_sequence
                   FROM incidents WHERE scope IN (SELECT value FROM json_each($1))",
                "SELECT scope, kind, deadline_kind, threshold, token_version, episode, severity, opened_sequence,
                        closed_sequence
                   FROM incidents WHERE scope = ANY (SELECT jsonb_array_elements_text($1))",
            )
            .bind(Json(keys))
            .fetch_all()
            .await?;
        let mut by_scope: HashMap<String, Vec<Incident>> = HashMap::new();
        for row in rows {
            let (scope, incident) = row.into_incident();
            by_scope.entry(scope).or_default().push(incident);
        }
        Ok(by_scope)
    }

    /// How many incidents of a kind are open.
    pub async fn count_open_incidents(&mut self, kind: EventKind) -> Result<u64, StoreError> {
        #[derive(sqlx::FromRow)]
        struct Row {
            n: i64,
        }
        let row: Row = self
            .query("SELECT count(*) AS n FROM incidents WHERE kind = $1 AND closed_sequence IS NULL")
            .bind(kind.as_str())
            .fetch_one()
            .await?;
        Ok(u64::try_from(row.n).unwrap_or(0))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AnnouncedEvents {
    /// How many events were written.
    pub count: usize,
    /// The provisional (negative) number of the last one; 0 for none.
    pub last: i64,
}

impl Tx {
    /// What has been announced about one scope, ready to announce more.
    pub async fn announced(&mut self, scope: &Scope) -> Result<Announced, StoreError> {
        let known = self.incidents(std::slice::from_ref(scope)).await?.remove(&scope.key());
        Ok(Announced::new(known.unwrap_or_default(), self.events_so_far()))
    }

    /// What has been announced about several scopes, in their order, without provisional numbers yet.
    pub async fn incidents_of(&mut self, scopes: &[Scope]) -> Result<Vec<Vec<Incident>>, StoreError> {
        let mut known = self.incidents(scopes).await?;
        Ok(scopes.iter().map(|scope| known.remove(&scope.key()).unwrap_or_default()).collect())
    }

    /// How many events this transaction holds.
    pub fn events_so_far(&self) -> i64 {
        i64::try_from(self.pending().events.len()).unwrap_or(i64::MAX)
    }

    /// Announces events. The events are written at the transaction's end; their incidents are opened and closed now.
    pub async fn announce(&mut self, all: Vec<(Scope, Vec<Draft>)>) -> Result<AnnouncedEvents, StoreError> {
        let (mut opened, mut settled) = (Vec::new(), Vec::new());
        let (mut number, mut count) = (-self.events_so_far(), 0);
        for (scope, drafts) in all {
            for draft in drafts {
                number -= 1;
                count += 1;
                let severity = draft.word.severity;
                opened.extend(
                    draft.opens.iter().map(|key| IncidentParameter::new(&scope, key, severity, number)),
                );
                settled.extend(
                    draft.settles.iter().map(|key| IncidentParameter::new(&scope, key, severity, number)),
                );
                self.push_event(draft.word);
            }
        }
        // An incident that is opened and closed at once must exist before it is closed.
        if !opened.is_empty() {
            self.open_incidents(opened).await?;
        }
        if !settled.is_empty() {
            self.settle_incidents(settled).await?;
        }
        Ok(AnnouncedEvents { count, last: if count == 0 { 0 } else { number } })
    }

    async fn open_incidents(&mut self, opened: Vec<IncidentParameter>) -> Result<(), StoreError> {
        self.query_for(
            "INSERT INTO incidents (scope, kind, deadline_kind, threshold, token_version, episode, severity, opened_sequence)
             SELECT value->>'scope', value->>'kind', value->>'deadline_kind', value->>'threshold',
                    value->>'token_version', value->>'episode', value->>'severity', value->>'number'
               FROM json_each($1)",
            "INSERT INTO incidents (scope, kind, deadline_kind, threshold, token_version, episode, severity, opened_sequence)
             SELECT scope, kind, deadline_kind, threshold, token_version, episode, severity, number
               FROM jsonb_to_recordset($1) AS r (scope text, kind text, deadline_kind text, threshold bigint,
                    token_version bigint, episode bigint, severity bigint, number bigint)",
        )
        .bind(Json(opened))
        .execute()
        .await?;
        Ok(())
    }

    async fn settle_incidents(&mut self, settled: Vec<IncidentParameter>) -> Result<(), StoreError> {
        self.query_for(
            "UPDATE incidents AS i SET closed_sequence = r.value->>'number' FROM json_each($1) AS r
              WHERE i.scope = r.value->>'scope' AND i.kind = r.value->>'kind'
                AND i.deadline_kind = r.value->>'deadline_kind' AND i.threshold = r.value->>'threshold'
                AND i.token_version = r.value->>'token_version' AND i.episode = r.value->>'episode'",
            "UPDATE incidents AS i SET closed_sequence = r.number
               FROM jsonb_to_recordset($1) AS r (scope text, kind text, deadline_kind text, threshold bigint,
                    token_version bigint, episode bigint, number bigint)
              WHERE i.scope = r.scope AND i.kind = r.kind AND i.deadline_kind = r.deadline_kind
                AND i.threshold = r.threshold AND i.token_version = r.token_version AND i.episode = r.episode",
        )
        .bind(Json(settled))
        .execute()
        .await?;
        Ok(())
    }

    /// Marks something as announced without an event: a threshold that had passed already when it was set.
    pub async fn mark_announced(&mut self, scope: &Scope, key: IncidentKey) -> Result<(), StoreError> {
        let marked = IncidentParameter::new(scope, &key, Severity::Info, 0);
        self.open_incidents(vec![marked]).await
    }
}
