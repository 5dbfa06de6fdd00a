//! Whether the disk below SQLite's file has room. On a full disk small changes may still fit into the log, as the beats
//! do, and larger ones fail: the vault must not call itself ready because of the small ones.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::store::sql::has_room;

const EVERY: Duration = Duration::from_secs(1);

/// Tells `room` whether the disk of `folder` has room, until `stop`.
pub(in crate::store) async fn watch_room(
    folder: PathBuf,
    room: watch::Sender<bool>,
    stop: CancellationToken,
) {
    loop {
        let looked_at = folder.clone();
        let found = tokio::task::spawn_blocking(move || has_room(&looked_at)).await.unwrap_or(true);
        if room.send_replace(found) != found {
            let folder = folder.display();
            if found {
                tracing::info!(%folder, "the disk of the database has room again");
            } else {
                tracing::error!(%folder, "the disk of the database is full: changes fail until it has more than 1 MiB free");
            }
        }
        tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(EVERY) => {} }
    }
}
