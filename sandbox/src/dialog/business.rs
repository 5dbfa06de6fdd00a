//! Facebook Login for Business: a configuration takes the place of the scopes, and picks the kind of token.

use serde::{Deserialize, Serialize};

use super::decision::Pick;
use crate::people::{PermissionStatus, Person};
use crate::state::State;
use crate::tokens::TokenOrder;

/// A configuration of Facebook Login for Business, which the dialog gets as `config_id`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoginConfig {
    /// A decimal number.
    pub id: String,
    /// The app that it belongs to; unset is any.
    pub app_id: Option<String>,
    /// What it asks for. A person grants all of it or nothing.
    pub scopes: Vec<String>,
    /// What a code is exchanged for.
    pub token: LoginToken,
}

/// The kind of token that a [`LoginConfig`] gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoginToken {
    /// The person's own, as without a configuration.
    #[default]
    User,
    /// That of a business integration system user, without expiry.
    SystemUser,
    /// The same, for 60 days.
    #[serde(rename = "system_user_60_days")]
    SystemUser60Days,
}

impl LoginConfig {
    /// What a code is exchanged for, if it is not the person's own token.
    pub(super) fn order(&self) -> Option<TokenOrder> {
        let order = match self.token {
            LoginToken::User => return None,
            LoginToken::SystemUser => TokenOrder::never(),
            LoginToken::SystemUser60Days => TokenOrder::long(),
        };
        Some(TokenOrder { scopes: Some(self.scopes.clone()), ..order })
    }
}

/// Installs the app in the person's business: the system user `<name>-business` gets the scopes, and those of the
/// person's ad accounts that were picked. Returns its key.
pub(super) fn install(
    state: &mut State,
    name: &str,
    person: &Person,
    app_id: &str,
    scopes: &[String],
    pick: &Pick,
) -> String {
    let key = state.enter(&format!("{name}-business"), true);
    if let Some(bot) = state.people.get_mut(&key) {
        bot.ad_accounts.clone_from(&person.ad_accounts);
        bot.businesses.clone_from(&person.businesses);
        scopes.iter().for_each(|scope| bot.set_permission(scope, PermissionStatus::Granted));
        if let Some(ids) = &pick.ad_accounts {
            bot.give(app_id, ids);
        }
    }
    key
}
