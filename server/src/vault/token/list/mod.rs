//! ListTokens: several ordered index scans, merged into one page.

pub(in crate::vault) mod ad_accounts;

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{
    Connection, ConnectionId, ListOrder, Policy, Principal, ProviderId, Status, Timestamp, WorkspaceId,
    WorkspaceSet,
};
use crate::store::{ListDrive, ListPosition, ListRange, Session, StandingName};
use crate::vault::error::VaultError;
use crate::vault::paging::Filling;
use crate::vault::state::Vault;
use crate::vault::token::view::TokenView;

/// Values within a field are alternatives; all fields must match.
#[derive(Debug, Clone, Default)]
pub struct ListTokens {
    /// Empty means all that the caller may see.
    pub workspaces: BTreeSet<WorkspaceId>,
    /// Empty means all.
    pub providers: BTreeSet<ProviderId>,
    /// Empty means all but revoked.
    pub statuses: Vec<Status>,
    /// Tokens that expire within this time.
    pub expiring_within: Option<Duration>,
    /// Tokens that reach this ad account.
    pub ad_account_id: Option<String>,
    /// Tokens of this subject.
    pub subject_id: Option<String>,
    pub order: ListOrder,
    /// 1 to 1000.
    pub page_size: u32,
    /// The next page; empty for the first.
    pub page_token: String,
}

/// What a page tells beside its tokens.
#[derive(Debug)]
pub struct TokenPage {
    /// Empty on the last page.
    pub next_page_token: String,
    /// The cursor of the feed that the list reflects; the same on every page.
    pub cursor: String,
    /// The time of the list; the same on every page.
    pub as_of: Timestamp,
}

/// Up to this many workspaces get one index range each. For more, one scan over all workspaces is filtered.
const SCANS: usize = 32;

/// The position of a list, in its page token. Time and cursor are those of the first page.
#[derive(Serialize, Deserialize)]
struct PagePosition {
    as_of: i64,
    cursor: String,
    end: i64,
    id: String,
}

impl Vault {
    /// Offers the tokens of one page to `take`, which returns false for one that does not fit any more. `as_of` and
    /// `cursor` are taken before the first page and come back on every one.
    ///
    /// # Errors
    /// `WorkspaceNotFound` for a workspace that the caller may not see; `PageTokenInvalid`, `PageTokenMismatch`.
    pub async fn list_tokens(
        &self,
        caller: &Principal,
        query: ListTokens,
        mut take: impl FnMut(TokenView) -> bool + Send,
    ) -> Result<TokenPage, VaultError> {
        if let Some(hidden) = query.workspaces.iter().find(|workspace| !caller.workspaces.contains(workspace))
        {
            return Err(VaultError::WorkspaceNotFound(hidden.clone()));
        }
        let fingerprint = self.query_hash(
            caller,
            "ListTokens",
            &query_parts(&query).iter().map(Vec::as_slice).collect::<Vec<_>>(),
        );
        let (as_of, cursor, mut after) = match query.page_token.as_str() {
            "" => (self.clock.now(), self.cursor(), None),
            token => {
                let position: PagePosition =
                    serde_json::from_str(&self.read_page_token(token, &fingerprint)?)
                        .map_err(|_| VaultError::PageTokenInvalid)?;
                let id = ConnectionId::parse(&position.id).map_err(|_| VaultError::PageTokenInvalid)?;
                (
                    Timestamp::from_micros(position.as_of),
                    position.cursor,
                    Some(ListPosition { end: position.end, id }),
                )
            }
        };
        let policy = self.policy();
        let plan = Plan::of(&query, caller, as_of, &policy);
        let _turn = self.work.list_turn(caller).await?;
        let mut session = self.store.read().await?;
        let mut filling = Filling::of(query.page_size);
        'page: while let Some(rows) = filling.next() {
            let (found, exhausted) = plan.next(&mut session, query.order, after, rows).await?;
            filling.read(found.iter().map(|(connection, _)| connection.about_bytes()), !exhausted);
            for (connection, shared) in found {
                let position = ListPosition { end: connection.facts.expiry.sort_key(), id: connection.id };
                let view = |connection| TokenView::new(connection, shared, as_of, &policy);
                if plan.keeps(&connection) && !filling.offer(|| take(view(connection))) {
                    break 'page;
                }
                after = Some(position);
            }
        }
        let next_page_token = match after {
            Some(after) if filling.has_more() => {
                let position = PagePosition {
                    as_of: as_of.as_micros(),
                    cursor: cursor.clone(),
                    end: after.end,
                    id: after.id.to_string(),
                };
                let text = serde_json::to_string(&position).map_err(|_| VaultError::Internal)?;
                self.write_page_token(&text, &fingerprint)?
            }
            _ => String::new(),
        };
        Ok(TokenPage { next_page_token, cursor, as_of })
    }

    /// How many tokens of each status the caller may see.
    pub(in crate::vault) async fn count_by_status(
        &self,
        caller: &Principal,
    ) -> Result<Vec<(Status, u64)>, VaultError> {
        let now = self.clock.now();
        let _turn = self.work.list_turn(caller).await?;
        let mut session = self.store.read().await?;
        let workspaces: Vec<&str> = match &caller.workspaces {
            WorkspaceSet::All => vec![""],
            WorkspaceSet::Named(names) => names.iter().map(WorkspaceId::as_str).collect(),
        };
        let mut counts = Vec::new();
        for &status in Status::ALL {
            let mut count = 0;
            for range in ranges(&[status], None, now, &self.policy()) {
                for workspace in &workspaces {
                    count += session.count_connections(workspace, range).await?;
                }
            }
            counts.push((status, count));
        }
        Ok(counts)
    }
}

/// The query without page size and page token, for the fingerprint in the page token.
fn query_parts(query: &ListTokens) -> Vec<Vec<u8>> {
    vec![
        format!("{:?}", query.workspaces).into_bytes(),
        format!("{:?}", query.providers).into_bytes(),
        format!("{:?}", query.statuses).into_bytes(),
        format!("{:?}", query.expiring_within).into_bytes(),
        format!("{:?}", query.ad_account_id).into_bytes(),
        format!("{:?}", query.subject_id).into_bytes(),
        format!("{:?}", query.order).into_bytes(),
    ]
}

/// The index scans of a query, and the filters that no index answers.
struct Plan<'q> {
    scans: Vec<(ListDrive, ListRange)>,
    query: &'q ListTokens,
    visible: WorkspaceSet,
}

impl<'q> Plan<'q> {
    fn of(query: &'q ListTokens, caller: &Principal, now: Timestamp, policy: &Policy) -> Self {
        let visible = match (query.workspaces.is_empty(), &caller.workspaces) {
            (false, _) => WorkspaceSet::Named(query.workspaces.clone()),
            (true, all) => all.clone(),
        };
        let drives = match (&query.ad_account_id, &query.subject_id, &visible) {
            (Some(account), _, _) => vec![ListDrive::AdAccount(account.clone())],
            (None, Some(subject), _) => vec![ListDrive::Subject(subject.clone())],
            (None, None, WorkspaceSet::Named(names)) if names.len() <= SCANS => {
                names.iter().cloned().map(ListDrive::Workspace).collect()
            }
            _ => vec![ListDrive::Everywhere],
        };
        let ranges = ranges(&query.statuses, query.expiring_within, now, policy);
        let scans =
            drives.iter().flat_map(|drive| ranges.iter().map(|range| (drive.clone(), *range))).collect();
        Self { scans, query, visible }
    }

    /// The next connections in order, at most `rows`, and whether they are the last.
    async fn next(
        &self,
        session: &mut Session,
        order: ListOrder,
        after: Option<ListPosition>,
        rows: i64,
    ) -> Result<(Vec<(Connection, u32)>, bool), VaultError> {
        let limit = usize::try_from(rows).unwrap_or(usize::MAX);
        let mut found = Vec::new();
        let mut exhausted = true;
        for (drive, range) in &self.scans {
            let part = session.list_connections(drive, order, *range, after, rows).await?;
            exhausted &= part.len() < limit;
            exhausted &= merge(&mut found, part, order, limit);
        }
        Ok((found, exhausted))
    }

    /// Applies the filters that the scans did not.
    fn keeps(&self, connection: &Connection) -> bool {
        let provider_ok =
            self.query.providers.is_empty() || self.query.providers.contains(&connection.provider);
        let subject_ok =
            self.query.subject_id.as_ref().is_none_or(|subject| *subject == connection.subject.id);
        provider_ok && subject_ok && self.visible.contains(&connection.workspace)
    }
}

/// Adds a scan's connections to those of the scans before, and keeps the first `limit`, so that memory does not grow with
/// the number of scans. Returns whether all are kept.
fn merge(
    found: &mut Vec<(Connection, u32)>,
    part: Vec<(Connection, u32)>,
    order: ListOrder,
    limit: usize,
) -> bool {
    found.extend(part);
    match order {
        ListOrder::ExpiresFirst => found.sort_by_key(|(c, _)| (c.facts.expiry.sort_key(), c.id)),
        ListOrder::CreatedFirst => found.sort_by_key(|(c, _)| c.id),
        ListOrder::CreatedLast => found.sort_by_key(|(c, _)| std::cmp::Reverse(c.id)),
    }
    let all = found.len() <= limit;
    found.truncate(limit);
    all
}

/// The index ranges that hold these statuses. A status is a standing, and bounds on the expiry.
fn ranges(statuses: &[Status], within: Option<Duration>, now: Timestamp, policy: &Policy) -> Vec<ListRange> {
    let not_revoked = [Status::Active, Status::Expiring, Status::Expired, Status::Invalid];
    let wanted = if statuses.is_empty() { &not_revoked[..] } else { statuses };
    let (now_micros, warned) = (now.as_micros(), (now + policy.warning_window).as_micros());
    let last = within.map_or(i64::MAX, |within| (now + within).as_micros());
    // An unknown expiry (0) never counts as soon.
    let first = i64::from(within.is_some());
    let mut live: Vec<(i64, i64)> = Vec::new();
    let mut ranges = Vec::new();
    for status in wanted {
        match status {
            Status::Active => live.extend([(0, 0), (warned.saturating_add(1), i64::MAX)]),
            Status::Expiring => live.push((now_micros.saturating_add(1), warned)),
            Status::Expired => live.push((1, now_micros)),
            Status::Invalid => ranges.push((StandingName::Invalid, 0, i64::MAX)),
            Status::Revoked => ranges.push((StandingName::Revoked, 0, i64::MAX)),
        }
    }
    // Adjacent ranges become one scan.
    live.sort_unstable();
    let mut joined: Vec<(i64, i64)> = Vec::new();
    for (low, high) in live {
        match joined.last_mut() {
            Some((_, end)) if low <= end.saturating_add(1) => *end = (*end).max(high),
            _ => joined.push((low, high)),
        }
    }
    ranges.extend(joined.into_iter().map(|(low, high)| (StandingName::Live, low, high)));
    ranges.sort_by_key(|(standing, low, high)| (*standing != StandingName::Live, *low, *high));
    ranges.dedup();
    ranges
        .into_iter()
        .map(|(standing, low, high)| ListRange { standing, low: low.max(first), high: high.min(last) })
        .filter(|range| range.low <= range.high)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fixture::connection;
    use crate::model::{ConnectionId, Expiry, Standing};

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);

    fn bounds(statuses: &[Status], within: Option<Duration>) -> Vec<(StandingName, i64, i64)> {
        ranges(statuses, within, NOW, &Policy::default())
            .into_iter()
            .map(|r| (r.standing, r.low, r.high))
            .collect()
    }

    #[test]
    fn no_more_rows_are_held_than_a_page_has_however_many_scans_there_are() {
        const LIMIT: usize = 5;
        let rows: Vec<_> = (0..40_u64)
            .map(|n| {
                let mut one = connection(Expiry::Never, Standing::Live);
                one.id = ConnectionId::generate(NOW + Duration::from_secs(n * 7 % 40));
                (one, 0)
            })
            .collect();
        for order in [ListOrder::ExpiresFirst, ListOrder::CreatedFirst, ListOrder::CreatedLast] {
            for scans in [1, 4, 20, 40] {
                let (mut found, mut all) = (Vec::new(), true);
                for part in rows.chunks(rows.len() / scans) {
                    all &= merge(&mut found, part.to_vec(), order, LIMIT);
                    assert!(found.len() <= LIMIT, "{order:?}, {scans} scans");
                }
                let mut ids: Vec<_> = rows.iter().map(|(one, _)| one.id).collect();
                ids.sort_unstable();
                if order == ListOrder::CreatedLast {
                    ids.reverse();
                }
                let kept: Vec<_> = found.iter().map(|(one, _)| one.id).collect();
                assert_eq!((kept, all), (ids[..LIMIT].to_vec(), false), "{order:?}, {scans} scans");
            }
            assert!(merge(&mut Vec::new(), rows[..LIMIT].to_vec(), order, LIMIT), "{order:?}: they are all");
        }
    }

    #[test]
    fn all_but_revoked_is_two_scans() {
        assert_eq!(
            bounds(&[], None),
            [(StandingName::Live, 0, i64::MAX), (StandingName::Invalid, 0, i64::MAX)]
        );
    }

    #[test]
    fn statuses_meet_at_their_edges_without_overlap() {
        let now = NOW.as_micros();
        let warned = (NOW + Policy::default().warning_window).as_micros();
        assert_eq!(bounds(&[Status::Expired], None), [(StandingName::Live, 1, now)]);
        assert_eq!(bounds(&[Status::Expiring], None), [(StandingName::Live, now + 1, warned)]);
        assert_eq!(
            bounds(&[Status::Active], None),
            [(StandingName::Live, 0, 0), (StandingName::Live, warned + 1, i64::MAX)]
        );
        assert_eq!(bounds(&[Status::Expiring, Status::Expired], None), [(StandingName::Live, 1, warned)]);
    }

    #[test]
    fn within_a_time_leaves_out_unknown_and_never() {
        let day = Duration::from_secs(86_400);
        let end = (NOW + day).as_micros();
        assert_eq!(bounds(&[], Some(day)), [(StandingName::Live, 1, end), (StandingName::Invalid, 1, end)]);
        assert_eq!(bounds(&[Status::Active], Some(day)), []);
    }
}
