//! ReportTokenError: a caller saw the provider say no. Classified, confirmed where it must be, and applied
//! only to the very secret that it is about.

use crate::provider::ReportedRefusal;
use crate::vault::token::target::Target;
use crate::vault::token::view::TokenView;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use tokio::sync::OwnedSemaphorePermit;

use crate::model::{
    Connection, ConnectionId, Misconfiguration, Principal, Refusal, RefusalKind, SecretId, Standing, Status,
    Timestamp, TokenVersion,
};
use crate::store::HeldToken;
use crate::vault::error::VaultError;
use crate::vault::state::Vault;
use crate::vault::state::shares::Shares;
use crate::vault::token::verdict::{Learned, Recorded};

/// A caller saw the provider refuse a token.
#[derive(Debug)]
pub struct ReportTokenError {
    /// Which connection.
    pub target: Target,
    /// Which of its secrets.
    pub secret: ReportedSecret,
    /// What was seen.
    pub refusal: ReportedRefusal,
    /// When the caller saw the refusal.
    pub observed_at: Option<Timestamp>,
    /// When the caller last saw it work.
    pub last_success_at: Option<Timestamp>,
}

/// Which secret a report is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportedSecret {
    /// Exactly this one.
    Id(SecretId),
    /// The one of this version.
    Version(TokenVersion),
}

/// What a report came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The token is dead, and known to be so since now.
    Invalidated,
    /// That was known.
    AlreadyDead,
    /// The report is about an older secret.
    StaleReport,
    /// The provider says that it is in order.
    StillValid,
    /// The provider stumbles.
    Transient,
    /// Too many calls.
    Throttled,
    /// It may not do this.
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
    /// Leave this ad account out.
    SkipAdAccount,
    /// Mend the request.
    FixRequest,
}

/// Answer to a report.
#[derive(Debug)]
pub struct ReportOutcome {
    /// What it came to.
    pub verdict: Verdict,
    /// What to do.
    pub advice: Advice,
    /// How long to wait first.
    pub retry_after: Duration,
    /// The token as it is now.
    pub token: TokenView,
    /// Position in the feed.
    pub cursor: String,
}

/// How long to wait where nobody says.
const WAIT: Duration = Duration::from_secs(30);
/// How long the provider's word answers for it, at most. A death is found so much later at worst, and the report of
/// one token over and over costs the provider six calls a minute.
const STANDS: Duration = Duration::from_secs(10);
/// Words of the provider that are kept, and for how long.
const KEPT: (u64, Duration) = (100_000, Duration::from_secs(60));
/// How long to wait while the operator mends our configuration, or a block is lifted.
const LONG_WAIT: Duration = Duration::from_secs(15 * 60);

/// What the provider said of late: who reports one token over and over does not spend the provider's calls.
pub(in crate::vault) struct Inquiries {
    last: Cache<(ConnectionId, SecretId), Said>,
    /// One question at a time about a connection: who comes meanwhile has its answer.
    turns: Shares,
}

/// What the provider said of a secret, short of its death.
#[derive(Debug, Clone, Copy)]
struct Said {
    verdict: Verdict,
    at: Timestamp,
    wait: Duration,
}

impl Default for Inquiries {
    fn default() -> Self {
        let last = Cache::builder().max_capacity(KEPT.0).time_to_live(KEPT.1).build();
        Self { last, turns: Shares::new(1) }
    }
}

impl Inquiries {
    /// A turn at asking about this connection.
    pub(in crate::vault) async fn turn(&self, connection: ConnectionId) -> Option<OwnedSemaphorePermit> {
        self.turns.take(&connection.to_string()).await
    }

    /// What still stands of this secret, and for how much longer its reporter was told to wait.
    fn standing(&self, connection: &Connection, now: Timestamp) -> Option<(Verdict, Duration)> {
        let said = self.last.get(&(connection.id, connection.secret_id))?;
        // A clock that was set back makes nothing younger.
        let age = if now < said.at { return None } else { now.since(said.at) };
        (age < said.wait).then(|| (said.verdict, said.wait.saturating_sub(age)))
    }

    fn note(&self, connection: &Connection, verdict: Verdict, wait: Duration, at: Timestamp) {
        let wait = wait.min(STANDS);
        self.last.insert((connection.id, connection.secret_id), Said { verdict, at, wait });
    }
}

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
        self.work.detached(async move { vault.judge(&caller, &report).await }).await
    }

    async fn judge(
        self: &Arc<Self>,
        caller: &Principal,
        report: &ReportTokenError,
    ) -> Result<ReportOutcome, VaultError> {
        let _turn = self.inquiries.turn(report.target.connection).await;
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
    /// moment later do happen. Who comes back before the delay that he was told hears the same again.
    async fn confirm(
        self: &Arc<Self>,
        held: &HeldToken,
        report: &ReportTokenError,
        reported: Refusal,
    ) -> Result<ReportOutcome, VaultError> {
        let connection = &held.connection;
        if let Some((verdict, wait)) = self.inquiries.standing(connection, self.clock.now()) {
            return self.told(connection.clone(), verdict, Advice::RetryAfter, wait).await;
        }
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
        let named = match &word {
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
        let learned = Learned { accounts: None, last_success_at: report.last_success_at, named };
        let asked_at = self.clock.now();
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
        if matches!(advice, Advice::RetryAfter) {
            self.inquiries.note(&connection, verdict, wait, asked_at);
        }
        self.told(connection, verdict, advice, wait).await
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
