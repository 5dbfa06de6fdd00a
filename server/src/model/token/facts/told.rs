//! What a provider told about a token, and how it joins what is known. A provider may leave out any fact in any reply, so
//! what was told becomes [`TokenFacts`] only here: what it left out stays as it was known.

use super::{Expiry, Grant, GrantState, GranularScope, Subject, SubjectType, TokenFacts, TokenKind};
use crate::model::Timestamp;

/// What one inspection told. `None` and [`Expiry::Unknown`] mean that it told nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToldFacts {
    pub kind: Option<TokenKind>,
    pub expiry: Expiry,
    pub data_access: Expiry,
    pub issued_at: Option<Timestamp>,
    pub scopes: ToldScopes,
    pub granular_scopes: Option<Vec<GranularScope>>,
}

impl ToldFacts {
    /// What is known of the token after this inspection, when `held` was known of the same token before.
    pub fn onto(&self, held: &TokenFacts) -> TokenFacts {
        let kind = match (self.kind, held.kind) {
            // Without a day of issue, a long-lived token looks short-lived on its last day.
            (Some(TokenKind::ShortLivedUser), TokenKind::LongLivedUser) => held.kind,
            (told, held) => told.unwrap_or(held),
        };
        TokenFacts {
            kind,
            expiry: self.expiry.or(held.expiry),
            data_access: self.data_access.or(held.data_access),
            issued_at: self.issued_at.or(held.issued_at),
            scopes: self.scopes.after(Some(&held.scopes)).unwrap_or_default(),
            granular_scopes: self.granular_scopes.clone().unwrap_or_else(|| held.granular_scopes.clone()),
        }
    }

    /// What is known of a token that is new, and that follows a token of which `held` was known. The end and the day of
    /// issue belong to a token alone; the rest belongs to the grant behind it.
    pub fn of_new_token(&self, held: Option<&TokenFacts>) -> TokenFacts {
        let scopes = self.scopes.after(None).or_else(|| held.map(|held| held.scopes.clone()));
        let granular = self.granular_scopes.clone().or_else(|| held.map(|held| held.granular_scopes.clone()));
        TokenFacts {
            kind: self.kind.or(held.map(|held| held.kind)).unwrap_or(TokenKind::LongLivedUser),
            expiry: self.expiry,
            data_access: self.data_access.or(held.map_or(Expiry::Unknown, |held| held.data_access)),
            issued_at: self.issued_at,
            scopes: scopes.unwrap_or_default(),
            granular_scopes: granular.unwrap_or_default(),
        }
    }
}

/// The two sources of a token's scopes. Only [`ToldScopes::after`] makes scopes of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ToldScopes {
    /// The scopes that the inspection lists. It may list some that the person has declined.
    pub listed: Option<Vec<String>>,
    /// What the person decided about each scope. Empty for a token that acts for no person.
    pub grants: Option<Vec<Grant>>,
}

impl ToldScopes {
    /// The scopes of the token: those that the inspection lists and that are neither declined nor expired. `held` are
    /// the scopes that were known before. A source that is missing takes no scope away and adds none. `None`: neither
    /// the inspection nor `held` tells.
    pub fn after(&self, held: Option<&[String]>) -> Option<Vec<String>> {
        let known = match (&self.listed, &self.grants, held) {
            (Some(listed), None, Some(held)) => {
                listed.iter().filter(|scope| held.contains(scope)).cloned().collect()
            }
            (Some(listed), _, _) => listed.clone(),
            (None, _, held) => held?.to_vec(),
        };
        Some(known.into_iter().filter(|scope| self.withheld(scope).is_none()).collect())
    }

    /// Why a scope does not count although it may be listed: the person declined it, or it expired.
    pub fn withheld(&self, scope: &str) -> Option<GrantState> {
        let grants = self.grants.iter().flatten().filter(|grant| grant.scope == scope);
        grants.map(|grant| grant.state).find(|state| *state != GrantState::Granted)
    }

    /// Those of `missing` whose grant is in this state.
    pub fn in_state(&self, missing: &[String], state: GrantState) -> Vec<String> {
        missing.iter().filter(|scope| self.withheld(scope) == Some(state)).cloned().collect()
    }
}

/// Why scopes are missing, as sentences that follow another one: each person's decision is told apart from an end that
/// came by itself. Empty if neither list has any.
pub fn why_withheld(declined: &[String], expired: &[String]) -> String {
    let mut why = String::new();
    if !declined.is_empty() {
        why += &format!(" The person declined {}.", declined.join(", "));
    }
    if !expired.is_empty() {
        why += &format!(" The provider ended {} because it was not used for long.", expired.join(", "));
    }
    why
}

impl Subject {
    /// Adds what was not known yet and was told now. What is known stays.
    pub fn learn(&mut self, told: &Self) {
        if self.id.is_empty() {
            self.id.clone_from(&told.id);
        }
        if self.name.is_empty() {
            self.name.clone_from(&told.name);
        }
        if self.kind == SubjectType::Unknown {
            self.kind = told.kind;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Standing;
    use crate::model::token::fixture::{DAY, NOW, at, connection};

    fn nothing() -> ToldFacts {
        ToldFacts {
            kind: None,
            expiry: Expiry::Unknown,
            data_access: Expiry::Unknown,
            issued_at: None,
            scopes: ToldScopes::default(),
            granular_scopes: None,
        }
    }

    fn scopes(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn grants(given: &[(&str, GrantState)]) -> Vec<Grant> {
        given.iter().map(|(scope, state)| Grant { scope: (*scope).to_owned(), state: *state }).collect()
    }

    #[test]
    fn a_reply_that_tells_nothing_changes_nothing() {
        for expiry in [at(NOW + DAY), Expiry::Never, Expiry::Unknown] {
            let mut held = connection(expiry, Standing::Live).facts;
            held.data_access = expiry;
            held.issued_at = Some(NOW);
            held.granular_scopes =
                vec![GranularScope { scope: "ads_read".into(), target_ids: scopes(&["1"]) }];
            assert_eq!(nothing().onto(&held), held);
            let new = nothing().of_new_token(Some(&held));
            assert_eq!((new.expiry, new.issued_at), (Expiry::Unknown, None), "they belong to the old token");
            assert_eq!((&new.scopes, new.kind, new.data_access), (&held.scopes, held.kind, held.data_access));
            assert_eq!(new.granular_scopes, held.granular_scopes);
        }
    }

    #[test]
    fn a_fact_that_was_told_is_believed_even_if_it_is_empty() {
        let held = connection(at(NOW + DAY), Standing::Live).facts;
        let told = ToldFacts {
            kind: Some(TokenKind::SystemUser),
            expiry: Expiry::Never,
            data_access: at(NOW),
            issued_at: Some(NOW),
            scopes: ToldScopes { listed: Some(vec![]), grants: Some(vec![]) },
            granular_scopes: Some(vec![]),
        };
        for known in [told.onto(&held), told.of_new_token(Some(&held)), told.of_new_token(None)] {
            assert_eq!(
                (known.kind, known.expiry, known.data_access),
                (TokenKind::SystemUser, Expiry::Never, at(NOW))
            );
            assert_eq!((known.issued_at, known.scopes, known.granular_scopes), (Some(NOW), vec![], vec![]));
        }
    }

    #[test]
    fn a_long_lived_token_stays_one_on_its_last_day() {
        let held = connection(at(NOW + DAY), Standing::Live).facts;
        let told = ToldFacts { kind: Some(TokenKind::ShortLivedUser), ..nothing() };
        assert_eq!(told.onto(&held).kind, TokenKind::LongLivedUser);
        assert_eq!(told.of_new_token(Some(&held)).kind, TokenKind::ShortLivedUser);
    }

    #[test]
    fn scopes_are_what_is_listed_and_not_withheld_and_a_missing_source_changes_nothing() {
        use GrantState::{Declined, Expired, Granted};
        /// The inspection's list, the person's decisions, what was known, and the result.
        type Row<'a> = (
            Option<&'a [&'a str]>,
            Option<&'a [(&'a str, GrantState)]>,
            Option<&'a [&'a str]>,
            Option<&'a [&'a str]>,
        );
        let table: [Row<'_>; 14] = [
            (Some(&["a", "b"]), Some(&[("a", Granted), ("b", Declined)]), None, Some(&["a"])),
            (Some(&["a", "b"]), Some(&[("a", Granted), ("b", Expired)]), Some(&["a", "b"]), Some(&["a"])),
            // A scope that the person's list does not name was never asked for there.
            (Some(&["a", "b"]), Some(&[]), Some(&["a"]), Some(&["a", "b"])),
            (Some(&[]), Some(&[("a", Granted)]), Some(&["a"]), Some(&[])),
            (Some(&["a"]), Some(&[("a", Granted), ("b", Granted)]), None, Some(&["a"])),
            // Twice and contradictory: what withholds wins.
            (Some(&["a"]), Some(&[("a", Granted), ("a", Declined)]), Some(&["a"]), Some(&[])),
            // Without the person's decisions, a scope is only taken away.
            (Some(&["a", "b"]), None, Some(&["a"]), Some(&["a"])),
            (Some(&["b"]), None, Some(&["a", "b"]), Some(&["b"])),
            (Some(&["a", "b"]), None, None, Some(&["a", "b"])),
            // Without the inspection's list too.
            (None, Some(&[("a", Declined)]), Some(&["a", "b"]), Some(&["b"])),
            (None, Some(&[("c", Granted)]), Some(&["a"]), Some(&["a"])),
            (None, None, Some(&["a"]), Some(&["a"])),
            (None, Some(&[("a", Granted)]), None, None),
            (None, None, None, None),
        ];
        for (listed, given, held, expected) in table {
            let told = ToldScopes { listed: listed.map(scopes), grants: given.map(grants) };
            let held = held.map(scopes);
            assert_eq!(told.after(held.as_deref()), expected.map(scopes), "{told:?} {held:?}");
        }
    }

    #[test]
    fn a_declined_scope_and_an_expired_one_are_told_apart() {
        let given = [("a", GrantState::Declined), ("b", GrantState::Expired), ("c", GrantState::Granted)];
        let told = ToldScopes { listed: None, grants: Some(grants(&given)) };
        let missing = scopes(&["a", "b", "c", "d"]);
        assert_eq!(told.in_state(&missing, GrantState::Declined), ["a"]);
        assert_eq!(told.in_state(&missing, GrantState::Expired), ["b"]);
    }

    #[test]
    fn a_subject_keeps_what_is_known_and_gains_what_was_not() {
        let told = Subject { id: "2".into(), name: "Bob".into(), kind: SubjectType::Page };
        let mut known = Subject { id: "1".into(), name: "Ana".into(), kind: SubjectType::User };
        known.learn(&told);
        assert_eq!(known, Subject { id: "1".into(), name: "Ana".into(), kind: SubjectType::User });
        let mut unknown = Subject { id: String::new(), name: String::new(), kind: SubjectType::Unknown };
        unknown.learn(&told);
        assert_eq!(unknown, told);
    }
}
