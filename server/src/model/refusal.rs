//! Refusals of a provider. The provider's own module classifies them once; everything else uses these types.

use std::fmt;
use std::time::Duration;

/// Why a token does not work at the provider.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::EnumString, strum::VariantArray,
)]
#[strum(const_into_str, serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum RefusalReason {
    Expired,
    /// The person changed the password, or the provider reset the session for security.
    PasswordChanged,
    AppRemoved,
    /// The person has to pass a security check on the provider's site.
    Checkpoint,
    /// The person's account at the provider is not confirmed.
    UnconfirmedAccount,
    LoggedOut,
    /// Somebody revoked the token through the provider's API.
    RevokedAtProvider,
    UnusedTooLong,
    /// The person has not used the app for ninety days.
    DataAccessLapsed,
    /// The person no longer has the role on the page or business.
    RoleLost,
    /// The provider blocked the person or the app for abuse or policy.
    PolicyBlocked,
    AdminPolicy,
    WrongApp,
    Malformed,
    /// The provider refuses what the token's scopes permit.
    PermissionRefused,
    /// The provider gives no reason.
    Unknown,
}

impl RefusalReason {
    /// The name in the database, in the API and in logs.
    pub const fn as_str(self) -> &'static str {
        self.into_str()
    }

    /// A reason that a newer release wrote is unknown here.
    pub fn from_name(name: &str) -> Self {
        name.parse().unwrap_or(Self::Unknown)
    }

    /// Whether the same token may work again without a new login, once the person has acted.
    pub const fn may_heal(self) -> bool {
        matches!(
            self,
            Self::Checkpoint | Self::UnconfirmedAccount | Self::PolicyBlocked | Self::PermissionRefused
        )
    }
}

/// What is wrong with our own configuration: never the token's fault.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::EnumString, strum::VariantArray,
)]
#[strum(const_into_str, serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum Misconfiguration {
    /// None of the configured app secrets is the app's.
    AppSecret,
    /// The provider does not know the configured app id.
    AppId,
    /// The proof of the app secret is missing or wrong.
    AppSecretProof,
    /// The configured API version is retired.
    ApiVersion,
    AppCapability,
    /// The provider has blocked or suspended the app: every token is refused until an administrator of the app acts.
    AppBlocked,
    /// The redirect URI is not one of the app's.
    RedirectUri,
    NotConfigured,
    /// The provider refused our request for a reason that this version does not know.
    Request,
}

impl Misconfiguration {
    /// The name in error metadata and logs.
    pub const fn as_str(self) -> &'static str {
        self.into_str()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefusalKind {
    /// Says nothing about the token: the provider did not reply, or had an error of its own. Try again.
    Transient {
        /// How long the provider asks to wait.
        retry_after: Option<Duration>,
    },
    /// Too many calls in a scope.
    Throttled {
        /// The scope whose limit is reached: `app`, `ad_account:act_…`, `token`.
        scope: String,
        /// How long to wait before the next try.
        retry_after: Duration,
    },
    /// The token does not work. A person must act.
    Dead { reason: RefusalReason },
    /// The token works, for another app.
    OtherApp,
    /// The token works, and is not permitted to do this.
    Permission {
        /// Only one ad account (or other object) is refused, not a scope.
        object_only: bool,
    },
    /// The provider blocks the person or the app for policy reasons; the token itself may be in order.
    Blocked,
    /// Our own configuration is wrong.
    Ours(Misconfiguration),
    /// Says nothing at all: whoever waits for the reply had no more time, so the call was not made, or cut off. Only
    /// calls on a caller's behalf end so.
    OutOfTime,
}

/// A provider's refusal. It holds no secret: `detail` is redacted before it is stored here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub kind: RefusalKind,
    pub code: Option<i64>,
    pub subcode: Option<i64>,
    /// What the provider (or the transport) said, redacted and shortened.
    pub detail: String,
    /// The provider's id of the reply, for a support case.
    pub trace_id: Option<String>,
}

impl Refusal {
    /// A refusal without a provider code: a transport error, or the vault's own finding.
    pub fn new(kind: RefusalKind, detail: impl Into<String>) -> Self {
        Self { kind, code: None, subcode: None, detail: detail.into(), trace_id: None }
    }

    /// Why a data call was refused, if it was for the token's or the person's sake. `None`: the refusal is about our app,
    /// the provider, the number of calls or a single object, and says nothing about the token.
    pub const fn of_token(&self) -> Option<RefusalReason> {
        match self.kind {
            // Whether the token is the app's is for the inspector to say.
            RefusalKind::Dead { reason: RefusalReason::WrongApp } | RefusalKind::OtherApp => None,
            RefusalKind::Dead { reason } => Some(reason),
            RefusalKind::Permission { object_only: false } => Some(RefusalReason::PermissionRefused),
            RefusalKind::Permission { object_only: true }
            | RefusalKind::Transient { .. }
            | RefusalKind::Throttled { .. }
            | RefusalKind::Blocked
            | RefusalKind::Ours(_)
            | RefusalKind::OutOfTime => None,
        }
    }

    /// Whether it would be the same for every token: the provider does not reply, has an error, limits calls, or
    /// refuses our own request. It says nothing about the token that was asked about.
    pub const fn is_not_about_the_token(&self) -> bool {
        matches!(
            self.kind,
            RefusalKind::Transient { .. } | RefusalKind::Throttled { .. } | RefusalKind::Ours(_)
        )
    }

    /// Whether it limits all calls of the app.
    pub fn limits_the_app(&self) -> bool {
        matches!(&self.kind, RefusalKind::Throttled { scope, .. } if scope == "app")
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
