//! Equal requests of several callers at once: the work is done once, and each of them gets its answer.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use super::idempotency::RequestClaim;
use crate::vault::error::VaultError;
use crate::vault::state::Vault;
use crate::vault::state::work::{Line, Question};

impl Vault {
    /// What equal requests for an RPC share: a keyed hash. `parts` is the whole parsed request, including secrets.
    pub(in crate::vault) fn equal(&self, rpc: &'static str, parts: &[&[u8]]) -> Question {
        self.keys.index.mac("equal", &[&[rpc.as_bytes()], parts].concat())
    }

    /// Does work that several callers ask for at once. Each holds a claim of his own: the work finishes the claim of
    /// whoever came first, and the others' are finished with `outcome`.
    pub(in crate::vault) async fn together<A, W, O>(
        &self,
        request: Question,
        line: Option<Line>,
        claim: RequestClaim,
        work: impl FnOnce(RequestClaim) -> W,
        outcome: impl FnOnce(&A) -> Option<O>,
    ) -> Result<A, VaultError>
    where
        A: Clone + Send + Sync + 'static,
        W: Future<Output = Result<A, VaultError>> + Send + 'static,
        O: Serialize + Clone + Send + Sync + 'static,
    {
        let came_first = Arc::new(AtomicBool::new(false));
        let (begun, work) = (Arc::clone(&came_first), Box::pin(work(claim.clone())));
        let work = async move {
            begun.store(true, Ordering::Relaxed);
            work.await
        };
        let answer = self.work.answer(request, line, work).await?;
        if !came_first.load(Ordering::Relaxed)
            && let Some(outcome) = outcome(&answer)
        {
            self.finish_afterwards(claim, outcome).await;
        }
        Ok(answer)
    }
}
