//! Positions that callers hand back: page tokens, and the feed's cursor. Opaque, printable, and checked.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use uuid::Uuid;

use crate::crypto::{open_note, seal_note};
use crate::model::{FeedPosition, Principal, WorkspaceSet};
use crate::vault::error::VaultError;
use crate::vault::state::Vault;

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

    /// The feed's position now.
    pub(super) fn cursor(&self) -> String {
        self.write_cursor(self.store.feed().head())
    }

    /// Renders a position in the feed: epoch, sequence, and the check of that event's identity.
    pub(super) fn write_cursor(&self, position: FeedPosition) -> String {
        write_cursor(self.keys.vault.feed_epoch, position)
    }

    /// What a position of another feed than this one meets.
    pub(super) fn feed_replaced(&self) -> VaultError {
        let ours = self.keys.vault.feed_epoch;
        VaultError::FeedReplaced { ours, theirs: ours }
    }

    /// Reads a position back and holds it against the feed as it is.
    ///
    /// # Errors
    /// `CursorInvalid` for what no vault made; `FeedReplaced` for one of another feed; `EventsCompacted` for one
    /// before the kept history.
    pub(super) async fn read_cursor(
        &self,
        cursor: &str,
        field: &'static str,
    ) -> Result<FeedPosition, VaultError> {
        let (epoch, position) = parse_cursor(cursor).ok_or(VaultError::CursorInvalid { field })?;
        if epoch != self.keys.vault.feed_epoch {
            return Err(VaultError::FeedReplaced { ours: self.keys.vault.feed_epoch, theirs: epoch });
        }
        self.check_position(position).await?;
        Ok(position)
    }

    /// Whether a position is one of this feed, and still kept.
    pub(super) async fn check_position(&self, position: FeedPosition) -> Result<(), VaultError> {
        let mut session = self.store.read().await?;
        let state = session.feed_state().await?;
        if position.sequence > state.head.sequence {
            return Err(self.feed_replaced());
        }
        let compacted = VaultError::EventsCompacted { oldest: state.oldest, position: position.sequence };
        let identity = match position.sequence {
            0 if state.oldest == 1 => Some(0),
            before if before + 1 < state.oldest => return Err(compacted),
            before if before + 1 == state.oldest => Some(state.compacted_identity),
            sequence => session.event_identity(sequence).await?,
        };
        match identity {
            Some(identity) if identity == position.identity => Ok(()),
            Some(_) => Err(self.feed_replaced()),
            // Retention came between the two reads.
            None => Err(compacted),
        }
    }
}

/// The form of a cursor that this release writes.
const FORM: &str = "1";

/// A position in the feed of an epoch, as text.
pub(super) fn write_cursor(epoch: Uuid, position: FeedPosition) -> String {
    let FeedPosition { sequence, identity } = position;
    format!("{FORM}.{}.{sequence}.{identity:x}", epoch.simple())
}

fn parse_cursor(cursor: &str) -> Option<(Uuid, FeedPosition)> {
    let mut parts = cursor.split('.');
    let (form, epoch, sequence, identity) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
    if form != FORM || parts.next().is_some() || epoch.len() != 32 || !plain(sequence) || !plain(identity) {
        return None;
    }
    let position =
        FeedPosition { sequence: sequence.parse().ok()?, identity: i64::from_str_radix(identity, 16).ok()? };
    Some((Uuid::try_parse(epoch).ok()?, position))
}

fn leading(mac: [u8; 32]) -> [u8; HASH] {
    let mut first = [0; HASH];
    first.iter_mut().zip(mac).for_each(|(to, from)| *to = from);
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_cursor_is_a_cursor() {
        let epoch = Uuid::from_u128(7);
        let good = format!("1.{}.42.1f", epoch.simple());
        assert_eq!(parse_cursor(&good), Some((epoch, FeedPosition { sequence: 42, identity: 31 })));
        let simple = epoch.simple();
        for bad in [
            String::new(),
            "1".into(),
            format!("2.{simple}.42.1f"),
            format!("1.{epoch}.42.1f"),
            format!("1.{simple}.-1.1f"),
            format!("1.{simple}.+1.1f"),
            format!("1.{simple}.42.-f"),
            format!("1.{simple}.42."),
            format!("1.{simple}.99999999999999999999.1f"),
            format!("1.{simple}.42.1f.0"),
            format!(" 1.{simple}.42.1f"),
            "1.\u{e4}.4.4".into(),
        ] {
            assert_eq!(parse_cursor(&bad), None, "{bad}");
        }
    }
}

/// A cursor that can be read is the one that would be written.
#[cfg(fuzzing)]
pub(super) fn fuzz(text: &str) {
    if let Some((epoch, position)) = parse_cursor(text) {
        assert_eq!(parse_cursor(&write_cursor(epoch, position)), Some((epoch, position)));
    }
}
