//! What the feed must say, worked out from the promises alone. This is the second opinion: it shares no code and
//! no types with the server, and is kept so small that it can be read at a sitting.
//!
//! Time is in whole seconds. One half mirrors what the provider knows (people, tokens), the other what the vault
//! must have concluded and said about each connection.

use std::collections::{BTreeMap, BTreeSet};

pub const DAY: i64 = 86_400;
/// People at the provider, and workspaces that they connect to.
pub const PEOPLE: usize = 3;
pub const WORKSPACES: usize = 2;
/// How long before an end it is warned of.
const THRESHOLDS: [i64; 3] = [7 * DAY, 3 * DAY, DAY];
pub const REQUIRED: [&str; 2] = ["ads_read", "ads_management"];
const OPTIONAL: [&str; 1] = ["business_management"];
/// Ends that are closer are one end told twice.
const NOISE: i64 = 60;
/// What the sandbox gives when it gives a fresh life.
const LONG_LIFE: i64 = 60 * DAY;

/// How a word on a token is written: with what follows for others, or alone.
type Write = fn(&mut Model, Slot, Result<Word, &'static str>, Option<BTreeSet<String>>, Option<i64>);
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
pub struct Said {
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
    said: Vec<Said>,
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

/// Why the provider refuses a token, by its sub-code.
fn reason_of(subcode: u32) -> &'static str {
    match subcode {
        458 => "APP_REMOVED",
        459 => "CHECKPOINT",
        460 => "PASSWORD_CHANGED",
        463 => "EXPIRED",
        467 => "LOGGED_OUT",
        _ => unreachable!("no history brings sub-code {subcode}"),
    }
}

fn differs(one: End, other: End) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => (one - other).abs() > NOISE,
        (one, other) => one.is_some() != other.is_some(),
    }
}

fn is_later(new: End, old: End) -> bool {
    match (new, old) {
        (Some(new), Some(old)) => new > old + NOISE,
        (new, old) => new.is_none() && old.is_some(),
    }
}

/// The provider.
impl Model {
    pub fn new(now: i64, people: Vec<Person>) -> Self {
        let (tokens, connections) = (BTreeMap::new(), BTreeMap::new());
        Self { now, mood: Mood::SameDay, people, tokens, minted: 1_000_000, connections }
    }

    /// A person logs in and gets a token.
    pub fn mint(&mut self, token: usize, person: usize, long: bool, life: i64) {
        let end = Some(self.now + life);
        self.tokens.insert(token, Token { person, long, issued: self.now, end, dead: None });
    }

    pub fn person(&mut self, person: usize) -> &mut Person {
        &mut self.people[person]
    }

    /// All tokens that a person has so far die.
    pub fn kill_all(&mut self, person: usize, subcode: u32) {
        for token in self.tokens.values_mut().filter(|token| token.person == person) {
            token.dead.get_or_insert(subcode);
        }
    }

    /// The end of the token that a connection holds moves, by the provider's doing.
    pub fn move_end(&mut self, slot: Slot, end: i64) {
        let held = self.connections[&slot].held.token;
        self.tokens.get_mut(&held.expect("a usable token is held")).expect("it is known").end = Some(end);
    }

    fn inspect(&self, token: usize) -> Result<Word, &'static str> {
        let token = &self.tokens[&token];
        let person = &self.people[token.person];
        if let Some(subcode) = token.dead.or(person.trouble) {
            return Err(reason_of(subcode));
        }
        if token.end.is_some_and(|end| end <= self.now) {
            return Err(reason_of(463));
        }
        // Only of long-lived tokens the day of issue is told.
        let issued = token.long.then_some(token.issued);
        let short = token.end.is_some_and(|end| end - issued.unwrap_or(self.now) < DAY);
        let (access, scopes) = (person.access_end, person.scopes.clone());
        Ok(Word { end: token.end, access, scopes, short, issued })
    }

    fn exchange(&mut self, token: usize) -> Result<usize, &'static str> {
        self.inspect(token)?;
        let before = self.tokens[&token].clone();
        let fresh = Some(self.now + LONG_LIFE);
        let end = match self.mood {
            Mood::SameString => return Ok(token),
            Mood::BecomesNever => None,
            _ if before.end.is_none() => None,
            _ if !before.long => fresh,
            Mood::SameExpiry => before.end,
            Mood::Shortens => before.end.map(|end| self.now + (end - self.now) / 2),
            Mood::Extends => fresh,
            Mood::SameDay if self.now - before.issued < DAY => before.end,
            Mood::SameDay => fresh,
        };
        self.minted += 1;
        let after = Token { long: true, issued: self.now, end, ..before };
        self.tokens.insert(self.minted, after);
        Ok(self.minted)
    }

    /// The ad accounts that a token reaches; `None`: they can't be listed.
    fn accounts(&self, token: usize) -> Option<BTreeSet<String>> {
        let person = &self.people[self.tokens[&token].person];
        REQUIRED.iter().any(|scope| person.scopes.contains(*scope)).then(|| person.accounts.clone())
    }
}

/// What the vault is asked. Each says what it must answer.
impl Model {
    pub fn slots(&self) -> Vec<Slot> {
        self.connections.keys().copied().collect()
    }

    pub fn said(&self, slot: Slot) -> &[Said] {
        self.connections.get(&slot).map_or(&[], |connection| &connection.said)
    }

    pub fn is_usable(&self, slot: Slot) -> bool {
        self.connections.get(&slot).is_some_and(|connection| connection.held.is_usable(self.now))
    }

    /// Everything that is due by time is said.
    pub fn announce(&mut self) {
        for connection in self.connections.values_mut() {
            connection.time_passes(self.now);
        }
    }

    pub fn store(&mut self, slot: Slot, token: usize) -> &'static str {
        let (outcome, token) = self.save(slot, token);
        // The doctor looks at what was stored: only ad accounts can be news, so soon.
        if let Some(token) = token {
            let (word, accounts) = (self.inspect(token), self.accounts(token));
            self.record(slot, word, accounts, None);
        }
        outcome
    }

    /// Stores a token and examines nothing: the place where a process may die in between.
    pub fn save(&mut self, slot: Slot, pasted: usize) -> (&'static str, Option<usize>) {
        let Ok(mut word) = self.inspect(pasted) else { return ("Refused", None) };
        let mut token = pasted;
        if word.short {
            let before = word.end;
            let Ok(exchanged) = self.exchange(pasted) else { return ("Refused", None) };
            let Ok(after) = self.inspect(exchanged) else { return ("Refused", None) };
            (token, word) = (exchanged, after);
            if word.short || !is_later(word.end, before) {
                return ("Refused", None);
            }
        }
        if REQUIRED.iter().any(|scope| !word.scopes.contains(*scope)) {
            return ("Refused", None);
        }
        let now = self.now;
        let Some(connection) = self.connections.get_mut(&slot) else {
            self.connections.insert(slot, Connection::new(token, word, now));
            return ("Created", Some(token));
        };
        let worked = connection.held.is_usable(now);
        if worked && !connection.held.scopes.is_subset(&word.scopes) {
            return ("Refused", None);
        }
        let same = connection.held.token == Some(token);
        connection.change(now, Cause::Person, |held| {
            held.learn(word, now);
            held.version += i32::from(!same);
            held.token = Some(token);
        });
        let outcome = match (worked, same) {
            (true, true) => "Unchanged",
            (true, false) => "Replaced",
            (false, _) => "Restored",
        };
        (outcome, Some(token))
    }

    pub fn validate(&mut self, slot: Slot) {
        self.validate_with(slot, Self::record);
    }

    /// The same, and the process dies before it asks about the person's other connections.
    pub fn validate_only(&mut self, slot: Slot) {
        self.validate_with(slot, Self::note);
    }

    fn validate_with(&mut self, slot: Slot, write: Write) {
        let Some(token) = self.connections[&slot].held.token else { return };
        let word = self.inspect(token);
        let accounts = word.is_ok().then(|| self.accounts(token)).flatten();
        write(self, slot, word, accounts, None);
    }

    /// The daily pass: everything that may still change is asked about.
    pub fn sweep(&mut self) {
        for slot in self.slots() {
            if self.connections[&slot].held.status(self.now) != Status::Expired {
                self.validate(slot);
            }
        }
    }

    /// A service saw the provider refuse a token, and last saw it work at `last_success`.
    pub fn report(&mut self, slot: Slot, claim: Claim, last_success: Option<i64>) -> &'static str {
        self.report_with(slot, claim, last_success, Self::record)
    }

    /// The same, and the process dies before it asks about the person's other connections.
    pub fn report_only(&mut self, slot: Slot, claim: Claim, last_success: Option<i64>) -> &'static str {
        self.report_with(slot, claim, last_success, Self::note)
    }

    fn report_with(
        &mut self,
        slot: Slot,
        claim: Claim,
        last_success: Option<i64>,
        write: Write,
    ) -> &'static str {
        let held = &self.connections[&slot].held;
        if claim == Claim::DeadBefore {
            return "StaleReport";
        }
        if !held.is_usable(self.now) {
            return "AlreadyDead";
        }
        if claim == Claim::Throttled {
            return "Throttled";
        }
        let word = self.inspect(held.token.expect("a usable token is held"));
        let verdict = if word.is_ok() { "StillValid" } else { "Invalidated" };
        write(self, slot, word, None, last_success);
        verdict
    }

    /// Live connections of the same person elsewhere.
    pub fn siblings(&self, (workspace, person): Slot) -> Vec<Slot> {
        let others = (0..WORKSPACES).filter(|other| *other != workspace).map(|other| (other, person));
        others
            .filter(|slot| self.connections.get(slot).is_some_and(|c| c.held.standing == Standing::Live))
            .collect()
    }

    pub fn revoke(&mut self, slot: Slot, at_provider: bool) {
        let held = &self.connections[&slot].held;
        if let Some(token) = held.token.filter(|_| at_provider)
            && self.inspect(token).is_ok()
        {
            // Meta knows no end of one token: the person's permissions for the app are taken back.
            self.kill_all(slot.1, 458);
        }
        let connection = self.connections.get_mut(&slot).expect("it is connected");
        let now = self.now;
        connection.time_passes(now);
        if !matches!(connection.held.standing, Standing::Revoked { .. }) {
            connection.held.standing = Standing::Revoked { at: now };
            connection.held.token = None;
            connection.close_with(Kind::Revoked, now, Severity::Info, Detail::None, |_| true);
        }
    }

    /// A caller asks for a longer life.
    pub fn lengthen(&mut self, slot: Slot) -> &'static str {
        let held = self.connections[&slot].held.clone();
        let (Some(token), Some(end), true) = (held.token, held.end, held.is_usable(self.now)) else {
            return "Refused";
        };
        let exchanged = match self.exchange(token) {
            Ok(exchanged) => exchanged,
            Err(reason) => {
                self.record(slot, Err(reason), None, None);
                return "Refused";
            }
        };
        let word = self.inspect(exchanged).expect("it was made now");
        if !held.scopes.is_subset(&word.scopes) {
            return "Refused";
        }
        let now = self.now;
        let outcome = match word.end {
            None => "NowNeverExpires",
            Some(_) if is_later(word.end, Some(end)) => "Extended",
            Some(_) if is_later(Some(end), word.end) => "Shortened",
            Some(_) => "AtCeiling",
        };
        let connection = self.connections.get_mut(&slot).expect("it is connected");
        connection.change(now, Cause::Exchange, |held| {
            held.good = Some(now);
            if matches!(outcome, "Extended" | "NowNeverExpires") {
                held.hold(exchanged, word, now);
            }
        });
        outcome
    }

    /// The vault tries to renew a token that is due.
    pub fn renew(&mut self, slot: Slot) {
        let now = self.now;
        let held = self.connections[&slot].held.clone();
        let (Some(token), Some(end), Standing::Live) = (held.token, held.end, held.standing) else { return };
        let connection = self.connections.get_mut(&slot).expect("it is connected");
        connection.held.tried = true;
        if end <= now {
            connection.time_passes(now);
            return;
        }
        let exchanged = match self.exchange(token) {
            Ok(exchanged) => exchanged,
            Err(reason) => return self.record(slot, Err(reason), None, None),
        };
        let word = self.inspect(exchanged).expect("it was made now");
        let fits = held.scopes.is_subset(&word.scopes);
        let connection = self.connections.get_mut(&slot).expect("it is connected");
        if fits && is_later(word.end, Some(end)) {
            connection.change(now, Cause::Exchange, |held| {
                held.good = Some(now);
                held.hold(exchanged, word, now);
            });
            return;
        }
        connection.time_passes(now);
        let at_ceiling = fits && !is_later(Some(end), word.end);
        if !connection.is_open(Kind::RotationFailed) {
            connection.open_with(
                Kind::RotationFailed,
                now,
                0,
                Severity::Critical,
                Detail::AtCeiling(at_ceiling),
            );
        }
    }

    /// Whether the vault may have set its next attempt to renew a token to `at`. The first lies in the first half
    /// of its window, at a moment that only the vault knows; how long it waits after a failure is its own affair.
    pub fn may_renew_at(&self, slot: Slot, at: Option<i64>) -> bool {
        let Connection { held, created, .. } = &self.connections[&slot];
        let (Standing::Live, Some(end)) = (held.standing, held.end) else { return at.is_none() };
        let born = held.issued.max(held.rotated).unwrap_or(*created);
        let opens = (born + DAY).max(end - 30 * DAY);
        let closes = opens + (end - 7 * DAY - opens).max(0) / 2;
        match at {
            None => held.tried || opens >= end,
            Some(at) if held.tried => at < end,
            // The moment is told in whole seconds, rounded down.
            Some(at) => (opens..=closes + 1).contains(&at) && at < end,
        }
    }

    /// What was learned of a token. Of a death, the person's other connections are asked about at once.
    fn record(
        &mut self,
        slot: Slot,
        word: Result<Word, &'static str>,
        accounts: Option<BTreeSet<String>>,
        last_success: Option<i64>,
    ) {
        let lived = self.connections[&slot].held.standing == Standing::Live;
        self.note(slot, word, accounts, last_success);
        if lived && matches!(self.connections[&slot].held.standing, Standing::Invalid { .. }) {
            for sibling in self.siblings(slot) {
                let token = self.connections[&sibling].held.token.expect("a live token is held");
                let word = self.inspect(token);
                self.note(sibling, word, None, None);
            }
        }
    }

    /// What was learned of one token, and of no other.
    fn note(
        &mut self,
        slot: Slot,
        word: Result<Word, &'static str>,
        accounts: Option<BTreeSet<String>>,
        last_success: Option<i64>,
    ) {
        let now = self.now;
        let connection = self.connections.get_mut(&slot).expect("it is connected");
        connection.change(now, Cause::Observation, |held| match word {
            Ok(word) => held.learn(word, now),
            // Who is past its end, or known to be dead, dies no second death.
            Err(reason) if held.is_usable(now) => {
                held.standing = Standing::Invalid { since: now, reason };
                held.good = held.good.max(last_success);
            }
            Err(_) => {}
        });
        if let Some(accounts) = accounts {
            connection.accounts_changed(now, accounts);
        }
    }
}

impl Held {
    fn status(&self, now: i64) -> Status {
        match (self.standing, self.end) {
            (Standing::Revoked { .. }, _) => Status::Revoked,
            (Standing::Invalid { .. }, _) => Status::Invalid,
            (Standing::Live, Some(end)) if end <= now => Status::Expired,
            (Standing::Live, Some(end)) if end <= now + 7 * DAY => Status::Expiring,
            (Standing::Live, _) => Status::Active,
        }
    }

    fn is_usable(&self, now: i64) -> bool {
        matches!(self.status(now), Status::Active | Status::Expiring)
    }

    /// The provider said that it is in order.
    fn learn(&mut self, word: Word, now: i64) {
        (self.end, self.access, self.scopes, self.issued) = (word.end, word.access, word.scopes, word.issued);
        (self.standing, self.good) = (Standing::Live, Some(now));
    }

    /// The vault got another one for it; the same string is the same version.
    fn hold(&mut self, token: usize, word: Word, now: i64) {
        self.version += i32::from(self.token != Some(token));
        (self.token, self.rotated) = (Some(token), Some(now));
        self.learn(word, now);
    }
}

impl Connection {
    fn new(token: usize, word: Word, now: i64) -> Self {
        let held = Held {
            version: 1,
            token: Some(token),
            end: word.end,
            access: word.access,
            scopes: word.scopes,
            issued: word.issued,
            standing: Standing::Live,
            good: Some(now),
            rotated: None,
            accounts: None,
            tried: false,
        };
        let mut connection = Self { held, open: Vec::new(), said: Vec::new(), created: now };
        connection.close_with(Kind::Connected, now, Severity::Info, Detail::None, |_| false);
        connection.time_passes(now);
        connection
    }

    fn is_open(&self, kind: Kind) -> bool {
        self.open.iter().any(|open| open.kind == kind && open.version == self.held.version)
    }

    /// `at` is the true moment; it is said at the model's now, which decides the status.
    fn say(
        &mut self,
        now: i64,
        kind: Kind,
        at: i64,
        severity: Severity,
        closes: BTreeSet<usize>,
        detail: Detail,
    ) {
        let reason = match self.held.standing {
            Standing::Invalid { reason, .. } => Some(reason),
            _ if kind == Kind::Expired => Some("EXPIRED"),
            _ => None,
        };
        let status = self.held.status(now);
        let usable = self.held.is_usable(now);
        let (version, end) = (self.held.version, self.held.end);
        self.said.push(Said { kind, version, at, severity, status, usable, end, reason, closes, detail });
    }

    fn open_with(&mut self, kind: Kind, now: i64, threshold: i64, severity: Severity, detail: Detail) {
        let at = match kind {
            Kind::Expiring | Kind::Expired => self.held.end.expect("it has an end") - threshold,
            Kind::DataAccessExpiring | Kind::DataAccessExpired => self.held.access - threshold,
            _ => now,
        };
        let (version, place) = (self.held.version, self.said.len());
        self.say(now, kind, at, severity, BTreeSet::new(), detail);
        self.open.push(Open { kind, version, threshold, place });
    }

    fn close_with(
        &mut self,
        kind: Kind,
        now: i64,
        severity: Severity,
        detail: Detail,
        which: impl Fn(&Open) -> bool,
    ) {
        let (closed, open) = std::mem::take(&mut self.open).into_iter().partition(|open| which(open));
        self.open = open;
        let closed: Vec<Open> = closed;
        self.say(now, kind, now, severity, closed.iter().map(|open| open.place).collect(), detail);
    }

    /// What time alone brings: of several warnings that were missed only the tightest, and nothing at all about a
    /// token that is dead.
    fn time_passes(&mut self, now: i64) {
        if self.held.standing != Standing::Live {
            return;
        }
        if let Some(end) = self.held.end {
            if end <= now {
                if !self.is_open(Kind::Expired) {
                    let detail = Detail::Died { last_good: self.held.good, first_bad: end };
                    self.open_with(Kind::Expired, now, 0, Severity::Critical, detail);
                }
                return;
            }
            self.warn(Kind::Expiring, end, now);
        }
        if self.held.access > now {
            self.warn(Kind::DataAccessExpiring, self.held.access, now);
        } else if !self.is_open(Kind::DataAccessExpired) {
            self.open_with(Kind::DataAccessExpired, now, 0, Severity::Warning, Detail::None);
        }
    }

    fn warn(&mut self, kind: Kind, end: i64, now: i64) {
        let Some(threshold) = THRESHOLDS.into_iter().filter(|threshold| end - threshold <= now).min() else {
            return;
        };
        let version = self.held.version;
        let warned =
            |open: &Open| open.kind == kind && open.version == version && open.threshold <= threshold;
        if !self.open.iter().any(warned) {
            let tightest = kind == Kind::Expiring && threshold == DAY;
            let severity = if tightest { Severity::Critical } else { Severity::Warning };
            self.open_with(kind, now, threshold, severity, Detail::Threshold(threshold));
        }
    }

    /// The facts change, and it is said what that means.
    fn change(&mut self, now: i64, cause: Cause, edit: impl FnOnce(&mut Held)) {
        self.time_passes(now);
        let before = self.held.clone();
        edit(&mut self.held);
        let after = self.held.clone();
        let (worked, works) = (before.is_usable(now), after.is_usable(now));
        let is_new = before.version != after.version;
        let moved = differs(before.end, after.end);
        if is_new || before.end != after.end || before.standing != after.standing {
            self.held.tried = false;
        }
        if worked && !works {
            let detail = Detail::Died { last_good: after.good, first_bad: now };
            self.open_with(Kind::Invalidated, now, 0, Severity::Critical, detail);
        } else if !worked && works {
            let (cause, ended) = match before.standing {
                Standing::Live => (Kind::Expired, before.end),
                Standing::Invalid { since, .. } => (Kind::Invalidated, Some(since)),
                Standing::Revoked { at } => (Kind::Revoked, Some(at)),
            };
            let detail = Detail::Gap { start: before.good.or(ended), end: now, cause };
            self.close_with(Kind::Restored, now, Severity::Info, detail, |_| true);
        } else if works && cause == Cause::Exchange && (is_new || moved) {
            self.close_with(Kind::Rotated, now, Severity::Info, Detail::Before(before.end), |_| true);
        } else if works && is_new {
            self.close_with(Kind::Replaced, now, Severity::Info, Detail::None, |_| true);
        } else if works && (moved || differs(Some(before.access), Some(after.access))) {
            let ahead = |end: End, threshold: i64| end.is_none_or(|end| end - threshold > now);
            let detail = Detail::Before(before.end);
            self.close_with(Kind::DeadlinesChanged, now, Severity::Info, detail, |open| match open.kind {
                Kind::Expiring => ahead(after.end, open.threshold),
                Kind::DataAccessExpiring | Kind::DataAccessExpired => {
                    ahead(Some(after.access), open.threshold)
                }
                _ => false,
            });
        }
        if before.scopes != after.scopes {
            self.scopes_changed(now, &before.scopes, &after.scopes);
        }
        self.time_passes(now);
    }

    fn scopes_changed(&mut self, now: i64, before: &BTreeSet<String>, after: &BTreeSet<String>) {
        let lost =
            |wanted: &[&str]| wanted.iter().any(|scope| before.contains(*scope) && !after.contains(*scope));
        let severity = if lost(&REQUIRED) {
            Severity::Critical
        } else if lost(&OPTIONAL) {
            Severity::Warning
        } else {
            Severity::Info
        };
        self.came_and_went(Kind::ScopesChanged, now, severity, before, after);
    }

    fn accounts_changed(&mut self, now: i64, accounts: BTreeSet<String>) {
        // The first listing is no change: nothing was known before.
        if let Some(before) = self.held.accounts.replace(accounts.clone())
            && before != accounts
        {
            let lost = !before.is_subset(&accounts);
            let severity = if lost { Severity::Warning } else { Severity::Info };
            self.came_and_went(Kind::AdAccountsChanged, now, severity, &before, &accounts);
        }
    }

    /// A loss is open until the next change of its kind.
    fn came_and_went(
        &mut self,
        kind: Kind,
        now: i64,
        severity: Severity,
        before: &BTreeSet<String>,
        after: &BTreeSet<String>,
    ) {
        let list =
            |one: &BTreeSet<String>, other: &BTreeSet<String>| one.difference(other).cloned().collect();
        let detail = Detail::Changed { added: list(after, before), removed: list(before, after) };
        self.close_with(kind, now, severity, detail, |open| open.kind == kind);
        if severity != Severity::Info {
            let (version, place) = (self.held.version, self.said.len() - 1);
            self.open.push(Open { kind, version, threshold: 0, place });
        }
    }
}
