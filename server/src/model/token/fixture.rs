//! A connection for unit tests.

use std::time::Duration;

use super::*;
use crate::model::{ConnectionId, ProviderId, SecretId, Timestamp, TokenVersion, WorkspaceId};

pub(in crate::model) const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);
pub(in crate::model) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) fn connection(expiry: Expiry, standing: Standing) -> Connection {
    Connection {
        id: ConnectionId::generate(NOW),
        workspace: WorkspaceId::parse("acme").unwrap(),
        provider: ProviderId::parse("meta").unwrap(),
        app_id: "1".into(),
        subject: Subject { id: "10".into(), name: "Ana".into(), kind: SubjectType::User },
        version: TokenVersion::FIRST,
        secret_id: SecretId::generate(),
        fingerprint: None,
        revision: 1,
        facts: TokenFacts {
            kind: TokenKind::LongLivedUser,
            expiry,
            data_access: Expiry::Never,
            issued_at: None,
            scopes: vec!["ads_read".into()],
            granular_scopes: vec![],
        },
        standing,
        seen: Observations::default(),
        schedule: Schedule::default(),
        parent: None,
        last_event: 0,
        created_at: NOW,
        updated_at: NOW,
    }
}

pub(in crate::model) fn at(end: Timestamp) -> Expiry {
    Expiry::At(end, ExpirySource::Provider)
}
