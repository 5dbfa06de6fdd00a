//! Calls with the token itself: name, permissions, ad accounts, pages and insights.

mod ad_accounts;
mod lists;

use reqwest::Method;

use lists::{Lister, page};

use super::Meta;
use super::http::Body;
use super::wire::{Json, Object};
use crate::model::{
    AdAccount, AdAccountOwner, AdAccountState, Grant, GrantState, Refusal, RefusalKind, Secret, Subject,
    Timestamp, TokenFacts, TokenKind,
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
        let (id, name) = self.ask(make, named, self.http.deadline()).await?;
        let other = !subject.id.is_empty() && id.is_some_and(|id| id != subject.id);
        Ok(name.filter(|_| !other).unwrap_or_default())
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
        let mut lister = Lister::new(self, token, None);
        let list = lister.list(&["me", "permissions"], "permission,status", None, usize::MAX).await?;
        if !list.whole {
            return Err(unreadable("me/permissions"));
        }
        let mut grants = Vec::new();
        for entry in self.objects(&list.entries, "me/permissions")? {
            let (scope, state) = (entry.word("permission").known(), entry.word("status").known());
            let (Some(scope), Some(state)) = (scope, state) else { return Err(unreadable("me/permissions")) };
            let state = match state.as_str() {
                "granted" => GrantState::Granted,
                "declined" => GrantState::Declined,
                "expired" => GrantState::Expired,
                _ => continue,
            };
            grants.push(Grant { scope, state });
        }
        Ok(grants)
    }

    /// `/me/accounts`: pages that the person manages. A page without a token may not be used.
    pub(super) async fn pages_of(&self, token: &Secret) -> Result<Vec<PageToken>, Refusal> {
        let mut lister = Lister::new(self, token, None);
        let fields = "id,name,access_token";
        let entries = lister.list(&["me", "accounts"], fields, None, MOST_PAGES_MANAGED).await?.entries;
        let mut pages = Vec::new();
        for entry in self.objects(&entries, "me/accounts")? {
            let (id, secret) = (entry.id("id").known(), entry.token("access_token").known());
            if let (Some(id), Some(secret)) = (id, secret) {
                pages.push(PageToken { id, name: entry.name("name").known().unwrap_or_default(), secret });
            }
        }
        Ok(pages)
    }

    /// The entries of a list as objects. If one is something else, the others would look like all of them.
    fn objects<'a>(&'a self, entries: &'a [Json], of: &'static str) -> Result<Vec<Object<'a>>, Refusal> {
        let object = |entry| Object::of(entry, of, Some(&self.http.doubts)).ok_or_else(|| unreadable(of));
        entries.iter().map(object).collect()
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

/// The refusal to believe a list of which an entry can't be read: without that entry it would look like a loss.
fn unreadable(list: &str) -> Refusal {
    let detail = format!("an entry of Meta's list {list} can't be read");
    Refusal::new(RefusalKind::Transient { retry_after: None }, detail)
}

/// The id and the name of the reply.
fn named(body: &mut Body<'_>) -> Option<(Option<String>, Option<String>)> {
    let me = body.object("me")?;
    Some((me.id("id").known(), me.name("name").known()))
}

/// `act_` and digits, so that nothing else gets into the path.
fn act_id(id: &str) -> Option<String> {
    let number = id.strip_prefix("act_").unwrap_or(id);
    let good = (1..=32).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
    good.then(|| format!("act_{number}"))
}

/// `None`: the entry has no id.
fn ad_account(entry: &Object<'_>, now: Timestamp) -> Option<AdAccount> {
    let id = entry.word("id").known().as_deref().and_then(act_id);
    let id = id.or_else(|| act_id(&entry.id("account_id").known()?))?;
    let provider_state = entry.code("account_status").known();
    let state = match provider_state.as_deref() {
        Some("1") => AdAccountState::Active,
        Some("3" | "7" | "8" | "9") => AdAccountState::Limited,
        Some("2") => AdAccountState::Disabled,
        Some("100" | "101") => AdAccountState::Closed,
        _ => AdAccountState::Unknown,
    };
    let owner = entry.object("business").known().and_then(|business| {
        Some(AdAccountOwner { id: business.id("id").known()?, name: business.name("name").known() })
    });
    Some(AdAccount {
        id,
        name: entry.name("name").known(),
        currency: entry.word("currency").known(),
        time_zone: entry.word("timezone_name").known(),
        state,
        provider_state,
        owner,
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
pub(super) fn fuzz(body: &mut Body<'_>, now: Timestamp) {
    let _ = named(body);
    let entries: Vec<_> = page(body).into_iter().flat_map(|page| page.entries).collect();
    for business in lists::page_of_named(&entries, None).0 {
        assert!(business.id.bytes().all(|b| b.is_ascii_digit()));
    }
    for entry in &entries {
        if let Some(account) = Object::of(entry, "fuzz", None).and_then(|entry| ad_account(&entry, now)) {
            assert!(account.id.strip_prefix("act_").is_some_and(|id| id.bytes().all(|b| b.is_ascii_digit())));
        }
    }
}
