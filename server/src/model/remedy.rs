//! Remedies: the sentences for people that say what is wrong, who can fix it, and how. The sentences here hold for
//! every provider; a [`Guide`] puts a provider's own words and addresses in their place.

use std::fmt;

use super::{Expiry, Misconfiguration, ProviderId, RefusalReason, Timestamp};

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

/// Which token a refusal is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refused {
    /// The token that a connection holds.
    Held,
    /// A token that somebody wants to store.
    Offered,
}

/// What a remedy is about, where a provider may know better words, or the address of the page that helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Matter {
    Refusal(RefusalReason, Refused),
    /// Data access that ends soon, or has ended.
    DataAccess,
    RequiredScopes,
    OptionalScopes,
    /// Some ad accounts refuse the token, or all of those that it had.
    AdAccounts,
    /// The token never reached an ad account.
    NoAdAccounts,
    Misconfiguration(Misconfiguration),
    Unreachable,
    /// A limit on the calls of the whole app.
    Throttled,
    ManyDeaths,
}

/// Knows the providers' own words and addresses, which this module must not name. It changes the remedy for a matter of
/// a provider, and leaves it as it is where the provider has nothing better.
#[derive(Clone, Copy)]
pub struct Guide(pub fn(&ProviderId, Matter, &mut Remedy));

impl Guide {
    /// For tests without a provider.
    #[cfg(test)]
    pub const SILENT: Self = Self(|_, _, _| {});

    pub(in crate::model) fn improve(
        self,
        provider: &ProviderId,
        matter: Matter,
        mut remedy: Remedy,
    ) -> Remedy {
        (self.0)(provider, matter, &mut remedy);
        remedy
    }
}

impl fmt::Debug for Guide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guide")
    }
}

/// Every guide of one binary is the same.
impl PartialEq for Guide {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Guide {}

/// What is wrong, who can fix it, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remedy {
    pub fixer: Fixer,
    /// What is wrong. One English sentence.
    pub message: String,
    /// What to do. One English sentence.
    pub action: String,
    /// Where to do it; empty if there is no such page.
    pub url: String,
}

/// What helps in most cases.
const RECONNECT: &str = "Ask the workspace owner to reconnect the account.";
const RECONNECT_BEFORE: &str = "Ask the workspace owner to reconnect the account before then.";
const LOG_IN_AGAIN: &str = "Ask the person to log in again, and store the new token.";

impl Remedy {
    pub fn new(fixer: Fixer, message: impl Into<String>, action: impl Into<String>) -> Self {
        Self { fixer, message: message.into(), action: action.into(), url: String::new() }
    }

    /// Nothing is wrong.
    pub fn none(message: impl Into<String>) -> Self {
        Self::new(Fixer::Nobody, message, "Nothing to do.")
    }

    /// How long its texts are.
    pub const fn bytes(&self) -> usize {
        self.message.len() + self.action.len() + self.url.len()
    }

    /// A token that the provider refuses.
    pub fn for_refusal(reason: RefusalReason, refused: Refused, provider: &ProviderId, guide: Guide) -> Self {
        use RefusalReason as R;
        let anew = match refused {
            Refused::Held => RECONNECT,
            Refused::Offered => LOG_IN_AGAIN,
        };
        let owner = |message, action| Self::new(Fixer::WorkspaceOwner, message, action);
        let remedy = match reason {
            R::Expired => owner("The token has expired; an expired token cannot be renewed.", anew),
            R::PasswordChanged => owner(
                "The person changed the password, or the provider reset the session for security.",
                anew,
            ),
            R::AppRemoved => owner("The person removed the app from the account.", anew),
            R::Checkpoint => owner(
                "The provider asks the person to pass a security check.",
                "Ask the person to log in at the provider and follow its instructions; the token may then work again.",
            ),
            R::UnconfirmedAccount => owner(
                "The person's account at the provider is not confirmed.",
                "Ask the person to confirm the account at the provider; the token may then work again.",
            ),
            R::LoggedOut => owner("The person logged out, which ended the session.", anew),
            R::RevokedAtProvider => owner("The token was revoked at the provider.", anew),
            R::UnusedTooLong => owner("The token was not used for too long.", anew),
            R::DataAccessLapsed => owner(
                "The person has not used the app for a long time, so the provider no longer lets it read the data.",
                match refused {
                    Refused::Held => {
                        "Ask the workspace owner to reconnect the account and confirm the data access."
                    }
                    Refused::Offered => {
                        "Ask the person to log in again, confirm the data access, and store the new token."
                    }
                },
            ),
            R::RoleLost => Self::new(
                Fixer::AdAccountAdmin,
                "The person no longer has the role that the token needs.",
                "Have the role restored, or let another person connect.",
            ),
            R::PolicyBlocked => owner(
                "The provider blocked the person or the app because of its policies.",
                "Read the provider's notice and appeal there; the token may work again when the block is lifted.",
            ),
            R::AdminPolicy => Self::new(
                Fixer::AdAccountAdmin,
                "An administrator's policy forbids this access.",
                "Ask the administrator to allow the app.",
            ),
            R::WrongApp => Self::new(
                Fixer::Operator,
                "The token was made for another app than the configured one.",
                match refused {
                    Refused::Held => format!(
                        "Check providers.{provider}.app_id; if it is right, have the account reconnected."
                    ),
                    Refused::Offered => {
                        format!(
                            "Check providers.{provider}.app_id; if it is right, store a token of that app."
                        )
                    }
                },
            ),
            R::Malformed => match refused {
                Refused::Held => owner("The provider no longer recognises the token.", RECONNECT),
                Refused::Offered => owner(
                    "The provider does not recognise this as a token.",
                    "Paste the whole access token, and nothing else.",
                ),
            },
            R::PermissionRefused => owner(
                "The provider refuses a permission that the token should have.",
                match refused {
                    Refused::Held => {
                        "Ask the workspace owner to check the person's access, and to reconnect the account with every permission."
                    }
                    Refused::Offered => {
                        "Ask the person to check the access, log in again with every permission, and store the new token."
                    }
                },
            ),
            R::Unknown => owner("The provider refuses the token and gives no reason.", anew),
        };
        guide.improve(provider, Matter::Refusal(reason, refused), remedy)
    }

    /// A token that ends soon.
    pub(in crate::model) fn for_end(end: Timestamp) -> Self {
        Self::new(
            Fixer::WorkspaceOwner,
            format!("The token expires on {}.", end.to_the_minute()),
            RECONNECT_BEFORE,
        )
    }

    /// A token that the vault can't renew.
    pub(in crate::model) fn for_failed_renewal(at_ceiling: bool, end: Timestamp) -> Self {
        let why = if at_ceiling {
            "The provider no longer extends the token's life"
        } else {
            "The vault cannot renew the token"
        };
        let message = format!("{why}; it expires on {}.", end.to_the_minute());
        Self::new(Fixer::WorkspaceOwner, message, RECONNECT_BEFORE)
    }

    /// A token that is not exchanged. It keeps its end: `None` for one that is not held.
    pub fn for_no_exchange(why: &str, end: Option<Expiry>) -> Self {
        let message = format!("The exchange is not possible: {why}.");
        let owner = |action: String| Self::new(Fixer::WorkspaceOwner, message.as_str(), action);
        match end {
            None => owner(LOG_IN_AGAIN.to_owned()),
            Some(Expiry::Never) => Self::none(message.as_str()),
            Some(Expiry::At(end, _)) => owner(format!(
                "Keep using the token, and ask the workspace owner to reconnect the account before {}.",
                end.to_the_minute()
            )),
            Some(Expiry::Unknown) => owner(
                "Keep using the token, and ask the workspace owner to reconnect the account when it stops working."
                    .to_owned(),
            ),
        }
    }

    pub(in crate::model) fn for_unknown_end() -> Self {
        Self::new(
            Fixer::Nobody,
            "The provider did not say when the token ends.",
            "Nothing to do: the vault asks again within the hour.",
        )
    }

    /// Data access that ends soon, or has ended.
    pub(in crate::model) fn for_data_access(
        end: Timestamp,
        has_ended: bool,
        provider: &ProviderId,
        guide: Guide,
    ) -> Self {
        let end = end.to_the_minute();
        let message = if has_ended {
            format!("Data access ended on {end}, because the person has not used the app for a long time.")
        } else {
            format!("Data access ends on {end}, unless the person confirms it before then.")
        };
        let action = "Ask the workspace owner to reconnect the account and confirm the data access.";
        let remedy = Self::new(Fixer::WorkspaceOwner, message, action);
        guide.improve(provider, Matter::DataAccess, remedy)
    }

    /// Scopes that are missing: required or optional ones.
    pub(in crate::model) fn for_scopes(
        missing: &[String],
        required: bool,
        provider: &ProviderId,
        guide: Guide,
    ) -> Self {
        let (which, action, matter) = if required {
            (
                "required",
                "Ask the workspace owner to reconnect the account and grant them.",
                Matter::RequiredScopes,
            )
        } else {
            (
                "optional",
                "Ask the workspace owner to reconnect the account and grant them, if features that need them are wanted.",
                Matter::OptionalScopes,
            )
        };
        let plural = if missing.len() == 1 { "" } else { "s" };
        let message = format!("The token lacks the {which} scope{plural} {}.", missing.join(", "));
        guide.improve(provider, matter, Self::new(Fixer::WorkspaceOwner, message, action))
    }

    /// Ad accounts that refuse the token: some of them, or all that it had.
    pub(in crate::model) fn for_lost_ad_accounts(
        lost: u32,
        all: bool,
        provider: &ProviderId,
        guide: Guide,
    ) -> Self {
        let message = match (all, lost) {
            (true, _) => "The token no longer reaches any ad account.".to_owned(),
            (false, 1) => "The token no longer reaches 1 of its ad accounts.".to_owned(),
            (false, lost) => format!("The token no longer reaches {lost} of its ad accounts."),
        };
        let action = "Have the person's role on these ad accounts restored, if they are still wanted.";
        let remedy = Self::new(Fixer::AdAccountAdmin, message, action);
        guide.improve(provider, Matter::AdAccounts, remedy)
    }

    pub(in crate::model) fn for_no_ad_accounts(provider: &ProviderId, guide: Guide) -> Self {
        let remedy = Self::new(
            Fixer::AdAccountAdmin,
            "The token works, but reaches no ad account.",
            "Have an ad account assigned to the person.",
        );
        guide.improve(provider, Matter::NoAdAccounts, remedy)
    }

    /// Work of the vault's own that waits for too long.
    pub(in crate::model) fn for_overdue_work() -> Self {
        Self::new(
            Fixer::Operator,
            "The vault should have examined or renewed this token by now, and has not.",
            "See GetVaultStatus, ListJobRuns and the vault's log.",
        )
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
    pub fn for_misconfiguration(problem: Misconfiguration, provider: &ProviderId, guide: Guide) -> Self {
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
            M::AppBlocked => (
                Fixer::AppAdmin,
                "The provider has blocked the app, so it refuses every call; the tokens are not at fault.",
                "Do what the provider's app dashboard asks for, such as the yearly check of data use, or appeal there; nobody has to reconnect."
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
        guide.improve(provider, Matter::Misconfiguration(problem), Self::new(fixer, message, action))
    }

    /// A provider that does not reply.
    pub(in crate::model) fn for_unreachable(provider: &ProviderId, guide: Guide) -> Self {
        let remedy = Self::new(
            Fixer::Nobody,
            "The provider does not reply, or replies with errors of its own.",
            "Wait: the vault goes on by itself when the provider is back; tokens stay as they are.",
        );
        guide.improve(provider, Matter::Unreachable, remedy)
    }

    /// A limit on the calls of the whole app.
    pub(in crate::model) fn for_limited_app(provider: &ProviderId, guide: Guide) -> Self {
        let remedy = Self::new(
            Fixer::Nobody,
            "The provider limits the calls of the app; the vault asks about no further token until that is over.",
            "Wait, and make fewer calls with the app's tokens; the vault goes on by itself.",
        );
        guide.improve(provider, Matter::Throttled, remedy)
    }

    /// More refusals at once than are believable.
    pub(in crate::model) fn for_many_deaths(provider: &ProviderId, guide: Guide) -> Self {
        let remedy = Self::new(
            Fixer::Operator,
            "The provider refuses unusually many tokens at once; the vault does not act on these refusals yet.",
            "Check the app's secret and its state in the provider's dashboard before customers are asked to reconnect.",
        );
        guide.improve(provider, Matter::ManyDeaths, remedy)
    }
}
