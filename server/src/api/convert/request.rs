//! Converts the requests of service `TokenVault` into commands.

use std::collections::BTreeSet;

use token_vault_proto::v1 as pb;
use token_vault_proto::v1::exchange_token_request::SubjectOfExchange;
use token_vault_proto::v1::list_tokens_request::Order;
use token_vault_proto::v1::store_token_request::Credential;
use token_vault_proto::v1::token::Status as PbStatus;

use super::fields::Fields;
use crate::model::{ProviderId, Secret, SecretId, Status};
use crate::provider::ReportedRefusal;
use crate::vault::{
    CHECKS, ExchangeSubject, ExchangeToken, FetchAccessToken, IntakeOptions, ListOrder, ListTokens,
    ReportTokenError, ReportedSecret, RevokeToken, StoreToken, Target, ValidateToken, VaultError,
};

/// Longest id of an ad account or subject, which the provider chose.
const FOREIGN_ID: usize = 128;
/// Longest provider reply in a report, in bytes.
const REPORT_BODY: usize = 16 * 1024;
/// The most headers in a report.
const REPORT_HEADERS: usize = 64;
/// Longest name of a header in a report, in bytes.
const HEADER_NAME: usize = 256;
/// Longest value of a header in a report, in bytes.
const HEADER_VALUE: usize = 8 * 1024;

impl TryFrom<pb::StoreTokenRequest> for StoreToken {
    type Error = VaultError;

    fn try_from(request: pb::StoreTokenRequest) -> Result<Self, VaultError> {
        let mut fields = Fields::default();
        let request_id = fields.request_id(request.request_id);
        let if_version = fields.version("if_token_version", request.if_token_version);
        let workspace = fields.workspace("workspace_id", request.workspace_id);
        let provider = fields.keep("provider", ProviderId::parse(request.provider));
        let connection = request.connection_id.and_then(|id| fields.connection(&id));
        let access_token = credential(&mut fields, request.credential);
        let options = request.options.map_or_else(IntakeOptions::default, IntakeOptions::from);
        let validate_only = request.validate_only;
        let parts = workspace.zip(provider).zip(access_token);
        let ((workspace, provider), access_token) = fields.finish(parts)?;
        Ok(Self {
            request_id,
            if_version,
            workspace,
            provider,
            connection,
            access_token,
            options,
            validate_only,
        })
    }
}

/// Checks only that there is an access token. The vault judges its form.
fn credential(fields: &mut Fields, credential: Option<Credential>) -> Option<Secret> {
    match credential {
        Some(Credential::AccessToken(token)) => Some(Secret::new(token)),
        Some(Credential::RefreshToken(token)) => {
            drop(Secret::new(token));
            fields.violated("refresh_token", "must be unset: send access_token instead");
            None
        }
        Some(Credential::Oauth1(pair)) => {
            drop((
                Secret::new(pair.token),
                Secret::new(pair.token_secret),
                Secret::new(pair.consumer_secret),
            ));
            fields.violated("oauth1", "must be unset: send access_token instead");
            None
        }
        None => {
            fields.violated("access_token", "must be set");
            None
        }
    }
}

impl From<pb::IntakeOptions> for IntakeOptions {
    fn from(options: pb::IntakeOptions) -> Self {
        Self {
            allow_missing_scopes: options.allow_missing_scopes,
            allow_fewer_scopes: options.allow_fewer_scopes,
            allow_subject_change: options.allow_subject_change,
            connect_pages: options.connect_pages,
        }
    }
}

impl TryFrom<pb::ExchangeTokenRequest> for ExchangeToken {
    type Error = VaultError;

    fn try_from(request: pb::ExchangeTokenRequest) -> Result<Self, VaultError> {
        let mut fields = Fields::default();
        let request_id = fields.request_id(request.request_id);
        let if_version = fields.version("if_token_version", request.if_token_version);
        let subject = match request.subject_of_exchange {
            Some(SubjectOfExchange::ConnectionId(id)) => {
                fields.target(&id, request.workspace_id).map(ExchangeSubject::Stored)
            }
            Some(SubjectOfExchange::NewToken(new)) => {
                let unneeded = request.workspace_id.is_some();
                fields.reject_if(unneeded, "workspace_id", "must be unset with new_token, which has its own");
                let access_token = Secret::new(new.access_token);
                fields.reject_if(access_token.expose().is_empty(), "new_token.access_token", "must be set");
                let workspace = fields.workspace("new_token.workspace_id", new.workspace_id);
                let provider = fields.keep("new_token.provider", ProviderId::parse(new.provider));
                workspace.zip(provider).map(|(workspace, provider)| ExchangeSubject::New {
                    workspace,
                    provider,
                    access_token,
                })
            }
            None => {
                fields.violated("subject_of_exchange", "must be set: connection_id or new_token");
                None
            }
        };
        let subject = fields.finish(subject)?;
        Ok(Self { request_id, if_version, subject })
    }
}

impl TryFrom<pb::ValidateTokenRequest> for ValidateToken {
    type Error = VaultError;

    fn try_from(request: pb::ValidateTokenRequest) -> Result<Self, VaultError> {
        let mut fields = Fields::default();
        let target = fields.target(&request.connection_id, request.workspace_id);
        for (at, name) in request.checks.iter().enumerate() {
            let known = CHECKS.contains(&name.as_str());
            fields.reject_if(
                !known,
                &format!("checks[{at}]"),
                &format!("must be one of {}", CHECKS.join(", ")),
            );
        }
        let ad_account_id = fields.text("ad_account_id", request.ad_account_id, FOREIGN_ID);
        let target = fields.finish(target)?;
        Ok(Self { target, checks: request.checks.into_iter().collect(), ad_account_id })
    }
}

impl TryFrom<pb::FetchAccessTokenRequest> for FetchAccessToken {
    type Error = VaultError;

    fn try_from(request: pb::FetchAccessTokenRequest) -> Result<Self, VaultError> {
        let mut fields = Fields::default();
        let target = fields.target(&request.connection_id, request.workspace_id);
        let min_ttl = fields.length("min_ttl", request.min_ttl).unwrap_or_default();
        let target = fields.finish(target)?;
        Ok(Self { target, min_ttl })
    }
}

impl TryFrom<pb::GetTokenRequest> for Target {
    type Error = VaultError;

    fn try_from(request: pb::GetTokenRequest) -> Result<Self, VaultError> {
        let mut fields = Fields::default();
        let target = fields.target(&request.connection_id, request.workspace_id);
        fields.finish(target)
    }
}

impl TryFrom<pb::ListTokensRequest> for ListTokens {
    type Error = VaultError;

    fn try_from(request: pb::ListTokensRequest) -> Result<Self, VaultError> {
        let mut fields = Fields::default();
        let page_size = fields.page_size(request.page_size);
        let page_token = fields.page_token(request.page_token);
        fields.reject_if(request.workspace_ids.len() > 1_000, "workspace_ids", "must be at most 1000");
        fields.reject_if(request.providers.len() > 100, "providers", "must be at most 100");
        let mut workspaces = BTreeSet::new();
        for (at, id) in request.workspace_ids.into_iter().take(1_000).enumerate() {
            workspaces.extend(fields.workspace(&format!("workspace_ids[{at}]"), id));
        }
        let mut providers = BTreeSet::new();
        for (at, id) in request.providers.into_iter().take(100).enumerate() {
            providers.extend(fields.keep(&format!("providers[{at}]"), ProviderId::parse(id)));
        }
        let mut statuses = Vec::new();
        for (at, number) in request.statuses.into_iter().take(100).enumerate() {
            match status(number) {
                Some(status) if statuses.contains(&status) => {}
                Some(status) => statuses.push(status),
                None => fields.violated(format!("statuses[{at}]"), "must be a status of this version"),
            }
        }
        let expiring_within =
            fields.length("expiring_within", request.expiring_within).filter(|time| !time.is_zero());
        let ad_account_id = fields.text("ad_account_id", request.ad_account_id, FOREIGN_ID);
        let subject_id = fields.text("subject_id", request.subject_id, FOREIGN_ID);
        let order = match Order::try_from(request.order) {
            Ok(Order::Unspecified | Order::ExpiresFirst) => ListOrder::ExpiresFirst,
            Ok(Order::CreatedFirst) => ListOrder::CreatedFirst,
            Ok(Order::CreatedLast) => ListOrder::CreatedLast,
            Err(_) => {
                fields.violated("order", "must be an order of this version");
                ListOrder::default()
            }
        };
        fields.check()?;
        Ok(Self {
            workspaces,
            providers,
            statuses,
            expiring_within,
            ad_account_id,
            subject_id,
            order,
            page_size,
            page_token,
        })
    }
}

fn status(number: i32) -> Option<Status> {
    match PbStatus::try_from(number).ok()? {
        PbStatus::Unspecified => None,
        PbStatus::Active => Some(Status::Active),
        PbStatus::Expiring => Some(Status::Expiring),
        PbStatus::Expired => Some(Status::Expired),
        PbStatus::Invalid => Some(Status::Invalid),
        PbStatus::Revoked => Some(Status::Revoked),
    }
}

impl TryFrom<pb::ReportTokenErrorRequest> for ReportTokenError {
    type Error = VaultError;

    fn try_from(request: pb::ReportTokenErrorRequest) -> Result<Self, VaultError> {
        let mut fields = Fields::default();
        let target = fields.target(&request.connection_id, request.workspace_id);
        let unnamed = request.secret_id.is_none() && request.token_version.is_none();
        fields.reject_if(unnamed, "secret_id", "must be set, or token_version");
        let id = request.secret_id.and_then(|id| fields.keep("secret_id", SecretId::parse(&id)));
        let version = fields.version("token_version", request.token_version);
        let secret = id.map(ReportedSecret::Id).or(version.map(ReportedSecret::Version));
        let seen_nothing = request.http_status == 0 && request.body.is_empty() && request.code.is_empty();
        fields.reject_if(seen_nothing, "body", "must be set, or code, or http_status");
        let http_status =
            u16::try_from(request.http_status).ok().filter(|s| *s == 0 || (100..600).contains(s));
        fields.reject_if(http_status.is_none(), "http_status", "must be 0 or 100 to 599");
        fields.reject_if(request.body.len() > REPORT_BODY, "body", "must be at most 16 KiB");
        fields.reject_if(request.code.chars().count() > 128, "code", "must be at most 128 characters");
        fields.reject_if(request.subcode.chars().count() > 128, "subcode", "must be at most 128 characters");
        let headers = headers(&mut fields, request.headers);
        let ad_account_id = fields.text("ad_account_id", request.ad_account_id, FOREIGN_ID);
        let observed_at = fields.instant("observed_at", request.observed_at);
        let last_success_at = fields.instant("last_success_at", request.last_success_at);
        let (target, secret) = fields.finish(target.zip(secret))?;
        let refusal = ReportedRefusal {
            http_status: http_status.unwrap_or(0),
            body: request.body,
            code: request.code,
            subcode: request.subcode,
            headers,
            ad_account_id,
        };
        Ok(Self { target, secret, refusal, observed_at, last_success_at })
    }
}

pub(super) fn headers(fields: &mut Fields, headers: Vec<pb::Header>) -> Vec<(String, String)> {
    fields.reject_if(headers.len() > REPORT_HEADERS, "headers", "must be at most 64");
    for (at, header) in headers.iter().take(REPORT_HEADERS).enumerate() {
        let bad_name = !(1..=HEADER_NAME).contains(&header.name.len());
        fields.reject_if(bad_name, &format!("headers[{at}].name"), "must be 1 to 256 characters");
        fields.reject_if(
            header.value.len() > HEADER_VALUE,
            &format!("headers[{at}].value"),
            "must be at most 8 KiB",
        );
    }
    headers.into_iter().map(|header| (header.name, header.value)).collect()
}

impl TryFrom<pb::RevokeTokenRequest> for RevokeToken {
    type Error = VaultError;

    fn try_from(request: pb::RevokeTokenRequest) -> Result<Self, VaultError> {
        let mut fields = Fields::default();
        let request_id = fields.request_id(request.request_id);
        let if_version = fields.version("if_token_version", request.if_token_version);
        let target = fields.target(&request.connection_id, request.workspace_id);
        let target = fields.finish(target)?;
        Ok(Self {
            request_id,
            if_version,
            target,
            revoke_at_provider: request.revoke_at_provider,
            allow_shared: request.allow_shared,
            erase_subject: request.erase_subject,
        })
    }
}
