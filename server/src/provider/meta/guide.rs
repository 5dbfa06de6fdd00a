//! Meta's own words and addresses for what a person has to do. A remedy that is not named here keeps the words that
//! hold for every provider.

use crate::model::{Matter, Misconfiguration, RefusalReason, Remedy};

/// Where a person logs in, and meets security checks.
const SITE: &str = "https://www.facebook.com/";
/// Where a person reads why Meta restricts an account, and appeals.
const SUPPORT: &str = "https://www.facebook.com/business-support-home/";
/// Where the administrators of a business give people roles on pages and ad accounts, and allow apps.
const BUSINESS_SETTINGS: &str = "https://business.facebook.com/settings/";
/// The dashboards of our apps.
const APPS: &str = "https://developers.facebook.com/apps/";
/// Which versions of the API there are, and when each one is retired.
const VERSIONS: &str = "https://developers.facebook.com/docs/graph-api/changelog/versions/";
/// What each error code means.
const ERRORS: &str = "https://developers.facebook.com/docs/graph-api/guides/error-handling/";
/// Whether Meta's services work.
const STATUS: &str = "https://metastatus.com/";

pub(in crate::provider) fn guide(matter: Matter, remedy: &mut Remedy) {
    match matter {
        Matter::Refusal(reason, _) => refusal(reason, remedy),
        // Meta exempts the permissions for ads, so this is a warning and no death.
        Matter::DataAccess => {
            let limit = remedy.message.replace("a long time", "90 days");
            remedy.message = format!("{limit} Permissions for ads keep working.");
        }
        // The dialog that grants them is ours to open: the person connects again.
        Matter::RequiredScopes | Matter::OptionalScopes => {}
        Matter::AdAccounts => remedy.url = BUSINESS_SETTINGS.into(),
        Matter::NoAdAccounts => {
            remedy.action =
                "Have an ad account assigned to the person, or have the account reconnected with \
                             business_management granted if the ad account belongs to a business."
                    .into();
            remedy.url = BUSINESS_SETTINGS.into();
        }
        Matter::Misconfiguration(problem) => remedy.url = misconfiguration(problem).into(),
        Matter::Unreachable => remedy.url = STATUS.into(),
        Matter::Throttled | Matter::ManyDeaths => remedy.url = APPS.into(),
    }
}

fn refusal(reason: RefusalReason, remedy: &mut Remedy) {
    use RefusalReason as R;
    match reason {
        R::Checkpoint => {
            remedy.message = "Facebook asks the person to pass a security check.".into();
            remedy.action =
                "Ask the person to log in at facebook.com and follow the instructions there; the token \
                             may then work again."
                    .into();
            remedy.url = SITE.into();
        }
        R::UnconfirmedAccount => {
            remedy.message = "The person's Facebook account is not confirmed.".into();
            remedy.action =
                "Ask the person to log in at facebook.com and confirm the account; the token may then \
                             work again."
                    .into();
            remedy.url = SITE.into();
        }
        R::DataAccessLapsed => {
            remedy.message =
                "The person has not used the app for 90 days, so Meta no longer lets it read the data."
                    .into();
        }
        R::RoleLost | R::AdminPolicy | R::PermissionRefused => remedy.url = BUSINESS_SETTINGS.into(),
        R::PolicyBlocked => remedy.url = SUPPORT.into(),
        R::WrongApp => remedy.url = APPS.into(),
        // The person connects again in our own dialog.
        R::Expired
        | R::PasswordChanged
        | R::AppRemoved
        | R::LoggedOut
        | R::RevokedAtProvider
        | R::UnusedTooLong
        | R::Malformed
        | R::Unknown => {}
    }
}

const fn misconfiguration(problem: Misconfiguration) -> &'static str {
    use Misconfiguration as M;
    match problem {
        M::AppSecret
        | M::AppId
        | M::AppSecretProof
        | M::AppCapability
        | M::AppBlocked
        | M::RedirectUri
        | M::NotConfigured => APPS,
        M::ApiVersion => VERSIONS,
        M::Request => ERRORS,
    }
}
