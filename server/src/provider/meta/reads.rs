//! Calls with the token itself: name, permissions, ad accounts, pages and insights.

use std::collections::HashSet;

use reqwest::Method;
use serde_json::Value;
use tokio::time::Instant;
use url::form_urlencoded;

use super::Meta;
use super::wire::{self, Named, PageEntry, Paging, Permission};
use crate::model::{
    AdAccount, AdAccountState, Grant, GrantState, Refusal, RefusalKind, Secret, Subject, Timestamp,
    TokenFacts, TokenKind,
};
use crate::provider::{PageToken, SmokeTest};

/// With one of these scopes, a person or a system user may list ad accounts.
const LISTS_AD_ACCOUNTS: [&str; 2] = ["ads_read", "ads_management"];
/// At most this many ad accounts are listed.
const MOST_AD_ACCOUNTS: usize = 5_000;
/// At most this many pages of a person are listed.
const MOST_PAGES_MANAGED: usize = 2_000;
/// Entries per page of a list.
const PER_PAGE: &str = "200";
/// More pages than full ones would need, since pages may be short or empty.
const MOST_PAGES: usize = 250;

impl Meta {
    /// `/me`. Empty when the reply has no name, or another subject's.
    pub(super) async fn name_of(&self, token: &Secret, subject: &Subject) -> Result<String, Refusal> {
        let make = |app_secret: &Secret| {
            Self::call_with_token(Method::GET, &["me"], token, app_secret).query("fields", "id,name")
        };
        let me = self.ask(make, named, self.http.deadline()).await?;
        let other = !subject.id.is_empty() && !me.id.is_empty() && subject.id != me.id;
        Ok(if other { String::new() } else { me.name })
    }

    /// One entry of `/me/adaccounts` for a token that may list them: it fails when the token is dead, and also when a
    /// permission is gone. For other tokens, and for those of pages, the id in `/me`.
    pub(super) async fn cheapest_read(&self, token: &Secret, facts: &TokenFacts) -> Result<(), Refusal> {
        let lists = facts.kind != TokenKind::Page
            && LISTS_AD_ACCOUNTS.iter().any(|scope| facts.scopes.iter().any(|has| has == scope));
        let deadline = self.http.deadline();
        if lists {
            let make = |app_secret: &Secret| {
                Self::call_with_token(Method::GET, &["me", "adaccounts"], token, app_secret)
                    .query("fields", "id")
                    .query("limit", "1")
            };
            return self.ask(make, page, deadline).await.map(drop).map_err(of_no_object);
        }
        let make = |app_secret: &Secret| {
            Self::call_with_token(Method::GET, &["me"], token, app_secret).query("fields", "id")
        };
        self.ask(make, named, deadline).await.map(drop).map_err(of_no_object)
    }

    /// `/me/permissions`. It does not contain permissions that were never asked for.
    pub(super) async fn permissions(&self, token: &Secret) -> Result<Vec<Grant>, Refusal> {
        let entries = self.list(token, &["me", "permissions"], &[], usize::MAX).await?;
        let grant = |entry: Permission| {
            let state = match entry.status.as_str() {
                "granted" => GrantState::Granted,
                "declined" => GrantState::Declined,
                "expired" => GrantState::Expired,
                _ => return None,
            };
            (!entry.permission.is_empty()).then_some(Grant { scope: entry.permission, state })
        };
        Ok(entries.into_iter().filter_map(wire::read).filter_map(grant).collect())
    }

    /// `/me/adaccounts`. An empty list is no error.
    pub(super) async fn list_ad_accounts(&self, token: &Secret) -> Result<Vec<AdAccount>, Refusal> {
        let query = [
            ("fields", "id,account_id,name,account_status,currency,timezone_name,business"),
            ("limit", PER_PAGE),
        ];
        let entries = self.list(token, &["me", "adaccounts"], &query, MOST_AD_ACCOUNTS).await?;
        let now = self.clock.now();
        // An account that moves to another page while the list is read is listed twice.
        let mut known = HashSet::new();
        let accounts = entries.into_iter().filter_map(wire::read).filter_map(|entry| ad_account(entry, now));
        Ok(accounts.filter(|account| known.insert(account.id.clone())).collect())
    }

    /// `/me/accounts`: pages that the person manages. A page without a token may not be used.
    pub(super) async fn pages_of(&self, token: &Secret) -> Result<Vec<PageToken>, Refusal> {
        let query = [("fields", "id,name,access_token"), ("limit", PER_PAGE)];
        let entries = self.list(token, &["me", "accounts"], &query, MOST_PAGES_MANAGED).await?;
        let page = |entry: PageEntry| {
            let usable = !entry.id.is_empty() && !entry.access_token.is_empty();
            usable.then(|| PageToken {
                id: entry.id,
                name: entry.name,
                secret: Secret::from(entry.access_token),
            })
        };
        Ok(entries.into_iter().filter_map(wire::read).filter_map(page).collect())
    }

    /// `/act_…/insights` of the last seven days.
    pub(super) async fn read_insights(
        &self,
        token: &Secret,
        ad_account_id: &str,
    ) -> Result<SmokeTest, Refusal> {
        let Some(id) = act_id(ad_account_id) else {
            let kind = RefusalKind::Permission { object_only: true };
            return Err(Refusal::new(kind, "an ad account's id is act_ and digits"));
        };
        let make = |app_secret: &Secret| {
            Self::call_with_token(Method::GET, &[&id, "insights"], token, app_secret)
                .about(&id)
                .query("date_preset", "last_7d")
                .query("fields", "account_id,spend,impressions")
                .query("level", "account")
        };
        let page = self.ask(make, page, self.http.deadline()).await?;
        Ok(SmokeTest { rows: page.entries.len() })
    }

    /// The entries of all pages, at most `most`. The address of the next page is built from the cursor, since the
    /// given address contains the token.
    async fn list(
        &self,
        token: &Secret,
        path: &[&str],
        query: &[(&'static str, &str)],
        most: usize,
    ) -> Result<Vec<Value>, Refusal> {
        let deadline: Instant = self.http.deadline();
        let (mut entries, mut after, mut seen) = (Vec::new(), None::<String>, HashSet::new());
        for _ in 0..MOST_PAGES {
            let make = |app_secret: &Secret| {
                let call = Self::call_with_token(Method::GET, path, token, app_secret);
                let call = query.iter().fold(call, |call, (name, value)| call.query(name, value));
                after.iter().fold(call, |call, after| call.query("after", after))
            };
            let page = self.ask(make, page, deadline).await?;
            entries.extend(page.entries);
            if entries.len() >= most {
                if entries.len() > most || page.next.is_some() {
                    tracing::warn!(most, "Meta lists more entries than are read");
                }
                entries.truncate(most);
                return Ok(entries);
            }
            match page.next {
                None => return Ok(entries),
                Some(cursor) if cursor.is_empty() || !seen.insert(cursor.clone()) => break,
                Some(cursor) => after = Some(cursor),
            }
        }
        // Half a list would look as if accounts were lost.
        let detail = "Meta's list goes in circles or has no end";
        Err(Refusal::new(RefusalKind::Transient { retry_after: None }, detail))
    }
}

/// The refusal of a call that is about no object: a permission that it lacks is lacking altogether.
fn of_no_object(refusal: Refusal) -> Refusal {
    let kind = match refusal.kind {
        RefusalKind::Permission { .. } if refusal.code != Some(100) => {
            RefusalKind::Permission { object_only: false }
        }
        kind => kind,
    };
    Refusal { kind, ..refusal }
}

/// One page of a list.
struct Page {
    entries: Vec<Value>,
    /// The cursor of the next page; `None` on the last page, empty when Meta gives none.
    next: Option<String>,
}

fn page(body: &[u8]) -> Option<Page> {
    let mut body: Value = serde_json::from_slice(body).ok()?;
    let paging: Paging = body.get_mut("paging").map(Value::take).and_then(wire::read).unwrap_or_default();
    let Value::Array(entries) = body.get_mut("data")?.take() else { return None };
    let in_address = |next: &str| {
        let query = next.split_once('?').map_or("", |(_, query)| query);
        form_urlencoded::parse(query.as_bytes())
            .find_map(|(name, value)| (name == "after").then(|| value.into_owned()))
    };
    let cursor = paging.cursors.map(|cursors| cursors.after).filter(|after| !after.is_empty());
    let next =
        (!paging.next.is_empty()).then(|| cursor.or_else(|| in_address(&paging.next)).unwrap_or_default());
    Some(Page { entries, next })
}

fn named(body: &[u8]) -> Option<Named> {
    let body: Value = serde_json::from_slice(body).ok()?;
    if body.is_object() { wire::read(body) } else { None }
}

/// `act_` and digits, so that nothing else gets into the path.
fn act_id(id: &str) -> Option<String> {
    let number = id.strip_prefix("act_").unwrap_or(id);
    let good = (1..=32).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
    good.then(|| format!("act_{number}"))
}

fn ad_account(entry: wire::AdAccount, now: Timestamp) -> Option<AdAccount> {
    let id = act_id(&entry.id).or_else(|| act_id(&entry.account_id))?;
    let state = match entry.account_status.as_str() {
        "1" => AdAccountState::Active,
        "3" | "7" | "8" | "9" => AdAccountState::Limited,
        "2" => AdAccountState::Disabled,
        "100" | "101" => AdAccountState::Closed,
        _ => AdAccountState::Unknown,
    };
    let owner = entry.business.unwrap_or_default();
    Some(AdAccount {
        id,
        name: entry.name,
        currency: entry.currency,
        time_zone: entry.timezone_name,
        state,
        provider_state: entry.account_status,
        owner_id: owner.id,
        owner_name: owner.name,
        checked_at: now,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_goes_on_only_while_there_is_a_next() {
        /// Entries, and the next page's cursor.
        type Row<'a> = (&'a str, Option<(usize, Option<&'a str>)>);
        let table: [Row<'_>; 8] = [
            (r#"{"data":[]}"#, Some((0, None))),
            (r#"{"data":[{"id":"1"}],"paging":{"cursors":{"after":"b"}}}"#, Some((1, None))),
            (
                r#"{"data":[],"paging":{"cursors":{"after":"b"},"next":"https://x/?after=c"}}"#,
                Some((0, Some("b"))),
            ),
            (
                r#"{"data":[],"paging":{"next":"https://x/?access_token=t&after=c%3D"}}"#,
                Some((0, Some("c="))),
            ),
            (r#"{"data":[],"paging":{"next":"https://x/?offset=5"}}"#, Some((0, Some("")))),
            (r#"{"data":[],"paging":null,"__debug__":{}}"#, Some((0, None))),
            (r#"{"data":{}}"#, None),
            ("true", None),
        ];
        for (body, expected) in table {
            let page = page(body.as_bytes());
            let got = page.as_ref().map(|page| (page.entries.len(), page.next.as_deref()));
            assert_eq!(got, expected, "{body}");
        }
    }

    #[test]
    fn only_an_ad_accounts_id_gets_into_a_path() {
        assert_eq!(act_id("act_12").as_deref(), Some("act_12"));
        assert_eq!(act_id("12").as_deref(), Some("act_12"));
        for bad in ["", "act_", "act_1/..", "me", "act_act_1", "1?x", &"1".repeat(33)] {
            assert_eq!(act_id(bad), None, "{bad}");
        }
    }
}

/// Every reading of a body that this module has.
#[cfg(fuzzing)]
pub(super) fn fuzz(body: &[u8], now: Timestamp) {
    for entry in page(body).into_iter().flat_map(|page| page.entries) {
        if let Some(account) = wire::read(entry).and_then(|entry| ad_account(entry, now)) {
            assert!(account.id.strip_prefix("act_").is_some_and(|id| id.bytes().all(|b| b.is_ascii_digit())));
        }
    }
    let _ = named(body);
}
