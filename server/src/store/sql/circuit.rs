//! The circuit before the database, one for all callers: while the database is away, nobody waits for it.

use tokio::sync::watch;

use super::StoreError;

/// Opens when a poll finds that the database does not reply. From then on, whoever waits for a connection or a reply is
/// refused, and so is everybody who comes, until a poll succeeds.
#[derive(Clone)]
pub(in crate::store) struct Circuit(watch::Receiver<bool>);

impl Circuit {
    /// Open while `reachable` is false.
    pub(in crate::store) fn new(reachable: watch::Receiver<bool>) -> Self {
        Self(reachable)
    }

    pub(in crate::store) fn is_open(&self) -> bool {
        !*self.0.borrow()
    }

    pub(in crate::store) fn check(&self) -> Result<(), StoreError> {
        if self.is_open() { Err(Self::refusal()) } else { Ok(()) }
    }

    /// Does `work`, unless the circuit opens first.
    pub(in crate::store) async fn guard<T, E: Into<StoreError>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, StoreError> {
        tokio::select! {
            biased;
            outcome = work => outcome.map_err(Into::into),
            () = self.opened() => Err(Self::refusal()),
        }
    }

    async fn opened(&self) {
        if self.0.clone().wait_for(|reachable| !reachable).await.is_err() {
            // The polls have ended because the store closes; its last write must not.
            std::future::pending().await
        }
    }

    fn refusal() -> StoreError {
        StoreError::Unavailable("it has not replied lately; nobody waits until it does".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_open_circuit_refuses_those_who_wait_and_those_who_come() {
        let (reachable, follow) = watch::channel(true);
        let circuit = Circuit::new(follow);
        assert!(circuit.guard(async { Ok::<_, StoreError>(1) }).await.is_ok());
        let never = circuit.guard(std::future::pending::<Result<(), StoreError>>());
        let ((), waited) =
            tokio::join!(async { reachable.send_modify(|reachable| *reachable = false) }, never);
        assert!(matches!(waited, Err(StoreError::Unavailable(_))));
        assert!(circuit.check().is_err());
        reachable.send_replace(true);
        assert!(circuit.check().is_ok());
    }
}
