//! What is wrong with a token, and what to do about it.

use std::collections::BTreeMap;

use super::expiry::{days_left, in_days};
use super::{Connection, Expiry, Standing, Status};
use crate::model::{Fixer, Policy, RefusalReason, Remedy, Severity, Timestamp};

/// The names are those of `ErrorReason` in the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProblemReason {
    TokenExpired,
    TokenInvalid,
    TokenRevoked,
    /// A required scope is missing.
    ScopesMissing,
    ExpiringSoon,
    ExpiryUnknown,
    /// Data access ends soon or has ended.
    DataAccessEnding,
    /// Some ad accounts refuse the token.
    AdAccountsUnreachable,
    /// The token reaches no ad account.
    NoAdAccounts,
    /// The ad account had no delivery in the last seven days.
    NoDelivery,
    /// An optional scope is missing, so that some features do not work.
    OptionalScopesMissing,
    ProviderUnavailable,
    ProviderThrottled,
    /// The vault's configuration of the provider is wrong.
    ProviderMisconfigured,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub reason: ProblemReason,
    pub severity: Severity,
    /// Since when, as far as known.
    pub since: Option<Timestamp>,
    pub remedy: Remedy,
    /// Facts for programs.
    pub metadata: BTreeMap<String, String>,
}

impl Connection {
    /// Everything that is wrong, worst first.
    pub fn problems(&self, now: Timestamp, policy: &Policy) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut add = |reason, severity, since, remedy, metadata: Vec<(&str, String)>| {
            let metadata: BTreeMap<_, _> = metadata.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
            problems.push(Problem { reason, severity, since, remedy, metadata });
        };
        match (self.status(now, policy), &self.standing) {
            (_, Standing::Revoked { at, .. }) => {
                let remedy = Remedy::for_revocation();
                add(ProblemReason::TokenRevoked, Severity::Info, Some(*at), remedy, vec![]);
                return problems;
            }
            (_, Standing::Invalid { since, reason, provider_code }) => {
                let facts =
                    vec![("refusal", reason.as_str().to_owned()), ("provider_code", provider_code.clone())];
                add(
                    ProblemReason::TokenInvalid,
                    Severity::Critical,
                    Some(*since),
                    Remedy::for_refusal(*reason),
                    facts,
                );
            }
            (Status::Expired, Standing::Live) => {
                add(
                    ProblemReason::TokenExpired,
                    Severity::Critical,
                    self.facts.expiry.at(),
                    Remedy::for_refusal(RefusalReason::Expired),
                    vec![],
                );
            }
            (Status::Expiring, Standing::Live) => {
                let days = self.facts.expiry.at().map_or(0, |end| days_left(end, now));
                let remedy = Remedy::new(
                    Fixer::WorkspaceOwner,
                    format!("The token expires in {}.", in_days(days)),
                    "Ask the workspace owner to reconnect the account before then.",
                );
                let since = self.facts.expiry.at().map(|end| end - policy.warning_window);
                add(
                    ProblemReason::ExpiringSoon,
                    Severity::Warning,
                    since,
                    remedy,
                    vec![("days_left", days.to_string())],
                );
            }
            _ => {}
        }
        let missing = policy.missing_required(&self.facts.scopes);
        if !missing.is_empty() {
            let names = missing.join(", ");
            let remedy = Remedy::new(
                Fixer::WorkspaceOwner,
                format!("The token lacks the required scopes {names}."),
                "Ask the workspace owner to reconnect and grant them.",
            );
            add(ProblemReason::ScopesMissing, Severity::Critical, None, remedy, vec![("missing", names)]);
        }
        let missing = policy.missing_optional(&self.facts.scopes);
        if !missing.is_empty() {
            let names = missing.join(", ");
            let remedy = Remedy::new(
                Fixer::WorkspaceOwner,
                format!("The token lacks the optional scopes {names}."),
                "Reconnect and grant them if ad accounts that belong to a business are missing.",
            );
            add(ProblemReason::OptionalScopesMissing, Severity::Info, None, remedy, vec![("missing", names)]);
        }
        if self.facts.expiry == Expiry::Unknown {
            let remedy = Remedy::new(
                Fixer::Nobody,
                "The provider did not say when the token ends.",
                "Nothing to do: the vault asks again.",
            );
            add(ProblemReason::ExpiryUnknown, Severity::Warning, None, remedy, vec![]);
        }
        if let Some(end) = self.facts.data_access.at().filter(|end| *end <= now + policy.warning_window) {
            let (message, since) = if end <= now {
                (
                    "Data access has ended: the person has not used the app for 90 days. Ads permissions keep working.",
                    end,
                )
            } else {
                (
                    "Data access ends soon: the person has not used the app for almost 90 days. Ads permissions keep working.",
                    end - policy.warning_window,
                )
            };
            let remedy = Remedy::new(
                Fixer::WorkspaceOwner,
                message,
                "Ask the workspace owner to reconnect and confirm the data access.",
            );
            add(
                ProblemReason::DataAccessEnding,
                Severity::Warning,
                Some(since),
                remedy,
                vec![("ends_at", end.to_string())],
            );
        }
        if self.seen.ad_accounts == Some(0) {
            let remedy = Remedy::new(
                Fixer::AdAccountAdmin,
                "The token works, but reaches no ad account.",
                "Have an ad account assigned to the person, or grant business_management if the ad account belongs to a business.",
            );
            add(ProblemReason::NoAdAccounts, Severity::Warning, None, remedy, vec![]);
        }
        if self.seen.unreachable_ad_accounts > 0 {
            let remedy = Remedy::new(
                Fixer::AdAccountAdmin,
                match self.seen.unreachable_ad_accounts {
                    1 => "1 ad account refuses the token.".to_owned(),
                    more => format!("{more} ad accounts refuse the token."),
                },
                "Have the person's role on those ad accounts restored.",
            );
            add(ProblemReason::AdAccountsUnreachable, Severity::Warning, None, remedy, vec![]);
        }
        problems.sort_by_key(|problem| std::cmp::Reverse(problem.severity));
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::token::fixture::{DAY, NOW, at, connection};

    #[test]
    fn the_worst_problem_comes_first() {
        let policy = Policy {
            required_scopes: vec!["ads_management".into()],
            optional_scopes: vec!["business_management".into()],
            ..Policy::default()
        };
        let reasons: Vec<_> = connection(at(NOW + DAY), Standing::Live)
            .problems(NOW, &policy)
            .iter()
            .map(|p| p.reason)
            .collect();
        assert_eq!(
            reasons,
            [ProblemReason::ScopesMissing, ProblemReason::ExpiringSoon, ProblemReason::OptionalScopesMissing]
        );
    }
}
