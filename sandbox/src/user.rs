//! Handles for tests: a person or a system user whose actions change the sandbox's state.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::DAY;
use crate::people::{AdAccount, AdAccountSpec, BusinessSpec, Inspector, PermissionStatus, Person};
use crate::state::Shared;
use crate::tokens::{LONG_LIFE, TokenKind, TokenOrder};

/// A person or a system user. Clones stand for the same one.
#[derive(Clone)]
pub struct User {
    shared: Arc<Shared>,
    key: String,
}

/// A system user has everything that a person has, and its tokens need no login.
pub type SystemUser = User;

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("User").field(&self.key).finish()
    }
}

impl User {
    pub(crate) fn new(shared: Arc<Shared>, name: &str, system: bool) -> Self {
        let key = shared.lock().enter(name, system);
        Self { shared, key }
    }

    /// App-scoped id, as `debug_token` shows it.
    pub fn id(&self) -> String {
        self.shared.lock().person(&self.key).id
    }

    pub fn name(&self) -> String {
        self.shared.lock().person(&self.key).name
    }

    fn change(&self, act: impl FnOnce(&mut Person)) -> Self {
        if let Some(person) = self.shared.lock().people.get_mut(&self.key) {
            act(person);
        }
        self.clone()
    }

    fn set_permissions<S: AsRef<str>>(
        &self,
        names: impl IntoIterator<Item = S>,
        status: PermissionStatus,
    ) -> Self {
        self.change(|person| names.into_iter().for_each(|name| person.set_permission(name.as_ref(), status)))
    }

    pub fn grants<S: AsRef<str>>(&self, names: impl IntoIterator<Item = S>) -> Self {
        self.set_permissions(names, PermissionStatus::Granted)
    }

    pub fn declines<S: AsRef<str>>(&self, names: impl IntoIterator<Item = S>) -> Self {
        self.set_permissions(names, PermissionStatus::Declined)
    }

    /// Lets permissions expire, as Meta does after 90 days without use.
    pub fn lets_expire<S: AsRef<str>>(&self, names: impl IntoIterator<Item = S>) -> Self {
        self.set_permissions(names, PermissionStatus::Expired)
    }

    /// Removes permissions, as if they had never been asked for.
    pub fn forgets<S: AsRef<str>>(&self, names: impl IntoIterator<Item = S>) -> Self {
        self.change(|person| {
            for name in names {
                person.permissions.retain(|(known, _)| known != name.as_ref());
            }
        })
    }

    /// Limits a scope to some objects, shown as `target_ids`.
    pub fn limits(&self, scope: &str, target_ids: &[&str]) -> Self {
        let ids = target_ids.iter().map(|&id| id.to_owned()).collect();
        self.change(|person| {
            person.targets.retain(|(known, _)| known != scope);
            person.targets.push((scope.to_owned(), ids));
        })
    }

    /// Changes the id, for instance to a very long one.
    pub fn with_id(&self, id: &str) -> Self {
        self.change(|person| id.clone_into(&mut person.id))
    }

    /// Changes the name. The handle stays valid.
    pub fn renamed(&self, name: &str) -> Self {
        self.change(|person| name.clone_into(&mut person.name))
    }

    /// Replaces the ad accounts by `n` active ones with delivery.
    pub fn with_ad_accounts(&self, n: usize) -> Self {
        self.change(|person| {
            person.ad_accounts = (1..=n)
                .map(|i| AdAccountSpec { name: format!("Shop {i}"), ..AdAccountSpec::default() }.into())
                .collect();
        })
    }

    /// Adds an ad account.
    pub fn ad_account(&self, spec: AdAccountSpec) -> Self {
        self.change(|person| person.ad_accounts.push(spec.into()))
    }

    /// Puts the person into a business. A known one with the same id is replaced.
    pub fn in_business(&self, spec: BusinessSpec) -> Self {
        self.change(|person| {
            person.businesses.retain(|known| known.id != spec.id);
            person.businesses.push(spec.into());
        })
    }

    /// Takes the person out of a business: its ad accounts are gone, and every token stays valid.
    pub fn leaves_business(&self, id: &str) -> Self {
        self.change(|person| {
            person.businesses.retain(|business| business.id != id);
            person.ad_accounts.retain(|one| one.spec.business.as_ref().is_none_or(|(own, _)| own != id));
        })
    }

    /// Gives the default app these ad accounts only, as at a second login where the others are unticked. This holds for
    /// every token of the person and that app, earlier ones too.
    pub fn ticks<S: AsRef<str>>(&self, ad_account_ids: impl IntoIterator<Item = S>) -> Self {
        let app_id = self.shared.lock().default_app().id;
        let ids: Vec<String> = ad_account_ids.into_iter().map(|id| id.as_ref().to_owned()).collect();
        self.change(|person| person.tick(&app_id, &ids))
    }

    /// Ids of the person's own ad accounts, without `act_`.
    pub fn ad_account_ids(&self) -> Vec<String> {
        self.shared.lock().person(&self.key).ad_accounts.into_iter().map(|account| account.id).collect()
    }

    fn change_accounts(&self, act: impl Fn(&mut AdAccount)) -> Self {
        self.change(|person| person.ad_accounts.iter_mut().for_each(act))
    }

    /// Sets the `account_status` of all ad accounts.
    pub fn account_status(&self, status: i64) -> Self {
        self.change_accounts(|account| account.spec.status = status)
    }

    /// Sets whether the ad accounts have insights.
    pub fn delivery(&self, delivers: bool) -> Self {
        self.change_accounts(|account| account.spec.delivers = delivers)
    }

    /// Makes one page of the ad-account list empty, with a `next`. Pages count from 1.
    pub fn empty_page(&self, number: usize) -> Self {
        self.change(|person| person.empty_page = Some(number))
    }

    /// Returns the id of the page with this name, and creates an unknown page.
    pub fn page(&self, name: &str) -> String {
        let mut id = String::new();
        self.change(|person| id = person.page_named(name).id);
        id
    }

    /// Mints the token of an order.
    pub fn order(&self, order: TokenOrder) -> String {
        self.shared.lock().mint(&self.key, order).text
    }

    /// Mints a token for 90 minutes.
    pub fn short_lived_token(&self) -> String {
        self.order(TokenOrder::short())
    }

    /// Mints a token that counts as short-lived, with another life.
    pub fn short_lived_token_with_life(&self, life: Duration) -> String {
        self.order(TokenOrder::short().life(life))
    }

    /// Mints a token for 60 days.
    pub fn long_lived_token(&self) -> String {
        self.order(TokenOrder::long())
    }

    /// Mints a token that counts as long-lived, with another life.
    pub fn long_lived_token_with_life(&self, life: Duration) -> String {
        self.order(TokenOrder::long().life(life))
    }

    /// Mints a token without expiry for a page, and creates an unknown page.
    pub fn page_token(&self, page: &str) -> String {
        let id = self.page(page);
        self.order(TokenOrder { kind: Some(TokenKind::Page(id)), ..TokenOrder::never() })
    }

    /// Mints a short-lived token of another app.
    pub fn token_of_app(&self, app_id: &str) -> String {
        self.order(TokenOrder::short().app(app_id))
    }

    /// Mints a session-info token, which calls refuse as "Debug only".
    pub fn debug_only_token(&self) -> String {
        self.order(TokenOrder { kind: Some(TokenKind::DebugOnly), ..TokenOrder::short() })
    }

    /// Mints a token without expiry, the usual one of a system user.
    pub fn token_never(&self) -> String {
        self.order(TokenOrder::never())
    }

    /// Mints a token for 60 days, which some businesses require for system users.
    pub fn token_60_days(&self) -> String {
        self.order(TokenOrder::long().life(Duration::from_secs(LONG_LIFE.unsigned_abs())))
    }

    /// Ends all existing tokens with 460.
    pub fn changes_password(&self) {
        self.shared.lock().kill_all(&self.key, None, 460);
    }

    /// Ends all tokens of the default app with 458, and sends the deauthorize callback and the webhook.
    /// A token that is minted later means a new consent to the same permissions.
    pub fn removes_app(&self) {
        let mut state = self.shared.lock();
        let app_id = state.default_app().id;
        state.deauthorize(&self.key, &app_id);
        drop(state);
        self.shared.flush_outbox();
    }

    /// Ends all existing tokens with 467.
    pub fn logs_out(&self) {
        self.shared.lock().kill_all(&self.key, None, 467);
    }

    /// Refuses all tokens with 459 until [`heals`](Self::heals).
    pub fn hits_checkpoint(&self) {
        self.falls_into(459);
    }

    /// Refuses all tokens with 459 for `how_long` on the sandbox's clock.
    pub fn hits_checkpoint_for(&self, how_long: Duration) {
        let until = self.shared.clock.now().saturating_add(crate::clock::seconds(how_long));
        self.change(|person| person.trouble = Some((459, Some(until))));
    }

    /// Refuses all tokens with this 190 subcode until [`heals`](Self::heals).
    pub fn falls_into(&self, subcode: u32) {
        self.change(|person| person.trouble = Some((subcode, None)));
    }

    /// Ends a checkpoint, and what is wrong with `debug_token`. Tokens that ended for good (458, 460, 466, 467) stay
    /// invalid.
    pub fn heals(&self) {
        self.change(|person| {
            person.trouble = None;
            person.inspector = Inspector::Right;
        });
    }

    /// `debug_token` says that all tokens are valid until [`heals`](Self::heals), although data calls refuse them.
    pub fn inspector_says_valid(&self) {
        self.change(|person| person.inspector = Inspector::SaysValid);
    }

    /// `debug_token` says that all tokens ended, with this subcode, until [`heals`](Self::heals). Data calls work.
    pub fn inspector_says_dead(&self, subcode: Option<u32>) {
        self.change(|person| person.inspector = Inspector::SaysDead(subcode));
    }

    /// Ends the 90 days of data access, as of yesterday.
    pub fn data_access_lapses(&self) {
        let now = self.shared.clock.now();
        self.change(|person| person.data_access_expires_at = now.saturating_sub(DAY));
    }
}
