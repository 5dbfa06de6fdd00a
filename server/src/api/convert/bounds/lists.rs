//! Cutting the long lists of an element. The short ones stay whole: all lists share the room evenly, and what a short one
//! does not need, the others get.

use prost::{Message, length_delimiter_len};
use token_vault_proto::v1 as pb;
use token_vault_proto::v1::expiry_event::Detail;

/// The most bytes of a field's tag and of a count. Each list may need one more count.
const COUNT: usize = 2 + 5;
/// The most bytes of the tag and the length of an entry in `granular_scopes`.
const FRAME: usize = 2 + 4;

/// Cuts scopes and targets. No scope loses all its targets, because none would mean all.
pub(super) fn cut_token(token: &mut pb::Token, most: usize) {
    let (mut scopes, mut granular) =
        (std::mem::take(&mut token.scopes), std::mem::take(&mut token.granular_scopes));
    let mut room = most.saturating_sub(token.encoded_len() + 2 * COUNT);

    let mut least = 0;
    let kept = granular
        .iter()
        .take_while(|scope| {
            least += least_bytes(scope);
            least <= room / 2
        })
        .count();
    token.left_out_granular_scopes = count(granular.len() - kept);
    granular.truncate(kept);
    room -= granular.iter().map(least_bytes).sum::<usize>();

    let further = granular.iter().map(|scope| bytes(scope.target_ids.get(1..).unwrap_or_default()));
    let share = even_share(std::iter::once(bytes(&scopes)).chain(further).collect(), room);
    token.left_out_scopes = shorten(&mut scopes, 0, share);
    for scope in &mut granular {
        scope.left_out_target_ids = shorten(&mut scope.target_ids, 1, share);
    }
    (token.scopes, token.granular_scopes) = (scopes, granular);
}

/// Cuts what was added and removed.
pub(super) fn cut_event(event: &mut pb::ExpiryEvent, most: usize) {
    let Some(Detail::Changed(changed)) = &mut event.detail else { return };
    let (mut added, mut removed) = (std::mem::take(&mut changed.added), std::mem::take(&mut changed.removed));
    let rest = event.encoded_len();
    let Some(Detail::Changed(changed)) = &mut event.detail else { return };
    let room = most.saturating_sub(rest + FRAME + 2 * COUNT);
    let share = even_share(vec![bytes(&added), bytes(&removed)], room);
    changed.left_out_added = shorten(&mut added, 0, share);
    changed.left_out_removed = shorten(&mut removed, 0, share);
    (changed.added, changed.removed) = (added, removed);
}

/// What a scope needs with its first target alone.
fn least_bytes(scope: &pb::GranularScope) -> usize {
    FRAME + text_bytes(&scope.scope) + scope.target_ids.first().map_or(0, |id| text_bytes(id)) + COUNT
}

/// The bytes of a text with tag and length. All lists that are cut have field numbers up to 15, whose tags are one byte.
fn text_bytes(text: &str) -> usize {
    1 + length_delimiter_len(text.len()) + text.len()
}

fn bytes(list: &[String]) -> usize {
    list.iter().map(|text| text_bytes(text)).sum()
}

/// The largest size to which each list may grow, so that all of them together have room.
fn even_share(mut sizes: Vec<usize>, mut room: usize) -> usize {
    sizes.sort_unstable();
    for (at, size) in sizes.iter().enumerate() {
        let share = room / (sizes.len() - at);
        if *size > share {
            return share;
        }
        room -= size;
    }
    usize::MAX
}

/// Keeps the first `kept` entries, and as many more as fit into `share` bytes. Returns how many entries it drops.
fn shorten(list: &mut Vec<String>, kept: usize, share: usize) -> i32 {
    let mut size = 0;
    let more = list.iter().skip(kept).take_while(|text| {
        size += text_bytes(text);
        size <= share
    });
    let keeps = kept + more.count();
    let dropped = list.len().saturating_sub(keeps);
    list.truncate(keeps);
    count(dropped)
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
