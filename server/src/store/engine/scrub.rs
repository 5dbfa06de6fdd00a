//! Removes what was deleted from SQLite's write-ahead log. In the database's own file SQLite overwrites deleted rows
//! with zeros; the log still holds them until it is written back and truncated. PostgreSQL cleans up by itself.

use std::sync::Arc;
use std::time::Duration;

use backon::{ConstantBuilder, Retryable};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::writer::Writer;
use crate::store::sql::StoreError;

/// The pause before the log is truncated again, if it was busy.
const PAUSE: Duration = Duration::from_millis(100);
const MORE_TRIES: usize = 20;
/// The shortest time between two truncations in the background: each one flushes the database's file.
const PACE: Duration = Duration::from_secs(1);

/// Writes the log back and truncates it. It waits for those who read just now.
pub(in crate::store) async fn scrub(writer: &Writer) -> Result<(), StoreError> {
    let truncate = || async {
        if writer.truncate_log().await? {
            return Ok(());
        }
        Err(StoreError::Race("another process, or a long read, uses it".into()))
    };
    let truncated = truncate
        .retry(ConstantBuilder::default().with_delay(PAUSE).with_max_times(MORE_TRIES))
        .when(|error| matches!(error, StoreError::Race(_)))
        .await;
    truncated.map_err(|error| match error {
        StoreError::Race(why) => {
            StoreError::Unavailable(format!("the write-ahead log could not be truncated: {why}"))
        }
        other => other,
    })
}

/// Truncates the log whenever something secret was destroyed, until stopped.
pub(in crate::store) async fn scrub_after(destroyed: Arc<Notify>, writer: Writer, stop: CancellationToken) {
    loop {
        tokio::select! { () = stop.cancelled() => return, () = destroyed.notified() => {} }
        let scrubbed = tokio::select! {
            // The store truncates the log once more when it closes.
            () = stop.cancelled() => return,
            scrubbed = scrub(&writer) => scrubbed,
        };
        if let Err(error) = scrubbed {
            tracing::warn!(%error, "the database's log still holds what was deleted; it is truncated again later");
            destroyed.notify_one();
        }
        tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(PACE) => {} }
    }
}
