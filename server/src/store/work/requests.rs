//! Table `requests`: idempotency keys. Each row is a claim first, and holds the outcome later.

use sqlx::types::Json;
use uuid::Uuid;

use crate::model::{Incarnation, RequestId, Timestamp};
use crate::store::sql::{Session, StoreError, Tx};

/// The stored outcome that answers a repeated request, in the verb's own form. Never holds a secret.
pub type RequestOutcome = serde_json::Value;

/// One caller's request to do a thing once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The caller's name.
    pub principal: String,
    pub rpc: &'static str,
    pub request_id: RequestId,
    /// Keyed hash of the whole request, its secrets included.
    pub hash: Vec<u8>,
    /// The claiming process.
    pub incarnation: Incarnation,
    /// Counts how often it was taken over.
    pub generation: i64,
}

/// The result of claiming a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// This process carries the request out.
    Ours {
        generation: i64,
    },
    Done(RequestOutcome),
    /// The key was used for another request.
    OtherRequest,
    /// Another process, or another task of this one, is doing it.
    HeldBy(Incarnation, i64),
}

#[derive(sqlx::FromRow)]
struct Row {
    hash: Vec<u8>,
    incarnation: Uuid,
    generation: i64,
    outcome: Option<Json<RequestOutcome>>,
    created_at: i64,
}

const KEPT: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);

impl Session {
    async fn request(&mut self, claim: &Claim) -> Result<Option<Row>, StoreError> {
        self.query(
            "SELECT hash, incarnation, generation, outcome, created_at FROM requests
              WHERE principal = $1 AND rpc = $2 AND request_id = $3",
        )
        .bind(claim.principal.clone())
        .bind(claim.rpc)
        .bind(claim.request_id.as_str().to_owned())
        .fetch_optional()
        .await
    }
}

impl Tx {
    /// Claims a request, or says what became of it.
    pub async fn claim_request(&mut self, claim: &Claim, now: Timestamp) -> Result<Claimed, StoreError> {
        let added = self
            .query(
                "INSERT INTO requests (principal, rpc, request_id, hash, incarnation, generation, created_at)
                 VALUES ($1, $2, $3, $4, $5, 1, $6) ON CONFLICT (principal, rpc, request_id) DO NOTHING",
            )
            .bind(claim.principal.clone())
            .bind(claim.rpc)
            .bind(claim.request_id.as_str().to_owned())
            .bind(claim.hash.clone())
            .bind(claim.incarnation.as_uuid())
            .bind(now.as_micros())
            .execute()
            .await?;
        if added == 1 {
            return Ok(Claimed::Ours { generation: 1 });
        }
        let Some(row) = self.request(claim).await? else {
            return Err(StoreError::Race("the request's row went away".into()));
        };
        if now.since(Timestamp::from_micros(row.created_at)) > KEPT {
            if self.renew_request(claim, row.generation, now).await? {
                return Ok(Claimed::Ours { generation: row.generation + 1 });
            }
            return Err(StoreError::Race("another process renewed the request".into()));
        }
        if row.hash != claim.hash {
            return Ok(Claimed::OtherRequest);
        }
        Ok(match row.outcome {
            Some(Json(outcome)) => Claimed::Done(outcome),
            None => Claimed::HeldBy(Incarnation::from_uuid(row.incarnation), row.generation),
        })
    }

    /// Takes over a claim whose owner has ended. `false`: another process did.
    pub async fn take_over_request(&mut self, claim: &Claim, generation: i64) -> Result<bool, StoreError> {
        let taken = self
            .query(
                "UPDATE requests SET incarnation = $4, generation = generation + 1
                  WHERE principal = $1 AND rpc = $2 AND request_id = $3 AND generation = $5 AND outcome IS NULL",
            )
            .bind(claim.principal.clone())
            .bind(claim.rpc)
            .bind(claim.request_id.as_str().to_owned())
            .bind(claim.incarnation.as_uuid())
            .bind(generation)
            .execute()
            .await?;
        Ok(taken == 1)
    }

    /// Writes the outcome, in the transaction that does the work. `false`: the claim was taken over meanwhile, and the
    /// work must not be done twice.
    pub async fn finish_request(
        &mut self,
        claim: &Claim,
        outcome: &RequestOutcome,
    ) -> Result<bool, StoreError> {
        let finished = self
            .query(
                "UPDATE requests SET outcome = $6
                  WHERE principal = $1 AND rpc = $2 AND request_id = $3 AND incarnation = $4 AND generation = $5",
            )
            .bind(claim.principal.clone())
            .bind(claim.rpc)
            .bind(claim.request_id.as_str().to_owned())
            .bind(claim.incarnation.as_uuid())
            .bind(claim.generation)
            .bind(Json(outcome.clone()))
            .execute()
            .await?;
        Ok(finished == 1)
    }

    /// Gives up a claim whose request failed, so that it can be tried again. One with an outcome stays.
    pub async fn drop_unfinished_request(&mut self, claim: &Claim) -> Result<(), StoreError> {
        self.query(
            "DELETE FROM requests
              WHERE principal = $1 AND rpc = $2 AND request_id = $3 AND incarnation = $4 AND generation = $5
                AND outcome IS NULL",
        )
        .bind(claim.principal.clone())
        .bind(claim.rpc)
        .bind(claim.request_id.as_str().to_owned())
        .bind(claim.incarnation.as_uuid())
        .bind(claim.generation)
        .execute()
        .await?;
        Ok(())
    }

    /// Replaces an outcome that is no longer kept by the new request. `false`: another process was first.
    async fn renew_request(
        &mut self,
        claim: &Claim,
        generation: i64,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let renewed = self
            .query(
                "UPDATE requests SET hash = $4, incarnation = $5, generation = generation + 1, outcome = NULL, created_at = $6
                  WHERE principal = $1 AND rpc = $2 AND request_id = $3 AND generation = $7",
            )
            .bind(claim.principal.clone())
            .bind(claim.rpc)
            .bind(claim.request_id.as_str().to_owned())
            .bind(claim.hash.clone())
            .bind(claim.incarnation.as_uuid())
            .bind(now.as_micros())
            .bind(generation)
            .execute()
            .await?;
        Ok(renewed == 1)
    }

    /// Deletes requests older than a day.
    pub async fn forget_requests(&mut self, now: Timestamp) -> Result<u64, StoreError> {
        self.query("DELETE FROM requests WHERE created_at < $1")
            .bind((now - KEPT).as_micros())
            .execute()
            .await
    }
}
