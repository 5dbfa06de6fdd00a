//! A provider's "no", classified once (in the provider's own module) and understood everywhere.

use std::fmt;
use std::time::Duration;

/// Why a token does not work at the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalReason {
    /// Its time ran out.
    Expired,
    /// The person changed the password, or the provider reset the session for safety.
    PasswordChanged,
    /// The person removed the app.
    AppRemoved,
    /// The person has to pass a check on the provider's site. May heal without a new login.
    Checkpoint,
    /// The person's account is not confirmed. May heal without a new login.
    UnconfirmedAccount,
    /// The person logged out.
    LoggedOut,
    /// Ended through the provider's API.
    RevokedAtProvider,
    /// Not used for too long.
    UnusedTooLong,
    /// Ninety days without the person.
    DataAccessLapsed,
    /// The person lost the role on the page or business.
    RoleLost,
    /// Blocked for abuse or policy.
    PolicyBlocked,
    /// An administrator's policy forbids it.
    AdminPolicy,
    /// Made for another app.
    WrongApp,
    /// Not a token, or broken.
    Malformed,
    /// The provider says no and not why.
    Unknown,
}

impl RefusalReason {
    const NAMES: [(Self, &'static str); 15] = [
        (Self::Expired, "EXPIRED"),
        (Self::PasswordChanged, "PASSWORD_CHANGED"),
        (Self::AppRemoved, "APP_REMOVED"),
        (Self::Checkpoint, "CHECKPOINT"),
        (Self::UnconfirmedAccount, "UNCONFIRMED_ACCOUNT"),
        (Self::LoggedOut, "LOGGED_OUT"),
        (Self::RevokedAtProvider, "REVOKED_AT_PROVIDER"),
        (Self::UnusedTooLong, "UNUSED_TOO_LONG"),
        (Self::DataAccessLapsed, "DATA_ACCESS_LAPSED"),
        (Self::RoleLost, "ROLE_LOST"),
        (Self::PolicyBlocked, "POLICY_BLOCKED"),
        (Self::AdminPolicy, "ADMIN_POLICY"),
        (Self::WrongApp, "WRONG_APP"),
        (Self::Malformed, "MALFORMED"),
        (Self::Unknown, "UNKNOWN"),
    ];

    /// The name in the database, in the API and in logs.
    pub fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|(reason, _)| *reason == self).map_or("UNKNOWN", |(_, name)| name)
    }

    /// The reason of that name; one that a newer release wrote is unknown here.
    pub fn from_name(name: &str) -> Self {
        Self::NAMES.iter().find(|(_, known)| *known == name).map_or(Self::Unknown, |(reason, _)| *reason)
    }

    /// Whether the same token may work again without a new login, once the person has acted.
    pub const fn may_heal(self) -> bool {
        matches!(self, Self::Checkpoint | Self::UnconfirmedAccount | Self::PolicyBlocked)
    }
}

/// What is wrong on our side: the operator's to mend, never the token's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Misconfiguration {
    /// None of the configured app secrets is the app's.
    AppSecret,
    /// The configured app id is unknown to the provider.
    AppId,
    /// The proof of the app secret is missing or wrong.
    AppSecretProof,
    /// The configured API version is retired.
    ApiVersion,
    /// The app lacks a capability or access level.
    AppCapability,
    /// The redirect URI is not one of the app's.
    RedirectUri,
    /// No app is configured for this provider.
    NotConfigured,
    /// The provider refused our request for a reason that no rule knows.
    Request,
}

impl Misconfiguration {
    /// The name in error metadata and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AppSecret => "APP_SECRET",
            Self::AppId => "APP_ID",
            Self::AppSecretProof => "APP_SECRET_PROOF",
            Self::ApiVersion => "API_VERSION",
            Self::AppCapability => "APP_CAPABILITY",
            Self::RedirectUri => "REDIRECT_URI",
            Self::NotConfigured => "NOT_CONFIGURED",
            Self::Request => "REQUEST",
        }
    }
}

/// What a refusal means for the token and for the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefusalKind {
    /// No verdict on the token: the provider could not be asked, or stumbled. Try again.
    Transient {
        /// How long the provider asks to wait, if it says.
        retry_after: Option<Duration>,
    },
    /// Too many calls in a scope. Wait.
    Throttled {
        /// The scope whose limit is reached: `app`, `ad_account:act_…`, `token`.
        scope: String,
        /// When it may be tried again.
        retry_after: Duration,
    },
    /// The token does not work. A person must act.
    Dead {
        /// Why.
        reason: RefusalReason,
    },
    /// The token works, for another app.
    OtherApp,
    /// The token works, and may not do this.
    Permission {
        /// Only one ad account (or other object) is refused, not a scope.
        object_only: bool,
    },
    /// The person or app is blocked for policy; the token itself may be in order.
    Blocked,
    /// Our own configuration is wrong.
    Ours(Misconfiguration),
}

/// A provider's refusal. Holds nothing secret: `detail` is redacted before it is put here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What it means.
    pub kind: RefusalKind,
    /// The provider's error code, if it gave one.
    pub code: Option<i64>,
    /// The provider's sub-code, if it gave one.
    pub subcode: Option<i64>,
    /// What the provider (or the transport) said, redacted and shortened, for logs and people.
    pub detail: String,
    /// The provider's own id of the reply, to quote in a support case.
    pub trace_id: Option<String>,
}

impl Refusal {
    /// A refusal with no provider code: transport faults and the vault's own findings.
    pub fn new(kind: RefusalKind, detail: impl Into<String>) -> Self {
        Self { kind, code: None, subcode: None, detail: detail.into(), trace_id: None }
    }

    /// The code for people: `190/460`, `190`, or empty.
    pub fn provider_code(&self) -> String {
        match (self.code, self.subcode) {
            (Some(code), Some(subcode)) => format!("{code}/{subcode}"),
            (Some(code), None) => code.to_string(),
            _ => String::new(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}
