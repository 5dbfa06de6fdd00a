//! ReportTokenError: a caller saw the provider refuse a token. The vault classifies the refusal, confirms it by an
//! inspection if it means a dead token, and applies it only to the secret that it is about.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    Connection, Misconfiguration, Principal, Refusal, RefusalKind, SecretId, Standing, Status, Timestamp,
    TokenVersion,
};
use crate::provider::ReportedRefusal;
use crate::store::HeldToken;
use crate::vault::error::VaultError;
use crate::vault::state::Vault;
use crate::vault::state::work::Turn;
use crate::vault::token::inspection::{Applied, Findings};
use crate::vault::token::target::Target;
use crate::vault::token::view::TokenView;

#[derive(Debug)]
pub struct ReportTokenError {
    pub target: Target,
    pub secret: ReportedSecret,
    pub refusal: ReportedRefusal,
    /// When the caller saw the refusal.
    pub observed_at: Option<Timestamp>,
    /// When the caller last saw it work.
    pub last_success_at: Option<Timestamp>,
}

/// Which secret a report is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportedSecret {
    Id(SecretId),
    Version(TokenVersion),
}

/// What a report led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The token is dead, and the vault did not know it.
    Invalidated,
    /// The vault knew already that the token is dead.
    AlreadyDead,
    /// The report is about an older secret.
    StaleReport,
    /// The provider says that the token is valid.
    StillValid,
    /// The provider has a temporary problem.
    Transient,
    /// The provider limits calls.
    Throttled,
    /// The token lacks the permission.
    Permission,
    /// Our configuration is wrong.
    OurMisconfiguration,
    /// The provider could not be asked to confirm.
    Unconfirmed,
}

/// What the caller should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Stop using this connection until an event.
    Pause,
    /// Try again after `retry_after`.
    RetryAfter,
    /// Fetch the token again; there is a newer one.
    FetchAgain,
    /// Skip this ad account.
    SkipAdAccount,
    /// Fix the request.
    FixRequest,
}

#[derive(Debug)]
pub struct ReportOutcome {
    pub verdict: Verdict,
    pub advice: Advice,
    /// How long to wait first.
    pub retry_after: Duration,
    /// The token as it is now.
    pub token: TokenView,
    /// Position in the feed.
    pub cursor: String,
}

/// The retry delay when the provider names none.
const WAIT: Duration = Duration::from_secs(30);
/// The retry delay while the operator fixes our configuration, or until a block is lifted.
const LONG_WAIT: Duration = Duration::from_secs(15 * 60);

impl Vault {
    /// Judges a refusal that a caller met.
    ///
    /// # Errors
    /// `ConnectionNotFound`. A refusal that can't be confirmed is no error: its verdict says so.
    pub async fn report_token_error(
        self: &Arc<Self>,
        caller: &Principal,
        report: ReportTokenError,
    ) -> Result<ReportOutcome, VaultError> {
        let held = self.held(caller, &report.target).await?;
        let (vault, caller) = (Arc::clone(self), caller.clone());
        // Reports of one token wait for the first one, and use what it found out.
        let line = self.work.line(Turn::Inspection, report.target.connection);
        match self.work.in_turn(line, async move { vault.judge(&caller, &report).await }).await {
            Err(VaultError::OutOfTime) => {
                let connection = held.connection.clone();
                self.outcome(connection, Verdict::Unconfirmed, Advice::RetryAfter, WAIT).await
            }
            outcome => outcome,
        }
    }

    async fn judge(
        self: &Arc<Self>,
        caller: &Principal,
        report: &ReportTokenError,
    ) -> Result<ReportOutcome, VaultError> {
        let held = self.held_now(caller, &report.target).await?;
        let connection = &held.connection;
        let is_current = match report.secret {
            ReportedSecret::Id(id) => id == connection.secret_id,
            ReportedSecret::Version(version) => version == connection.version,
        };
        if !is_current {
            return self
                .outcome(connection.clone(), Verdict::StaleReport, Advice::FetchAgain, Duration::ZERO)
                .await;
        }
        let dead = !matches!(connection.standing, Standing::Live)
            || connection.status(self.clock.now(), &self.policy()) == Status::Expired;
        if dead {
            return self
                .outcome(connection.clone(), Verdict::AlreadyDead, Advice::Pause, Duration::ZERO)
                .await;
        }
        let provider = self.provider_of(connection)?;
        // The reported headers may name a retry delay. They are not counted as usage, because a caller can invent them.
        let refusal = provider.classify(&report.refusal);
        let (verdict, advice, wait) = match &refusal.kind {
            RefusalKind::Transient { retry_after } => {
                (Verdict::Transient, Advice::RetryAfter, retry_after.unwrap_or(WAIT))
            }
            RefusalKind::Throttled { retry_after, .. } => {
                (Verdict::Throttled, Advice::RetryAfter, *retry_after)
            }
            RefusalKind::Permission { object_only } => {
                let one_account = *object_only || report.refusal.ad_account_id.is_some();
                let advice = if one_account { Advice::SkipAdAccount } else { Advice::Pause };
                (Verdict::Permission, advice, Duration::ZERO)
            }
            RefusalKind::Ours(Misconfiguration::Request) => {
                (Verdict::OurMisconfiguration, Advice::FixRequest, Duration::ZERO)
            }
            // No classification of a report says so.
            RefusalKind::OutOfTime => (Verdict::Transient, Advice::RetryAfter, WAIT),
            RefusalKind::Ours(problem) => {
                tracing::error!(connection = %connection.id, problem = problem.as_str(), detail = %refusal.detail, "a caller reported a refusal that our configuration causes");
                (Verdict::OurMisconfiguration, Advice::RetryAfter, LONG_WAIT)
            }
            RefusalKind::Dead { .. } | RefusalKind::OtherApp | RefusalKind::Blocked => {
                return self.confirm(&held, report, refusal).await;
            }
        };
        self.outcome(connection.clone(), verdict, advice, wait).await
    }

    /// A token is dead only if an inspection says so, because providers sometimes refuse tokens that work a moment
    /// later. A repeated report within the retry delay gets the same result again.
    async fn confirm(
        self: &Arc<Self>,
        held: &HeldToken,
        report: &ReportTokenError,
        reported: Refusal,
    ) -> Result<ReportOutcome, VaultError> {
        let connection = &held.connection;
        if let Some((still_valid, wait)) = self.inspections.recent(connection, self.clock.now()) {
            let verdict = if still_valid { Verdict::StillValid } else { Verdict::Unconfirmed };
            return self.outcome(connection.clone(), verdict, Advice::RetryAfter, wait).await;
        }
        let provider = self.provider_of(connection)?;
        let secret = self.open_secret(held).await?;
        let inspection = provider.inspect(&secret).await;
        let (verdict, advice, wait) = match &inspection {
            Ok(_) if matches!(reported.kind, RefusalKind::Blocked) => {
                (Verdict::StillValid, Advice::RetryAfter, LONG_WAIT)
            }
            Ok(_) => (Verdict::StillValid, Advice::RetryAfter, WAIT),
            Err(refusal) => match &refusal.kind {
                RefusalKind::Dead { .. } | RefusalKind::OtherApp => {
                    (Verdict::Invalidated, Advice::Pause, Duration::ZERO)
                }
                RefusalKind::Throttled { retry_after, .. } => {
                    (Verdict::Unconfirmed, Advice::RetryAfter, *retry_after)
                }
                RefusalKind::Transient { retry_after } => {
                    (Verdict::Unconfirmed, Advice::RetryAfter, retry_after.unwrap_or(WAIT))
                }
                RefusalKind::OutOfTime => (Verdict::Unconfirmed, Advice::RetryAfter, WAIT),
                _ => (Verdict::Unconfirmed, Advice::RetryAfter, LONG_WAIT),
            },
        };
        let out_of_time =
            inspection.as_ref().is_err_and(|refusal| matches!(refusal.kind, RefusalKind::OutOfTime));
        // The refusal that the caller met often names the cause better than the inspection does.
        let better_cause = match &inspection {
            Err(confirmed)
                if verdict == Verdict::Invalidated
                    && confirmed.subcode.is_none()
                    && matches!(reported.kind, RefusalKind::Dead { .. })
                    && reported.subcode.is_some() =>
            {
                Some(reported)
            }
            _ => None,
        };
        let findings = Findings { accounts: None, last_success_at: report.last_success_at, better_cause };
        let asked_at = self.clock.now();
        let connection = match self.apply_inspection(connection, inspection, findings).await? {
            Applied::Updated(connection) => *connection,
            Applied::Doubted => {
                let (verdict, advice) = (Verdict::Unconfirmed, Advice::RetryAfter);
                return self.outcome(connection.clone(), verdict, advice, LONG_WAIT).await;
            }
            Applied::Superseded => {
                // The connection changed meanwhile, so the report is about an old token.
                let current = self.store.read().await?.connection(held.connection.id).await?;
                let current = current.ok_or(VaultError::ConnectionNotFound(held.connection.id))?;
                return self.outcome(current, Verdict::StaleReport, Advice::FetchAgain, Duration::ZERO).await;
            }
        };
        if matches!(advice, Advice::RetryAfter) && !out_of_time {
            self.inspections.note(&connection, verdict == Verdict::StillValid, wait, asked_at);
        }
        self.outcome(connection, verdict, advice, wait).await
    }

    async fn outcome(
        &self,
        connection: Connection,
        verdict: Verdict,
        advice: Advice,
        retry_after: Duration,
    ) -> Result<ReportOutcome, VaultError> {
        Ok(ReportOutcome {
            verdict,
            advice,
            retry_after,
            token: self.view(connection).await?,
            cursor: self.cursor(),
        })
    }
}
