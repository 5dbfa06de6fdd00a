//! Every name that is stored or on the wire, written out by hand: renaming a variant must not rename what is stored.

use super::*;

/// Checks both directions.
fn pinned<T: Copy + PartialEq + std::fmt::Debug + std::str::FromStr>(
    names: &[(T, &str)],
    name_of: impl Fn(T) -> &'static str,
) {
    for &(value, name) in names {
        assert_eq!(name_of(value), name);
        assert_eq!(name.parse::<T>().ok(), Some(value), "{name}");
    }
}

#[test]
fn stored_names_never_change() {
    use UnreadPart as U;
    pinned(
        &[
            (U::OwnersNotGranted, "OWNERS_NOT_GRANTED"),
            (U::OwnersHidden, "OWNERS_HIDDEN"),
            (U::Businesses, "BUSINESSES"),
            (U::BusinessAccounts, "BUSINESS_ACCOUNTS"),
            (U::Rest, "REST"),
        ],
        UnreadPart::as_str,
    );
    use EventKind as E;
    pinned(
        &[
            (E::Connected, "CONNECTED"),
            (E::Replaced, "REPLACED"),
            (E::Expiring, "EXPIRING"),
            (E::Expired, "EXPIRED"),
            (E::Invalidated, "INVALIDATED"),
            (E::Restored, "RESTORED"),
            (E::Rotated, "ROTATED"),
            (E::RotationFailed, "ROTATION_FAILED"),
            (E::ScopesChanged, "SCOPES_CHANGED"),
            (E::AdAccountsChanged, "AD_ACCOUNTS_CHANGED"),
            (E::DataAccessExpiring, "DATA_ACCESS_EXPIRING"),
            (E::DataAccessExpired, "DATA_ACCESS_EXPIRED"),
            (E::Throttled, "THROTTLED"),
            (E::Overdue, "OVERDUE"),
            (E::Revoked, "REVOKED"),
            (E::ProviderAlarm, "PROVIDER_ALARM"),
            (E::ProviderRecovered, "PROVIDER_RECOVERED"),
            (E::DeadlinesChanged, "DEADLINES_CHANGED"),
            (E::Unknown, "UNKNOWN"),
        ],
        E::as_str,
    );
    pinned(
        &[(DeadlineKind::Token, "TOKEN"), (DeadlineKind::DataAccess, "DATA_ACCESS")],
        DeadlineKind::as_str,
    );
    use RefusalReason as R;
    pinned(
        &[
            (R::Expired, "EXPIRED"),
            (R::PasswordChanged, "PASSWORD_CHANGED"),
            (R::AppRemoved, "APP_REMOVED"),
            (R::Checkpoint, "CHECKPOINT"),
            (R::UnconfirmedAccount, "UNCONFIRMED_ACCOUNT"),
            (R::LoggedOut, "LOGGED_OUT"),
            (R::RevokedAtProvider, "REVOKED_AT_PROVIDER"),
            (R::UnusedTooLong, "UNUSED_TOO_LONG"),
            (R::DataAccessLapsed, "DATA_ACCESS_LAPSED"),
            (R::RoleLost, "ROLE_LOST"),
            (R::PermissionRefused, "PERMISSION_REFUSED"),
            (R::PolicyBlocked, "POLICY_BLOCKED"),
            (R::AdminPolicy, "ADMIN_POLICY"),
            (R::WrongApp, "WRONG_APP"),
            (R::Malformed, "MALFORMED"),
            (R::Unknown, "UNKNOWN"),
        ],
        R::as_str,
    );
    use Misconfiguration as M;
    let misconfigurations = [
        (M::AppSecret, "APP_SECRET"),
        (M::AppId, "APP_ID"),
        (M::AppSecretProof, "APP_SECRET_PROOF"),
        (M::ApiVersion, "API_VERSION"),
        (M::AppCapability, "APP_CAPABILITY"),
        (M::AppBlocked, "APP_BLOCKED"),
        (M::RedirectUri, "REDIRECT_URI"),
        (M::NotConfigured, "NOT_CONFIGURED"),
        (M::Request, "REQUEST"),
    ];
    pinned(&misconfigurations, M::as_str);
    let troubles = [
        (ProviderTrouble::Unreachable, "UNREACHABLE"),
        (ProviderTrouble::Throttled, "THROTTLED"),
        (ProviderTrouble::ManyDeaths, "MANY_DEATHS"),
        (ProviderTrouble::Misconfigured(M::AppSecret), "APP_SECRET"),
    ];
    for (trouble, name) in troubles {
        assert_eq!((trouble.as_str(), ProviderTrouble::from_name(name)), (name, Some(trouble)));
    }
    use AdAccountState as A;
    pinned(
        &[
            (A::Active, "ACTIVE"),
            (A::Limited, "LIMITED"),
            (A::Disabled, "DISABLED"),
            (A::Closed, "CLOSED"),
            (A::Unknown, "UNKNOWN"),
        ],
        A::as_str,
    );
    pinned(
        &[
            (Role::Connector, "connector"),
            (Role::Ingestion, "ingestion"),
            (Role::Alerting, "alerting"),
            (Role::Viewer, "viewer"),
            (Role::Admin, "admin"),
        ],
        Role::as_str,
    );
    pinned(
        &[
            (TokenKind::ShortLivedUser, "SHORT_LIVED_USER"),
            (TokenKind::LongLivedUser, "LONG_LIVED_USER"),
            (TokenKind::Page, "PAGE"),
            (TokenKind::SystemUser, "SYSTEM_USER"),
        ],
        TokenKind::as_str,
    );
    pinned(
        &[
            (SubjectType::User, "USER"),
            (SubjectType::Page, "PAGE"),
            (SubjectType::SystemUser, "SYSTEM_USER"),
            (SubjectType::App, "APP"),
            (SubjectType::Unknown, "UNKNOWN"),
        ],
        SubjectType::as_str,
    );
    pinned(
        &[
            (ExpirySource::Provider, "PROVIDER"),
            (ExpirySource::Reply, "REPLY"),
            (ExpirySource::Assumed, "ASSUMED"),
        ],
        ExpirySource::as_str,
    );
    pinned(
        &[
            (Fixer::WorkspaceOwner, "WORKSPACE_OWNER"),
            (Fixer::Operator, "OPERATOR"),
            (Fixer::AppAdmin, "APP_ADMIN"),
            (Fixer::AdAccountAdmin, "AD_ACCOUNT_ADMIN"),
            (Fixer::Nobody, "NOBODY"),
        ],
        Fixer::as_str,
    );
    use Status as S;
    pinned(
        &[
            (S::Active, "ACTIVE"),
            (S::Expiring, "EXPIRING"),
            (S::Expired, "EXPIRED"),
            (S::Invalid, "INVALID"),
            (S::Revoked, "REVOKED"),
        ],
        S::as_str,
    );
}

#[test]
fn a_name_of_a_newer_release_is_unknown() {
    assert_eq!(EventKind::from_name("SOMETHING_NEW"), EventKind::Unknown);
    assert_eq!(RefusalReason::from_name("expired"), RefusalReason::Unknown);
    assert_eq!(AdAccountState::from_name(""), AdAccountState::Unknown);
    assert_eq!((DeadlineKind::from_name("token"), ProviderTrouble::from_name("")), (None, None));
    assert!(Role::parse("Admin").is_err());
}
