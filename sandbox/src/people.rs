//! People and system users, what they granted, and their pages and ad accounts.

use serde::{Deserialize, Serialize};

use crate::clock::DAY;
use crate::random::random_digits;

/// What a person decided about one permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PermissionStatus {
    /// Usable.
    Granted,
    /// Refused. The dialog does not ask again unless it has `auth_type=rerequest`.
    Declined,
    /// Unused for 90 days.
    Expired,
}

impl PermissionStatus {
    /// Its name in `/me/permissions`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Declined => "declined",
            Self::Expired => "expired",
        }
    }
}

/// An ad account to add to a person. `Default` is an active one with delivery and a random id.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdAccountSpec {
    /// Digits without `act_`; random if unset.
    pub id: Option<String>,
    pub name: String,
    /// `account_status`: 1 active, 2 disabled, 3 unsettled, 9 in grace period, 101 closed and so on.
    pub status: i64,
    /// ISO code.
    pub currency: String,
    /// IANA name.
    pub timezone_name: String,
    /// Id and name of its business. A personal account has none.
    pub business: Option<(String, String)>,
    /// Whether insights have rows.
    pub delivers: bool,
    /// Nobody but its owner may see who owns it: a request that asks for it is refused, whatever the scopes.
    pub owner_hidden: bool,
    /// Number of active ads, which raises its hourly quotas.
    pub active_ads: i64,
}

impl Default for AdAccountSpec {
    fn default() -> Self {
        Self {
            id: None,
            name: "Shop EU".to_owned(),
            status: 1,
            currency: "EUR".to_owned(),
            timezone_name: "Europe/Vilnius".to_owned(),
            business: Some(("777000111".to_owned(), "Shop".to_owned())),
            delivers: true,
            owner_hidden: false,
            active_ads: 5,
        }
    }
}

/// A business that a person is in, with the ad accounts that only `/{business}/…` lists.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BusinessSpec {
    /// Digits.
    pub id: String,
    pub name: String,
    /// What `/{business}/owned_ad_accounts` lists, besides the person's own accounts of this business.
    pub owned: Vec<AdAccountSpec>,
    /// What `/{business}/client_ad_accounts` lists.
    pub clients: Vec<AdAccountSpec>,
}

#[derive(Clone, Debug)]
pub(crate) struct Business {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) owned: Vec<AdAccount>,
    pub(crate) clients: Vec<AdAccount>,
}

impl From<BusinessSpec> for Business {
    fn from(spec: BusinessSpec) -> Self {
        let accounts = |specs: Vec<AdAccountSpec>| specs.into_iter().map(AdAccount::from).collect();
        Self { id: spec.id, name: spec.name, owned: accounts(spec.owned), clients: accounts(spec.clients) }
    }
}

/// What `debug_token` says about a person's tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Inspector {
    /// The truth.
    #[default]
    Right,
    /// They are valid, although data calls refuse them.
    SaysValid,
    /// They are not valid, with this subcode, although data calls work.
    SaysDead(Option<u32>),
}

#[derive(Clone, Debug)]
pub(crate) struct AdAccount {
    pub(crate) id: String,
    pub(crate) spec: AdAccountSpec,
}

impl From<AdAccountSpec> for AdAccount {
    fn from(spec: AdAccountSpec) -> Self {
        let id = spec.id.clone().unwrap_or_else(|| format!("10{}", random_digits(13)));
        Self { id: id.trim_start_matches("act_").to_owned(), spec }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) id: String,
    pub(crate) name: String,
}

/// A person, or a system user.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) system: bool,
    /// The permissions, in the order in which they were first decided.
    pub(crate) permissions: Vec<(String, PermissionStatus)>,
    /// Scopes limited to some objects, shown as `target_ids`.
    pub(crate) targets: Vec<(String, Vec<String>)>,
    pub(crate) ad_accounts: Vec<AdAccount>,
    pub(crate) businesses: Vec<Business>,
    /// For each app that was given some ad accounts only: their ids. It holds for every token of the app.
    pub(crate) ticks: Vec<(String, Vec<String>)>,
    pub(crate) pages: Vec<Page>,
    /// The page of the ad-account list that is empty, counted from 1.
    pub(crate) empty_page: Option<usize>,
    /// The 190 subcode that all tokens get, and until when. Without a time it lasts until
    /// [`User::heals`](crate::User::heals).
    pub(crate) trouble: Option<(u32, Option<i64>)>,
    pub(crate) inspector: Inspector,
    /// 0 is never.
    pub(crate) data_access_expires_at: i64,
}

impl Person {
    pub(crate) fn new(name: &str, system: bool, now: i64) -> Self {
        let id =
            if system { format!("6155{}", random_digits(10)) } else { format!("10158{}", random_digits(12)) };
        let permissions = if system { Vec::new() } else { vec![granted("public_profile")] };
        Self {
            id,
            name: name.to_owned(),
            system,
            permissions,
            targets: Vec::new(),
            ad_accounts: vec![AdAccount::from(AdAccountSpec::default())],
            businesses: Vec::new(),
            ticks: Vec::new(),
            pages: Vec::new(),
            empty_page: None,
            trouble: None,
            inspector: Inspector::Right,
            data_access_expires_at: if system { 0 } else { now.saturating_add(90 * DAY) },
        }
    }

    pub(crate) fn set_permission(&mut self, permission: &str, status: PermissionStatus) {
        match self.permissions.iter_mut().find(|(name, _)| name == permission) {
            Some((_, current)) => *current = status,
            None => self.permissions.push((permission.to_owned(), status)),
        }
    }

    pub(crate) fn status_of(&self, permission: &str) -> Option<PermissionStatus> {
        self.permissions.iter().find(|(name, _)| name == permission).map(|&(_, status)| status)
    }

    pub(crate) fn granted(&self) -> impl Iterator<Item = &str> {
        self.permissions
            .iter()
            .filter(|(_, status)| *status == PermissionStatus::Granted)
            .map(|(name, _)| name.as_str())
    }

    /// The 190 subcode that every token of this person gets at `now`.
    pub(crate) fn trouble_at(&self, now: i64) -> Option<u32> {
        self.trouble.filter(|(_, until)| until.is_none_or(|until| now < until)).map(|(subcode, _)| subcode)
    }

    /// Whether the person gave this ad account to the app. At first an app gets all.
    pub(crate) fn ticked(&self, app_id: &str, account_id: &str) -> bool {
        self.ticks_of(app_id).is_none_or(|ids| ids.iter().any(|id| id == account_id))
    }

    /// The ad accounts that the person gave to the app; `None` for all.
    pub(crate) fn ticks_of(&self, app_id: &str) -> Option<&[String]> {
        self.ticks.iter().find(|(app, _)| app == app_id).map(|(_, ids)| ids.as_slice())
    }

    pub(crate) fn tick(&mut self, app_id: &str, account_ids: &[String]) {
        let ids = account_ids.iter().map(|id| id.trim_start_matches("act_").to_owned()).collect();
        self.ticks.retain(|(app, _)| app != app_id);
        self.ticks.push((app_id.to_owned(), ids));
    }

    /// As [`Person::tick`]. All of the ad accounts means those of later too.
    pub(crate) fn give(&mut self, app_id: &str, account_ids: &[String]) {
        let given =
            |account: &AdAccount| account_ids.iter().any(|id| id.trim_start_matches("act_") == account.id);
        if self.all_ad_accounts().all(given) {
            self.ticks.retain(|(app, _)| app != app_id);
        } else {
            self.tick(app_id, account_ids);
        }
    }

    /// The person's own ad accounts and those of their businesses.
    pub(crate) fn all_ad_accounts(&self) -> impl Iterator<Item = &AdAccount> {
        let of_businesses =
            self.businesses.iter().flat_map(|business| business.owned.iter().chain(&business.clients));
        self.ad_accounts.iter().chain(of_businesses)
    }

    pub(crate) fn page_named(&mut self, name: &str) -> Page {
        if let Some(page) = self.pages.iter().find(|page| page.name == name) {
            return page.clone();
        }
        let page = Page { id: format!("20{}", random_digits(13)), name: name.to_owned() };
        self.pages.push(page.clone());
        page
    }
}

fn granted(name: &str) -> (String, PermissionStatus) {
    (name.to_owned(), PermissionStatus::Granted)
}
