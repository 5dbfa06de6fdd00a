//! Calls with the token itself: name, permissions, ad accounts, pages and insights.

mod ad_accounts;
mod lists;

use reqwest::Method;
use serde_json::Value;

use lists::{Lister, page};

use super::Meta;
use super::wire::{self, Named, PageEntry, Permission};
use crate::model::{
    AdAccount, AdAccountState, Grant, GrantState, Refusal, RefusalKind, Secret, Subject, Timestamp,
    TokenFacts, TokenKind,
};
use crate::provider::{PageToken, SmokeTest};

/// With one of these scopes, a person or a system user may list ad accounts.
const LISTS_AD_ACCOUNTS: [&str; 2] = ["ads_read", "ads_management"];
/// At most this many pages of a person are listed.
const MOST_PAGES_MANAGED: usize = 2_000;

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
        let fields = "permission,status";
        let mut lister = Lister::new(self, token, None);
        let entries = lister.list(&["me", "permissions"], fields, None, usize::MAX).await?.entries;
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

    /// `/me/accounts`: pages that the person manages. A page without a token may not be used.
    pub(super) async fn pages_of(&self, token: &Secret) -> Result<Vec<PageToken>, Refusal> {
        let mut lister = Lister::new(self, token, None);
        let fields = "id,name,access_token";
        let entries = lister.list(&["me", "accounts"], fields, None, MOST_PAGES_MANAGED).await?.entries;
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
    let entries: Vec<_> = page(body).into_iter().flat_map(|page| page.entries).collect();
    for business in lists::page_of_named(entries.clone()) {
        assert!(business.id.bytes().all(|b| b.is_ascii_digit()));
    }
    for entry in entries {
        if let Some(account) = wire::read(entry).and_then(|entry| ad_account(entry, now)) {
            assert!(account.id.strip_prefix("act_").is_some_and(|id| id.bytes().all(|b| b.is_ascii_digit())));
        }
    }
    let _ = named(body);
}
