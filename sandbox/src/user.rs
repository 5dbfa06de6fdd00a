//! Handles for tests: a person or a system user who acts on the sandbox's state.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::people::{AdAccount, AdAccountSpec, PermissionStatus, Person};
use crate::state::Shared;
use crate::tokens::{DAY, LONG_LIFE, TokenKind, TokenOrder};

/// A person, or a system user. Clones are the same one.
#[derive(Clone)]
pub struct User {
    shared: Arc<Shared>,
    key: String,
}

/// A system user has all that a person has, and tokens that need no login.
pub type SystemUser = User;

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("User").field(&self.key).finish()
    }
}

/// What the person does to their consent and sessions. `removes_app` and the like are its methods.
impl User {
    pub(crate) fn new(shared: Arc<Shared>, name: &str, system: bool) -> Self {
        let key = shared.lock().enter(name, system);
        Self { shared, key }
    }

    /// App-scoped id, as `debug_token` shows it.
    pub fn id(&self) -> String {
        self.shared.lock().person(&self.key).id
    }

    /// Full name.
    pub fn name(&self) -> String {
        self.shared.lock().person(&self.key).name
    }

    fn change(&self, act: impl FnOnce(&mut Person)) -> Self {
        if let Some(person) = self.shared.lock().people.get_mut(&self.key) {
            act(person);
        }
        self.clone()
    }

    fn answers<S: AsRef<str>>(&self, names: impl IntoIterator<Item = S>, status: PermissionStatus) -> Self {
        self.change(|person| names.into_iter().for_each(|name| person.answer(name.as_ref(), status)))
    }

    /// Grants permissions.
    pub fn grants<S: AsRef<str>>(&self, names: impl IntoIterator<Item = S>) -> Self {
        self.answers(names, PermissionStatus::Granted)
    }

    /// Declines permissions.
    pub fn declines<S: AsRef<str>>(&self, names: impl IntoIterator<Item = S>) -> Self {
        self.answers(names, PermissionStatus::Declined)
    }

    /// Lets permissions expire, as 90 unused days do.
    pub fn lets_expire<S: AsRef<str>>(&self, names: impl IntoIterator<Item = S>) -> Self {
        self.answers(names, PermissionStatus::Expired)
    }

    /// Makes permissions missing, as if never asked for.
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

    /// Has another id from now on, for instance a very long one.
    pub fn with_id(&self, id: &str) -> Self {
        self.change(|person| id.clone_into(&mut person.id))
    }

    /// Is called something else from now on. The handle keeps working.
    pub fn renamed(&self, name: &str) -> Self {
        self.change(|person| name.clone_into(&mut person.name))
    }

    /// Has exactly `n` active ad accounts with delivery.
    pub fn with_ad_accounts(&self, n: usize) -> Self {
        self.change(|person| {
            person.ad_accounts = (1..=n)
                .map(|i| AdAccountSpec { name: format!("Shop {i}"), ..AdAccountSpec::default() }.into())
                .collect();
        })
    }

    /// Has one more ad account.
    pub fn ad_account(&self, spec: AdAccountSpec) -> Self {
        self.change(|person| person.ad_accounts.push(spec.into()))
    }

    /// Ids of the ad accounts, without `act_`.
    pub fn ad_account_ids(&self) -> Vec<String> {
        self.shared.lock().person(&self.key).ad_accounts.into_iter().map(|account| account.id).collect()
    }

    fn change_accounts(&self, act: impl Fn(&mut AdAccount)) -> Self {
        self.change(|person| person.ad_accounts.iter_mut().for_each(act))
    }

    /// All ad accounts get this `account_status`.
    pub fn account_status(&self, status: i64) -> Self {
        self.change_accounts(|account| account.spec.status = status)
    }

    /// All ad accounts have insights, or none has.
    pub fn delivery(&self, delivers: bool) -> Self {
        self.change_accounts(|account| account.spec.delivers = delivers)
    }

    /// The ad-account list gets an empty page with `next`; pages count from 1.
    pub fn empty_page(&self, number: usize) -> Self {
        self.change(|person| person.empty_page = Some(number))
    }

    /// Has a page of this name; gives its id.
    pub fn page(&self, name: &str) -> String {
        let mut id = String::new();
        self.change(|person| id = person.page_named(name).id);
        id
    }

    /// Mints the token of an order.
    pub fn order(&self, order: TokenOrder) -> String {
        self.shared.lock().mint(&self.key, order).text
    }

    /// Lives 90 minutes.
    pub fn short_lived_token(&self) -> String {
        self.order(TokenOrder::short())
    }

    /// Short-lived in kind, with another life.
    pub fn short_lived_token_with_life(&self, life: Duration) -> String {
        self.order(TokenOrder::short().life(life))
    }

    /// Lives 60 days.
    pub fn long_lived_token(&self) -> String {
        self.order(TokenOrder::long())
    }

    /// Long-lived in kind, with another life.
    pub fn long_lived_token_with_life(&self, life: Duration) -> String {
        self.order(TokenOrder::long().life(life))
    }

    /// A never-ending token of a page, which is created when unknown.
    pub fn page_token(&self, page: &str) -> String {
        let id = self.page(page);
        self.order(TokenOrder { kind: Some(TokenKind::Page(id)), ..TokenOrder::never() })
    }

    /// A short-lived token of another app.
    pub fn token_of_app(&self, app_id: &str) -> String {
        self.order(TokenOrder::short().app(app_id))
    }

    /// A session-info token, which calls refuse as "Debug only".
    pub fn debug_only_token(&self) -> String {
        self.order(TokenOrder { kind: Some(TokenKind::DebugOnly), ..TokenOrder::short() })
    }

    /// Never ends; what a system user usually has.
    pub fn token_never(&self) -> String {
        self.order(TokenOrder::never())
    }

    /// Lives 60 days; what some businesses force on system users.
    pub fn token_60_days(&self) -> String {
        self.order(TokenOrder::long().life(Duration::from_secs(LONG_LIFE.unsigned_abs())))
    }

    /// All tokens so far die with 460.
    pub fn changes_password(&self) {
        self.shared.lock().kill_all(&self.key, None, 460);
    }

    /// All tokens of the default app die with 458; deauthorize callback and webhook go out.
    /// A token minted later stands for a new consent to the same permissions.
    pub fn removes_app(&self) {
        let mut state = self.shared.lock();
        let app_id = state.default_app().id;
        state.deauthorize(&self.key, &app_id);
        drop(state);
        self.shared.flush_outbox();
    }

    /// All tokens so far die with 467.
    pub fn logs_out(&self) {
        self.shared.lock().kill_all(&self.key, None, 467);
    }

    /// All tokens are refused with 459 until [`heals`](Self::heals).
    pub fn hits_checkpoint(&self) {
        self.falls_into(459);
    }

    /// All tokens are refused with 459, and good again after `how_long` on the sandbox's clock.
    pub fn hits_checkpoint_for(&self, how_long: Duration) {
        let until = self.shared.clock.now().saturating_add(crate::clock::seconds(how_long));
        self.change(|person| person.trouble = Some((459, Some(until))));
    }

    /// All tokens are refused with this 190 subcode until [`heals`](Self::heals).
    pub fn falls_into(&self, subcode: u32) {
        self.change(|person| person.trouble = Some((subcode, None)));
    }

    /// Ends a checkpoint. Sessions that died for good (458, 460, 466, 467) stay dead.
    pub fn heals(&self) {
        self.change(|person| person.trouble = None);
    }

    /// The 90 days of data access ended yesterday.
    pub fn data_access_lapses(&self) {
        let now = self.shared.clock.now();
        self.change(|person| person.data_access_expires_at = now.saturating_sub(DAY));
    }
}
