//! What can be wrong with a token, how much harm it does, and what to do about it.

use std::collections::BTreeMap;

use super::expiry::{days_left, in_days};
use super::{Expiry, TokenFacts, Unread};
use crate::model::{Fixer, Policy, ProviderId, RefusalReason, Refused, Remedy, Severity, Timestamp};

/// The names are those of `ErrorReason` in the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::VariantArray)]
pub enum ProblemReason {
    TokenExpired,
    TokenInvalid,
    TokenRevoked,
    /// A required scope is missing.
    ScopesMissing,
    ExpiringSoon,
    ExpiryUnknown,
    /// The provider no longer extends the token.
    AtCeiling,
    /// The vault could not renew the token, for another reason.
    ReauthorizationRequired,
    /// Data access ends soon or has ended.
    DataAccessEnding,
    /// Some ad accounts refuse the token.
    AdAccountsUnreachable,
    /// The token reaches no ad account.
    NoAdAccounts,
    /// Something about its ad accounts could not be read.
    AdAccountsUnread,
    /// An optional scope is missing, so that some features do not work.
    OptionalScopesMissing,
    /// Work of the vault's own on this token waits for too long.
    Overdue,
}

/// What a problem does to the token's work. Severity and colour follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, strum::VariantArray)]
pub enum Harm {
    /// None.
    None,
    /// The token works; something stops within days, or is missing.
    Later,
    /// The token works, and is about to stop.
    Soon,
    /// The token does not do its work.
    Now,
}

impl Harm {
    pub const fn severity(self) -> Severity {
        match self {
            Self::None => Severity::Info,
            Self::Later => Severity::Warning,
            Self::Soon | Self::Now => Severity::Critical,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub reason: ProblemReason,
    pub harm: Harm,
    /// The text of the badge while no problem is worse: at most 40 characters.
    pub headline: String,
    /// Since when, as far as known.
    pub since: Option<Timestamp>,
    pub remedy: Remedy,
    /// Facts for programs.
    pub metadata: BTreeMap<String, String>,
}

impl Problem {
    pub(super) fn new(
        reason: ProblemReason,
        harm: Harm,
        headline: impl Into<String>,
        remedy: Remedy,
    ) -> Self {
        let (headline, metadata) = (headline.into(), BTreeMap::new());
        Self { reason, harm, headline, since: None, remedy, metadata }
    }

    /// An ad account that the token reached once.
    pub fn of_lost_ad_account(since: Timestamp) -> Self {
        let remedy = Remedy::new(
            Fixer::AdAccountAdmin,
            "The token no longer reaches this ad account.",
            "Have the person's role on it restored, if it is still wanted.",
        );
        let reason = ProblemReason::AdAccountsUnreachable;
        Self::new(reason, Harm::Later, "Unreachable", remedy).since(Some(since))
    }

    pub const fn severity(&self) -> Severity {
        self.harm.severity()
    }

    pub(super) fn since(self, since: Option<Timestamp>) -> Self {
        Self { since, ..self }
    }

    pub(super) fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.metadata.insert(key.to_owned(), value.to_string());
        self
    }
}

/// From where a token's facts are judged.
#[derive(Debug, Clone, Copy)]
pub struct Standpoint<'a> {
    pub provider: &'a ProviderId,
    pub now: Timestamp,
    pub policy: &'a Policy,
}

impl Standpoint<'_> {
    /// What is wrong with the token's end.
    pub fn end(&self, facts: &TokenFacts) -> Option<Problem> {
        let (now, policy) = (self.now, self.policy);
        let end = match facts.expiry {
            Expiry::Never => return None,
            Expiry::Unknown => {
                let remedy = Remedy::for_unknown_end();
                return Some(Problem::new(
                    ProblemReason::ExpiryUnknown,
                    Harm::Later,
                    "Expiry unknown",
                    remedy,
                ));
            }
            Expiry::At(end, _) => end,
        };
        if end <= now {
            let remedy =
                Remedy::for_refusal(RefusalReason::Expired, Refused::Held, self.provider, policy.guide);
            return Some(
                Problem::new(ProblemReason::TokenExpired, Harm::Now, "Token expired", remedy)
                    .since(Some(end))
                    .with("expired_at", end),
            );
        }
        let notice = policy.notice();
        if now < end - notice {
            return None;
        }
        let tightest = policy.thresholds.iter().min();
        let harm = if policy.crossed(end, now).as_ref() == tightest { Harm::Soon } else { Harm::Later };
        let days = days_left(end, now);
        Some(
            Problem::new(ProblemReason::ExpiringSoon, harm, expiring_in(days), Remedy::for_end(end))
                .since(Some(end - notice))
                .with("days_left", days)
                .with("expires_at", end),
        )
    }

    /// What is wrong with the scopes: required ones first.
    pub fn required_scopes(&self, facts: &TokenFacts) -> Option<Problem> {
        let missing = self.policy.missing_required(&facts.scopes);
        let remedy = || Remedy::for_scopes(&missing, true, self.provider, self.policy.guide);
        (!missing.is_empty()).then(|| {
            Problem::new(ProblemReason::ScopesMissing, Harm::Now, "Permissions missing", remedy())
                .with("missing", missing.join(", "))
        })
    }

    pub fn optional_scopes(&self, facts: &TokenFacts) -> Option<Problem> {
        let missing = self.policy.missing_optional(&facts.scopes);
        let remedy = || Remedy::for_scopes(&missing, false, self.provider, self.policy.guide);
        (!missing.is_empty()).then(|| {
            let headline = "Optional permissions missing";
            Problem::new(ProblemReason::OptionalScopesMissing, Harm::Later, headline, remedy())
                .with("missing", missing.join(", "))
        })
    }

    /// What is wrong with the end of data access.
    pub fn data_access(&self, facts: &TokenFacts) -> Option<Problem> {
        let (now, policy) = (self.now, self.policy);
        let notice = policy.notice();
        let end = facts.data_access.at().filter(|end| *end - notice <= now)?;
        let has_ended = end <= now;
        let (headline, since) = if has_ended {
            ("Data access has ended".to_owned(), end)
        } else {
            (format!("Data access ends in {}", in_days(days_left(end, now))), end - notice)
        };
        let remedy = Remedy::for_data_access(end, has_ended, self.provider, policy.guide);
        Some(
            Problem::new(ProblemReason::DataAccessEnding, Harm::Later, headline, remedy)
                .since(Some(since))
                .with("ends_at", end),
        )
    }

    /// What is wrong with the ad accounts: how many the token reaches (`None` until they have been listed), and how many
    /// it reached before and no longer reaches.
    pub fn ad_accounts(&self, reached: Option<u32>, lost: u32) -> Option<Problem> {
        let (provider, guide) = (self.provider, self.policy.guide);
        let none = ProblemReason::NoAdAccounts;
        match (reached, lost) {
            (Some(0), 0) => {
                let remedy = Remedy::for_no_ad_accounts(provider, guide);
                Some(Problem::new(none, Harm::Later, "No ad account", remedy))
            }
            (Some(0), lost) => {
                let remedy = Remedy::for_lost_ad_accounts(lost, true, provider, guide);
                Some(Problem::new(none, Harm::Now, "No ad account left", remedy).with("count", lost))
            }
            (_, 0) => None,
            (_, lost) => {
                let plural = if lost == 1 { "" } else { "s" };
                let headline = format!("{lost} ad account{plural} unreachable");
                let remedy = Remedy::for_lost_ad_accounts(lost, false, provider, guide);
                let reason = ProblemReason::AdAccountsUnreachable;
                Some(Problem::new(reason, Harm::Later, headline, remedy).with("count", lost))
            }
        }
    }
}

impl Standpoint<'_> {
    /// What could not be read about the ad accounts. Owners alone do no harm.
    pub fn unread(&self, unread: Unread) -> Option<Problem> {
        if unread.is_empty() {
            return None;
        }
        let (harm, headline) = if unread.accounts() {
            (Harm::Later, "Ad accounts not all read")
        } else {
            (Harm::None, "Active")
        };
        let remedy = Remedy::for_unread(unread, self.provider, self.policy.guide);
        let problem = Problem::new(ProblemReason::AdAccountsUnread, harm, headline, remedy);
        Some(problem.with("unread", unread.names()))
    }
}

pub(super) fn expiring_in(days: i32) -> String {
    format!("Expiring in {}", in_days(days))
}
