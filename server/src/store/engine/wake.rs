//! LISTEN and NOTIFY between replicas on PostgreSQL. They only shorten delays: polling alone keeps every bound.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio_util::sync::CancellationToken;

use super::live_feed::Feed;
use crate::store::sql::{Driver, Pool, StoreError};

const CHANNEL: &str = "token_vault_feed";
/// Shortest time between two NOTIFYs.
const PACE: Duration = Duration::from_millis(20);
/// How long the check at the start waits for its own NOTIFY.
const ECHO: Duration = Duration::from_secs(3);

/// Checks that LISTEN works over this URL: behind a pooler in transaction mode it does not, and neither do the session
/// settings that we rely on.
pub(in crate::store) async fn check(pool: &Pool) -> Result<(), StoreError> {
    let Driver::Postgres(pool) = &pool.driver else { return Ok(()) };
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(CHANNEL).await?;
    notify(pool).await?;
    match tokio::time::timeout(ECHO, listener.recv()).await {
        Ok(heard) => Ok(heard.map(|_| ())?),
        Err(_) => Err(StoreError::Config(
            "storage.url: PostgreSQL does not echo a NOTIFY; the URL must lead to the server itself or to a pooler in \
             session mode, not in transaction mode"
                .into(),
        )),
    }
}

async fn notify(pool: &PgPool) -> Result<(), StoreError> {
    sqlx::query("NOTIFY token_vault_feed").execute(pool).await?;
    Ok(())
}

/// Notifies the other replicas of commits, and listens for theirs, until stopped.
pub(in crate::store) async fn run(pool: Pool, feed: Arc<Feed>, stop: CancellationToken) {
    let Driver::Postgres(pool) = pool.driver else { return };
    while !stop.is_cancelled() {
        if let Err(error) = relay(&pool, &feed, &stop).await {
            tracing::debug!(%error, "no wake-ups between replicas for now; polling goes on");
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
        }
    }
    pool.close().await;
}

async fn relay(pool: &PgPool, feed: &Feed, stop: &CancellationToken) -> Result<(), StoreError> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(CHANNEL).await?;
    let mut commits = feed.commits();
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            heard = listener.recv() => {
                heard?;
                feed.look();
            }
            changed = commits.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                notify(pool).await?;
                tokio::time::sleep(PACE).await;
            }
        }
    }
}
