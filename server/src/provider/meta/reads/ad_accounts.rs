//! The ad accounts of a token: its own list and those of its businesses. The list asks for as much as Meta shows: it
//! drops a field that is refused and halves a page that is too large, and says what it left out.

use std::collections::HashMap;

use super::ad_account;
use super::lists::{Lister, Named, page_of_named};
use crate::model::{
    AdAccount, AdAccountList, AdAccountOwner, Listing, Refusal, RefusalKind, Secret, Timestamp, Unread,
    UnreadPart,
};
use crate::provider::meta::Meta;
use crate::provider::meta::refusal::is_not_shown;
use crate::provider::meta::wire::{Doubts, Json, Object};

/// At most this many ad accounts are listed.
const MOST_AD_ACCOUNTS: usize = 5_000;
/// At most this many businesses are asked for their ad accounts.
const MOST_BUSINESSES: usize = 25;
/// At most this many requests are made for the ad accounts of all businesses.
const MOST_BUSINESS_REQUESTS: usize = 60;
/// With this scope a person's businesses are shown, and who owns an ad account.
const BUSINESS_SCOPE: &str = "business_management";
const FIELDS: &str = "id,account_id,name,account_status,currency,timezone_name";
/// Refused as a whole where it may not be seen.
const OWNER_FIELD: &str = "business";

impl Meta {
    /// `/me/adaccounts`, and with `business_management` the accounts that only a business lists. `known` is what the
    /// last list taught. An empty list is no error.
    pub(in crate::provider::meta) async fn list_ad_accounts(
        &self,
        token: &Secret,
        scopes: &[String],
        known: Listing,
    ) -> Result<AdAccountList, Refusal> {
        let manages = scopes.iter().any(|scope| scope == BUSINESS_SCOPE);
        let hidden = known.unread.contains(UnreadPart::OwnersHidden);
        let not_granted = known.unread.contains(UnreadPart::OwnersNotGranted) && !manages;
        let mut lister = Lister::new(self, token, known.rows);
        let mut reading = Reading {
            owners: !hidden && !not_granted,
            unread: Unread::default(),
            accounts: Vec::new(),
            places: HashMap::new(),
            now: self.clock.now(),
            doubts: &self.http.doubts,
        };
        reading.list(&mut lister, &["me", "adaccounts"], None).await?;
        if manages {
            reading.businesses(&mut lister).await?;
        }
        if !reading.owners {
            reading.unread.add(if manages { UnreadPart::OwnersHidden } else { UnreadPart::OwnersNotGranted });
        }
        let listing = Listing { rows: lister.learned_rows(), unread: reading.unread };
        Ok(AdAccountList { accounts: reading.accounts, listing })
    }
}

/// A list that is being read.
struct Reading<'a> {
    /// Whether to ask who owns the accounts.
    owners: bool,
    unread: Unread,
    accounts: Vec<AdAccount>,
    /// Where each account is: one that moves to another page while the list is read is listed twice, and one of the
    /// person's own is listed by its business too.
    places: HashMap<String, usize>,
    now: Timestamp,
    doubts: &'a Doubts,
}

impl Reading<'_> {
    /// Reads one list of ad accounts. `owner` is the business that owns all of them.
    async fn list(
        &mut self,
        lister: &mut Lister<'_>,
        path: &[&str],
        owner: Option<&Named>,
    ) -> Result<(), Refusal> {
        // The accounts that a business owns need no field for that.
        let optional = (self.owners && owner.is_none()).then_some(OWNER_FIELD);
        let list = lister.list(path, FIELDS, optional, MOST_AD_ACCOUNTS).await?;
        if list.dropped {
            self.owners = false;
        }
        if !list.whole {
            self.unread.add(UnreadPart::Rest);
        }
        for entry in &list.entries {
            self.add(entry, owner);
        }
        Ok(())
    }

    fn add(&mut self, entry: &Json, owner: Option<&Named>) {
        let entry = Object::of(entry, "adaccounts", Some(self.doubts));
        let Some(mut account) = entry.and_then(|entry| ad_account(&entry, self.now)) else {
            // Without this entry the others must not look like all of them.
            self.unread.add(UnreadPart::Rest);
            return;
        };
        if let Some(owner) = owner {
            account.owner = Some(AdAccountOwner { id: owner.id.clone(), name: owner.name.clone() });
        }
        let place = self.places.get(&account.id).copied();
        if let Some(known) = place.and_then(|place| self.accounts.get_mut(place)) {
            known.owner = known.owner.take().or(account.owner);
        } else if self.accounts.len() >= MOST_AD_ACCOUNTS {
            self.unread.add(UnreadPart::Rest);
        } else {
            self.places.insert(account.id.clone(), self.accounts.len());
            self.accounts.push(account);
        }
    }

    /// Adds the accounts that only a business lists. What a business does not show, or not in time, is left out and said.
    /// A limit of calls and a refusal of the token end the whole list.
    async fn businesses(&mut self, lister: &mut Lister<'_>) -> Result<(), Refusal> {
        lister.allow(MOST_BUSINESS_REQUESTS);
        let businesses = match lister.list(&["me", "businesses"], "id,name", None, MOST_BUSINESSES).await {
            Err(refusal) if is_not_shown(&refusal) || is_cut_off(&refusal) => {
                self.unread.add(UnreadPart::Businesses);
                return Ok(());
            }
            list => list?,
        };
        let (named, each_is_named) = page_of_named(&businesses.entries, Some(self.doubts));
        if !businesses.whole || !each_is_named {
            self.unread.add(UnreadPart::Businesses);
        }
        for business in named {
            for (edge, owner) in [("owned_ad_accounts", Some(&business)), ("client_ad_accounts", None)] {
                match self.list(lister, &[business.id.as_str(), edge], owner).await {
                    // One business that may not be read says nothing about the next one.
                    Err(refusal) if is_not_shown(&refusal) => self.unread.add(UnreadPart::BusinessAccounts),
                    // What was read is true all the same. Another call would have no better luck.
                    Err(refusal) if is_cut_off(&refusal) => {
                        self.unread.add(UnreadPart::BusinessAccounts);
                        return Ok(());
                    }
                    list => list?,
                }
            }
        }
        Ok(())
    }
}

/// Whether no reply came, in the time or with the calls that are left.
fn is_cut_off(refusal: &Refusal) -> bool {
    matches!(refusal.kind, RefusalKind::Transient { .. })
}
