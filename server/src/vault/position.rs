//! Positions that callers send back: page tokens in lists, and cursors in the feed. The vault checks each of them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use uuid::Uuid;

use crate::crypto::{open_note, seal_note};
use crate::model::{FeedPosition, Principal, WorkspaceSet};
use crate::vault::error::VaultError;
use crate::vault::paging::Filling;
use crate::vault::state::Vault;

/// Which query a page token belongs to.
pub(super) struct QueryHash([u8; 16]);

/// The token of the next page; empty on the last page.
#[derive(Debug, PartialEq, Eq)]
pub struct NextPage(pub String);

const HASH: usize = 16;
const PURPOSE: &str = "page-token";

impl Vault {
    /// Hashes a query together with its caller: a page token is valid only for the same query by the same caller.
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

    /// The page token is encrypted, since the position may be that of a row that the caller must not see.
    pub(super) fn write_page_token(&self, position: &str, query: &QueryHash) -> Result<String, VaultError> {
        let mut note = query.0.to_vec();
        note.extend_from_slice(position.as_bytes());
        let sealed = seal_note(&self.keys.pages, PURPOSE, &note).map_err(|_| VaultError::Internal)?;
        Ok(URL_SAFE_NO_PAD.encode(sealed))
    }

    /// The token of the page after the position, if there is one.
    pub(super) fn next_page(
        &self,
        filling: &Filling,
        position: &str,
        query: &QueryHash,
    ) -> Result<NextPage, VaultError> {
        let token = if filling.has_more() { self.write_page_token(position, query)? } else { String::new() };
        Ok(NextPage(token))
    }

    pub(super) fn read_page_token(&self, token: &str, query: &QueryHash) -> Result<String, VaultError> {
        let sealed = URL_SAFE_NO_PAD.decode(token).map_err(|_| VaultError::PageTokenInvalid)?;
        let note = open_note(&self.keys.pages, PURPOSE, &sealed).map_err(|_| VaultError::PageTokenInvalid)?;
        let (of, position) = note.split_first_chunk::<HASH>().ok_or(VaultError::PageTokenInvalid)?;
        if *of != query.0 {
            return Err(VaultError::PageTokenMismatch);
        }
        String::from_utf8(position.to_vec()).map_err(|_| VaultError::PageTokenInvalid)
    }

    /// The position of the feed's newest event, as text.
    pub(super) fn cursor(&self) -> String {
        self.write_cursor(self.store.feed().head())
    }

    pub(super) fn write_cursor(&self, position: FeedPosition) -> String {
        write_cursor(self.keys.vault.feed_epoch, position)
    }

    pub(super) fn feed_replaced(&self) -> VaultError {
        let ours = self.keys.vault.feed_epoch;
        VaultError::FeedReplaced { ours, theirs: ours }
    }

    /// Reads a cursor, and checks its position against the feed.
    ///
    /// # Errors
    /// `CursorInvalid` for text that no vault wrote; `FeedReplaced` for a position in another feed; `EventsCompacted`
    /// if the events after the position were deleted.
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

    /// Checks that a position is in this feed, and that the events after it are kept.
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
            // Retention deleted the event between the two reads.
            None => Err(compacted),
        }
    }
}

/// The version of the cursor's format.
const FORMAT: &str = "1";

/// Writes a cursor: format, the feed's epoch, the event's sequence and its identity. The identity shows whether the
/// feed is still the same.
pub(super) fn write_cursor(epoch: Uuid, position: FeedPosition) -> String {
    let FeedPosition { sequence, identity } = position;
    format!("{FORMAT}.{}.{sequence}.{identity:x}", epoch.simple())
}

fn parse_cursor(cursor: &str) -> Option<(Uuid, FeedPosition)> {
    let mut parts = cursor.split('.');
    let (form, epoch, sequence, identity) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
    if form != FORMAT || parts.next().is_some() || epoch.len() != 32 || !plain(sequence) || !plain(identity) {
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
    fn only_cursors_are_accepted() {
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

/// Every cursor that can be read is written the same way.
#[cfg(fuzzing)]
pub(super) fn fuzz(text: &str) {
    if let Some((epoch, position)) = parse_cursor(text) {
        assert_eq!(parse_cursor(&write_cursor(epoch, position)), Some((epoch, position)));
    }
}
