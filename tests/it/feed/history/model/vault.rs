//! What the vault is asked, and what it must answer.

use std::collections::BTreeSet;

use super::{
    Announced, Cause, Claim, Connection, DAY, Detail, End, Kind, Model, NOISE, REQUIRED, Severity, Slot,
    Standing, Status, WORKSPACES, Word,
};

/// Writes what the provider said about a token: with the consequences for other connections, or without.
type Write = fn(&mut Model, Slot, Result<Word, &'static str>, Option<BTreeSet<String>>, Option<i64>);

fn is_later(new: End, old: End) -> bool {
    match (new, old) {
        (Some(new), Some(old)) => new > old + NOISE,
        (new, old) => new.is_none() && old.is_some(),
    }
}

/// Each method that stands for a request returns what the vault must answer.
impl Model {
    pub fn slots(&self) -> Vec<Slot> {
        self.connections.keys().copied().collect()
    }

    pub fn said(&self, slot: Slot) -> &[Announced] {
        self.connections.get(&slot).map_or(&[], |connection| &connection.said)
    }

    pub fn is_usable(&self, slot: Slot) -> bool {
        self.connections.get(&slot).is_some_and(|connection| connection.held.is_usable(self.now))
    }

    /// Announces everything that is due by time.
    pub fn announce(&mut self) {
        for connection in self.connections.values_mut() {
            connection.time_passes(self.now);
        }
    }

    pub fn store(&mut self, slot: Slot, token: usize) -> &'static str {
        let (outcome, token) = self.save(slot, token);
        // The vault then examines what it stored. So soon, only the ad accounts can be new.
        if let Some(token) = token {
            let (word, accounts) = (self.inspect(token), self.accounts(token));
            self.record(slot, word, accounts, None);
        }
        outcome
    }

    /// Stores a token without examining it, because a process may die in between.
    pub fn save(&mut self, slot: Slot, pasted: usize) -> (&'static str, Option<usize>) {
        let (token, word) = match self.exchanged_earlier(slot, pasted) {
            Some(earlier) => earlier,
            None => match self.accept(pasted) {
                Some(accepted) => accepted,
                None => return ("Refused", None),
            },
        };
        if REQUIRED.iter().any(|scope| !word.scopes.contains(*scope)) {
            return ("Refused", None);
        }
        let now = self.now;
        let Some(connection) = self.connections.get_mut(&slot) else {
            self.connections.insert(slot, Connection::new(token, word, now));
            self.exchanged.insert((slot.0, pasted), token);
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
        self.exchanged.insert((slot.0, pasted), token);
        let outcome = match (worked, same) {
            (true, true) => "Unchanged",
            (true, false) => "Replaced",
            (false, _) => "Restored",
        };
        (outcome, Some(token))
    }

    /// A token that the provider accepts, exchanged if it is short-lived.
    fn accept(&mut self, pasted: usize) -> Option<(usize, Word)> {
        let word = self.inspect(pasted).ok()?;
        if !word.short {
            return Some((pasted, word));
        }
        let exchanged = self.exchange(pasted).ok()?;
        let after = self.inspect(exchanged).ok()?;
        (!after.short && is_later(after.end, word.end)).then_some((exchanged, after))
    }

    /// What a short-lived token was exchanged for, if that is still held and works.
    fn exchanged_earlier(&self, slot: Slot, pasted: usize) -> Option<(usize, Word)> {
        let token = *self.exchanged.get(&(slot.0, pasted)).filter(|token| **token != pasted)?;
        let held = &self.connections.get(&slot)?.held;
        let lives = self.tokens[&pasted].end.is_some_and(|end| end > self.now);
        let is_held = lives && held.token == Some(token) && held.is_usable(self.now);
        is_held.then(|| self.inspect(token).ok()).flatten().map(|word| (token, word))
    }

    pub fn validate(&mut self, slot: Slot) {
        self.validate_with(slot, Self::record);
    }

    /// Validates, but the process dies before it asks about the person's other connections.
    pub fn validate_only(&mut self, slot: Slot) {
        self.validate_with(slot, Self::note);
    }

    fn validate_with(&mut self, slot: Slot, write: Write) {
        let Some(token) = self.connections[&slot].held.token else { return };
        let word = self.inspect(token);
        let accounts = word.is_ok().then(|| self.accounts(token)).flatten();
        write(self, slot, word, accounts, None);
    }

    /// The daily validation: asks about everything that may still change.
    pub fn sweep(&mut self) {
        for slot in self.slots() {
            if self.connections[&slot].held.status(self.now) != Status::Expired {
                self.validate(slot);
            }
        }
    }

    /// A service reports that the provider refused a token, and that it last saw the token work at `last_success`.
    pub fn report(&mut self, slot: Slot, claim: Claim, last_success: Option<i64>) -> &'static str {
        self.report_with(slot, claim, last_success, Self::record)
    }

    /// Reports, but the process dies before it asks about the person's other connections.
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

    /// The person's live connections in other workspaces.
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
            // Meta can't end a single token: it removes the person's permissions for the app instead.
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

    /// A caller asks the vault to exchange a token for one that lasts longer.
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
        let fits = exchanged == token || held.scopes.is_subset(&word.scopes);
        let outcome = match word.end {
            None => "NowNeverExpires",
            Some(_) if is_later(word.end, Some(end)) => "Extended",
            Some(_) if is_later(Some(end), word.end) => "Shortened",
            Some(_) => "AtCeiling",
        };
        if !fits || matches!(outcome, "Shortened" | "AtCeiling") {
            // Before the new token is thrown away, the vault asks about the old one.
            self.record(slot, self.inspect(token), None, None);
            return if fits { outcome } else { "Refused" };
        }
        let now = self.now;
        let connection = self.connections.get_mut(&slot).expect("it is connected");
        connection.change(now, Cause::Exchange, |held| held.hold(exchanged, word, now));
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
        let fits = exchanged == token || held.scopes.is_subset(&word.scopes);
        let connection = self.connections.get_mut(&slot).expect("it is connected");
        if fits && is_later(word.end, Some(end)) {
            connection.change(now, Cause::Exchange, |held| held.hold(exchanged, word, now));
            return;
        }
        let at_ceiling = fits && !is_later(Some(end), word.end);
        // Before the new token is thrown away, the vault asks about the old one.
        self.record(slot, self.inspect(token), None, None);
        let connection = self.connections.get_mut(&slot).expect("it is connected");
        connection.time_passes(now);
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

    /// Whether the vault may have scheduled its next attempt to renew a token for `at`. The first attempt lies in the
    /// first half of its window, at a moment that only the vault knows. After a failure, any wait is allowed.
    pub fn may_renew_at(&self, slot: Slot, at: Option<i64>) -> bool {
        let Connection { held, created, .. } = &self.connections[&slot];
        let (Standing::Live, Some(end)) = (held.standing, held.end) else { return at.is_none() };
        let born = held.issued.max(held.rotated).unwrap_or(*created);
        let opens = (born + DAY).max(end - 30 * DAY);
        let closes = opens + (end - 7 * DAY - opens).max(0) / 2;
        match at {
            None => held.tried || opens >= end,
            Some(at) if held.tried => at < end,
            // The vault reports the moment in whole seconds, rounded down.
            Some(at) => (opens..=closes + 1).contains(&at) && at < end,
        }
    }

    /// Writes what was learned about a token. If it died, the vault asks about the person's other connections at once.
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

    /// Writes what was learned about one token, and about no other.
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
            // A token that has expired, or that is known to be dead, does not die again.
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
