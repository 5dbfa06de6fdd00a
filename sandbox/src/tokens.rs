//! Tokens: what they are, how they are minted, and whether one is valid now.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::Switches;
use crate::people::Person;
use crate::random::random_text;
use crate::wire::error::{GraphError, session_message, token as token_error};

/// Life of a short-lived token, in seconds.
pub const SHORT_LIFE: i64 = 5_400;
/// Life of a long-lived token, in seconds: 60 days.
pub const LONG_LIFE: i64 = 5_184_000;

/// Who a token belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenKind {
    /// A person.
    User,
    /// The page with this id.
    Page(String),
    /// A system user.
    SystemUser,
    /// From `fb_attenuate_token`; works for `debug_token` only.
    DebugOnly,
}

impl TokenKind {
    /// `type` in `debug_token`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::User | Self::DebugOnly => "USER",
            Self::Page(_) => "PAGE",
            Self::SystemUser => "SYSTEM_USER",
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) app_id: String,
    /// Key of the person in the state.
    pub(crate) owner: String,
    pub(crate) kind: TokenKind,
    pub(crate) issued_at: i64,
    /// 0 is never.
    pub(crate) expires_at: i64,
    pub(crate) long: bool,
    /// Only these of the person's grants; `None` is all.
    pub(crate) scopes: Option<Vec<String>>,
    pub(crate) dead: Option<Refusal>,
}

/// Why a token is refused with 190.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) subcode: Option<u32>,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn of(subcode: Option<u32>, app_id: &str) -> Self {
        Self { subcode, message: session_message(subcode, app_id) }
    }

    pub(crate) fn error(self, switches: &Switches) -> GraphError {
        let shown = if switches.hide_subcodes { None } else { self.subcode };
        let mut error = token_error(self.message).subcode(shown);
        error.http = switches.auth_status;
        if matches!(self.subcode, Some(459 | 490)) {
            error.data = Some(Box::new(json!({ "url": "https://www.facebook.com/checkpoint/?next" })));
        }
        error
    }

    /// `data.error` of `debug_token`, whose keys differ from those of an error reply.
    pub(crate) fn debug(&self, hide_subcode: bool) -> Value {
        match self.subcode {
            Some(subcode) if !hide_subcode => {
                json!({ "code": 190, "message": self.message, "subcode": subcode })
            }
            _ => json!({ "code": 190, "message": self.message }),
        }
    }
}

impl Token {
    pub(crate) fn expired(&self, now: i64) -> bool {
        self.expires_at != 0 && self.expires_at <= now
    }

    /// Returns why this token is refused at `now`.
    pub(crate) fn refusal(&self, owner: &Person, now: i64) -> Option<Refusal> {
        if let Some(dead) = &self.dead {
            return Some(dead.clone());
        }
        if let Some(trouble) = owner.trouble_at(now) {
            return Some(Refusal::of(Some(trouble), &self.app_id));
        }
        self.expired(now).then(|| Refusal {
            subcode: Some(463),
            message: format!(
                "Error validating access token: Session has expired on {}. The current time is {}.",
                pacific(self.expires_at),
                pacific(now)
            ),
        })
    }

    /// The scopes that it can use now, sorted.
    pub(crate) fn usable_scopes(&self, owner: &Person) -> Vec<String> {
        let mut scopes: Vec<String> = owner
            .granted()
            .filter(|scope| self.scopes.as_ref().is_none_or(|only| only.iter().any(|one| one == scope)))
            .map(str::to_owned)
            .collect();
        scopes.sort();
        scopes
    }
}

/// What to mint. Made by [`User::order`](crate::User::order) and finished with `mint`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenOrder {
    /// Life in seconds from now; 0 is without expiry.
    pub life_seconds: i64,
    /// Whether it counts as long-lived: `debug_token` shows `issued_at`, and an exchange treats it as such.
    pub long: bool,
    /// Who the token belongs to; if unset, its owner.
    pub kind: Option<TokenKind>,
    /// Its app; if unset, the default app.
    pub app_id: Option<String>,
    /// If set, only these of the owner's grants.
    pub scopes: Option<Vec<String>>,
    /// Length of the text, at least 16.
    pub length: usize,
}

impl Default for TokenOrder {
    fn default() -> Self {
        Self { life_seconds: SHORT_LIFE, long: false, kind: None, app_id: None, scopes: None, length: 208 }
    }
}

impl TokenOrder {
    /// Lets the token live for 1.5 hours.
    pub fn short() -> Self {
        Self::default()
    }

    /// Lets the token live for 60 days.
    pub fn long() -> Self {
        Self { life_seconds: LONG_LIFE, long: true, ..Self::default() }
    }

    /// Makes a token without expiry.
    pub fn never() -> Self {
        Self { life_seconds: 0, long: true, ..Self::default() }
    }

    /// Sets another life, rounded down to seconds.
    pub fn life(self, life: Duration) -> Self {
        Self { life_seconds: crate::clock::seconds(life), ..self }
    }

    /// Limits the token to these of the owner's grants.
    pub fn scopes(self, scopes: &[&str]) -> Self {
        Self { scopes: Some(scopes.iter().map(|&scope| scope.to_owned()).collect()), ..self }
    }

    /// Makes the token for another app.
    pub fn app(self, app_id: &str) -> Self {
        Self { app_id: Some(app_id.to_owned()), ..self }
    }

    /// Makes a token text of this length.
    pub fn length(self, length: usize) -> Self {
        Self { length, ..self }
    }
}

/// `EAA` + letters and digits + `ZD`.
pub(crate) fn token_text(length: usize) -> String {
    format!("EAA{}ZD", random_text(length.max(16).saturating_sub(5)))
}

/// A time as Meta writes it in messages. It is in standard time (PST) all year.
pub(crate) fn pacific(unix_seconds: i64) -> String {
    jiff::Timestamp::from_second(unix_seconds.saturating_sub(8 * 3_600))
        .map(|time| time.strftime("%A, %d-%b-%y %H:%M:%S PST").to_string())
        .unwrap_or_default()
}
