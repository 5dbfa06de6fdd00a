//! ReportTokenError: a caller saw the provider refuse a token. The vault classifies the refusal, looks for itself if
//! something may be wrong with the token, and applies what it finds only to the secret that the report is about.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    Connection, DataWord, EventKind, Incident, Misconfiguration, Principal, Refusal, RefusalKind, Reports,
    SecretId, Timestamp, TokenVersion,
};
use crate::provider::ReportedRefusal;
use crate::store::{Abort, HeldToken, Scope};
use crate::vault::error::VaultError;
use crate::vault::state::Vault;
use crate::vault::state::inspections::Found;
use crate::vault::state::work::Turn;
use crate::vault::token::inspection::{Applied, Findings, is_death};
use crate::vault::token::judges;
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
/// The retry delay after the first refusal of a data call of the vault's own: it has then made the second one.
const SECOND_CALL: Duration = Duration::from_secs(15);
/// How often a look is begun again because the connection changed meanwhile.
const TRIES: usize = 3;

/// What a report says is wrong, if the vault has to look for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    Dead,
    Blocked,
    Permission {
        /// The report is about one ad account.
        one_account: bool,
    },
    /// The app lacks a capability, by words that are also used when the person took a permission away.
    Capability,
    /// Our configuration is wrong.
    Ours,
    Transient {
        retry_after: Duration,
    },
}

/// A verdict, advice, and how long to wait.
type Answer = (Verdict, Advice, Duration);

/// How a report is read.
enum Reading {
    Claim(Claim),
    /// The vault need not look.
    Answer(Answer),
}

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
                self.outcome(connection, (Verdict::Unconfirmed, Advice::RetryAfter, WAIT)).await
            }
            outcome => outcome,
        }
    }

    async fn judge(
        self: &Arc<Self>,
        caller: &Principal,
        report: &ReportTokenError,
    ) -> Result<ReportOutcome, VaultError> {
        for _ in 0..TRIES {
            let held = self.held_now(caller, &report.target).await?;
            if let Some((connection, answer)) = self.judge_now(held, report).await? {
                return self.outcome(connection, answer).await;
            }
        }
        // It changes all the time, which says nothing about the token.
        let held = self.held_now(caller, &report.target).await?;
        self.outcome(held.connection, (Verdict::Unconfirmed, Advice::RetryAfter, WAIT)).await
    }

    /// `None`: the connection changed meanwhile.
    async fn judge_now(
        self: &Arc<Self>,
        held: HeldToken,
        report: &ReportTokenError,
    ) -> Result<Option<(Connection, Answer)>, VaultError> {
        let connection = &held.connection;
        let is_current = match report.secret {
            ReportedSecret::Id(id) => id == connection.secret_id,
            ReportedSecret::Version(version) => version == connection.version,
        };
        if !is_current {
            let answer = (Verdict::StaleReport, Advice::FetchAgain, Duration::ZERO);
            return Ok(Some((held.connection, answer)));
        }
        if !connection.status(self.clock.now(), &self.policy()).is_usable() {
            let answer = (Verdict::AlreadyDead, Advice::Pause, Duration::ZERO);
            return Ok(Some((held.connection, answer)));
        }
        // The reported headers may name a retry delay. They are not counted as usage, because a caller can invent them.
        let refusal = self.provider_of(connection)?.classify(&report.refusal);
        match self.claim_of(connection, report, &refusal).await? {
            Reading::Answer(answer) => Ok(Some((held.connection, answer))),
            Reading::Claim(claim) => self.look(held, report, refusal, claim).await,
        }
    }

    /// What a report claims, or the answer to it if the vault need not look.
    async fn claim_of(
        &self,
        connection: &Connection,
        report: &ReportTokenError,
        refusal: &Refusal,
    ) -> Result<Reading, VaultError> {
        let one_account = report.refusal.ad_account_id.is_some();
        Ok(match &refusal.kind {
            RefusalKind::Dead { .. } | RefusalKind::OtherApp => Reading::Claim(Claim::Dead),
            RefusalKind::Blocked => Reading::Claim(Claim::Blocked),
            RefusalKind::Permission { object_only: true } if one_account || refusal.code == Some(100) => {
                Reading::Answer((Verdict::Permission, Advice::SkipAdAccount, Duration::ZERO))
            }
            RefusalKind::Permission { object_only } => {
                Reading::Claim(Claim::Permission { one_account: *object_only || one_account })
            }
            RefusalKind::Throttled { retry_after, .. } => {
                Reading::Answer((Verdict::Throttled, Advice::RetryAfter, *retry_after))
            }
            RefusalKind::Ours(Misconfiguration::Request) => {
                Reading::Answer((Verdict::OurMisconfiguration, Advice::FixRequest, Duration::ZERO))
            }
            // No classification of a report says so.
            RefusalKind::OutOfTime => Reading::Answer((Verdict::Transient, Advice::RetryAfter, WAIT)),
            RefusalKind::Ours(problem) => {
                tracing::error!(connection = %connection.id, problem = problem.as_str(), detail = %refusal.detail, "a caller reported a refusal that our configuration causes");
                Reading::Claim(match problem {
                    Misconfiguration::AppCapability => Claim::Capability,
                    _ => Claim::Ours,
                })
            }
            RefusalKind::Transient { retry_after } => {
                let (now, retry_after) = (self.clock.now(), retry_after.unwrap_or_default());
                let (looks, wait) = self
                    .note_reports(connection, move |reports| (reports.note_transient(now), reports.wait(now)))
                    .await?;
                if looks && !self.is_held_back(&self.provider_of(connection)?) {
                    Reading::Claim(Claim::Transient { retry_after })
                } else {
                    Reading::Answer((Verdict::Transient, Advice::RetryAfter, retry_after.max(wait)))
                }
            }
        })
    }

    /// Looks at the token: a report alone changes nothing, because providers sometimes refuse tokens that work a moment
    /// later. A repeated report gets the result of the last look again.
    async fn look(
        self: &Arc<Self>,
        held: HeldToken,
        report: &ReportTokenError,
        reported: Refusal,
        claim: Claim,
    ) -> Result<Option<(Connection, Answer)>, VaultError> {
        let connection = &held.connection;
        let is_news = matches!(claim, Claim::Permission { one_account: false });
        if let Some((found, wait)) = self.inspections.recent(connection, is_news, self.clock.now()) {
            let answer = self.answer(connection, found, (claim, &reported.detail), wait).await?;
            return Ok(Some((held.connection, answer)));
        }
        let provider = self.provider_of(connection)?;
        let secret = self.open_secret(&held).await?;
        let (inspection, data) = judges::hear(&*provider, &secret, &connection.facts).await;
        let (found, least) = match (&inspection, &data) {
            (Ok(_), DataWord::Refused { .. }) => (Found::Doubt, SECOND_CALL),
            (Ok(_), DataWord::Silent(refusal)) if connection.seen.data_refusal.is_some() => {
                (Found::NoAnswer, wait_of(&refusal.kind))
            }
            (Ok(_), DataWord::Silent(refusal)) => match &refusal.kind {
                kind @ (RefusalKind::Throttled { .. } | RefusalKind::Transient { .. }) => {
                    (Found::Nothing, wait_of(kind))
                }
                _ => (Found::Nothing, Duration::ZERO),
            },
            (Ok(_), _) => (Found::Nothing, Duration::ZERO),
            (Err(refusal), _) => (Found::NoAnswer, wait_of(&refusal.kind)),
        };
        let cut_off = |refusal: &Refusal| refusal.kind == RefusalKind::OutOfTime;
        let out_of_time = inspection.as_ref().is_err_and(cut_off)
            || matches!(&data, DataWord::Silent(refusal) if cut_off(refusal));
        let said = reported.detail.clone();
        // The refusal that the caller met often names the cause better than the inspection does.
        let better_cause = match &inspection {
            Err(confirmed)
                if is_death(confirmed)
                    && confirmed.subcode.is_none()
                    && matches!(reported.kind, RefusalKind::Dead { .. })
                    && reported.subcode.is_some() =>
            {
                Some(reported)
            }
            _ => None,
        };
        let findings =
            Findings { data, last_success_at: report.last_success_at, better_cause, ..Findings::default() };
        let asked_at = self.clock.now();
        let (connection, found, least) = match self.apply_inspection(connection, inspection, findings).await?
        {
            Applied::Updated(connection) => (*connection, found, least),
            Applied::Doubted => (held.connection, Found::NoAnswer, LONG_WAIT),
            Applied::Superseded => return Ok(None),
        };
        if !connection.status(asked_at, &self.policy()).is_usable() {
            return Ok(Some((connection, (Verdict::Invalidated, Advice::Pause, Duration::ZERO))));
        }
        let wait = match found {
            Found::Doubt => least,
            Found::Nothing | Found::NoAnswer => {
                let wait = self.note_reports(&connection, move |reports| reports.note_look(asked_at)).await?;
                wait.max(least)
            }
        };
        // What was cut off with its caller answers nobody else.
        if !out_of_time {
            self.inspections.note(&connection, found, wait, asked_at);
        }
        let answer = self.answer(&connection, found, (claim, &said), wait).await?;
        Ok(Some((connection, answer)))
    }

    /// What a look at a token that it did not find dead means for a report, which claims something in these words.
    async fn answer(
        &self,
        connection: &Connection,
        found: Found,
        (claim, said): (Claim, &str),
        wait: Duration,
    ) -> Result<Answer, VaultError> {
        let retry = |verdict, least: Duration| (verdict, Advice::RetryAfter, wait.max(least));
        Ok(match (found, claim) {
            (Found::Doubt, _) | (Found::NoAnswer, Claim::Dead | Claim::Blocked) => {
                retry(Verdict::Unconfirmed, Duration::ZERO)
            }
            (_, Claim::Permission { .. } | Claim::Capability)
                if self.lacks_scopes(connection, claim, said).await? =>
            {
                (Verdict::Permission, Advice::Pause, Duration::ZERO)
            }
            (_, Claim::Permission { one_account: true }) => {
                (Verdict::Permission, Advice::SkipAdAccount, Duration::ZERO)
            }
            (_, Claim::Permission { one_account: false }) => retry(Verdict::Permission, Duration::ZERO),
            (Found::Nothing, Claim::Dead) => retry(Verdict::StillValid, Duration::ZERO),
            (Found::Nothing, Claim::Blocked) => retry(Verdict::StillValid, LONG_WAIT),
            (_, Claim::Capability | Claim::Ours) => retry(Verdict::OurMisconfiguration, LONG_WAIT),
            (_, Claim::Transient { retry_after }) => retry(Verdict::Transient, retry_after),
        })
    }

    /// Whether scopes are missing that the claim may be about, and whose return will be announced. A refusal of one ad
    /// account is about a scope that not every caller needs only if it names it.
    async fn lacks_scopes(
        &self,
        connection: &Connection,
        claim: Claim,
        said: &str,
    ) -> Result<bool, VaultError> {
        let (policy, granted) = (self.policy(), &connection.facts.scopes);
        if !policy.missing_required(granted).is_empty() {
            return Ok(true);
        }
        if claim == (Claim::Permission { one_account: true })
            && !policy.missing_optional(granted).iter().any(|scope| names(said, scope))
        {
            return Ok(false);
        }
        let scope = Scope::Connection(connection.id);
        let known = self.store.read().await?.incidents(&[scope]).await?;
        let lost = |incident: &Incident| incident.is_open && incident.key.kind == EventKind::ScopesChanged;
        Ok(known.values().flatten().any(lost))
    }

    /// Changes what is remembered of the reports about a connection's secret.
    async fn note_reports<T: Send + 'static>(
        &self,
        connection: &Connection,
        change: impl Fn(&mut Reports) -> T + Copy + Send + Sync + 'static,
    ) -> Result<T, VaultError> {
        let connection = connection.clone();
        Ok(self
            .store
            .write(move |tx| {
                let connection = connection.clone();
                Box::pin(async move {
                    let mut reports = tx.lock_reports(&connection).await?;
                    let outcome = change(&mut reports);
                    tx.put_reports(&connection, &reports).await?;
                    Ok::<_, Abort<VaultError>>(outcome)
                })
            })
            .await?)
    }

    async fn outcome(
        &self,
        connection: Connection,
        (verdict, advice, retry_after): Answer,
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

/// Whether a text has a scope's name as a word of its own.
fn names(text: &str, scope: &str) -> bool {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == scope)
}

/// How long to wait after a refusal that says nothing about the token.
fn wait_of(kind: &RefusalKind) -> Duration {
    match kind {
        RefusalKind::Throttled { retry_after, .. } => *retry_after,
        RefusalKind::Transient { retry_after } => retry_after.unwrap_or_default(),
        RefusalKind::OutOfTime => Duration::ZERO,
        _ => LONG_WAIT,
    }
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn a_scope_is_named_as_a_whole_word() {
        for (text, expected) in [
            ("(#200) Requires ads_read permission", true),
            ("Missing scopes: ads_read, pages_show_list.", true),
            ("(#200) Requires ads_read_all permission", false),
            ("The user may not read ads", false),
            ("", false),
        ] {
            assert_eq!(names(text, "ads_read"), expected, "{text}");
        }
    }
}
