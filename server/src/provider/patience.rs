use tokio_util::sync::CancellationToken;

/// How long a call to the provider may take: as long as somebody waits for what it finds out, and no longer than the
/// provider's own time limit.
#[derive(Debug, Clone, Default)]
pub struct Patience(Option<CancellationToken>);

impl Patience {
    /// For work of the vault's own.
    pub fn endless() -> Self {
        Self(None)
    }

    /// Ends when `nobody_waits` is cancelled.
    pub fn until(nobody_waits: CancellationToken) -> Self {
        Self(Some(nobody_waits))
    }

    pub fn has_ended(&self) -> bool {
        self.0.as_ref().is_some_and(CancellationToken::is_cancelled)
    }

    /// Waits until it ends.
    pub async fn ended(&self) {
        match &self.0 {
            Some(nobody_waits) => nobody_waits.cancelled().await,
            None => std::future::pending().await,
        }
    }
}
