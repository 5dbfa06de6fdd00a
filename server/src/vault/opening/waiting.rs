//! What a start waits for while it is away, so that a restart meanwhile is no outage.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::store::full_disk;
use crate::vault::error::OpenError;

/// How often a start looks again, and how many looks share one line in the log.
const EVERY: Duration = Duration::from_secs(1);
const LOOKS_PER_LINE: u32 = 30;

/// What a start may have to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// The key service that holds the master key.
    KeyService,
    /// Room on the disk of SQLite's file.
    Room,
}

/// What a start does while something that it needs is missing.
#[derive(Debug)]
pub enum StartWait {
    /// It waits until that is back.
    UntilItIsBack {
        /// Learns what it waits for.
        tell: watch::Sender<Option<Missing>>,
        /// Ends the waiting, and with it the start.
        give_up: CancellationToken,
    },
    /// It gives up soon, as a command should.
    Briefly,
}

impl StartWait {
    pub(super) fn tell(&self, missing: Missing) {
        if let Self::UntilItIsBack { tell, .. } = self {
            tell.send_replace(Some(missing));
        }
    }

    /// Does `work`, unless the start is to end first.
    pub(super) async fn unless_given_up<T>(
        &self,
        work: impl Future<Output = Result<T, OpenError>>,
    ) -> Result<T, OpenError> {
        match self {
            Self::Briefly => work.await,
            Self::UntilItIsBack { give_up, .. } => {
                let stopped = || OpenError("stopped while waiting".into());
                give_up.run_until_cancelled(work).await.ok_or_else(stopped)?
            }
        }
    }

    /// Waits until SQLite's file has a disk with room. On a full disk SQLite can't even read.
    pub(super) async fn for_room(&self, url: &str) -> Result<(), OpenError> {
        if matches!(self, Self::Briefly) {
            return Ok(());
        }
        let room = async {
            for look in 0_u32.. {
                let Some(folder) = full_disk(url, look > 0)? else { break };
                if look.is_multiple_of(LOOKS_PER_LINE) {
                    let folder = folder.display();
                    tracing::error!(%folder, "the disk of the database is full: the vault opens once it has more than 1 MiB free");
                }
                self.tell(Missing::Room);
                tokio::time::sleep(EVERY).await;
            }
            Ok(())
        };
        self.unless_given_up(room).await
    }
}
