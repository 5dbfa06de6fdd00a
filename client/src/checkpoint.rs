//! Where a watch keeps its position while its process does not run.

use std::error::Error as StdError;
use std::fs::{self, File, OpenOptions};
use std::future::Future;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::error::Error;
use crate::v1::AcknowledgeEventsRequest;
use crate::vault::Vault;

/// A position has at most 256 characters; a larger file holds something else.
const LARGEST_FILE: u64 = 4096;

/// Why a position could not be loaded or stored.
pub type CheckpointError = Box<dyn StdError + Send + Sync>;

/// Keeps a watch's position. A watch stores at most once a second, one position at a time, and never one that is ahead
/// of what was acknowledged.
///
/// For effects that happen exactly once, store the event's `cursor` in the transaction of its effects, start the next
/// watch with [`Start::Cursor`](crate::Start::Cursor), and use [`NoCheckpoint`].
pub trait Checkpoint: Send + Sync + 'static {
    /// Returns the position that was stored last. The watch calls this once, when it begins. `None`: nothing is stored
    /// yet.
    fn load(&self) -> impl Future<Output = Result<Option<String>, CheckpointError>> + Send;

    /// Stores the position in place of the previous one. A failure reaches the watcher as an item and is tried again;
    /// an [`Error`] of kind `Access`, `YourBug` or `Pause` ends the watch.
    fn store(&self, cursor: &str) -> impl Future<Output = Result<(), CheckpointError>> + Send;

    /// The name of the subscription, if the vault itself keeps the position.
    fn subscription(&self) -> Option<&str> {
        None
    }
}

/// Keeps nothing: each process begins at the watch's start.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoCheckpoint;

impl Checkpoint for NoCheckpoint {
    async fn load(&self) -> Result<Option<String>, CheckpointError> {
        Ok(None)
    }

    async fn store(&self, _: &str) -> Result<(), CheckpointError> {
        Ok(())
    }
}

/// Keeps the position in its own file, which is replaced atomically: a crash leaves the old position or the new one.
/// Only the file's owner may read it. Use one file per watch.
#[derive(Debug, Clone)]
pub struct FileCheckpoint {
    path: PathBuf,
}

impl FileCheckpoint {
    /// Uses this file; its folder must exist. While a position is stored, a file with `.tmp` behind the name exists
    /// too.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    fn temporary(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".tmp");
        name.into()
    }

    fn read(&self) -> io::Result<Option<String>> {
        let mut text = String::new();
        match File::open(&self.path) {
            Ok(file) => file.take(LARGEST_FILE).read_to_string(&mut text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let cursor = text.trim();
        // Starting over as if there had been no position would lose events silently.
        if cursor.is_empty() || cursor.contains(|c: char| !c.is_ascii_graphic()) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it does not hold a position"));
        }
        Ok(Some(cursor.to_owned()))
    }

    fn write(&self, cursor: &str) -> io::Result<()> {
        self.prepare(cursor)?;
        self.publish()
    }

    /// Writes the new position next to the old one, durably.
    fn prepare(&self, cursor: &str) -> io::Result<()> {
        let temporary = self.temporary();
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&temporary)?;
        writeln!(file, "{cursor}")?;
        file.sync_all()
    }

    /// Puts the new position in the old one's place, durably.
    fn publish(&self) -> io::Result<()> {
        fs::rename(self.temporary(), &self.path)?;
        // Until the folder is synced, a power loss may bring the old name back. Only Unix can open a folder.
        #[cfg(unix)]
        {
            let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        }
        Ok(())
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> Result<T, CheckpointError> {
        let this = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            work(&this).map_err(|error| format!("{}: {error}", this.path.display()))
        });
        Ok(done.await??)
    }
}

impl Checkpoint for FileCheckpoint {
    async fn load(&self) -> Result<Option<String>, CheckpointError> {
        self.blocking(Self::read).await
    }

    async fn store(&self, cursor: &str) -> Result<(), CheckpointError> {
        let cursor = cursor.to_owned();
        self.blocking(move |this| this.write(&cursor)).await
    }
}

/// Lets the vault keep the position, as a subscription of the caller's principal. Nothing is kept on this side, and the
/// vault's operator sees how far behind the service is. Needs a role that may acknowledge: ingestion, alerting or
/// admin.
#[derive(Debug, Clone)]
pub struct SubscriptionCheckpoint {
    vault: Vault,
    name: String,
}

impl SubscriptionCheckpoint {
    /// Uses the subscription of this name: 1 to 128 of `[A-Za-z0-9._:-]`, unique per principal. The first position
    /// creates it.
    pub fn new(vault: &Vault, name: impl Into<String>) -> Self {
        Self { vault: vault.clone(), name: name.into() }
    }
}

impl Checkpoint for SubscriptionCheckpoint {
    /// Returns nothing, because the vault starts the watch at the subscription's position.
    async fn load(&self) -> Result<Option<String>, CheckpointError> {
        Ok(None)
    }

    async fn store(&self, cursor: &str) -> Result<(), CheckpointError> {
        let request = AcknowledgeEventsRequest {
            subscription: self.name.clone(),
            cursor: cursor.to_owned(),
            allow_rewind: false,
        };
        self.vault.acknowledge_events(request).await?;
        Ok(())
    }

    fn subscription(&self) -> Option<&str> {
        Some(&self.name)
    }
}

/// An object-safe form of the trait: a trait with an `async fn` can't be made into an object.
pub(crate) trait AnyCheckpoint: Send + Sync {
    fn load(&self) -> BoxFuture<'_, Result<Option<String>, Error>>;
    fn store<'a>(&'a self, cursor: &'a str) -> BoxFuture<'a, Result<(), Error>>;
    fn subscription(&self) -> Option<&str>;
}

impl<C: Checkpoint> AnyCheckpoint for C {
    fn load(&self) -> BoxFuture<'_, Result<Option<String>, Error>> {
        Checkpoint::load(self).map(|done| done.map_err(|error| explained("load", error))).boxed()
    }

    fn store<'a>(&'a self, cursor: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        Checkpoint::store(self, cursor).map(|done| done.map_err(|error| explained("store", error))).boxed()
    }

    fn subscription(&self) -> Option<&str> {
        Checkpoint::subscription(self)
    }
}

fn explained(action: &str, error: CheckpointError) -> Error {
    match error.downcast::<Error>() {
        Ok(from_vault) => *from_vault,
        Err(other) => Error::unexpected(&format!("cannot {action} the feed position: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_folder() -> (tempfile::TempDir, FileCheckpoint) {
        let folder = tempfile::tempdir().unwrap();
        let file = FileCheckpoint::new(folder.path().join("position"));
        (folder, file)
    }

    #[tokio::test]
    async fn a_file_returns_what_was_stored_last() {
        let (_folder, file) = in_folder();
        assert_eq!(Checkpoint::load(&file).await.unwrap(), None);
        for cursor in ["v1:1", "v1:a-much-longer-position", "v1:2"] {
            Checkpoint::store(&file, cursor).await.unwrap();
            assert_eq!(Checkpoint::load(&file.clone()).await.unwrap().as_deref(), Some(cursor));
        }
    }

    #[tokio::test]
    async fn a_crash_before_the_rename_leaves_the_old_position() {
        let (_folder, file) = in_folder();
        Checkpoint::store(&file, "old").await.unwrap();
        // What a crash leaves in the middle of the write, and what a crash leaves just before the rename.
        for left in ["ne", "new\n"] {
            fs::write(file.temporary(), left).unwrap();
            assert_eq!(Checkpoint::load(&file).await.unwrap().as_deref(), Some("old"));
        }
        file.prepare("newer").unwrap();
        assert_eq!(Checkpoint::load(&file).await.unwrap().as_deref(), Some("old"));
        // The leftover file does no harm.
        Checkpoint::store(&file, "newest").await.unwrap();
        assert_eq!(Checkpoint::load(&file).await.unwrap().as_deref(), Some("newest"));
        assert!(!file.temporary().exists());
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn only_the_owner_may_read_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_folder, file) = in_folder();
        fs::write(file.temporary(), "left, for all to see").unwrap();
        fs::set_permissions(file.temporary(), fs::Permissions::from_mode(0o666)).unwrap();
        Checkpoint::store(&file, "v1:1").await.unwrap();
        assert_eq!(fs::metadata(&file.path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_damaged_position_is_an_error_and_not_a_fresh_start() {
        let (_folder, file) = in_folder();
        for damaged in [&b""[..], b"\n", b"two words", b"\xff\xfe", b"null\0byte"] {
            fs::write(&file.path, damaged).unwrap();
            let error = Checkpoint::load(&file).await.unwrap_err().to_string();
            assert!(error.contains("position"), "{error}");
        }
        let nowhere = FileCheckpoint::new(file.path.join("no-folder"));
        assert!(Checkpoint::store(&nowhere, "v1:1").await.is_err());
    }
}
