//! Converts the outcomes of service `TokenVault`'s verbs into responses.

use token_vault_proto::v1 as pb;
use token_vault_proto::v1::exchange_token_response::Outcome as PbExchangeOutcome;
use token_vault_proto::v1::fetch_access_token_response::Credential;
use token_vault_proto::v1::intake_result::Outcome as PbIntakeOutcome;
use token_vault_proto::v1::report_token_error_response::{Advice as PbAdvice, Verdict as PbVerdict};
use token_vault_proto::v1::request_part::Place as PbPlace;
use token_vault_proto::v1::revoke_token_response::ProviderOutcome as PbProviderOutcome;

use super::bounds::{Filled, beside, whole};
use super::time::{instant, length};
use super::token::{check_result, status};
use crate::provider::{PartPlacement, RequestPart, Usage};
use crate::vault::{
    Advice, Exchange, ExchangeOutcome, Fetched, Intake, IntakeOutcome, ProviderOutcome, ReportOutcome,
    Revoked, TokenPage, TokenView, Validation, Verdict, worst,
};

impl From<Intake> for pb::StoreTokenResponse {
    fn from(intake: Intake) -> Self {
        let overall = intake.overall();
        let outcome = match intake.outcome {
            IntakeOutcome::Created => PbIntakeOutcome::Created,
            IntakeOutcome::Replaced => PbIntakeOutcome::Replaced,
            IntakeOutcome::Restored => PbIntakeOutcome::Restored,
            IntakeOutcome::Unchanged => PbIntakeOutcome::Unchanged,
            IntakeOutcome::ValidatedOnly => PbIntakeOutcome::ValidatedOnly,
        };
        let result = pb::IntakeResult {
            token: beside(intake.token),
            outcome: outcome.into(),
            checks: intake.checks.into_iter().map(Into::into).collect(),
            overall: check_result(overall).into(),
            cursor: intake.cursor,
            page_connection_ids: intake.pages.iter().map(ToString::to_string).collect(),
        };
        Self { result: Some(result) }
    }
}

impl From<Exchange> for pb::ExchangeTokenResponse {
    fn from(exchange: Exchange) -> Self {
        let outcome = match exchange.outcome {
            ExchangeOutcome::Extended => PbExchangeOutcome::Extended,
            ExchangeOutcome::AtCeiling => PbExchangeOutcome::AtCeiling,
            ExchangeOutcome::Shortened => PbExchangeOutcome::Shortened,
            ExchangeOutcome::NowNeverExpires => PbExchangeOutcome::NowNeverExpires,
        };
        Self {
            token: beside(exchange.token),
            outcome: outcome.into(),
            previous_expiry: Some(exchange.previous_expiry.into()),
            cursor: exchange.cursor,
        }
    }
}

impl From<Validation> for pb::ValidateTokenResponse {
    fn from(validation: Validation) -> Self {
        let overall = worst(&validation.checks);
        Self {
            token: beside(validation.token),
            checks: validation.checks.into_iter().map(Into::into).collect(),
            overall: check_result(overall).into(),
            cursor: validation.cursor,
        }
    }
}

impl From<Fetched> for pb::FetchAccessTokenResponse {
    fn from(fetched: Fetched) -> Self {
        let access_token = fetched.secret.expose().to_owned();
        Self {
            credential: Some(Credential::Bearer(pb::BearerCredential { access_token })),
            send_with: fetched.send_with.into_iter().map(Into::into).collect(),
            token_version: fetched.version.get(),
            secret_id: fetched.secret_id.to_string(),
            access_expiry: Some(fetched.expiry.into()),
            status: status(fetched.status).into(),
            budget: fetched.usage.map(Into::into),
            cache_for: Some(length(fetched.cache_for)),
        }
    }
}

impl From<RequestPart> for pb::RequestPart {
    fn from(part: RequestPart) -> Self {
        let place = match part.placement {
            PartPlacement::Query => PbPlace::Query,
            PartPlacement::Header => PbPlace::Header,
            PartPlacement::Body => PbPlace::Body,
        };
        Self { place: place.into(), name: part.name.to_owned(), value: part.value.expose().to_owned() }
    }
}

impl From<Usage> for pb::Budget {
    fn from(usage: Usage) -> Self {
        Self {
            scope: usage.scope,
            utilization_percent: usage.utilization_percent,
            calls_left: None,
            throttled: !usage.retry_after.is_zero(),
            retry_after: Some(length(usage.retry_after)),
            as_of: Some(instant(usage.as_of)),
        }
    }
}

/// One token, and the cursor of the feed that it reflects.
#[derive(Debug)]
pub(in crate::api) struct OneToken(pub(in crate::api) TokenView, pub(in crate::api) String);

impl From<OneToken> for pb::GetTokenResponse {
    fn from(OneToken(view, cursor): OneToken) -> Self {
        let as_of = instant(view.as_of);
        Self { token: whole(view), cursor, as_of: Some(as_of) }
    }
}

impl From<Filled<TokenPage, pb::Token>> for pb::ListTokensResponse {
    fn from(page: Filled<TokenPage, pb::Token>) -> Self {
        let TokenPage { next_page_token, cursor, as_of } = page.rest;
        Self { tokens: page.elements, next_page_token, cursor, as_of: Some(instant(as_of)) }
    }
}

impl From<ReportOutcome> for pb::ReportTokenErrorResponse {
    fn from(outcome: ReportOutcome) -> Self {
        let verdict = match outcome.verdict {
            Verdict::Invalidated => PbVerdict::Invalidated,
            Verdict::AlreadyDead => PbVerdict::AlreadyDead,
            Verdict::StaleReport => PbVerdict::StaleReport,
            Verdict::StillValid => PbVerdict::StillValid,
            Verdict::Transient => PbVerdict::Transient,
            Verdict::Throttled => PbVerdict::Throttled,
            Verdict::Permission => PbVerdict::Permission,
            Verdict::OurMisconfiguration => PbVerdict::OurMisconfiguration,
            Verdict::Unconfirmed => PbVerdict::Unconfirmed,
        };
        let advice = match outcome.advice {
            Advice::Pause => PbAdvice::Pause,
            Advice::RetryAfter => PbAdvice::RetryAfter,
            Advice::FetchAgain => PbAdvice::FetchAgain,
            Advice::SkipAdAccount => PbAdvice::SkipAdAccount,
            Advice::FixRequest => PbAdvice::FixRequest,
        };
        Self {
            verdict: verdict.into(),
            advice: advice.into(),
            retry_after: Some(length(outcome.retry_after)),
            token: beside(outcome.token),
            cursor: outcome.cursor,
        }
    }
}

impl From<Revoked> for pb::RevokeTokenResponse {
    fn from(revoked: Revoked) -> Self {
        let outcome = match revoked.provider_outcome {
            ProviderOutcome::NotAsked => PbProviderOutcome::NotAsked,
            ProviderOutcome::Revoked => PbProviderOutcome::Revoked,
            ProviderOutcome::AlreadyGone => PbProviderOutcome::AlreadyGone,
            ProviderOutcome::NotSupported => PbProviderOutcome::NotSupported,
        };
        Self { token: beside(revoked.token), provider_outcome: outcome.into(), cursor: revoked.cursor }
    }
}
