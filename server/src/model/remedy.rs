//! What to tell people: who can mend a thing, and how, in one sentence each.

use std::collections::BTreeMap;

use super::{Misconfiguration, RefusalReason, Timestamp};

/// Who can mend it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fixer {
    /// The customer whose ad account it is.
    WorkspaceOwner,
    /// Who runs the vault.
    Operator,
    /// Who administers the app at the provider.
    AppAdmin,
    /// Who administers the ad account.
    AdAccountAdmin,
    /// Nobody: it mends itself.
    Nobody,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Act soon.
    Warning,
    /// Act now.
    Critical,
}

/// What is wrong, who mends it and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remedy {
    /// Who can act.
    pub fixer: Fixer,
    /// What is wrong. One English sentence.
    pub message: String,
    /// What to do. One English sentence.
    pub action: String,
}

impl Remedy {
    /// A remedy in words.
    pub fn new(fixer: Fixer, message: impl Into<String>, action: impl Into<String>) -> Self {
        Self { fixer, message: message.into(), action: action.into() }
    }

    /// All is well, as far as this check goes.
    pub fn none(message: impl Into<String>) -> Self {
        Self::new(Fixer::Nobody, message, "Nothing to do.")
    }

    /// What a dead token's owner must know.
    pub fn for_refusal(reason: RefusalReason) -> Self {
        use RefusalReason as R;
        const RECONNECT: &str = "Ask the workspace owner to reconnect the account.";
        let (fixer, message, action) = match reason {
            R::Expired => (
                Fixer::WorkspaceOwner,
                "The token's time ran out; an expired token cannot be renewed.",
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
                "The token was made for another app than the one configured.",
                "Check the configured app id, or bring a token of this app.",
            ),
            R::Malformed => (
                Fixer::WorkspaceOwner,
                "The provider does not recognise this as a token.",
                "Paste the whole access token, and nothing else.",
            ),
            R::Unknown => {
                (Fixer::WorkspaceOwner, "The provider refuses the token and does not say why.", RECONNECT)
            }
        };
        Self::new(fixer, message, action)
    }

    /// What the operator must mend.
    pub fn for_misconfiguration(problem: Misconfiguration) -> Self {
        use Misconfiguration as M;
        let (fixer, message, action) = match problem {
            M::AppSecret => (
                Fixer::Operator,
                "The provider refuses every configured app secret.",
                "Put the app's current secret into a file of providers.meta.app_secret_files and restart.",
            ),
            M::AppId => (
                Fixer::Operator,
                "The provider does not know the configured app id.",
                "Correct providers.meta.app_id and restart.",
            ),
            M::AppSecretProof => (
                Fixer::Operator,
                "The provider refuses the proof of the app secret.",
                "Check that providers.meta.app_secret_files holds the secret of the app that the token was made for.",
            ),
            M::ApiVersion => (
                Fixer::Operator,
                "The configured version of the provider's API is retired; every call fails.",
                "Set providers.meta.api_version to a living version and restart.",
            ),
            M::AppCapability => (
                Fixer::AppAdmin,
                "The app lacks a capability or access level at the provider.",
                "Complete the app review, or raise the access level, in the provider's app dashboard.",
            ),
            M::RedirectUri => (
                Fixer::AppAdmin,
                "The redirect URI is not registered for the app.",
                "Register it in the provider's app dashboard.",
            ),
            M::NotConfigured => (
                Fixer::Operator,
                "No app is configured for this provider.",
                "Set providers.meta.app_id and providers.meta.app_secret_files and restart.",
            ),
            M::Request => (
                Fixer::Operator,
                "The provider refused the vault's own request.",
                "See the vault's log for the provider's answer; no token is at fault.",
            ),
        };
        Self::new(fixer, message, action)
    }
}

/// What is wrong with a token, by name. The names are those of `ErrorReason` in the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProblemReason {
    /// Past its end.
    TokenExpired,
    /// The provider refuses it.
    TokenInvalid,
    /// We ended it.
    TokenRevoked,
    /// A required scope is missing.
    ScopesMissing,
    /// Within the warning window.
    ExpiringSoon,
    /// Nobody knows its end.
    ExpiryUnknown,
    /// Data access ends or has ended.
    DataAccessEnding,
    /// Some ad accounts refuse the token.
    AdAccountsUnreachable,
    /// It reaches no ad account.
    NoAdAccounts,
    /// The asked ad account had no delivery in the last seven days.
    NoDelivery,
    /// An optional scope is missing, so that some features are off.
    OptionalScopesMissing,
    /// The provider could not be asked.
    ProviderUnavailable,
    /// The provider asks to wait.
    ProviderThrottled,
    /// Our own configuration is wrong.
    ProviderMisconfigured,
}

/// One thing that is wrong with a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What, by name.
    pub reason: ProblemReason,
    /// How bad.
    pub severity: Severity,
    /// Since when, as far as known.
    pub since: Option<Timestamp>,
    /// What to do about it.
    pub remedy: Remedy,
    /// Facts for programs.
    pub metadata: BTreeMap<String, String>,
}

/// How a check ended. Ordered from best to worst, so that the worst of many is their maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CheckResult {
    /// Not run: not asked for, or no time left.
    Skipped,
    /// In order.
    Pass,
    /// The provider could not be asked.
    Unknown,
    /// Works, and wants attention.
    Warn,
    /// Does not work.
    Fail,
}

/// One finding of the live doctor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Its name in the API: `token_accepted`.
    pub name: &'static str,
    /// How it ended.
    pub result: CheckResult,
    /// A sentence for a person, and what to do.
    pub remedy: Remedy,
    /// Facts for programs.
    pub metadata: BTreeMap<String, String>,
}

impl Check {
    /// A finding without facts.
    pub fn new(name: &'static str, result: CheckResult, remedy: Remedy) -> Self {
        Self { name, result, remedy, metadata: BTreeMap::new() }
    }

    /// Adds a fact.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.metadata.insert(key.to_owned(), value.to_string());
        self
    }
}
