//! Table `token_reports`: what callers lately reported about a secret that the vault found nothing wrong with.

use sqlx::types::Json;
use uuid::Uuid;

use crate::model::{Connection, Reports, Timestamp};
use crate::store::sql::{StoreError, Tx};

#[derive(sqlx::FromRow)]
struct Row {
    secret_id: Uuid,
    transient_at: Json<Vec<i64>>,
    looks: i64,
    looked_at: Option<i64>,
}

impl Tx {
    /// The reports about a connection's secret, locked until the transaction ends. Those about an earlier secret are
    /// forgotten.
    pub async fn lock_reports(&mut self, connection: &Connection) -> Result<Reports, StoreError> {
        self.query(
            "INSERT INTO token_reports (connection_id, secret_id, transient_at, looks) VALUES ($1, $2, $3, 0)
             ON CONFLICT (connection_id) DO NOTHING",
        )
        .bind(connection.id.as_uuid())
        .bind(connection.secret_id.as_uuid())
        .bind(Json(Vec::<i64>::new()))
        .execute()
        .await?;
        let row: Row = self
            .query_for(
                "SELECT secret_id, transient_at, looks, looked_at FROM token_reports WHERE connection_id = $1",
                "SELECT secret_id, transient_at, looks, looked_at FROM token_reports WHERE connection_id = $1
                    FOR UPDATE",
            )
            .bind(connection.id.as_uuid())
            .fetch_one()
            .await?;
        if row.secret_id != connection.secret_id.as_uuid() {
            return Ok(Reports::default());
        }
        Ok(Reports {
            transient: row.transient_at.0.into_iter().map(Timestamp::from_micros).collect(),
            looks: u32::try_from(row.looks).unwrap_or(0),
            looked_at: row.looked_at.map(Timestamp::from_micros),
        })
    }

    pub async fn put_reports(
        &mut self,
        connection: &Connection,
        reports: &Reports,
    ) -> Result<(), StoreError> {
        self.query(
            "UPDATE token_reports SET secret_id = $2, transient_at = $3, looks = $4, looked_at = $5
              WHERE connection_id = $1",
        )
        .bind(connection.id.as_uuid())
        .bind(connection.secret_id.as_uuid())
        .bind(Json(reports.transient.iter().map(|at| at.as_micros()).collect::<Vec<i64>>()))
        .bind(i64::from(reports.looks))
        .bind(reports.looked_at.map(Timestamp::as_micros))
        .execute()
        .await?;
        Ok(())
    }
}
