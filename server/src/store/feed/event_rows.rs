//! Rows of `events`, and the model's events made of them.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use uuid::Uuid;

use crate::model::{
    Closed, ConnectLinkId, ConnectionId, DeadlineKind, Detail, Event, EventKind, EventWord, Expiry, Fixer,
    ProviderId, RefusalReason, Remedy, Severity, Subject, SubjectType, Timestamp, WorkspaceId,
};
use crate::store::connections::{expiry_from, expiry_source_name};
use crate::store::sql::StoreError;

const SEVERITIES: [(Severity, i64); 3] =
    [(Severity::Info, 1), (Severity::Warning, 2), (Severity::Critical, 3)];

pub(super) fn severity_number(severity: Severity) -> i64 {
    SEVERITIES.iter().find(|(known, _)| *known == severity).map_or(3, |(_, number)| *number)
}

/// An unknown severity, which a newer release wrote, counts as critical.
pub(super) fn severity_from(number: i64) -> Severity {
    SEVERITIES
        .iter()
        .find(|(_, known)| *known == number)
        .map_or(Severity::Critical, |(severity, _)| *severity)
}

/// The parts of an event that have no column of their own.
#[derive(Serialize, Deserialize)]
pub(super) struct Body {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<String>,
    expiry: (String, Option<i64>),
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    provider_code: String,
    /// Who can fix the problem, the message, and the action to take.
    remedy: (String, String, String),
    #[serde(default, skip_serializing_if = "String::is_empty")]
    remedy_url: String,
    incident: i64,
    /// Sequence, kind, severity.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    closes: Vec<(i64, String, i64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    link: Option<String>,
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
    /// Written by a newer release.
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

pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

pub(super) fn length(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

impl From<&EventWord> for Body {
    fn from(word: &EventWord) -> Self {
        let time = |at: Option<Timestamp>| at.map(Timestamp::as_micros);
        Self {
            status: word.status.map(|status| status.as_str().to_owned()),
            expiry: expiry_body(word.expiry),
            reason: word.reason.map(|reason| reason.as_str().to_owned()),
            provider_code: word.provider_code.clone(),
            remedy: (
                word.remedy.fixer.as_str().to_owned(),
                word.remedy.message.clone(),
                word.remedy.action.clone(),
            ),
            remedy_url: word.remedy.url.clone(),
            incident: word.incident,
            closes: word
                .closes
                .iter()
                .map(|c| (c.sequence, c.kind.as_str().to_owned(), severity_number(c.severity)))
                .collect(),
            link: word.link.as_ref().map(ToString::to_string),
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
pub(super) struct EventRow {
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
        let fixer = fixer.parse().unwrap_or(Fixer::Operator);
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
            status: body.status.and_then(|status| status.parse().ok()),
            expiry: expiry_from(&body.expiry.0, body.expiry.1).unwrap_or(Expiry::Unknown),
            reason: body.reason.as_deref().map(RefusalReason::from_name),
            provider_code: body.provider_code,
            remedy: Remedy { fixer, message, action, url: body.remedy_url },
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
            link: body.link.and_then(|link| ConnectLinkId::parse(link).ok()),
            detail: body.detail.read(),
        };
        let subject = word.connection.map(|_| Subject {
            id: row.subject_id.unwrap_or_default(),
            name: row.subject_name.unwrap_or_default(),
            kind: SubjectType::from_name(&row.subject_kind.unwrap_or_default()),
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

/// An event as a parameter of the INSERT.
#[derive(Serialize)]
pub(super) struct EventParameter {
    pub(super) sequence: i64,
    pub(super) identity: i64,
    pub(super) kind: &'static str,
    pub(super) severity: i64,
    pub(super) workspace_id: String,
    pub(super) provider: String,
    pub(super) connection_id: Option<String>,
    pub(super) token_version: i64,
    pub(super) occurred_at: i64,
    pub(super) recorded_at: i64,
    pub(super) body: Body,
}
