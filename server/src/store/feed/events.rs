//! The feed: tables `events`, `incidents` and `feed`. Events are written by the writer, last in each
//! transaction, under one lock; so order of commit is order of sequence, on both databases.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use uuid::Uuid;

use crate::model::{
    Announced, Closed, ConnectionId, DeadlineKind, Detail, Draft, Event, EventKind, EventWord, Expiry,
    FeedPosition, Fixer, Incident, IncidentKey, ProviderId, RefusalReason, Remedy, Severity, Status, Subject,
    Timestamp, WorkspaceId,
};
use crate::store::connections::{expiry_from, expiry_source_name, subject_kind_from};
use crate::store::sql::Backend;
use crate::store::{Session, StoreError, Tx};

/// What incidents are about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// One connection.
    Connection(ConnectionId),
    /// A provider, and our app there.
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

/// Where the feed begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedState {
    /// Just after the last event.
    pub head: FeedPosition,
    /// Sequence of the oldest event that is kept.
    pub oldest: i64,
    /// Identity of the event just before that one; 0 when nothing was compacted.
    pub compacted_identity: i64,
}

/// Which events a listing walks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventDrive {
    /// All.
    Everywhere,
    /// Those of a connection.
    Connection(ConnectionId),
}

const SEVERITIES: [(Severity, i64); 3] =
    [(Severity::Info, 1), (Severity::Warning, 2), (Severity::Critical, 3)];

fn severity_number(severity: Severity) -> i64 {
    SEVERITIES.iter().find(|(known, _)| *known == severity).map_or(3, |(_, number)| *number)
}

/// A severity that a newer release wrote is as bad as can be.
fn severity_from(number: i64) -> Severity {
    SEVERITIES
        .iter()
        .find(|(_, known)| *known == number)
        .map_or(Severity::Critical, |(severity, _)| *severity)
}

const FIXERS: [(Fixer, &str); 5] = [
    (Fixer::WorkspaceOwner, "WORKSPACE_OWNER"),
    (Fixer::Operator, "OPERATOR"),
    (Fixer::AppAdmin, "APP_ADMIN"),
    (Fixer::AdAccountAdmin, "AD_ACCOUNT_ADMIN"),
    (Fixer::Nobody, "NOBODY"),
];

const STATUSES: [(Status, &str); 5] = [
    (Status::Active, "ACTIVE"),
    (Status::Expiring, "EXPIRING"),
    (Status::Expired, "EXPIRED"),
    (Status::Invalid, "INVALID"),
    (Status::Revoked, "REVOKED"),
];

/// What has no column of its own.
#[derive(Serialize, Deserialize)]
struct Body {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<String>,
    expiry: (String, Option<i64>),
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    provider_code: String,
    /// Fixer, message, action.
    remedy: (String, String, String),
    incident: i64,
    /// Sequence, kind, severity.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    closes: Vec<(i64, String, i64)>,
    #[serde(default, skip_serializing_if = "DetailBody::is_none")]
    detail: DetailBody,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
enum DetailBody {
    #[default]
    None,
    Expiring {
        threshold: i64,
        deadline: String,
    },
    Died {
        last_known_good: Option<i64>,
        first_known_bad: i64,
    },
    Restored {
        gap_start: Option<i64>,
        gap_end: i64,
        cause: String,
    },
    Renewed {
        previous_expiry: (String, Option<i64>),
    },
    RotationFailed {
        at_ceiling: bool,
        attempts: u32,
        next_attempt_at: Option<i64>,
    },
    Changed {
        added: Vec<String>,
        removed: Vec<String>,
    },
    /// Of a newer release.
    #[serde(other)]
    Unknown,
}

impl DetailBody {
    const fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }
}

fn expiry_body(expiry: Expiry) -> (String, Option<i64>) {
    (expiry_source_name(expiry).to_owned(), expiry.at().map(Timestamp::as_micros))
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn length(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

impl From<&EventWord> for Body {
    fn from(word: &EventWord) -> Self {
        let time = |at: Option<Timestamp>| at.map(Timestamp::as_micros);
        let fixer = FIXERS.iter().find(|(fixer, _)| *fixer == word.remedy.fixer).map_or("", |(_, name)| name);
        let status = word.status.and_then(|status| STATUSES.iter().find(|(known, _)| *known == status));
        Self {
            status: status.map(|(_, name)| (*name).to_owned()),
            expiry: expiry_body(word.expiry),
            reason: word.reason.map(|reason| reason.as_str().to_owned()),
            provider_code: word.provider_code.clone(),
            remedy: (fixer.to_owned(), word.remedy.message.clone(), word.remedy.action.clone()),
            incident: word.incident,
            closes: word
                .closes
                .iter()
                .map(|c| (c.sequence, c.kind.as_str().to_owned(), severity_number(c.severity)))
                .collect(),
            detail: match &word.detail {
                Detail::None => DetailBody::None,
                Detail::Expiring { threshold, deadline } => DetailBody::Expiring {
                    threshold: micros(*threshold),
                    deadline: deadline.as_str().to_owned(),
                },
                Detail::Died { last_known_good, first_known_bad } => DetailBody::Died {
                    last_known_good: time(*last_known_good),
                    first_known_bad: first_known_bad.as_micros(),
                },
                Detail::Restored { gap_start, gap_end, cause } => DetailBody::Restored {
                    gap_start: time(*gap_start),
                    gap_end: gap_end.as_micros(),
                    cause: cause.as_str().to_owned(),
                },
                Detail::Renewed { previous_expiry } => {
                    DetailBody::Renewed { previous_expiry: expiry_body(*previous_expiry) }
                }
                Detail::RotationFailed { at_ceiling, attempts, next_attempt_at } => {
                    DetailBody::RotationFailed {
                        at_ceiling: *at_ceiling,
                        attempts: *attempts,
                        next_attempt_at: time(*next_attempt_at),
                    }
                }
                Detail::Changed { added, removed } => {
                    DetailBody::Changed { added: added.clone(), removed: removed.clone() }
                }
            },
        }
    }
}

impl DetailBody {
    fn read(self) -> Detail {
        let time = |at: Option<i64>| at.map(Timestamp::from_micros);
        match self {
            Self::None | Self::Unknown => Detail::None,
            Self::Expiring { threshold, deadline } => DeadlineKind::from_name(&deadline)
                .map_or(Detail::None, |deadline| Detail::Expiring { threshold: length(threshold), deadline }),
            Self::Died { last_known_good, first_known_bad } => Detail::Died {
                last_known_good: time(last_known_good),
                first_known_bad: Timestamp::from_micros(first_known_bad),
            },
            Self::Restored { gap_start, gap_end, cause } => Detail::Restored {
                gap_start: time(gap_start),
                gap_end: Timestamp::from_micros(gap_end),
                cause: EventKind::from_name(&cause),
            },
            Self::Renewed { previous_expiry: (source, at) } => {
                Detail::Renewed { previous_expiry: expiry_from(&source, at).unwrap_or(Expiry::Unknown) }
            }
            Self::RotationFailed { at_ceiling, attempts, next_attempt_at } => {
                Detail::RotationFailed { at_ceiling, attempts, next_attempt_at: time(next_attempt_at) }
            }
            Self::Changed { added, removed } => Detail::Changed { added, removed },
        }
    }
}

#[derive(sqlx::FromRow)]
struct EventRow {
    sequence: i64,
    identity: i64,
    kind: String,
    severity: i64,
    workspace_id: String,
    provider: String,
    connection_id: Option<Uuid>,
    token_version: i64,
    occurred_at: i64,
    recorded_at: i64,
    body: Json<Body>,
    subject_id: Option<String>,
    subject_name: Option<String>,
    subject_kind: Option<String>,
}

impl TryFrom<EventRow> for Event {
    type Error = StoreError;

    fn try_from(row: EventRow) -> Result<Self, StoreError> {
        let bad =
            |column| StoreError::Inconsistent { table: "events", column, row: row.sequence.to_string() };
        let body = row.body.0;
        let (fixer, message, action) = body.remedy;
        let fixer =
            FIXERS.iter().find(|(_, name)| *name == fixer).map_or(Fixer::Operator, |(fixer, _)| *fixer);
        let status = body.status.as_deref();
        let workspace = match row.workspace_id.as_str() {
            "" => None,
            id => Some(WorkspaceId::parse(id).map_err(|_| bad("workspace_id"))?),
        };
        let word = EventWord {
            kind: EventKind::from_name(&row.kind),
            severity: severity_from(row.severity),
            workspace,
            provider: ProviderId::parse(row.provider).map_err(|_| bad("provider"))?,
            connection: row.connection_id.map(ConnectionId::from_uuid),
            version: i32::try_from(row.token_version).map_err(|_| bad("token_version"))?,
            occurred_at: Timestamp::from_micros(row.occurred_at),
            status: STATUSES.iter().find(|(_, name)| Some(*name) == status).map(|(status, _)| *status),
            expiry: expiry_from(&body.expiry.0, body.expiry.1).unwrap_or(Expiry::Unknown),
            reason: body.reason.as_deref().map(RefusalReason::from_name),
            provider_code: body.provider_code,
            remedy: Remedy { fixer, message, action },
            incident: if body.incident == 0 { row.sequence } else { body.incident },
            closes: body
                .closes
                .into_iter()
                .map(|(sequence, kind, severity)| Closed {
                    sequence,
                    kind: EventKind::from_name(&kind),
                    severity: severity_from(severity),
                })
                .collect(),
            detail: body.detail.read(),
        };
        let subject = word.connection.map(|_| Subject {
            id: row.subject_id.unwrap_or_default(),
            name: row.subject_name.unwrap_or_default(),
            kind: subject_kind_from(&row.subject_kind.unwrap_or_default()),
        });
        Ok(Self {
            sequence: row.sequence,
            identity: row.identity,
            recorded_at: Timestamp::from_micros(row.recorded_at),
            subject,
            word,
        })
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

/// An incident as a statement takes it.
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

/// An event as the INSERT takes it.
#[derive(Serialize)]
struct EventParameter {
    sequence: i64,
    identity: i64,
    kind: &'static str,
    severity: i64,
    workspace_id: String,
    provider: String,
    connection_id: Option<String>,
    token_version: i64,
    occurred_at: i64,
    recorded_at: i64,
    body: Body,
}

/// Events that keep a condition, with what is known now of the subjects: a person's name stands in no event.
macro_rules! events_where {
    ($rest:expr) => {
        concat!(
            "SELECT e.sequence, e.identity, e.kind, e.severity, e.workspace_id, e.provider, e.connection_id,
                    e.token_version, e.occurred_at, e.recorded_at, e.body, c.subject_id, c.subject_name, c.subject_kind
               FROM events e LEFT JOIN ad_platform_connections c ON c.connection_id = e.connection_id
              WHERE ",
            $rest
        )
    };
}

/// One text per drive and direction.
macro_rules! list_events_sql {
    ($drive:literal) => {
        [
            events_where!(concat!($drive, " AND e.sequence BETWEEN $2 AND $3 ORDER BY e.sequence LIMIT $4")),
            events_where!(concat!(
                $drive,
                " AND e.sequence BETWEEN $2 AND $3 ORDER BY e.sequence DESC LIMIT $4"
            )),
        ]
    };
}

impl Session {
    /// Where the feed begins and ends.
    pub async fn feed_state(&mut self) -> Result<FeedState, StoreError> {
        #[derive(sqlx::FromRow)]
        struct Row {
            oldest_sequence: i64,
            compacted_identity: i64,
            sequence: i64,
            identity: i64,
        }
        let row: Row = self
            .query(
                "SELECT f.oldest_sequence, f.compacted_identity, coalesce(e.sequence, 0) AS sequence,
                        coalesce(e.identity, 0) AS identity
                   FROM feed f
                   LEFT JOIN (SELECT sequence, identity FROM events ORDER BY sequence DESC LIMIT 1) e ON 1 = 1",
            )
            .fetch_one()
            .await?;
        Ok(FeedState {
            head: FeedPosition { sequence: row.sequence, identity: row.identity },
            oldest: row.oldest_sequence,
            compacted_identity: row.compacted_identity,
        })
    }

    /// The identity of one event; `None` when it is not kept, or not there.
    pub async fn event_identity(&mut self, sequence: i64) -> Result<Option<i64>, StoreError> {
        #[derive(sqlx::FromRow)]
        struct Row {
            identity: i64,
        }
        let row: Option<Row> = self
            .query("SELECT identity FROM events WHERE sequence = $1")
            .bind(sequence)
            .fetch_optional()
            .await?;
        Ok(row.map(|row| row.identity))
    }

    /// The next events after a sequence, in order, without a hole unless retention made one.
    pub async fn events_after(&mut self, sequence: i64, limit: i64) -> Result<Vec<Event>, StoreError> {
        let rows: Vec<EventRow> = self
            .query(events_where!("e.sequence > $1 ORDER BY e.sequence LIMIT $2"))
            .bind(sequence)
            .bind(limit)
            .fetch_all()
            .await?;
        rows.into_iter().map(Event::try_from).collect()
    }

    /// The same, if the event at the position is still the one that it was read as; else `None`: it is not kept any
    /// more, or the database is another copy.
    pub async fn events_following(
        &mut self,
        position: FeedPosition,
        limit: i64,
    ) -> Result<Option<Vec<Event>>, StoreError> {
        if position.sequence == 0 {
            return self.events_after(0, limit).await.map(Some);
        }
        let mut events = self.events_after(position.sequence - 1, limit.saturating_add(1)).await?;
        if events.first().map(Event::position) != Some(position) {
            return Ok(None);
        }
        events.remove(0);
        Ok(Some(events))
    }

    /// Events of one drive between two sequences, both inclusive.
    pub async fn list_events(
        &mut self,
        drive: &EventDrive,
        (low, high): (i64, i64),
        oldest_first: bool,
        limit: i64,
    ) -> Result<Vec<Event>, StoreError> {
        const EVERYWHERE: [&str; 2] = list_events_sql!("$1 = ''");
        const CONNECTION: [&str; 2] = list_events_sql!("e.connection_id = $1");
        let [ascending, descending] = match drive {
            EventDrive::Everywhere => EVERYWHERE,
            EventDrive::Connection(_) => CONNECTION,
        };
        let query = self.query(if oldest_first { ascending } else { descending });
        let query = match drive {
            EventDrive::Everywhere => query.bind(String::new()),
            EventDrive::Connection(id) => query.bind(id.as_uuid()),
        };
        let rows: Vec<EventRow> = query.bind(low).bind(high).bind(limit).fetch_all().await?;
        rows.into_iter().map(Event::try_from).collect()
    }

    /// Sequence of the first event that was recorded at or after an instant; `None`: there is none.
    pub async fn first_event_since(&mut self, instant: Timestamp) -> Result<Option<i64>, StoreError> {
        #[derive(sqlx::FromRow)]
        struct Row {
            sequence: i64,
        }
        let row: Option<Row> = self
            .query(
                "SELECT sequence FROM events WHERE recorded_at >= $1 ORDER BY recorded_at, sequence LIMIT 1",
            )
            .bind(instant.as_micros())
            .fetch_optional()
            .await?;
        Ok(row.map(|row| row.sequence))
    }

    /// What has been announced of several things: what is open, and all of the episodes.
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

/// What announcing came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AnnouncedEvents {
    /// How many events.
    pub count: usize,
    /// The stand-in for the last one's number; 0 for none.
    pub last: i64,
}

impl Tx {
    /// What has been announced of one thing, ready to announce more.
    pub async fn announced(&mut self, scope: &Scope) -> Result<Announced, StoreError> {
        let known = self.incidents(std::slice::from_ref(scope)).await?.remove(&scope.key());
        Ok(Announced::new(known.unwrap_or_default(), self.events_so_far()))
    }

    /// The same for several; the answer is in the order of `scopes`, without stand-ins for numbers yet.
    pub async fn incidents_of(&mut self, scopes: &[Scope]) -> Result<Vec<Vec<Incident>>, StoreError> {
        let mut known = self.incidents(scopes).await?;
        Ok(scopes.iter().map(|scope| known.remove(&scope.key()).unwrap_or_default()).collect())
    }

    /// How many events this transaction holds.
    pub fn events_so_far(&self) -> i64 {
        i64::try_from(self.events().len()).unwrap_or(i64::MAX)
    }

    /// Writes what is announced: the events with the transaction's end, what they open and settle now.
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
        // What is opened and settled in the same breath must be there before it is settled.
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

    /// Marks something as announced although no event said so: a threshold that had passed before it was set.
    pub async fn mark_announced(&mut self, scope: &Scope, key: IncidentKey) -> Result<(), StoreError> {
        let marked = IncidentParameter::new(scope, &key, Severity::Info, 0);
        self.open_incidents(vec![marked]).await
    }

    /// Deletes events recorded before an instant, oldest first, at most so many; the last one of all stays, as
    /// numbers go on from it. Says how many went.
    pub async fn compact_events(&mut self, before: Timestamp, limit: i64) -> Result<u64, StoreError> {
        #[derive(sqlx::FromRow)]
        struct Last {
            sequence: i64,
            identity: i64,
        }
        self.lock_feed().await?;
        let last: Option<Last> = self
            .query(
                "SELECT sequence, identity FROM (
                     SELECT sequence, identity FROM events
                      WHERE recorded_at < $1 AND sequence < (SELECT max(sequence) FROM events)
                      ORDER BY sequence LIMIT $2) AS oldest
                  ORDER BY sequence DESC LIMIT 1",
            )
            .bind(before.as_micros())
            .bind(limit)
            .fetch_optional()
            .await?;
        let Some(last) = last else { return Ok(0) };
        let deleted =
            self.query("DELETE FROM events WHERE sequence <= $1").bind(last.sequence).execute().await?;
        self.query("UPDATE feed SET oldest_sequence = $1 + 1, compacted_identity = $2 WHERE singleton = 1")
            .bind(last.sequence)
            .bind(last.identity)
            .execute()
            .await?;
        Ok(deleted)
    }

    /// Makes order of commit equal order of number across replicas. SQLite has one writer anyway.
    pub(in crate::store) async fn lock_feed(&mut self) -> Result<(), StoreError> {
        if self.backend() == Backend::Postgres {
            self.query("SELECT pg_advisory_xact_lock(7022001)").execute().await?;
        }
        Ok(())
    }

    /// Gives the transaction's events their numbers. Called once, under the feed's lock, right before COMMIT.
    /// Answers the number before the first, and the new head.
    pub(in crate::store) async fn number_events(
        &mut self,
        now: Timestamp,
    ) -> Result<(i64, FeedPosition), StoreError> {
        #[derive(sqlx::FromRow)]
        struct Last {
            sequence: i64,
            recorded_at: i64,
        }
        let last: Option<Last> = self
            .query("SELECT sequence, recorded_at FROM events ORDER BY sequence DESC LIMIT 1")
            .fetch_optional()
            .await?;
        let (base, recorded) = last.map_or((0, i64::MIN), |last| (last.sequence, last.recorded_at));
        let recorded_at = now.as_micros().max(recorded);
        let mut head = FeedPosition::default();
        let mut parameters = Vec::with_capacity(self.events().len());
        for (number, mut word) in (base + 1..).zip(self.take_events()) {
            let resolve = |reference: &mut i64| {
                if *reference < 0 {
                    *reference = base - *reference;
                }
            };
            resolve(&mut word.incident);
            word.closes.iter_mut().for_each(|closed| resolve(&mut closed.sequence));
            head = FeedPosition { sequence: number, identity: fresh_identity() };
            parameters.push(EventParameter {
                sequence: number,
                identity: head.identity,
                kind: word.kind.as_str(),
                severity: severity_number(word.severity),
                workspace_id: word.workspace.as_ref().map_or(String::new(), ToString::to_string),
                provider: word.provider.to_string(),
                connection_id: word.connection.map(|id| id.as_uuid().simple().to_string()),
                token_version: i64::from(word.version),
                occurred_at: word.occurred_at.as_micros(),
                recorded_at,
                body: Body::from(&word),
            });
        }
        self.query_for(
            "INSERT INTO events (sequence, identity, kind, severity, workspace_id, provider, connection_id,
                                 token_version, occurred_at, recorded_at, body)
             SELECT value->>'sequence', value->>'identity', value->>'kind', value->>'severity',
                    value->>'workspace_id', value->>'provider', unhex(value->>'connection_id'),
                    value->>'token_version', value->>'occurred_at', value->>'recorded_at', value->'body'
               FROM json_each($1)",
            "INSERT INTO events (sequence, identity, kind, severity, workspace_id, provider, connection_id,
                                 token_version, occurred_at, recorded_at, body)
             SELECT sequence, identity, kind, severity, workspace_id, provider, connection_id, token_version,
                    occurred_at, recorded_at, body
               FROM jsonb_to_recordset($1) AS r (sequence bigint, identity bigint, kind text, severity bigint,
                    workspace_id text, provider text, connection_id uuid, token_version bigint, occurred_at bigint,
                    recorded_at bigint, body jsonb)",
        )
        .bind(Json(parameters))
        .execute()
        .await?;
        // Rows that this transaction has locked already: nothing new is waited for under the feed's lock.
        for statement in [
            "UPDATE incidents SET opened_sequence = $1 - opened_sequence WHERE opened_sequence < 0",
            "UPDATE incidents SET closed_sequence = $1 - closed_sequence WHERE closed_sequence < 0",
            "UPDATE ad_platform_connections SET last_event_sequence = $1 - last_event_sequence
              WHERE last_event_sequence < 0",
        ] {
            self.query(statement).bind(base).execute().await?;
        }
        Ok((base, head))
    }
}

/// Random, positive, and never 0, which stands for "before all".
fn fresh_identity() -> i64 {
    let (random, _) = Uuid::new_v4().as_u64_pair();
    i64::try_from(random >> 33).unwrap_or(0) | 1
}
