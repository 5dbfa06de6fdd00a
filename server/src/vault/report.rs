//! ReportTokenError: a caller saw the provider say no. Classified, confirmed where it must be, and applied
//! only to the very secret that it is about.

use std::sync::Arc;
use std::time::Duration;

use super::doctor::{Learned, Recorded};
use super::{Advice, ReportOutcome, ReportTokenError, ReportedSecret, Target, Vault, VaultError, Verdict};
use crate::model::{Connection, Misconfiguration, Principal, Refusal, RefusalKind, Standing, Status};
use crate::store::{HeldToken, Origin};

/// How long to wait where nobody says.
const WAIT: Duration = Duration::from_secs(30);
/// How long to wait while the operator mends our configuration, or a block is lifted.
const LONG_WAIT: Duration = Duration::from_secs(15 * 60);

impl Vault {
    /// Judges a refusal that a caller saw.
    ///
    /// # Errors
    /// `ConnectionNotFound`. A refusal that can't be confirmed is no error: its verdict says so.
    pub async fn report_token_error(
        self: &Arc<Self>,
        caller: &Principal,
        report: ReportTokenError,
    ) -> Result<ReportOutcome, VaultError> {
        self.held(caller, &report.target).await?;
        let (vault, caller) = (Arc::clone(self), caller.clone());
        self.detached(async move { vault.judge(&caller, &report).await }).await
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
                .told(connection.clone(), Verdict::StaleReport, Advice::FetchAgain, Duration::ZERO)
                .await;
        }
        let dead = !matches!(connection.standing, Standing::Live)
            || connection.status(self.clock.now(), &self.policy()) == Status::Expired;
        if dead {
            return self.told(connection.clone(), Verdict::AlreadyDead, Advice::Pause, Duration::ZERO).await;
        }
        let provider = self.provider_of(connection)?;
        // Its headers may say how long to wait; they are one caller's word, so the books of use are not touched.
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
            RefusalKind::Ours(problem) => {
                tracing::error!(connection = %connection.id, problem = problem.as_str(), detail = %refusal.detail, "a caller met a refusal of our configuration");
                (Verdict::OurMisconfiguration, Advice::RetryAfter, LONG_WAIT)
            }
            RefusalKind::Dead { .. } | RefusalKind::OtherApp | RefusalKind::Blocked => {
                return self.confirm(&held, report, refusal).await;
            }
        };
        self.told(connection.clone(), verdict, advice, wait).await
    }

    /// A death is believed only when the provider's own inspection says so: refusals of tokens that work a
    /// moment later do happen.
    async fn confirm(
        self: &Arc<Self>,
        held: &HeldToken,
        report: &ReportTokenError,
        reported: Refusal,
    ) -> Result<ReportOutcome, VaultError> {
        let connection = &held.connection;
        let provider = self.provider_of(connection)?;
        let secret = self.open_secret(held).await?;
        let word = provider.inspect(&secret).await;
        let (verdict, advice, wait) = match &word {
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
                _ => (Verdict::Unconfirmed, Advice::RetryAfter, LONG_WAIT),
            },
        };
        // The inspection often knows less than the refusal that the caller saw: the better reason is kept.
        let word = match (word, &reported.kind) {
            (Err(confirmed), RefusalKind::Dead { .. })
                if verdict == Verdict::Invalidated
                    && confirmed.subcode.is_none()
                    && reported.subcode.is_some() =>
            {
                Err(reported)
            }
            (word, _) => word,
        };
        let learned = Learned { accounts: None, last_success_at: report.last_success_at };
        let connection = match self.record(connection, word, learned).await? {
            Recorded::Kept(connection) => *connection,
            Recorded::Held => {
                let (verdict, advice) = (Verdict::Unconfirmed, Advice::RetryAfter);
                return self.told(connection.clone(), verdict, advice, LONG_WAIT).await;
            }
            Recorded::Changed => {
                // It changed while we asked: the report is about a token that is no longer held.
                let now_held = self.store.read().await?.connection(held.connection.id).await?;
                let now_held = now_held.ok_or(VaultError::ConnectionNotFound(held.connection.id))?;
                return self.told(now_held, Verdict::StaleReport, Advice::FetchAgain, Duration::ZERO).await;
            }
        };
        if verdict == Verdict::Invalidated {
            tracing::warn!(connection = %connection.id, workspace = %connection.workspace, "the provider refuses the token");
            self.validate_siblings(&connection).await;
        }
        self.told(connection, verdict, advice, wait).await
    }

    /// The same subject and app in other workspaces shares this fate: they are asked about at once.
    async fn validate_siblings(self: &Arc<Self>, connection: &Connection) {
        let siblings = match self.store.read().await {
            Ok(mut session) => session.siblings(connection).await,
            Err(error) => Err(error),
        };
        let Ok(siblings) = siblings else { return };
        let vault = Arc::clone(self);
        let origin = Arc::new(Origin::system("sibling-check"));
        self.tasks.spawn(origin.scope(async move {
            for sibling in siblings {
                let target = Target { connection: sibling.connection.id, workspace: None };
                if let Err(error) = vault.ask_about(&sibling).await {
                    tracing::warn!(connection = %target.connection, %error, "a token that shares a dead one's subject could not be asked about");
                }
            }
        }));
    }

    async fn ask_about(&self, held: &HeldToken) -> Result<(), VaultError> {
        let provider = self.provider_of(&held.connection)?;
        let secret = self.open_secret(held).await?;
        let word = provider.inspect(&secret).await;
        self.record(&held.connection, word, Learned::default()).await.map(|_| ())
    }

    async fn told(
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
