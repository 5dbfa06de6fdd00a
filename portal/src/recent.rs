//! What the last attempts found, for the page after the callback.
//!
//! The callback answers with a redirect, so that the code leaves the address bar, and the page behind it should still
//! show the checks. Running them again would cost calls of the provider's budget, and they are too much for an address
//! or a cookie. So this process remembers them for some minutes, bounded and without secrets. If another replica shows
//! the page, or this one has restarted, the page lacks them and shows the state of the connection all the same.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use sha2::{Digest, Sha256};
use token_vault_client::v1::Check;

use crate::notice::Notice;
use crate::outcome::Outcome;
use crate::web::link::LinkId;
use crate::web::session::Session;

/// Attempts that are remembered, each of at most some kilobytes.
const MOST: u64 = 2_000;
const KEPT: Duration = Duration::from_secs(600);

/// What an attempt found.
#[derive(Debug, Clone, Default)]
pub(crate) struct Findings {
    /// The connection that the checks are about.
    pub(crate) connection_id: String,
    pub(crate) checks: Vec<Check>,
    /// Why it failed, with details.
    pub(crate) notice: Option<Notice>,
    /// How it ended. What another replica answered meanwhile is not told with the words of this one.
    pub(crate) outcome: Option<Outcome>,
}

impl Findings {
    /// Keeps what a page shows of the checks, which bounds what one attempt takes.
    pub(crate) fn new(connection_id: String, mut checks: Vec<Check>) -> Self {
        for check in &mut checks {
            check.metadata.retain(|key, _| key == "rows");
        }
        Self { connection_id, checks, notice: None, outcome: Some(Outcome::Connected) }
    }
}

pub(crate) struct Recent(Cache<[u8; 32], Arc<Findings>>);

impl Recent {
    pub(crate) fn new() -> Self {
        Self(Cache::builder().max_capacity(MOST).time_to_live(KEPT).build())
    }

    pub(crate) fn remember(&self, session: &Session, id: &LinkId, findings: Findings) {
        self.0.insert(key(session, id), Arc::new(findings));
    }

    pub(crate) fn recall(&self, session: &Session, id: &LinkId) -> Option<Arc<Findings>> {
        self.0.get(&key(session, id))
    }
}

/// Only the browser whose attempt it was gets it. The session itself is not kept.
fn key(session: &Session, id: &LinkId) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(session.expose().as_bytes());
    hash.update(id.as_str().as_bytes());
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_browser_recalls() {
        let (recent, mine, id) = (Recent::new(), Session::new(), LinkId::parse("abcdefghijklmn27").unwrap());
        let metadata = [("rows", "7"), ("missing", "a,b")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let check = Check { name: "smoke_test".into(), metadata, ..Check::default() };
        recent.remember(&mine, &id, Findings::new("c".into(), vec![check]));
        let recalled = recent.recall(&mine, &id).unwrap();
        assert_eq!((recalled.connection_id.as_str(), recalled.checks[0].metadata.len()), ("c", 1));
        assert!(recent.recall(&Session::new(), &id).is_none());
        assert!(recent.recall(&mine, &LinkId::parse("abcdefghijklmn22").unwrap()).is_none());
    }
}
