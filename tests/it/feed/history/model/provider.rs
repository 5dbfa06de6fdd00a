//! What the provider does, and how it answers.

use std::collections::{BTreeMap, BTreeSet};

use super::{DAY, Model, Mood, Person, REQUIRED, Slot, Token, Word};

/// The life of a token that the sandbox renews.
const LONG_LIFE: i64 = 60 * DAY;

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

impl Model {
    pub fn new(now: i64, people: Vec<Person>) -> Self {
        let (tokens, exchanged, connections) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { now, mood: Mood::SameDay, people, tokens, minted: 1_000_000, exchanged, connections }
    }

    /// Gives a token to a person who logs in.
    pub fn mint(&mut self, token: usize, person: usize, long: bool, life: i64) {
        let end = Some(self.now + life);
        self.tokens.insert(token, Token { person, long, issued: self.now, end, dead: None });
    }

    pub fn person(&mut self, person: usize) -> &mut Person {
        &mut self.people[person]
    }

    /// Ends all tokens that a person has so far.
    pub fn kill_all(&mut self, person: usize, subcode: u32) {
        for token in self.tokens.values_mut().filter(|token| token.person == person) {
            token.dead.get_or_insert(subcode);
        }
    }

    /// Moves the end of the token that a connection holds, as the provider may do.
    pub fn move_end(&mut self, slot: Slot, end: i64) {
        let held = self.connections[&slot].held.token;
        self.tokens.get_mut(&held.expect("a usable token is held")).expect("it is known").end = Some(end);
    }

    pub(super) fn inspect(&self, token: usize) -> Result<Word, &'static str> {
        let token = &self.tokens[&token];
        let person = &self.people[token.person];
        if let Some(subcode) = token.dead.or(person.trouble) {
            return Err(reason_of(subcode));
        }
        if token.end.is_some_and(|end| end <= self.now) {
            return Err(reason_of(463));
        }
        // The provider tells the day of issue of long-lived tokens only.
        let issued = token.long.then_some(token.issued);
        let short = token.end.is_some_and(|end| end - issued.unwrap_or(self.now) < DAY);
        let (access, scopes) = (person.access_end, person.scopes.clone());
        Ok(Word { end: token.end, access, scopes, short, issued })
    }

    pub(super) fn exchange(&mut self, token: usize) -> Result<usize, &'static str> {
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

    /// The ad accounts that a token reaches. `None`: they can't be listed.
    pub(super) fn accounts(&self, token: usize) -> Option<BTreeSet<String>> {
        let person = &self.people[self.tokens[&token].person];
        REQUIRED.iter().any(|scope| person.scopes.contains(*scope)).then(|| person.accounts.clone())
    }
}
