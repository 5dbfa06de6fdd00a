//! How a token is at one time: the one value behind its badge, its problems, and the events and denials about them. They
//! are views of it, so they can't disagree.

use super::expiry::{days_left, in_days};
use super::problem::{Harm, Problem, ProblemReason, Standpoint, expiring_in};
use super::{Connection, Expiry, RenewalFailure, Standing, Status, TokenKind};
use crate::model::{Policy, RefusalReason, Refused, Remedy, Timestamp};

/// Who or what can renew a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(const_into_str, serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum Renewal {
    ByVault,
    /// The vault tries; the provider promises nothing.
    MaybeByVault,
    ByPerson,
    /// The token has no end.
    NotNeeded,
}

impl Renewal {
    /// The name in error metadata.
    pub const fn as_str(self) -> &'static str {
        self.into_str()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadgeColor {
    /// In order.
    Green,
    /// Works, and needs attention.
    Amber,
    /// Does not do its work.
    Red,
    /// Ended on purpose.
    Grey,
}

/// What a person sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Badge {
    pub color: BadgeColor,
    /// At most 40 characters.
    pub text: String,
    /// Days to the end, rounded up, and 0 after it; `None` when there is no end.
    pub days_left: Option<i32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    pub status: Status,
    pub renewal: Renewal,
    days_left: Option<i32>,
    problems: Vec<Problem>,
}

impl Health {
    /// Whether the token can be handed out.
    pub const fn is_usable(&self) -> bool {
        self.status.is_usable()
    }

    /// Everything that is wrong, worst first.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    pub fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    pub fn problem(&self, reason: ProblemReason) -> Option<&Problem> {
        self.problems.iter().find(|problem| problem.reason == reason)
    }

    /// The summary of the worst problem.
    pub fn badge(&self) -> Badge {
        let worst = self.problems.first();
        let color = match (self.status, worst.map_or(Harm::None, |worst| worst.harm)) {
            (Status::Revoked, _) => BadgeColor::Grey,
            (_, Harm::None) => BadgeColor::Green,
            (_, Harm::Later | Harm::Soon) => BadgeColor::Amber,
            (_, Harm::Now) => BadgeColor::Red,
        };
        let text = worst.map_or_else(|| "Active".to_owned(), |worst| worst.headline.clone());
        Badge { color, text, days_left: self.days_left }
    }
}

impl Connection {
    /// `now` is an argument, so that a test can stand on either side of every edge.
    pub fn health(&self, now: Timestamp, policy: &Policy) -> Health {
        let status = self.status(now, policy);
        let mut problems = match (&self.standing, status) {
            (Standing::Live, Status::Active | Status::Expiring) => self.ailments(now, policy),
            _ => self.death(now, policy).into_iter().collect(),
        };
        // Stable: of equally bad ones, the first found stays first.
        problems.sort_by_key(|problem| std::cmp::Reverse(problem.harm));
        let days_left = match status {
            Status::Revoked => None,
            _ => self.facts.expiry.at().map(|end| days_left(end, now)),
        };
        Health { status, renewal: self.renewal(status, policy), days_left, problems }
    }

    /// What ended a token. Nothing else matters until it is connected again.
    fn death(&self, now: Timestamp, policy: &Policy) -> Option<Problem> {
        match &self.standing {
            Standing::Revoked { at, .. } => {
                let remedy = Remedy::for_revocation();
                let problem = Problem::new(ProblemReason::TokenRevoked, Harm::None, "Revoked", remedy);
                Some(problem.since(Some(*at)).with("revoked_at", at))
            }
            Standing::Invalid { since, reason, provider_code } => {
                let remedy = Remedy::for_refusal(*reason, Refused::Held, &self.provider, policy.guide);
                let headline = refused(*reason);
                let problem = Problem::new(ProblemReason::TokenInvalid, Harm::Now, headline, remedy);
                let problem = problem
                    .since(Some(*since))
                    .with("refusal", reason.as_str())
                    .with("invalid_since", since)
                    .with("provider_code", provider_code);
                Some(problem)
            }
            Standing::Live => self.standpoint(now, policy).end(&self.facts),
        }
    }

    /// What is wrong with a token that lives.
    fn ailments(&self, now: Timestamp, policy: &Policy) -> Vec<Problem> {
        let from = self.standpoint(now, policy);
        let facts = &self.facts;
        let found = [
            from.required_scopes(facts),
            self.ad_account_problem(now, policy),
            from.end(facts),
            self.failed_renewal(now, policy),
            self.overdue_work(),
            from.data_access(facts),
            from.optional_scopes(facts),
            from.unread(self.seen.listing.unread).filter(|_| facts.kind != TokenKind::Page),
        ];
        found.into_iter().flatten().collect()
    }

    /// A page's token is not for ad accounts.
    pub(in crate::model) fn ad_account_problem(&self, now: Timestamp, policy: &Policy) -> Option<Problem> {
        let (from, seen) = (self.standpoint(now, policy), &self.seen);
        match self.facts.kind {
            TokenKind::Page => None,
            _ => from.ad_accounts(seen.ad_accounts, seen.unreachable_ad_accounts),
        }
    }

    fn failed_renewal(&self, now: Timestamp, policy: &Policy) -> Option<Problem> {
        let (failure, end) = (self.schedule.renewal_failure?, self.facts.expiry.at()?);
        let reason = match failure {
            RenewalFailure { at_ceiling: true, .. } => ProblemReason::AtCeiling,
            RenewalFailure { at_ceiling: false, .. } => ProblemReason::ReauthorizationRequired,
        };
        let days = days_left(end, now);
        let headline = match self.status(now, policy) {
            Status::Expiring => expiring_in(days),
            _ => format!("Reconnect within {}", in_days(days)),
        };
        let remedy = Remedy::for_failed_renewal(failure.at_ceiling, end);
        let problem = Problem::new(reason, Harm::Soon, headline, remedy);
        Some(problem.since(Some(failure.since)).with("expires_at", end))
    }

    fn overdue_work(&self) -> Option<Problem> {
        let since = self.schedule.overdue_since?;
        let problem =
            Problem::new(ProblemReason::Overdue, Harm::Soon, "Check overdue", Remedy::for_overdue_work());
        Some(problem.since(Some(since)))
    }

    pub(in crate::model) const fn standpoint<'a>(
        &'a self,
        now: Timestamp,
        policy: &'a Policy,
    ) -> Standpoint<'a> {
        Standpoint { provider: &self.provider, now, policy }
    }

    fn renewal(&self, status: Status, policy: &Policy) -> Renewal {
        match (self.facts.expiry, self.facts.kind) {
            // A dead token can't be renewed.
            _ if !status.is_usable() => Renewal::ByPerson,
            (Expiry::Never, _) => Renewal::NotNeeded,
            _ if !policy.renewal.enabled || self.is_given_up() => Renewal::ByPerson,
            (_, TokenKind::SystemUser) => Renewal::ByVault,
            (_, TokenKind::LongLivedUser | TokenKind::ShortLivedUser) => Renewal::MaybeByVault,
            (_, TokenKind::Page) => Renewal::ByPerson,
        }
    }

    /// Whether renewal has failed and is not tried again.
    const fn is_given_up(&self) -> bool {
        self.schedule.renewal_failure.is_some() && self.schedule.next_renewal_at.is_none()
    }
}

/// What a badge says of a refused token. Reconnecting does not help against every reason.
const fn refused(reason: RefusalReason) -> &'static str {
    use RefusalReason as R;
    match reason {
        R::Checkpoint => "Security check needed",
        R::UnconfirmedAccount => "Account not confirmed",
        R::PolicyBlocked => "Blocked by the provider",
        R::AdminPolicy => "Blocked by an administrator",
        R::PermissionRefused => "Permission refused",
        R::RoleLost => "Role missing",
        R::WrongApp => "Token of another app",
        R::Expired
        | R::PasswordChanged
        | R::AppRemoved
        | R::LoggedOut
        | R::RevokedAtProvider
        | R::UnusedTooLong
        | R::DataAccessLapsed
        | R::Malformed
        | R::Unknown => "Reconnect needed",
    }
}
