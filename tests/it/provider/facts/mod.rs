//! What a provider tells, leaves out, or can't mean: absent, empty, zero and impossible are four things.

mod examples;
mod table;

use token_vault_proto::v1::deadline;
use token_vault_proto::v1::expiry;
use token_vault_tests::prelude::*;

/// What is known of a token: everything that a provider's reply may change.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Known {
    pub(crate) subject: (String, String, i32),
    pub(crate) expiry: (expiry::Kind, Option<i64>),
    /// `None`: not known, or never.
    pub(crate) data_access: Option<i64>,
    pub(crate) issued_at: Option<i64>,
    pub(crate) scopes: Vec<String>,
    pub(crate) granular: Vec<(String, Vec<String>)>,
    pub(crate) status: pb::token::Status,
    pub(crate) ad_accounts: (i32, i32),
}

impl Known {
    pub(crate) fn of(token: &pb::Token) -> Self {
        let seconds = |at: Option<prost_types::Timestamp>| at.map(|at| at.seconds);
        let subject = token.subject.clone().unwrap_or_default();
        let expiry = token.expiry.unwrap_or_default();
        let data_access =
            token.deadlines.iter().find(|deadline| deadline.kind() == deadline::Kind::DataAccess);
        Self {
            subject: (subject.id, subject.name, subject.r#type),
            expiry: (expiry.kind(), seconds(expiry.at)),
            data_access: data_access.and_then(|deadline| seconds(deadline.expiry?.at)),
            issued_at: seconds(token.issued_at),
            scopes: token.scopes.clone(),
            granular: token
                .granular_scopes
                .iter()
                .map(|limit| (limit.scope.clone(), limit.target_ids.clone()))
                .collect(),
            status: token.status(),
            ad_accounts: (token.ad_account_count, token.unreachable_ad_account_count),
        }
    }

    pub(crate) async fn now(world: &World, connection: &str) -> Self {
        Self::of(&world.viewer().await.get(connection).await.expect("the connection is there"))
    }
}

/// A fault that lasts and changes one value of a reply. `raw` is the JSON of the value; `None` removes it.
pub(crate) fn says(endpoint: Endpoint, pointer: &str, raw: Option<&str>) -> Fault {
    let kind = match raw {
        Some(raw) => FaultKind::SetRaw(pointer.to_owned(), raw.to_owned()),
        None => FaultKind::Set(pointer.to_owned(), serde_json::Value::Null),
    };
    Fault::on(endpoint).always().with(kind)
}

/// The kinds of all events about a connection, once the feed has no more of them.
pub(crate) async fn kinds_of(feed: &Feed, connection: &str) -> Vec<Kind> {
    feed.caught_up().await;
    feed.kinds_of(connection)
}
