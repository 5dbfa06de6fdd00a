//! ListAdAccounts: what the last look at the provider found.

use crate::model::{Principal, Problem, Timestamp};
use crate::store::KnownAdAccount;
use crate::vault::error::VaultError;
use crate::vault::paging::{Filling, full};
use crate::vault::position::NextPage;
use crate::vault::state::Vault;
use crate::vault::token::target::Target;

#[derive(Debug)]
pub struct ListAdAccounts {
    pub target: Target,
    /// 1 to 1000.
    pub page_size: u32,
    /// Empty for the first page.
    pub page_token: String,
    /// Only those that the token reaches, or no longer reaches.
    pub reachable: Option<bool>,
}

/// An ad account, and what is wrong with it.
#[derive(Debug)]
pub struct AdAccountView {
    pub account: KnownAdAccount,
    pub problem: Option<Problem>,
}

/// What follows a page of ad accounts.
#[derive(Debug)]
pub struct AdAccountPage {
    pub next: NextPage,
    pub checked_at: Option<Timestamp>,
}

impl Vault {
    /// Offers one page of a connection's ad accounts, by id, to `take`, which returns false for one that does not fit any
    /// more.
    ///
    /// # Errors
    /// `ConnectionNotFound`, `PageTokenInvalid`, `PageTokenMismatch`.
    pub async fn list_ad_accounts(
        &self,
        caller: &Principal,
        query: ListAdAccounts,
        mut take: impl FnMut(AdAccountView) -> bool + Send,
    ) -> Result<AdAccountPage, VaultError> {
        let id = self.held(caller, &query.target).await?.connection.id;
        let wanted: &[u8] = match query.reachable {
            None => b"all",
            Some(true) => b"reachable",
            Some(false) => b"lost",
        };
        let hash = self.query_hash(caller, "ListAdAccounts", &[id.as_uuid().as_bytes(), wanted]);
        let mut after = match query.page_token.as_str() {
            "" => String::new(),
            token => self.read_page_token(token, &hash)?,
        };
        let mut session = self.store.read().await?;
        let checked_at = session.ad_accounts_checked_at(id).await?;
        let mut filling = Filling::of(query.page_size);
        'page: while let Some(rows) = filling.next() {
            let found = session.ad_accounts_after(id, &after, query.reachable, rows).await?;
            let more = full(found.len(), rows);
            filling.read(found.iter().map(about_bytes), more);
            for account in found {
                let key = account.id.clone();
                let problem = account.unreachable_since.map(Problem::of_lost_ad_account);
                if !filling.offer(|| take(AdAccountView { account, problem })) {
                    break 'page;
                }
                after = key;
            }
        }
        drop(session);
        Ok(AdAccountPage { next: self.next_page(&filling, &after, &hash)?, checked_at })
    }
}

fn about_bytes(account: &KnownAdAccount) -> usize {
    512 + account.name.len() + account.owner_name.len()
}
