//! What the feed must contain, derived only from the promises. This is a second opinion: it shares no code and no types
//! with the server, and it is small enough to read in one go.
//!
//! Time is in whole seconds. One half mirrors what the provider knows (people, tokens). The other half is what the
//! vault must have concluded and announced about each connection.

mod connection;
mod provider;
mod vault;

use std::collections::{BTreeMap, BTreeSet};

pub const DAY: i64 = 86_400;
/// People at the provider, and workspaces that they connect to.
pub const PEOPLE: usize = 3;
pub const WORKSPACES: usize = 2;
pub const REQUIRED: [&str; 2] = ["ads_read", "ads_management"];
/// Two ends that differ by less than this are the same end, reported twice.
const NOISE: i64 = 60;

/// Identifies a connection: its workspace and its person.
pub type Slot = (usize, usize);
/// `None` means never.
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

/// Details that only some kinds of events have.
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
    /// The events that it closes, by their index among the connection's own events.
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
    /// The sub-code with which the provider refuses all tokens, while the trouble lasts.
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

/// What the provider says about a token that it accepts.
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

/// What the vault must know about a connection.
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
    /// When it was last seen to work.
    good: Option<i64>,
    rotated: Option<i64>,
    /// `None` until they have been listed.
    accounts: Option<BTreeSet<String>>,
    /// All ad accounts that it ever reached.
    reached: BTreeSet<String>,
    /// Whether an attempt to renew this version failed.
    tried: bool,
}

/// An event that is still open.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Open {
    kind: Kind,
    version: i32,
    threshold: i64,
    place: usize,
}

/// A connection, the events about it, and those of them that are open.
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

/// What a service reported about a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The provider refused it as dead.
    Dead,
    /// The provider refused as dead a secret that the vault no longer holds.
    DeadBefore,
    /// The provider received too many calls.
    Throttled,
}

/// The state of the provider and of the vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    pub now: i64,
    pub mood: Mood,
    people: Vec<Person>,
    tokens: BTreeMap<usize, Token>,
    /// The number of tokens that the provider made by itself.
    minted: usize,
    /// What a token that was pasted into a workspace was exchanged for.
    exchanged: BTreeMap<(usize, usize), usize>,
    connections: BTreeMap<Slot, Connection>,
}
