//! What a sandbox is started with, and the switches that change how it answers afterwards.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// The app every sandbox knows unless told otherwise.
pub const DEFAULT_APP_ID: &str = "123456789012345";
/// The secret of [`DEFAULT_APP_ID`].
pub const DEFAULT_APP_SECRET: &str = "0123456789abcdef0123456789abcdef";

/// How to start a [`Sandbox`](crate::Sandbox). The default listens on a free port of 127.0.0.1.
#[derive(Clone, Debug)]
pub struct SandboxConfig {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The apps that exist. The first is the one `Sandbox::app` names.
    pub apps: Vec<App>,
    /// Rate-limit tier of the apps. Default: full access, so that quotas are wide.
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
    /// Decimal string.
    pub id: String,
    /// Every secret that counts as right; usually one.
    pub secrets: Vec<String>,
    /// Shown as `application` by `debug_token` and on the consent page.
    pub name: String,
    /// "Require App Secret": calls with a token need an `appsecret_proof`.
    pub require_proof: bool,
}

impl Default for App {
    fn default() -> Self {
        Self {
            id: DEFAULT_APP_ID.to_owned(),
            secrets: vec![DEFAULT_APP_SECRET.to_owned()],
            name: "Ad Analytics".to_owned(),
            require_proof: false,
        }
    }
}

/// What an exchange of a user token gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExchangeMood {
    /// A long-lived token keeps its expiry within a day of its issue, and gets a fresh 60 days later.
    #[default]
    SameDay,
    /// A long-lived token never moves: a new string with the old expiry (its ceiling).
    SameExpiry,
    /// Always a fresh 60 days.
    Extends,
    /// The input comes back, with its own life.
    SameString,
    /// As `SameDay`, but the reply has no `expires_in`.
    NoExpiresIn,
    /// No `expires_in`, and `expires_at` is 0.
    BecomesNever,
    /// A long-lived token comes back with half of what was left of its life.
    Shortens,
}

/// Access level of the apps, which sets the width of every quota.
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
    /// The word the usage headers carry.
    pub fn word(self) -> &'static str {
        match self {
            Self::Limited => "development_access",
            Self::Full => "standard_access",
        }
    }
}

/// Switches that concern every reply.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Switches {
    /// What an exchange gives.
    pub mood: ExchangeMood,
    /// HTTP status of token errors (190 and kin): 400, or 401 as some surfaces have it.
    pub auth_status: u16,
    /// HTTP status of throttle errors: 400, or 403.
    pub throttle_status: u16,
    /// Token errors without `error_subcode`, as sometimes captured.
    pub hide_subcodes: bool,
    /// A code gives a 60-day token at once instead of a short-lived one.
    pub long_lived_codes: bool,
    /// Refuse with 190/493 once data access has lapsed, even ads permissions (which are exempt).
    pub enforce_data_access: bool,
    /// Whether `/me/permissions` lists anything for system users; Meta's answer is not documented.
    pub system_users_list_permissions: bool,
    /// Rate-limit tier.
    pub tier: AccessTier,
    /// Oldest version still served; older and missing ones are answered by it.
    pub oldest_version: String,
    /// Newest version.
    pub newest_version: String,
    /// Versions whose ads endpoints are retired: 2635.
    pub retired_versions: Vec<String>,
    /// `Content-Type` of JSON replies.
    pub content_type: String,
    /// Redirect URIs the dialog accepts; empty accepts any.
    pub redirect_uris: Vec<String>,
    /// Deauthorize callback, plain http; unset sends nothing.
    pub deauthorize_url: Option<String>,
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
            long_lived_codes: false,
            enforce_data_access: false,
            system_users_list_permissions: true,
            tier: AccessTier::Full,
            oldest_version: "v21.0".to_owned(),
            newest_version: "v26.0".to_owned(),
            retired_versions: vec!["v18.0".to_owned(), "v19.0".to_owned(), "v20.0".to_owned()],
            content_type: "application/json".to_owned(),
            redirect_uris: Vec::new(),
            deauthorize_url: None,
            webhook_url: None,
            delivery: Delivery::Once,
        }
    }
}

/// How a callback goes out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Signed, one time.
    #[default]
    Once,
    /// The same delivery two times.
    Twice,
    /// Signed with a wrong secret.
    BadSignature,
    /// Dated a week ago: a replay.
    Replayed,
    /// One second after the act, in real time.
    Late,
}
