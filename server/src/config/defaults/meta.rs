//! The app at Meta, and how its Graph API is called by default.

use super::FILE;
use crate::config::declare::{setting, settings};
use crate::config::values::{Checked, FilePath, Length, List, SecureUrl, Switch};

settings! {
    /// The app at Meta. Without `app_id` and `app_secret_files` the vault knows no provider.
    ["providers.meta"] {
        /// The app's id.
        META_APP_ID: Checked<String> = setting("providers.meta.app_id", Checked {
            allowed: "the app's number, 1 to 32 digits, as the app dashboard shows it",
            such_as: "",
            parse: app_id,
        }).unset("no app", "\"123456789012345\"");
        /// Files with the app's secrets, newest first; several while the secret is being changed.
        META_APP_SECRET_FILES: List<FilePath> = setting("providers.meta.app_secret_files", List { each: FILE, plural: "paths of files", most: None })
            .unset("none", "[\"/etc/token-vault/app.secret\"]");
        /// The Graph API.
        META_GRAPH_URL: SecureUrl = setting("providers.meta.graph_url", PROVIDER_URL).default("https://graph.facebook.com");
        /// Where people give consent.
        META_DIALOG_URL: SecureUrl = setting("providers.meta.dialog_url", PROVIDER_URL).default("https://www.facebook.com");
        /// A configuration of Facebook Login for Business, which names what the consent dialog asks for. Without it the
        /// dialog asks for the scopes below.
        META_LOGIN_CONFIG_ID: Checked<String> = setting("providers.meta.login_config_id", Checked {
            allowed: "the configuration's number, 1 to 32 digits, as the app dashboard shows it",
            such_as: "",
            parse: app_id,
        }).unset("the dialog asks for scopes", "\"234567890123456\"");
        /// The version of the Graph API.
        META_API_VERSION: Checked<String> = setting("providers.meta.api_version", Checked {
            allowed: "a version of the Graph API",
            such_as: "v26.0",
            parse: api_version,
        }).default("v26.0");
        /// Time for one request to Meta.
        META_REQUEST_TIMEOUT: Length = setting("providers.meta.request_timeout", Length("100ms", "20s")).default("10s");
        /// Scopes that a token must have.
        META_REQUIRED_SCOPES: List<Checked<String>> = setting("providers.meta.required_scopes", SCOPES).entries(&["ads_read", "ads_management"]);
        /// Scopes without which some features are missing; their absence is reported and refuses nothing.
        META_OPTIONAL_SCOPES: List<Checked<String>> = setting("providers.meta.optional_scopes", SCOPES).entries(&["business_management"]);
        /// File with the verify token of webhooks, which you choose, and repeat in the app dashboard when you subscribe one.
        META_WEBHOOK_VERIFY_TOKEN_FILE: FilePath = setting("providers.meta.webhook_verify_token_file", FILE)
            .unset("no webhook can be subscribed", "\"/etc/token-vault/webhook.token\"");
        /// Where people see what became of their request to delete their data, if your platform receives Meta's callback itself:
        /// `/<confirmation code>` follows.
        META_DATA_DELETION_URL: SecureUrl = setting("providers.meta.data_deletion_url", DELETION_PAGE)
            .unset("a page of the portal, if portal.url is set", "\"https://app.acme.example/data-deletion\"");
        /// For demos and tests: the vault's time is the sandbox's. Only with a `graph_url` on this machine.
        META_FOLLOW_SANDBOX_CLOCK: Switch = setting("providers.meta.follow_sandbox_clock", Switch).default("false");
    }
}

const PROVIDER_URL: SecureUrl = SecureUrl { query: false, example: "https://graph.facebook.com" };
const DELETION_PAGE: SecureUrl =
    SecureUrl { query: false, example: "https://app.acme.example/data-deletion" };

const SCOPES: List<Checked<String>> = List {
    each: Checked { allowed: "the name of a permission", such_as: "ads_read", parse: scope },
    plural: "names of permissions",
    most: None,
};

fn app_id(text: &str) -> Option<String> {
    let good = (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    good.then(|| text.to_owned())
}

fn api_version(text: &str) -> Option<String> {
    let digits = |part: &str| (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    let (major, minor) = text.strip_prefix('v')?.split_once('.')?;
    (digits(major) && digits(minor)).then(|| text.to_owned())
}

fn scope(text: &str) -> Option<String> {
    let good = (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:-/".contains(&b));
    good.then(|| text.to_owned())
}
