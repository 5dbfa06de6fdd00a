//! Rows of `ad_platform_connections`, and the model's types made of them. Private to storage.

use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use uuid::Uuid;

use crate::model::{
    Connection, ConnectionId, DataRefusal, Expiry, ExpirySource, Fingerprint, GranularScope, Listing,
    Observations, ProviderId, RefusalReason, RenewalFailure, Schedule, SecretId, Standing, Subject,
    SubjectType, Timestamp, TokenFacts, TokenKind, TokenVersion, UnreadPart, WorkspaceId,
};
use crate::store::sql::StoreError;

const TABLE: &str = "ad_platform_connections";
/// Why renewal failed: the provider no longer moves the end.
const CEILING: &str = "CEILING";

/// The columns of a connection, for `concat!`; `ConnectionRow` reads them.
macro_rules! connection_columns {
    () => {
        "c.connection_id, c.workspace_id, c.provider, c.app_id, c.subject_id, c.subject_name, c.subject_kind, \
         c.token_version, c.secret_id, c.fingerprint, c.revision, c.kind, c.expires_at, c.expiry_source, \
         c.data_access_ends_at, c.data_access_source, c.issued_at, c.scopes, c.granular_scopes, c.standing, c.standing_since, \
         c.standing_reason, c.provider_code, c.last_validated_at, c.last_rotated_at, c.last_known_good, \
         c.ad_account_count, c.unreachable_count, c.next_deadline_at, c.next_renewal_at, c.renewal_attempts, \
         c.listing, c.data_refused_at, c.data_refusal, c.renewal_failed_at, c.renewal_failure, c.overdue_since, \
         c.next_validation_at, c.failed_validations, \
         c.parent_connection_id, c.last_event_sequence, c.created_at, c.updated_at"
    };
}
pub(in crate::store) use connection_columns;

#[derive(sqlx::FromRow)]
pub(in crate::store) struct ConnectionRow {
    pub(in crate::store) connection_id: Uuid,
    workspace_id: String,
    provider: String,
    app_id: String,
    subject_id: String,
    subject_name: String,
    subject_kind: String,
    token_version: i64,
    secret_id: Uuid,
    fingerprint: Option<Vec<u8>>,
    revision: i64,
    kind: String,
    expires_at: Option<i64>,
    expiry_source: String,
    data_access_ends_at: Option<i64>,
    data_access_source: String,
    issued_at: Option<i64>,
    scopes: Json<Vec<String>>,
    granular_scopes: Json<Vec<(String, Vec<String>)>>,
    standing: String,
    standing_since: Option<i64>,
    standing_reason: String,
    provider_code: String,
    last_validated_at: Option<i64>,
    last_rotated_at: Option<i64>,
    last_known_good: Option<i64>,
    ad_account_count: Option<i64>,
    unreachable_count: i64,
    next_deadline_at: Option<i64>,
    next_renewal_at: Option<i64>,
    renewal_attempts: i64,
    listing: Json<ListingColumn>,
    data_refused_at: Option<i64>,
    data_refusal: String,
    renewal_failed_at: Option<i64>,
    renewal_failure: String,
    overdue_since: Option<i64>,
    pub(in crate::store) next_validation_at: Option<i64>,
    failed_validations: i64,
    parent_connection_id: Option<Uuid>,
    last_event_sequence: i64,
    created_at: i64,
    updated_at: i64,
}

/// A connection's facts as columns, for INSERT and UPDATE.
pub(in crate::store) struct FactColumns {
    pub(in crate::store) kind: &'static str,
    pub(in crate::store) expires_at: Option<i64>,
    pub(in crate::store) expiry_source: &'static str,
    pub(in crate::store) expires_sort: i64,
    pub(in crate::store) data_access_ends_at: Option<i64>,
    pub(in crate::store) data_access_source: &'static str,
    pub(in crate::store) issued_at: Option<i64>,
    pub(in crate::store) scopes: Json<Vec<String>>,
    pub(in crate::store) granular_scopes: Json<Vec<(String, Vec<String>)>>,
    pub(in crate::store) standing: &'static str,
    pub(in crate::store) standing_since: Option<i64>,
    pub(in crate::store) standing_reason: String,
    pub(in crate::store) provider_code: String,
}

/// What lists of ad accounts taught, as the database holds it.
#[derive(Serialize, Deserialize)]
pub(in crate::store) struct ListingColumn {
    #[serde(default)]
    rows: Option<u32>,
    #[serde(default)]
    unread: Vec<String>,
}

impl From<Listing> for ListingColumn {
    fn from(listing: Listing) -> Self {
        let unread = listing.unread.parts().map(|part| part.as_str().to_owned()).collect();
        Self { rows: listing.rows, unread }
    }
}

impl From<ListingColumn> for Listing {
    /// A part that a newer release wrote is not known here; the next list says it again.
    fn from(column: ListingColumn) -> Self {
        let unread = column.unread.iter().filter_map(|name| name.parse::<UnreadPart>().ok()).collect();
        Self { rows: column.rows, unread }
    }
}

/// How the database names where an end comes from.
pub(in crate::store) fn expiry_source_name(expiry: Expiry) -> &'static str {
    match expiry {
        Expiry::At(_, source) => source.as_str(),
        Expiry::Never => "NEVER",
        Expiry::Unknown => "UNKNOWN",
    }
}

pub(in crate::store) fn expiry_from(source: &str, end: Option<i64>) -> Option<Expiry> {
    match (source, end) {
        ("NEVER", _) => Some(Expiry::Never),
        ("UNKNOWN", _) => Some(Expiry::Unknown),
        (source, Some(end)) => Some(Expiry::At(Timestamp::from_micros(end), source.parse().ok()?)),
        _ => None,
    }
}

/// How the database names a failed renewal; empty while renewal may work.
pub(in crate::store) const fn renewal_failure_name(failure: Option<RenewalFailure>) -> &'static str {
    match failure {
        None => "",
        Some(RenewalFailure { at_ceiling: true, .. }) => CEILING,
        Some(RenewalFailure { at_ceiling: false, .. }) => "OTHER",
    }
}

impl FactColumns {
    pub(in crate::store) fn of(connection: &Connection) -> Self {
        let facts = &connection.facts;
        let expiry_source = expiry_source_name(facts.expiry);
        let (standing, standing_since, standing_reason, provider_code) = match &connection.standing {
            Standing::Live => ("LIVE", None, String::new(), String::new()),
            Standing::Invalid { since, reason, provider_code } => {
                ("INVALID", Some(since.as_micros()), reason.as_str().to_owned(), provider_code.clone())
            }
            Standing::Revoked { at, by } => ("REVOKED", Some(at.as_micros()), by.clone(), String::new()),
        };
        Self {
            kind: facts.kind.as_str(),
            expires_at: facts.expiry.at().map(Timestamp::as_micros),
            expiry_source,
            expires_sort: facts.expiry.sort_key(),
            data_access_ends_at: facts.data_access.at().map(Timestamp::as_micros),
            data_access_source: expiry_source_name(facts.data_access),
            issued_at: facts.issued_at.map(Timestamp::as_micros),
            scopes: Json(facts.scopes.clone()),
            granular_scopes: Json(
                facts.granular_scopes.iter().map(|g| (g.scope.clone(), g.target_ids.clone())).collect(),
            ),
            standing,
            standing_since,
            standing_reason,
            provider_code,
        }
    }
}

impl TryFrom<ConnectionRow> for Connection {
    type Error = StoreError;

    fn try_from(row: ConnectionRow) -> Result<Self, StoreError> {
        let id = row.connection_id;
        let bad = |column| StoreError::Inconsistent { table: TABLE, column, row: id.to_string() };
        let time = |micros: Option<i64>| micros.map(Timestamp::from_micros);

        let expiry = expiry_from(&row.expiry_source, row.expires_at).ok_or_else(|| bad("expires_at"))?;
        let standing = match (row.standing.as_str(), row.standing_since) {
            ("LIVE", _) => Standing::Live,
            ("INVALID", Some(since)) => Standing::Invalid {
                since: Timestamp::from_micros(since),
                reason: RefusalReason::from_name(&row.standing_reason),
                provider_code: row.provider_code,
            },
            ("REVOKED", Some(at)) => {
                Standing::Revoked { at: Timestamp::from_micros(at), by: row.standing_reason }
            }
            _ => return Err(bad("standing")),
        };
        let fingerprint = row
            .fingerprint
            .map(|bytes| bytes.try_into().map(Fingerprint).map_err(|_| bad("fingerprint")))
            .transpose()?;
        Ok(Self {
            id: ConnectionId::from_uuid(row.connection_id),
            workspace: WorkspaceId::parse(row.workspace_id).map_err(|_| bad("workspace_id"))?,
            provider: ProviderId::parse(row.provider).map_err(|_| bad("provider"))?,
            app_id: row.app_id,
            subject: Subject {
                id: row.subject_id,
                name: row.subject_name,
                kind: SubjectType::from_name(&row.subject_kind),
            },
            version: i32::try_from(row.token_version)
                .ok()
                .and_then(|version| TokenVersion::new(version).ok())
                .ok_or_else(|| bad("token_version"))?,
            secret_id: SecretId::from_uuid(row.secret_id),
            fingerprint,
            revision: row.revision,
            facts: TokenFacts {
                // A kind that a newer release wrote is treated as the most common kind.
                kind: row.kind.parse().unwrap_or(TokenKind::LongLivedUser),
                expiry,
                // An earlier release writes the end alone. Where it wrote none, it read that as "never".
                data_access: match (row.data_access_ends_at, row.data_access_source.as_str()) {
                    (Some(end), _) => Expiry::At(Timestamp::from_micros(end), ExpirySource::Provider),
                    (None, "UNKNOWN") => Expiry::Unknown,
                    (None, _) => Expiry::Never,
                },
                issued_at: time(row.issued_at),
                scopes: row.scopes.0,
                granular_scopes: row
                    .granular_scopes
                    .0
                    .into_iter()
                    .map(|(scope, target_ids)| GranularScope { scope, target_ids })
                    .collect(),
            },
            standing,
            seen: Observations {
                last_validated_at: time(row.last_validated_at),
                last_rotated_at: time(row.last_rotated_at),
                last_known_good: time(row.last_known_good),
                ad_accounts: row.ad_account_count.and_then(|count| u32::try_from(count).ok()),
                unreachable_ad_accounts: u32::try_from(row.unreachable_count).unwrap_or(0),
                listing: row.listing.0.into(),
                data_refusal: time(row.data_refused_at)
                    .map(|at| DataRefusal { at, reason: RefusalReason::from_name(&row.data_refusal) }),
            },
            schedule: Schedule {
                next_deadline_at: time(row.next_deadline_at),
                next_renewal_at: time(row.next_renewal_at),
                attempts: u32::try_from(row.renewal_attempts).unwrap_or(0),
                renewal_failure: time(row.renewal_failed_at)
                    .map(|since| RenewalFailure { since, at_ceiling: row.renewal_failure == CEILING }),
                overdue_since: time(row.overdue_since),
                next_validation_at: time(row.next_validation_at),
                failed_validations: u32::try_from(row.failed_validations).unwrap_or(0),
            },
            parent: row.parent_connection_id.map(ConnectionId::from_uuid),
            last_event: row.last_event_sequence,
            created_at: Timestamp::from_micros(row.created_at),
            updated_at: Timestamp::from_micros(row.updated_at),
        })
    }
}
