//! What the feed must say, worked out from the promises alone. This is the second opinion: it shares no code and
//! no types with the server, and is kept so small that it can be read at a sitting.
//!
//! Time is in whole seconds. One half mirrors what the provider knows (people, tokens), the other what the vault
//! must have concluded and said about each connection.

mod connection;
mod provider;
mod vault;

use std::collections::{BTreeMap, BTreeSet};

pub const DAY: i64 = 86_400;
/// People at the provider, and workspaces that they connect to.
pub const PEOPLE: usize = 3;
pub const WORKSPACES: usize = 2;
pub const REQUIRED: [&str; 2] = ["ads_read", "ads_management"];
/// Ends that are closer are one end told twice.
const NOISE: i64 = 60;

/// A connection: whose workspace, and which person.
pub type Slot = (usize, usize);
/// `None` is never.
pub type End = Option<i64>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Connected,
    Replaced,
    Expiring,
    Expired,
    Invalidated,
    Restored,
    Rotated,
    RotationFailed,
    ScopesChanged,
    AdAccountsChanged,
    DataAccessExpiring,
    DataAccessExpired,
    Revoked,
    DeadlinesChanged,
}

impl Kind {
    pub const ALL: [Self; 14] = [
        Self::Connected,
        Self::Replaced,
        Self::Expiring,
        Self::Expired,
        Self::Invalidated,
        Self::Restored,
        Self::Rotated,
        Self::RotationFailed,
        Self::ScopesChanged,
        Self::AdAccountsChanged,
        Self::DataAccessExpiring,
        Self::DataAccessExpired,
        Self::Revoked,
        Self::DeadlinesChanged,
    ];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Active,
    Expiring,
    Expired,
    Invalid,
    Revoked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Info,
    Warning,
    Critical,
}

/// What belongs to some kinds alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Detail {
    None,
    Threshold(i64),
    Died { last_good: Option<i64>, first_bad: i64 },
    Gap { start: Option<i64>, end: i64, cause: Kind },
    Before(End),
    AtCeiling(bool),
    Changed { added: Vec<String>, removed: Vec<String> },
}

/// One event of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    pub kind: Kind,
    pub version: i32,
    pub at: i64,
    pub severity: Severity,
    pub status: Status,
    pub usable: bool,
    pub end: End,
    pub reason: Option<&'static str>,
    /// Places, in the connection's own events, of those that it settles.
    pub closes: BTreeSet<usize>,
    pub detail: Detail,
}

/// How the provider answers an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    SameDay,
    SameExpiry,
    Extends,
    SameString,
    BecomesNever,
    Shortens,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    pub scopes: BTreeSet<String>,
    pub accounts: BTreeSet<String>,
    /// The sub-code with which all tokens are refused, for as long as it lasts.
    pub trouble: Option<u32>,
    pub access_end: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    person: usize,
    long: bool,
    issued: i64,
    end: End,
    dead: Option<u32>,
}

/// The provider's word on a token that it accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Word {
    end: End,
    access: i64,
    scopes: BTreeSet<String>,
    short: bool,
    issued: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Live,
    Invalid { since: i64, reason: &'static str },
    Revoked { at: i64 },
}

/// What the vault must know of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    version: i32,
    /// `None` once the secret is destroyed.
    token: Option<usize>,
    end: End,
    access: i64,
    scopes: BTreeSet<String>,
    issued: Option<i64>,
    standing: Standing,
    /// Last seen to work.
    good: Option<i64>,
    rotated: Option<i64>,
    /// `None` until they were listed.
    accounts: Option<BTreeSet<String>>,
    /// An attempt to renew it as it is failed.
    tried: bool,
}

/// An event that is not settled.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Open {
    kind: Kind,
    version: i32,
    threshold: i64,
    place: usize,
}

/// A connection, what was said of it, and what of that is open.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Connection {
    held: Held,
    open: Vec<Open>,
    said: Vec<Announced>,
    created: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Person,
    Exchange,
    Observation,
}

/// What was reported of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The provider refused it as dead.
    Dead,
    /// The same, of a secret that is no longer held.
    DeadBefore,
    /// Too many calls.
    Throttled,
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    pub now: i64,
    pub mood: Mood,
    people: Vec<Person>,
    tokens: BTreeMap<usize, Token>,
    /// Tokens that the provider made by itself.
    minted: usize,
    connections: BTreeMap<Slot, Connection>,
}
