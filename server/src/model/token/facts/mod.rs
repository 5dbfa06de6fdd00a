//! What the provider says about a token.

mod told;

use super::Expiry;
use crate::model::Timestamp;

pub use told::{ToldFacts, ToldScopes, why_withheld};

/// Decides how a token may be renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::EnumString)]
#[strum(const_into_str, serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum TokenKind {
    /// Lives for an hour or two; never stored.
    ShortLivedUser,
    /// Lives for about sixty days.
    LongLivedUser,
    Page,
    /// Of a system user of a business.
    SystemUser,
}

impl TokenKind {
    /// The name in the database.
    pub const fn as_str(self) -> &'static str {
        self.into_str()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::EnumString)]
#[strum(const_into_str, serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum SubjectType {
    /// A person.
    User,
    Page,
    /// A system user of a business.
    SystemUser,
    /// The app itself.
    App,
    /// A type that this version does not know.
    Unknown,
}

impl SubjectType {
    /// The name in the database.
    pub const fn as_str(self) -> &'static str {
        self.into_str()
    }

    pub fn from_name(name: &str) -> Self {
        name.parse().unwrap_or(Self::Unknown)
    }
}

/// On whose behalf the token acts at the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The provider's id; empty where the provider names none.
    pub id: String,
    /// The name for people; may be empty.
    pub name: String,
    pub kind: SubjectType,
}

/// A scope, and the objects to which the person limited it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GranularScope {
    pub scope: String,
    /// Ids of the objects; empty means all.
    pub target_ids: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantState {
    Granted,
    Declined,
    /// Lapsed because it was not used.
    Expired,
}

/// One permission, and what the person decided about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub scope: String,
    pub state: GrantState,
}

/// What is known about a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFacts {
    pub kind: TokenKind,
    /// The end of the token itself.
    pub expiry: Expiry,
    /// The end of data access, which moves only when the person uses the app.
    pub data_access: Expiry,
    pub issued_at: Option<Timestamp>,
    pub scopes: Vec<String>,
    pub granular_scopes: Vec<GranularScope>,
}
