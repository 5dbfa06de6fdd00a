//! Remedies: the sentences for people that say what is wrong, who can fix it, and how.

use super::{Misconfiguration, ProviderId, RefusalReason};

/// Who can fix it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::EnumString)]
#[strum(const_into_str, serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum Fixer {
    /// The customer whose ad account it is.
    WorkspaceOwner,
    /// The person who runs the vault.
    Operator,
    /// The person who administers the app at the provider.
    AppAdmin,
    /// The person who administers the ad account.
    AdAccountAdmin,
    /// It goes away by itself, or nothing is wrong.
    Nobody,
}

impl Fixer {
    /// The name in error metadata.
    pub const fn as_str(self) -> &'static str {
        self.into_str()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Act soon.
    Warning,
    /// Act now.
    Critical,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remedy {
    pub fixer: Fixer,
    /// What is wrong. One English sentence.
    pub message: String,
    /// What to do. One English sentence.
    pub action: String,
}

impl Remedy {
    pub fn new(fixer: Fixer, message: impl Into<String>, action: impl Into<String>) -> Self {
        Self { fixer, message: message.into(), action: action.into() }
    }

    /// Nothing is wrong.
    pub fn none(message: impl Into<String>) -> Self {
        Self::new(Fixer::Nobody, message, "Nothing to do.")
    }

    /// A token that the provider refuses.
    pub fn for_refusal(reason: RefusalReason) -> Self {
        use RefusalReason as R;
        const RECONNECT: &str = "Ask the workspace owner to reconnect the account.";
        let (fixer, message, action) = match reason {
            R::Expired => (
                Fixer::WorkspaceOwner,
                "The token has expired; an expired token cannot be renewed.",
                RECONNECT,
            ),
            R::PasswordChanged => (
                Fixer::WorkspaceOwner,
                "The person changed the password, or the provider reset the session for security.",
                RECONNECT,
            ),
            R::AppRemoved => {
                (Fixer::WorkspaceOwner, "The person removed the app from the account.", RECONNECT)
            }
            R::Checkpoint => (
                Fixer::WorkspaceOwner,
                "The provider asks the person to pass a security check.",
                "Ask the person to log in on the provider's site and follow its instructions; the token may then work again.",
            ),
            R::UnconfirmedAccount => (
                Fixer::WorkspaceOwner,
                "The person's account at the provider is not confirmed.",
                "Ask the person to confirm the account on the provider's site; the token may then work again.",
            ),
            R::LoggedOut => {
                (Fixer::WorkspaceOwner, "The person logged out, which ended the session.", RECONNECT)
            }
            R::RevokedAtProvider => {
                (Fixer::WorkspaceOwner, "The session was ended through the provider's API.", RECONNECT)
            }
            R::UnusedTooLong => (Fixer::WorkspaceOwner, "The token was not used for too long.", RECONNECT),
            R::DataAccessLapsed => (
                Fixer::WorkspaceOwner,
                "The person has not used the app for 90 days, so the provider withholds the data.",
                "Ask the workspace owner to reconnect and confirm the data access.",
            ),
            R::RoleLost => (
                Fixer::AdAccountAdmin,
                "The person no longer has the role that the token needs.",
                "Have the role restored, or let another person connect.",
            ),
            R::PolicyBlocked => (
                Fixer::WorkspaceOwner,
                "The provider blocked the person or the app for policy reasons.",
                "See the provider's notice, appeal there, and reconnect when it is lifted.",
            ),
            R::AdminPolicy => (
                Fixer::AdAccountAdmin,
                "An administrator's policy forbids this access.",
                "Ask the administrator to allow the app.",
            ),
            R::WrongApp => (
                Fixer::Operator,
                "The token was made for another app than the configured one.",
                "Check the configured app id, or store a token of this app.",
            ),
            R::Malformed => (
                Fixer::WorkspaceOwner,
                "The provider does not recognise this as a token.",
                "Paste the whole access token, and nothing else.",
            ),
            R::PermissionRefused => (
                Fixer::WorkspaceOwner,
                "The provider refuses a permission that the token should have.",
                "Ask the workspace owner to check the person's access, and to reconnect the account with every permission.",
            ),
            R::Unknown => {
                (Fixer::WorkspaceOwner, "The provider refuses the token and gives no reason.", RECONNECT)
            }
        };
        Self::new(fixer, message, action)
    }

    /// A connection that a caller ended.
    pub fn for_revocation() -> Self {
        Self::new(
            Fixer::WorkspaceOwner,
            "The connection was ended on purpose.",
            "Connect the account again if it is still wanted.",
        )
    }

    /// A mistake in our configuration at a provider. Every provider's section of the configuration names the app's
    /// id `app_id`, its secrets `app_secret_files` and the version of the API `api_version`.
    pub fn for_misconfiguration(problem: Misconfiguration, provider: &ProviderId) -> Self {
        use Misconfiguration as M;
        let (fixer, message, action) = match problem {
            M::AppSecret => (
                Fixer::Operator,
                "The provider refuses every configured app secret.",
                format!(
                    "Put the app's current secret into a file of providers.{provider}.app_secret_files and restart."
                ),
            ),
            M::AppId => (
                Fixer::Operator,
                "The provider does not know the configured app id.",
                format!("Correct providers.{provider}.app_id and restart."),
            ),
            M::AppSecretProof => (
                Fixer::Operator,
                "The provider refuses the proof of the app secret.",
                format!(
                    "Check that providers.{provider}.app_secret_files has the secret of the app that the token was made for."
                ),
            ),
            M::ApiVersion => (
                Fixer::Operator,
                "The provider has retired the configured version of its API; every call fails.",
                format!("Set providers.{provider}.api_version to a supported version and restart."),
            ),
            M::AppCapability => (
                Fixer::AppAdmin,
                "The app lacks a capability or access level at the provider.",
                "Complete the app review, or raise the access level, in the provider's app dashboard."
                    .to_owned(),
            ),
            M::RedirectUri => (
                Fixer::AppAdmin,
                "The redirect URI is not registered for the app.",
                "Register it in the provider's app dashboard.".to_owned(),
            ),
            M::NotConfigured => (
                Fixer::Operator,
                "No app is configured for this provider.",
                format!(
                    "Set providers.{provider}.app_id and providers.{provider}.app_secret_files and restart."
                ),
            ),
            M::Request => (
                Fixer::Operator,
                "The provider refused the vault's own request.",
                "See the vault's log for the provider's reply; the token is not at fault.".to_owned(),
            ),
        };
        Self::new(fixer, message, action)
    }
}
