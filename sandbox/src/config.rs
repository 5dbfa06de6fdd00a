//! How a sandbox is started, and the switches that change its replies afterwards.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::dialog::LoginConfig;

/// The app that a sandbox has by default.
pub const DEFAULT_APP_ID: &str = "123456789012345";
/// The secret of [`DEFAULT_APP_ID`].
pub const DEFAULT_APP_SECRET: &str = "0123456789abcdef0123456789abcdef";

/// How to start a [`Sandbox`](crate::Sandbox). The default listens on a free port of 127.0.0.1.
#[derive(Clone, Debug)]
pub struct SandboxConfig {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The apps that exist. `Sandbox::app` is the first.
    pub apps: Vec<App>,
    /// Rate-limit tier of the apps. Default: full access, with the highest quotas.
    pub tier: AccessTier,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            apps: vec![App::default()],
            tier: AccessTier::Full,
        }
    }
}

/// An app registered with the provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct App {
    /// A decimal number.
    pub id: String,
    /// Every valid secret; usually one.
    pub secrets: Vec<String>,
    /// Shown as `application` by `debug_token` and on the consent page.
    pub name: String,
    /// "Require App Secret": calls with a token need an `appsecret_proof`.
    pub require_proof: bool,
    /// Meta has blocked the app: every call is refused with this text, whoever the token belongs to. Tokens stay as
    /// they are, and work again once the app is reinstated.
    pub blocked: Option<AppBlock>,
}

/// The words with which Meta refuses every call of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AppBlock {
    /// `API access blocked.`, with code 200.
    Blocked,
    /// `API access disrupted`, with code 200: the yearly check-up of data use was not done.
    Disrupted,
}

impl AppBlock {
    /// Meta's text.
    pub fn message(self) -> &'static str {
        match self {
            Self::Blocked => "API access blocked.",
            Self::Disrupted => "API access disrupted",
        }
    }
}

impl Default for App {
    fn default() -> Self {
        Self {
            id: DEFAULT_APP_ID.to_owned(),
            secrets: vec![DEFAULT_APP_SECRET.to_owned()],
            name: "Ad Analytics".to_owned(),
            require_proof: false,
            blocked: None,
        }
    }
}

/// What the exchange of a user token returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExchangeMood {
    /// Within a day of its issue a long-lived token keeps its expiry; later it gets another 60 days.
    #[default]
    SameDay,
    /// A long-lived token never gains time: the new string has the old expiry.
    SameExpiry,
    /// Always another 60 days.
    Extends,
    /// The same string comes back, with its own expiry.
    SameString,
    /// As `SameDay`, but the reply has no `expires_in`.
    NoExpiresIn,
    /// No `expires_in`, and `expires_at` is 0.
    BecomesNever,
    /// A long-lived token comes back with half of its remaining life.
    Shortens,
}

/// What happens to a request for a field that needs `business_management` (`business`, `owner`,
/// `funding_source_details`) from a token without this scope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OwnerFields {
    /// The field is shown.
    #[default]
    Shown,
    /// The whole request is refused, with HTTP 400 and code 100.
    Refused100,
    /// The whole request is refused, with HTTP 403 and code 200.
    Refused200,
}

/// Access level of the apps. Every quota depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessTier {
    /// `development_access`: 60 points per ad account, blocked for 300 s.
    Limited,
    /// `standard_access`: 9 000 points per ad account, blocked for 60 s.
    #[default]
    Full,
}

impl AccessTier {
    /// Its name in the usage headers.
    pub fn word(self) -> &'static str {
        match self {
            Self::Limited => "development_access",
            Self::Full => "standard_access",
        }
    }
}

/// Settings that can change while the sandbox runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Switches {
    /// What an exchange returns.
    pub mood: ExchangeMood,
    /// HTTP status of token errors (such as 190): 400, or 401 as some of Meta's endpoints send.
    pub auth_status: u16,
    /// HTTP status of throttle errors: 400, or 403.
    pub throttle_status: u16,
    /// Token errors lack `error_subcode`, as has been observed.
    pub hide_subcodes: bool,
    /// Data calls with a token that is not valid are refused with HTTP 503 and code 2, as if Meta were away.
    pub code_2_for_bad_tokens: bool,
    /// An exchange of a token that is not valid any more replies with the same string, as if it had worked.
    pub dead_exchange_succeeds: bool,
    /// An exchange that gives a new string ends the token that was exchanged, with 466.
    pub exchange_ends_input: bool,
    /// Fields beyond a token's scopes.
    pub owner_fields: OwnerFields,
    /// A request for a list that would show more rows is refused with HTTP 500 and code 1, "Please reduce the amount of
    /// data". Unset: any number.
    pub most_rows: Option<usize>,
    /// A code is exchanged for a 60-day token instead of a short-lived one.
    pub long_lived_codes: bool,
    /// Refuse with 190/493 once data access has lapsed, even for ads permissions (which Meta exempts).
    pub enforce_data_access: bool,
    /// Whether `/me/permissions` lists anything for system users. Meta does not document what it does.
    pub system_users_list_permissions: bool,
    /// Rate-limit tier.
    pub tier: AccessTier,
    /// Oldest version that is still served. It also serves requests with an older version or none.
    pub oldest_version: String,
    /// Newest version.
    pub newest_version: String,
    /// Versions whose ads endpoints are retired and reply with error 2635.
    pub retired_versions: Vec<String>,
    /// `Content-Type` of JSON replies.
    pub content_type: String,
    /// Redirect URIs that the dialog accepts; an empty list accepts any.
    pub redirect_uris: Vec<String>,
    /// The configurations of Facebook Login for Business that a dialog may name as `config_id`.
    pub login_configs: Vec<LoginConfig>,
    /// Deauthorize callback, plain http; unset sends nothing.
    pub deauthorize_url: Option<String>,
    /// Data-deletion callback, plain http. It is only called when a [`Callback`](crate::Callback) is ordered.
    pub data_deletion_url: Option<String>,
    /// Webhook for object `permissions`, plain http; unset sends nothing.
    pub webhook_url: Option<String>,
    /// How callbacks are delivered.
    pub delivery: Delivery,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            mood: ExchangeMood::default(),
            auth_status: 400,
            throttle_status: 400,
            hide_subcodes: false,
            code_2_for_bad_tokens: false,
            dead_exchange_succeeds: false,
            exchange_ends_input: false,
            owner_fields: OwnerFields::Shown,
            most_rows: None,
            long_lived_codes: false,
            enforce_data_access: false,
            system_users_list_permissions: true,
            tier: AccessTier::Full,
            oldest_version: "v21.0".to_owned(),
            newest_version: "v26.0".to_owned(),
            retired_versions: vec!["v18.0".to_owned(), "v19.0".to_owned(), "v20.0".to_owned()],
            content_type: "application/json".to_owned(),
            redirect_uris: Vec::new(),
            login_configs: Vec::new(),
            deauthorize_url: None,
            data_deletion_url: None,
            webhook_url: None,
            delivery: Delivery::Once,
        }
    }
}

/// How a callback is delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Once, correctly signed.
    #[default]
    Once,
    /// The same delivery, sent twice.
    Twice,
    /// Signed with a wrong secret.
    BadSignature,
    /// With a date of a week ago, as in a replay.
    Replayed,
    /// One second (of real time) after the event.
    Late,
}
