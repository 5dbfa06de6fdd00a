//! How much room the disk below SQLite's file has.

use std::path::{Path, PathBuf};

use super::{Address, StoreError};

/// Fewer free bytes count as a full disk. A transaction of many callers needs about as much.
const ROOM: u64 = 1024 * 1024;
/// Fewer free bytes are too few to begin with: SQLite needs some even to read, and the start writes a little.
const LEAST: u64 = 256 * 1024;

/// What can't be found out counts as room: the next write shows whether there is some.
pub(in crate::store) fn has_room(folder: &Path) -> bool {
    has(folder, ROOM)
}

fn has(folder: &Path, bytes: u64) -> bool {
    rustix::fs::statvfs(folder).map_or(true, |disk| disk.f_bavail.saturating_mul(disk.f_frsize) >= bytes)
}

/// The folder of SQLite's file if its disk is too full to open the database. `waited`: somebody waits for room, and
/// goes on only when there is enough for good.
pub fn full_disk(url: &str, waited: bool) -> Result<Option<PathBuf>, StoreError> {
    let folder = Address::parse(url)?.folder();
    Ok(folder.filter(|folder| !has(folder, if waited { ROOM } else { LEAST })))
}
