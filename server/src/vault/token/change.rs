//! The only code that changes a connection's row. It writes the facts, announces the events that follow from them, and
//! schedules the next deadline, in one transaction: no change without its event, no event without its change.

use std::time::Duration;

use crate::model::{
    AccountChange, Announced, Cause, ConnectLinkId, Connection, EventKind, Policy, Standing, Timestamp,
};
use crate::store::{Abort, Numbered, Scope, StoreError, Tx};
use crate::vault::error::VaultError;

/// The least time between two validations of one connection that another one's losses caused.
const REST: Duration = Duration::from_secs(30);

/// Inserts a new connection, which a person brought, perhaps with a connect link.
pub(in crate::vault) async fn connect(
    tx: &mut Tx,
    connection: &mut Connection,
    link: Option<&ConnectLinkId>,
    now: Timestamp,
    policy: &Policy,
) -> Result<(), Abort<VaultError>> {
    let mut announced = Announced::new(Vec::new(), tx.events_so_far());
    announced.born(connection, link, now, policy);
    schedule(None, connection, now, policy);
    let events = tx.announce(vec![(Scope::Connection(connection.id), announced.into_drafts())]).await?;
    connection.last_event = events.last;
    make_siblings_due(tx, connection, now).await?;
    tx.insert_connection(connection).await?;
    tx.audit_connection(connection, now);
    Ok(())
}

/// Replaces `before`, which the transaction has locked, by `after`. `accounts` are the ad accounts added and removed.
pub(in crate::vault) async fn apply(
    tx: &mut Tx,
    before: &Connection,
    after: &mut Connection,
    cause: Cause<'_>,
    accounts: AccountChange,
    now: Timestamp,
    policy: &Policy,
) -> Result<(), Abort<VaultError>> {
    let scope = Scope::Connection(before.id);
    let mut announced = tx.announced(&scope).await?;
    announced.changed(before, after, cause, now, policy);
    let unreachable = !accounts.removed.is_empty();
    announced.ad_accounts_changed(after, accounts, now, policy);
    // Before the row itself is written, so that it is not due again for its own news.
    if unreachable {
        make_siblings_due(tx, after, after_a_rest(before, now)).await?;
    }
    write(tx, scope, announced, before, after, now, policy).await
}

/// [`apply`], with events that were announced before.
pub(in crate::vault) async fn write(
    tx: &mut Tx,
    scope: Scope,
    announced: Announced,
    before: &Connection,
    after: &mut Connection,
    now: Timestamp,
    policy: &Policy,
) -> Result<(), Abort<VaultError>> {
    // What was refused with another secret says nothing about this one.
    if before.secret_id != after.secret_id {
        after.seen.data_refusal = None;
    }
    schedule(Some(before), after, now, policy);
    if !announced.open().any(|incident| incident.key.kind == EventKind::Overdue) {
        after.schedule.overdue_since = None;
    }
    after.revision = before.revision + 1;
    after.updated_at = now;
    let events = tx.announce(vec![(scope, announced.into_drafts())]).await?;
    if events.count > 0 {
        after.last_event = events.last;
    }
    let died = before.standing == Standing::Live && matches!(after.standing, Standing::Invalid { .. });
    if before.version != after.version || died {
        make_siblings_due(tx, after, now).await?;
    } else if has_lost_scopes(before, after) {
        make_siblings_due(tx, after, after_a_rest(before, now)).await?;
    }
    if !tx.update_connection(after).await? {
        return Err(Abort::Work(VaultError::ConcurrentChange(before.id)));
    }
    // An observation by the vault itself rarely changes anything worth a record.
    if !tx.is_system() || events.count > 0 || is_notable(before, after) {
        tx.audit_connection(after, now);
    }
    // Page tokens are read with their parent's token: read them again when it has a new version, or has ended.
    let ended = before.standing == Standing::Live && after.standing != Standing::Live;
    if before.version != after.version || ended {
        tx.wake_children(after.id, now).await?;
    }
    Ok(())
}

/// When siblings of a connection that lost something are due. A provider whose replies change all the time must not keep
/// the vault asking about one after the other without a rest.
fn after_a_rest(before: &Connection, now: Timestamp) -> Timestamp {
    let lately = before.seen.last_validated_at.is_some_and(|at| now.since(at) < REST);
    if lately { now + REST } else { now }
}

/// The provider grants access once for each person and app: what happened to one token may have happened to all of them.
async fn make_siblings_due(tx: &mut Tx, connection: &Connection, now: Timestamp) -> Result<(), StoreError> {
    let (provider, subject) = (&connection.provider, &connection.subject.id);
    tx.make_subject_due(provider, &connection.app_id, subject, now).await.map(drop)
}

fn has_lost_scopes(before: &Connection, after: &Connection) -> bool {
    before.facts.scopes.iter().any(|scope| !after.facts.scopes.contains(scope))
}

/// Whether the change is worth an audit record.
fn is_notable(before: &Connection, after: &Connection) -> bool {
    before.version != after.version
        || before.secret_id != after.secret_id
        || before.standing != after.standing
        || before.facts.expiry != after.facts.expiry
        || before.subject != after.subject
}

/// Schedules the next deadline. A new token or a new expiry restarts the renewal.
fn schedule(before: Option<&Connection>, after: &mut Connection, now: Timestamp, policy: &Policy) {
    after.schedule.next_deadline_at = after.next_deadline(now, policy);
    let same = before.is_some_and(|before| {
        before.version == after.version
            && !after.facts.expiry.differs(before.facts.expiry)
            && before.standing == after.standing
    });
    if !same {
        after.schedule.attempts = 0;
        after.schedule.renewal_failure = None;
        after.schedule.next_renewal_at = after.first_renewal(policy);
    }
    if matches!(after.standing, Standing::Revoked { .. }) {
        after.schedule.next_validation_at = None;
    }
    // A dead token is not renewed. A page token may come back with its person's token.
    if after.standing != Standing::Live && after.parent.is_none() {
        after.schedule.next_renewal_at = None;
    }
}

/// The connection after the commit, which numbered its events.
pub(in crate::vault) fn numbered(mut connection: Connection, numbers: Numbered) -> Connection {
    connection.last_event = numbers.resolve(connection.last_event);
    connection
}
