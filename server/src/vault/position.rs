//! Positions that callers hand back: page tokens, and the feed's cursor. Opaque, printable, and checked.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Vault, VaultError};
use crate::model::{Principal, WorkspaceSet};

/// Which query a page token belongs to.
pub(super) struct QueryHash([u8; 16]);

const MAC: usize = 16;

impl Vault {
    /// Hashes a query with who asks it: a page token of one goes with no other.
    pub(super) fn query_hash(&self, caller: &Principal, rpc: &str, parts: &[&[u8]]) -> QueryHash {
        let visible = match &caller.workspaces {
            WorkspaceSet::All => "*".to_owned(),
            WorkspaceSet::Named(names) => {
                names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join("\n")
            }
        };
        let mut all: Vec<&[u8]> = vec![rpc.as_bytes(), caller.name.as_bytes(), visible.as_bytes()];
        all.extend_from_slice(parts);
        QueryHash(leading(self.keys.index.mac("page-query", &all)))
    }

    /// Renders a position within a query.
    pub(super) fn write_page_token(&self, position: &str, query: &QueryHash) -> String {
        let mac: [u8; MAC] = leading(self.keys.index.mac("page-token", &[&query.0, position.as_bytes()]));
        let mut bytes = Vec::with_capacity(2 * MAC + position.len());
        bytes.extend_from_slice(&mac);
        bytes.extend_from_slice(&query.0);
        bytes.extend_from_slice(position.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a position back.
    pub(super) fn read_page_token(&self, token: &str, query: &QueryHash) -> Result<String, VaultError> {
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| VaultError::PageTokenInvalid)?;
        let (mac, rest) = bytes.split_first_chunk::<MAC>().ok_or(VaultError::PageTokenInvalid)?;
        let (of, position) = rest.split_first_chunk::<MAC>().ok_or(VaultError::PageTokenInvalid)?;
        if !self.keys.index.verify("page-token", &[of, position], mac) {
            return Err(VaultError::PageTokenInvalid);
        }
        if *of != query.0 {
            return Err(VaultError::PageTokenMismatch);
        }
        String::from_utf8(position.to_vec()).map_err(|_| VaultError::PageTokenInvalid)
    }

    /// The feed's position now: epoch, sequence, and the check of that event. Nothing writes events yet, so
    /// every position is the beginning; the form is the one that stays.
    pub(super) fn cursor(&self) -> String {
        format!("1.{}.0.0", self.keys.vault.feed_epoch.simple())
    }
}

fn leading(mac: [u8; 32]) -> [u8; MAC] {
    let mut first = [0; MAC];
    first.iter_mut().zip(mac).for_each(|(to, from)| *to = from);
    first
}
