//! A connection's token as a protobuf message: metadata only, never a secret.

mod ad_accounts;

use token_vault_proto::v1 as pb;
use token_vault_proto::v1::{check, deadline, expiry, subject, token};

use super::bounds::texts;
use super::time::instant;
use crate::model::{
    Badge, BadgeColor, Check, CheckResult, Expiry, ExpirySource, Fixer, GranularScope, Problem,
    ProblemReason, RefusalReason, Remedy, Renewal, Severity, Standing, Status, Subject, SubjectType,
};
use crate::vault::TokenView;

impl From<TokenView> for pb::Token {
    fn from(view: TokenView) -> Self {
        let (connection, health) = (view.connection, view.health);
        let (facts, seen) = (connection.facts, connection.seen);
        let (mut invalid_since, mut invalid_reason, mut code, mut revoked_at) =
            (None, None, String::new(), None);
        match connection.standing {
            Standing::Live => {}
            Standing::Invalid { since, reason, provider_code } => {
                (invalid_since, invalid_reason, code) = (Some(instant(since)), Some(reason), provider_code);
            }
            Standing::Revoked { at, by: _ } => revoked_at = Some(instant(at)),
        }
        Self {
            connection_id: if view.is_new { String::new() } else { connection.id.to_string() },
            workspace_id: connection.workspace.to_string(),
            provider: connection.provider.to_string(),
            token_version: connection.version.get(),
            subject: Some(connection.subject.into()),
            app_id: connection.app_id,
            material: token::Material::Single.into(),
            renewal: renewal(health.renewal).into(),
            status: status(health.status).into(),
            usable: health.is_usable(),
            badge: Some(health.badge().into()),
            expiry: Some(facts.expiry.into()),
            deadlines: deadlines(facts.expiry, facts.data_access),
            scopes: facts.scopes,
            missing_required_scopes: view.missing_required_scopes,
            missing_optional_scopes: view.missing_optional_scopes,
            granular_scopes: facts.granular_scopes.into_iter().map(Into::into).collect(),
            ad_account_count: count(seen.ad_accounts.unwrap_or(0)),
            unreachable_ad_account_count: count(seen.unreachable_ad_accounts),
            problems: health.into_problems().into_iter().map(Into::into).collect(),
            invalid_since,
            last_known_good: seen.last_known_good.map(instant),
            invalid_reason: invalid_reason.map_or(pb::RefusalReason::Unspecified, refusal_reason).into(),
            provider_code: code,
            issued_at: facts.issued_at.map(instant),
            created_at: Some(instant(connection.created_at)),
            updated_at: Some(instant(connection.updated_at)),
            last_validated_at: seen.last_validated_at.map(instant),
            last_rotated_at: seen.last_rotated_at.map(instant),
            next_renewal_at: connection.schedule.next_renewal_at.map(instant),
            revoked_at,
            fingerprint: connection.fingerprint.map_or(String::new(), |print| print.to_string()),
            shared_connections: count(view.shared_connections),
            // A negative number is a placeholder until the commit numbers the event.
            last_event_sequence: connection.last_event.max(0),
            left_out_scopes: 0,
            left_out_granular_scopes: 0,
        }
    }
}

pub(super) fn severity(severity: Severity) -> pb::Severity {
    match severity {
        Severity::Info => pb::Severity::Info,
        Severity::Warning => pb::Severity::Warning,
        Severity::Critical => pb::Severity::Critical,
    }
}

pub(super) fn count(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// All known deadlines, the nearest first.
fn deadlines(expiry: Expiry, data_access: Expiry) -> Vec<pb::Deadline> {
    let deadline = |kind: deadline::Kind, expiry: Expiry, blocks: bool| pb::Deadline {
        kind: kind.into(),
        expiry: Some(expiry.into()),
        blocks,
        fixer: fixer(if expiry == Expiry::Never { Fixer::Nobody } else { Fixer::WorkspaceOwner }).into(),
    };
    let mut ends = vec![(expiry.sort_key(), deadline(deadline::Kind::Token, expiry, true))];
    if data_access.at().is_some() {
        ends.push((data_access.sort_key(), deadline(deadline::Kind::DataAccess, data_access, false)));
    }
    ends.sort_by_key(|(end, _)| *end);
    ends.into_iter().map(|(_, deadline)| deadline).collect()
}

impl From<Subject> for pb::Subject {
    fn from(subject: Subject) -> Self {
        let kind = match subject.kind {
            SubjectType::User => subject::Type::User,
            SubjectType::Page => subject::Type::Page,
            SubjectType::SystemUser => subject::Type::SystemUser,
            SubjectType::App => subject::Type::App,
            SubjectType::Unknown => subject::Type::Unknown,
        };
        Self { id: subject.id, name: texts::name(subject.name), r#type: kind.into() }
    }
}

impl From<Expiry> for pb::Expiry {
    fn from(expiry: Expiry) -> Self {
        let (kind, at, source) = match expiry {
            Expiry::At(end, source) => (
                expiry::Kind::At,
                Some(instant(end)),
                match source {
                    ExpirySource::Provider => expiry::Source::Provider,
                    ExpirySource::Reply => expiry::Source::Reply,
                    ExpirySource::Assumed => expiry::Source::Assumed,
                },
            ),
            Expiry::Never => (expiry::Kind::Never, None, expiry::Source::Provider),
            Expiry::Unknown => (expiry::Kind::Unknown, None, expiry::Source::Unspecified),
        };
        Self { kind: kind.into(), at, source: source.into() }
    }
}

impl From<Badge> for token::Badge {
    fn from(badge: Badge) -> Self {
        let color = match badge.color {
            BadgeColor::Green => token::badge::Color::Green,
            BadgeColor::Amber => token::badge::Color::Amber,
            BadgeColor::Red => token::badge::Color::Red,
            BadgeColor::Grey => token::badge::Color::Grey,
        };
        Self { color: color.into(), text: badge.text, days_left: badge.days_left }
    }
}

impl From<GranularScope> for pb::GranularScope {
    fn from(scope: GranularScope) -> Self {
        Self { scope: scope.scope, target_ids: scope.target_ids, left_out_target_ids: 0 }
    }
}

impl From<Problem> for pb::Problem {
    fn from(problem: Problem) -> Self {
        Self {
            reason: problem_reason(problem.reason).into(),
            severity: severity(problem.severity()).into(),
            since: problem.since.map(instant),
            remedy: Some(problem.remedy.into()),
            metadata: texts::metadata(problem.metadata),
        }
    }
}

impl From<Check> for pb::Check {
    fn from(check: Check) -> Self {
        Self {
            name: check.name.to_owned(),
            result: check_result(check.result).into(),
            remedy: Some(check.remedy.into()),
            metadata: texts::metadata(check.metadata),
        }
    }
}

impl From<Remedy> for pb::Remedy {
    fn from(remedy: Remedy) -> Self {
        let Remedy { fixer: who, message, action, url } = remedy;
        let (message, action) = (texts::sentence(message), texts::sentence(action));
        Self { fixer: fixer(who).into(), message, action, url }
    }
}

pub(super) fn check_result(result: CheckResult) -> check::Result {
    match result {
        CheckResult::Skipped => check::Result::Skipped,
        CheckResult::Pass => check::Result::Pass,
        CheckResult::Unknown => check::Result::Unknown,
        CheckResult::Warn => check::Result::Warn,
        CheckResult::Fail => check::Result::Fail,
    }
}

pub(super) fn status(status: Status) -> token::Status {
    match status {
        Status::Active => token::Status::Active,
        Status::Expiring => token::Status::Expiring,
        Status::Expired => token::Status::Expired,
        Status::Invalid => token::Status::Invalid,
        Status::Revoked => token::Status::Revoked,
    }
}

fn renewal(renewal: Renewal) -> token::Renewal {
    match renewal {
        Renewal::ByVault => token::Renewal::ByVault,
        Renewal::MaybeByVault => token::Renewal::MaybeByVault,
        Renewal::ByPerson => token::Renewal::ByPerson,
        Renewal::NotNeeded => token::Renewal::NotNeeded,
    }
}

fn fixer(fixer: Fixer) -> pb::Fixer {
    match fixer {
        Fixer::WorkspaceOwner => pb::Fixer::WorkspaceOwner,
        Fixer::Operator => pb::Fixer::Operator,
        Fixer::AppAdmin => pb::Fixer::AppAdmin,
        Fixer::AdAccountAdmin => pb::Fixer::AdAccountAdmin,
        Fixer::Nobody => pb::Fixer::Nobody,
    }
}

pub(super) fn refusal_reason(reason: RefusalReason) -> pb::RefusalReason {
    match reason {
        RefusalReason::Expired => pb::RefusalReason::Expired,
        RefusalReason::PasswordChanged => pb::RefusalReason::PasswordChanged,
        RefusalReason::AppRemoved => pb::RefusalReason::AppRemoved,
        RefusalReason::Checkpoint => pb::RefusalReason::Checkpoint,
        RefusalReason::UnconfirmedAccount => pb::RefusalReason::UnconfirmedAccount,
        RefusalReason::LoggedOut => pb::RefusalReason::LoggedOut,
        RefusalReason::RevokedAtProvider => pb::RefusalReason::RevokedAtProvider,
        RefusalReason::UnusedTooLong => pb::RefusalReason::UnusedTooLong,
        RefusalReason::DataAccessLapsed => pb::RefusalReason::DataAccessLapsed,
        RefusalReason::RoleLost => pb::RefusalReason::RoleLost,
        RefusalReason::PermissionRefused => pb::RefusalReason::PermissionRefused,
        RefusalReason::PolicyBlocked => pb::RefusalReason::PolicyBlocked,
        RefusalReason::AdminPolicy => pb::RefusalReason::AdminPolicy,
        RefusalReason::WrongApp => pb::RefusalReason::WrongApp,
        RefusalReason::Malformed => pb::RefusalReason::Malformed,
        RefusalReason::Unknown => pb::RefusalReason::Unknown,
    }
}

fn problem_reason(reason: ProblemReason) -> pb::ErrorReason {
    match reason {
        ProblemReason::TokenExpired => pb::ErrorReason::TokenExpired,
        ProblemReason::TokenInvalid => pb::ErrorReason::TokenInvalid,
        ProblemReason::TokenRevoked => pb::ErrorReason::TokenRevoked,
        ProblemReason::ScopesMissing => pb::ErrorReason::ScopesMissing,
        ProblemReason::ExpiringSoon => pb::ErrorReason::ExpiringSoon,
        ProblemReason::ExpiryUnknown => pb::ErrorReason::ExpiryUnknown,
        ProblemReason::AtCeiling => pb::ErrorReason::AtCeiling,
        ProblemReason::ReauthorizationRequired => pb::ErrorReason::ReauthorizationRequired,
        ProblemReason::DataAccessEnding => pb::ErrorReason::DataAccessEnding,
        ProblemReason::AdAccountsUnreachable => pb::ErrorReason::AdAccountsUnreachable,
        ProblemReason::NoAdAccounts => pb::ErrorReason::NoAdAccounts,
        ProblemReason::AdAccountsUnread => pb::ErrorReason::AdAccountsUnread,
        ProblemReason::OptionalScopesMissing => pb::ErrorReason::OptionalScopesMissing,
        ProblemReason::Overdue => pb::ErrorReason::Overdue,
    }
}
