//! A hundred thousand connections. The number of a connection determines everything about it.

use token_vault_proto::v1::token::Status;
use token_vault_tests::Database;
use token_vault_tests::prelude::*;

/// The number of connections.
pub(super) const COUNT: i64 = 100_000;
pub(super) const DAY: i64 = 86_400;
/// How many connections reach the ad account.
pub(super) const OF_ACCOUNT: i64 = 100;
pub(super) const ACCOUNT: &str = "act_4711000815";

/// The planted connection number `n`. `SQL` describes the same connections to the database.
pub(super) struct Planted(pub(super) i64);

impl Planted {
    pub(super) fn workspace(&self) -> String {
        format!("ws-{}", self.0 / 10 % 20)
    }

    pub(super) fn subject(&self) -> String {
        (self.0 % 49_999).to_string()
    }

    /// Seconds from now to the end. `None`: there is no end, or it is not known.
    pub(super) fn life_left(&self) -> Option<i64> {
        let spread = self.0 * 7_919 % 100_003;
        match self.0 % 7 {
            0 | 1 => None,
            2 => Some(-DAY - spread),
            3 => Some(DAY + self.0 % 2 * 3 * DAY + spread),
            _ => Some(30 * DAY + spread),
        }
    }

    pub(super) fn status(&self) -> Status {
        match (self.0 % 10, self.life_left()) {
            (0, _) => Status::Invalid,
            (1, _) => Status::Revoked,
            (_, Some(left)) if left <= 0 => Status::Expired,
            (_, Some(left)) if left <= 7 * DAY => Status::Expiring,
            _ => Status::Active,
        }
    }

    pub(super) fn reaches_account(&self) -> bool {
        self.0 % (COUNT / OF_ACCOUNT) == 5
    }

    pub(super) fn id(&self) -> String {
        format!("01900000-0000-7000-8000-{:012x}", self.0)
    }

    pub(super) fn of(id: &str) -> i64 {
        i64::from_str_radix(&id[24..], 16).expect("a planted id")
    }
}

/// Inserts all connections straight into the tables.
pub(super) async fn plant(database: &Database, now: i64) {
    let (series, id, analyze) = match database.backend() {
        Backend::Sqlite => (
            "WITH RECURSIVE s(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s WHERE n < 99999)",
            "unhex('01900000000070008000' || printf('%012x', n))",
            "",
        ),
        Backend::Postgres => (
            "WITH s AS (SELECT n::bigint FROM generate_series(0, 99999) n)",
            "('01900000000070008000' || lpad(to_hex(n), 12, '0'))::uuid",
            "ANALYZE",
        ),
    };
    let sql = format!(
        "INSERT INTO workspaces (workspace_id, created_at)
         {series} SELECT 'ws-' || n, 0 FROM s WHERE n < 20;
         INSERT INTO ad_platform_connections (connection_id, workspace_id, provider, app_id, subject_key, subject_id,
             subject_name, subject_kind, token_version, secret_id, revision, kind, expires_at, expiry_source,
             expires_sort, scopes, granular_scopes, standing, standing_since, standing_reason, created_at, updated_at)
         {series}, e AS (
             SELECT n, {now} + CASE n % 7 WHEN 2 THEN -{DAY} - n * 7919 % 100003
                                          WHEN 3 THEN {DAY} + n % 2 * 3 * {DAY} + n * 7919 % 100003
                                          ELSE 30 * {DAY} + n * 7919 % 100003 END AS ends FROM s)
         SELECT {id}, 'ws-' || (n / 10 % 20), 'meta', '1', n, n % 49999, 'Person ' || n, 'USER', 1, {id}, 1,
                'LONG_LIVED_USER', CASE WHEN n % 7 > 1 THEN ends * 1000000 END,
                CASE n % 7 WHEN 0 THEN 'NEVER' WHEN 1 THEN 'UNKNOWN' ELSE 'PROVIDER' END,
                CASE n % 7 WHEN 0 THEN 9223372036854775807 WHEN 1 THEN 0 ELSE ends * 1000000 END, '[]', '[]',
                CASE n % 10 WHEN 0 THEN 'INVALID' WHEN 1 THEN 'REVOKED' ELSE 'LIVE' END,
                CASE WHEN n % 10 < 2 THEN {now}000000 END, CASE n % 10 WHEN 0 THEN 'EXPIRED' ELSE '' END, 0, 0
           FROM e;
         INSERT INTO connection_ad_accounts (connection_id, ad_account_id, name, currency, time_zone, state,
             provider_state, owner_id, owner_name, checked_at)
         {series} SELECT {id}, '{ACCOUNT}', '', 'EUR', 'UTC', 'ACTIVE', '1', '', '', 0 FROM s
           WHERE n % ({COUNT} / {OF_ACCOUNT}) = 5;
         {analyze}"
    );
    database.execute(sql).await;
    assert_eq!(database.count("SELECT count(*) FROM ad_platform_connections").await, COUNT.unsigned_abs());
}
