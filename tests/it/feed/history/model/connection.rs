//! What the vault must know about a connection, and what it must announce when that changes.

use std::collections::BTreeSet;

use super::{
    Announced, Cause, Connection, DAY, Detail, End, Held, Kind, NOISE, Open, REQUIRED, Severity, Standing,
    Status, Word,
};

const OPTIONAL: [&str; 1] = ["business_management"];
/// How long before an end the vault warns.
const THRESHOLDS: [i64; 3] = [7 * DAY, 3 * DAY, DAY];

fn differs(one: End, other: End) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => (one - other).abs() > NOISE,
        (one, other) => one.is_some() != other.is_some(),
    }
}

impl Held {
    pub(super) fn status(&self, now: i64) -> Status {
        match (self.standing, self.end) {
            (Standing::Revoked { .. }, _) => Status::Revoked,
            (Standing::Invalid { .. }, _) => Status::Invalid,
            (Standing::Live, Some(end)) if end <= now => Status::Expired,
            (Standing::Live, Some(end)) if end <= now + 7 * DAY => Status::Expiring,
            (Standing::Live, _) => Status::Active,
        }
    }

    pub(super) fn is_usable(&self, now: i64) -> bool {
        matches!(self.status(now), Status::Active | Status::Expiring)
    }

    /// The provider accepted the token.
    pub(super) fn learn(&mut self, word: Word, now: i64) {
        (self.end, self.access, self.scopes, self.issued) = (word.end, word.access, word.scopes, word.issued);
        (self.standing, self.good) = (Standing::Live, Some(now));
    }

    /// The vault received another token for it. If the string is the same, so is the version.
    pub(super) fn hold(&mut self, token: usize, word: Word, now: i64) {
        self.version += i32::from(self.token != Some(token));
        (self.token, self.rotated) = (Some(token), Some(now));
        self.learn(word, now);
    }
}

impl Connection {
    pub(super) fn new(token: usize, word: Word, now: i64) -> Self {
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
            reached: BTreeSet::new(),
            tried: false,
        };
        let mut connection = Self { held, open: Vec::new(), said: Vec::new(), created: now };
        connection.close_with(Kind::Connected, now, Severity::Info, Detail::None, |_| false);
        connection.time_passes(now);
        connection
    }

    pub(super) fn is_open(&self, kind: Kind) -> bool {
        self.open.iter().any(|open| open.kind == kind && open.version == self.held.version)
    }

    /// `at` is the true moment of the event. The announcement happens at the model's `now`, which decides the status.
    pub(super) fn say(
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
        self.said.push(Announced {
            kind,
            version,
            at,
            severity,
            status,
            usable,
            end,
            reason,
            closes,
            detail,
        });
    }

    pub(super) fn open_with(
        &mut self,
        kind: Kind,
        now: i64,
        threshold: i64,
        severity: Severity,
        detail: Detail,
    ) {
        let at = match kind {
            Kind::Expiring | Kind::Expired => self.held.end.expect("it has an end") - threshold,
            Kind::DataAccessExpiring | Kind::DataAccessExpired => self.held.access - threshold,
            _ => now,
        };
        let (version, place) = (self.held.version, self.said.len());
        self.say(now, kind, at, severity, BTreeSet::new(), detail);
        self.open.push(Open { kind, version, threshold, place });
    }

    pub(super) fn close_with(
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

    /// Announces what follows from time alone: of several missed warnings only the tightest, and nothing at all about a
    /// dead token.
    pub(super) fn time_passes(&mut self, now: i64) {
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

    pub(super) fn warn(&mut self, kind: Kind, end: i64, now: i64) {
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

    /// Changes the facts, and announces what follows.
    pub(super) fn change(&mut self, now: i64, cause: Cause, edit: impl FnOnce(&mut Held)) {
        self.time_passes(now);
        let before = self.held.clone();
        edit(&mut self.held);
        let after = self.held.clone();
        let (worked, works) = (before.is_usable(now), after.is_usable(now));
        let is_new = before.version != after.version;
        let moved = differs(before.end, after.end);
        let missed = [Kind::ScopesChanged, Kind::AdAccountsChanged].map(|kind| self.is_missed(kind));
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
                // Another end is another chance of renewal.
                Kind::RotationFailed => moved,
                _ => false,
            });
        }
        // What settles all does not bring back what is still missing.
        let [scopes, accounts] = missed;
        let scopes_settled = scopes && !self.is_missed(Kind::ScopesChanged);
        let lacks = Self::severity_of(&after.scopes) != Severity::Info;
        if before.scopes != after.scopes || scopes_settled && lacks {
            self.scopes_changed(now, &before.scopes, &after.scopes);
        }
        let severity = self.severity_of_accounts();
        if accounts && !self.is_missed(Kind::AdAccountsChanged) && severity != Severity::Info {
            let same = BTreeSet::new();
            self.came_and_went(Kind::AdAccountsChanged, now, severity, &same, &same);
        }
        self.time_passes(now);
    }

    fn is_missed(&self, kind: Kind) -> bool {
        self.open.iter().any(|open| open.kind == kind)
    }

    /// What is missing decides how bad a change is.
    fn severity_of(scopes: &BTreeSet<String>) -> Severity {
        let lacks = |wanted: &[&str]| wanted.iter().any(|scope| !scopes.contains(*scope));
        if lacks(&REQUIRED) {
            Severity::Critical
        } else if lacks(&OPTIONAL) {
            Severity::Warning
        } else {
            Severity::Info
        }
    }

    fn severity_of_accounts(&self) -> Severity {
        match (self.held.accounts.as_ref().map(BTreeSet::len), self.held.reached.len()) {
            (None, _) => Severity::Info,
            // Those that were never reached are not missed so much.
            (Some(0), 1..) => Severity::Critical,
            (Some(now), ever) if now < ever || ever == 0 => Severity::Warning,
            _ => Severity::Info,
        }
    }

    pub(super) fn scopes_changed(&mut self, now: i64, before: &BTreeSet<String>, after: &BTreeSet<String>) {
        self.came_and_went(Kind::ScopesChanged, now, Self::severity_of(after), before, after);
    }

    pub(super) fn accounts_changed(&mut self, now: i64, accounts: BTreeSet<String>) {
        self.held.reached.extend(accounts.iter().cloned());
        // The first listing is not a change, because nothing was known before.
        if let Some(before) = self.held.accounts.replace(accounts.clone())
            && before != accounts
        {
            let severity = self.severity_of_accounts();
            self.came_and_went(Kind::AdAccountsChanged, now, severity, &before, &accounts);
        }
    }

    /// A loss stays open until the next change of its kind.
    pub(super) fn came_and_went(
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
