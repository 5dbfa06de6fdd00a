//! Positions that callers hand back: page tokens, and the feed's cursor. Opaque, printable, and checked.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Vault, VaultError};
use crate::crypto::{open_note, seal_note};
use crate::model::{Principal, WorkspaceSet};

/// Which query a page token belongs to.
pub(super) struct QueryHash([u8; 16]);

const HASH: usize = 16;
const PURPOSE: &str = "page-token";

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

    /// Renders a position within a query. Sealed: it may be that of a row that its bearer may not see.
    pub(super) fn write_page_token(&self, position: &str, query: &QueryHash) -> Result<String, VaultError> {
        let mut note = query.0.to_vec();
        note.extend_from_slice(position.as_bytes());
        let sealed = seal_note(&self.keys.pages, PURPOSE, &note).map_err(|_| VaultError::Internal)?;
        Ok(URL_SAFE_NO_PAD.encode(sealed))
    }

    /// Reads a position back.
    pub(super) fn read_page_token(&self, token: &str, query: &QueryHash) -> Result<String, VaultError> {
        let sealed = URL_SAFE_NO_PAD.decode(token).map_err(|_| VaultError::PageTokenInvalid)?;
        let note = open_note(&self.keys.pages, PURPOSE, &sealed).map_err(|_| VaultError::PageTokenInvalid)?;
        let (of, position) = note.split_first_chunk::<HASH>().ok_or(VaultError::PageTokenInvalid)?;
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

fn leading(mac: [u8; 32]) -> [u8; HASH] {
    let mut first = [0; HASH];
    first.iter_mut().zip(mac).for_each(|(to, from)| *to = from);
    first
}
