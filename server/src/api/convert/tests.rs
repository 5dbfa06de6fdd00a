//! Requests of both services into commands, and the fields that a bad request names.

use std::time::Duration;

use token_vault_proto::v1 as pb;
use token_vault_proto::v1::create_api_key_request::Workspaces;
use token_vault_proto::v1::exchange_token_request::{NewToken, SubjectOfExchange};
use token_vault_proto::v1::store_token_request::Credential;

use crate::model::{ConnectionId, Timestamp};
use crate::vault::{
    CreateApiKey, ExchangeSubject, ExchangeToken, FetchAccessToken, ListOrder, ListTokens, ReportTokenError,
    ReportedSecret, StoreToken, VaultError,
};

pub(super) fn fields(error: VaultError) -> Vec<String> {
    match error {
        VaultError::Fields(violations) => violations.into_iter().map(|violation| violation.field).collect(),
        other => panic!("not about fields: {other:?}"),
    }
}

fn connection() -> String {
    ConnectionId::generate(Timestamp::from_unix_seconds(1)).to_string()
}

fn store() -> pb::StoreTokenRequest {
    pb::StoreTokenRequest {
        workspace_id: "acme".into(),
        provider: "meta".into(),
        credential: Some(Credential::AccessToken("EAAB".into())),
        ..Default::default()
    }
}

#[test]
fn the_least_request_is_enough() {
    let command = StoreToken::try_from(store()).unwrap();
    assert_eq!(command.access_token.expose(), "EAAB");
    assert!(command.request_id.is_none() && command.connection.is_none() && !command.validate_only);
}

#[test]
fn every_bad_field_is_reported() {
    let request = pb::StoreTokenRequest {
        workspace_id: "a b".into(),
        provider: "Meta".into(),
        connection_id: Some("1".into()),
        request_id: "\n".into(),
        if_token_version: Some(0),
        ..Default::default()
    };
    assert_eq!(
        fields(StoreToken::try_from(request).unwrap_err()),
        ["request_id", "if_token_version", "workspace_id", "provider", "connection_id", "access_token"]
    );
}

#[test]
fn other_credentials_than_an_access_token_are_refused() {
    let refresh = Credential::RefreshToken("r".into());
    let oauth1 = Credential::Oauth1(pb::OAuth1Credential::default());
    for (credential, field) in [(refresh, "refresh_token"), (oauth1, "oauth1")] {
        let request = pb::StoreTokenRequest { credential: Some(credential), ..store() };
        assert_eq!(fields(StoreToken::try_from(request).unwrap_err()), [field]);
    }
}

#[test]
fn an_exchange_names_a_connection_or_brings_a_token() {
    let of = |subject| pb::ExchangeTokenRequest { subject_of_exchange: subject, ..Default::default() };
    let stored = ExchangeToken::try_from(of(Some(SubjectOfExchange::ConnectionId(connection())))).unwrap();
    assert!(matches!(stored.subject, ExchangeSubject::Stored(_)));
    assert_eq!(fields(ExchangeToken::try_from(of(None)).unwrap_err()), ["subject_of_exchange"]);
    let empty = Some(SubjectOfExchange::NewToken(NewToken::default()));
    let bad = fields(ExchangeToken::try_from(of(empty)).unwrap_err());
    assert_eq!(bad, ["new_token.access_token", "new_token.workspace_id", "new_token.provider"]);
}

#[test]
fn a_negative_life_is_refused() {
    let fetch = |seconds| {
        let min_ttl = Some(prost_types::Duration { seconds, nanos: 0 });
        FetchAccessToken::try_from(pb::FetchAccessTokenRequest {
            connection_id: connection(),
            min_ttl,
            workspace_id: None,
        })
    };
    assert_eq!(fetch(60).unwrap().min_ttl, Duration::from_secs(60));
    assert_eq!(fields(fetch(-1).unwrap_err()), ["min_ttl"]);
}

#[test]
fn pages_have_bounds_and_a_default() {
    let list = |page_size| ListTokens::try_from(pb::ListTokensRequest { page_size, ..Default::default() });
    assert_eq!(list(0).unwrap().page_size, 50);
    assert_eq!(list(1_000).unwrap().page_size, 1_000);
    for bad in [-1, 1_001] {
        assert_eq!(fields(list(bad).unwrap_err()), ["page_size"]);
    }
}

#[test]
fn unknown_enum_values_are_refused() {
    let request = pb::ListTokensRequest { statuses: vec![1, 0, 99], order: 7, ..Default::default() };
    assert_eq!(fields(ListTokens::try_from(request).unwrap_err()), ["statuses[1]", "statuses[2]", "order"]);
    let request = pb::ListTokensRequest { order: 3, ..Default::default() };
    assert_eq!(ListTokens::try_from(request).unwrap().order, ListOrder::CreatedLast);
}

#[test]
fn a_report_names_a_secret_and_what_the_caller_saw() {
    let empty =
        pb::ReportTokenErrorRequest { connection_id: connection(), http_status: 99, ..Default::default() };
    assert_eq!(fields(ReportTokenError::try_from(empty).unwrap_err()), ["secret_id", "http_status"]);
    let report = pb::ReportTokenErrorRequest {
        connection_id: connection(),
        token_version: Some(3),
        code: "190".into(),
        headers: vec![pb::Header { name: "x-app-usage".into(), value: "{}".into() }],
        ..Default::default()
    };
    let command = ReportTokenError::try_from(report).unwrap();
    assert!(matches!(command.secret, ReportedSecret::Version(version) if version.get() == 3));
    assert_eq!(command.refusal.headers.len(), 1);
}

#[test]
fn a_key_without_workspaces_is_refused() {
    let make = |workspaces| {
        let request =
            pb::CreateApiKeyRequest { principal: "web".into(), role: 1, workspaces, ..Default::default() };
        CreateApiKey::try_from(request)
    };
    assert!(make(Some(Workspaces::AllWorkspaces(true))).is_ok());
    assert_eq!(fields(make(None).unwrap_err()), ["workspaces"]);
    assert_eq!(fields(make(Some(Workspaces::AllWorkspaces(false))).unwrap_err()), ["all_workspaces"]);
    let nobody = Workspaces::Named(pb::WorkspaceList::default());
    assert_eq!(fields(make(Some(nobody)).unwrap_err()), ["named.workspace_ids"]);
}
