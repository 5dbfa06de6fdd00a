//! A connection, its token's facts, and what follows from facts and clock: status, badge, problems.

use std::collections::BTreeMap;
use std::time::Duration;

mod account;
mod renewal;

pub use account::{AdAccount, AdAccountState};

use super::{
    ConnectionId, Fingerprint, Fixer, Problem, ProblemReason, ProviderId, RefusalReason, Remedy, SecretId,
    Severity, Timestamp, TokenVersion, WorkspaceId,
};

#[cfg(test)]
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Who told an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpirySource {
    /// The provider's inspection.
    Provider,
    /// The reply to an exchange, which is less certain.
    Reply,
    /// Nobody: the provider's usual life.
    Assumed,
}

/// An end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// At an instant.
    At(Timestamp, ExpirySource),
    /// It has none.
    Never,
    /// Nobody knows. Neither "now" nor "never".
    Unknown,
}

impl Expiry {
    /// Ends that differ by less are the same end, measured twice.
    const NOISE: Duration = Duration::from_secs(60);

    /// The instant, if there is one.
    pub const fn at(self) -> Option<Timestamp> {
        match self {
            Self::At(end, _) => Some(end),
            Self::Never | Self::Unknown => None,
        }
    }

    /// Whether this end is later than `other` by more than noise. No end is later than any; an unknown one is
    /// earlier than every known one.
    pub fn is_later(self, other: Self) -> bool {
        match (self, other) {
            (Self::At(end, _), Self::At(other, _)) => end > other + Self::NOISE,
            (Self::Never, Self::At(..)) | (Self::At(..) | Self::Never, Self::Unknown) => true,
            _ => false,
        }
    }

    /// Whether this end is another one than `other`, and not the same one measured twice.
    pub(super) fn differs(self, other: Self) -> bool {
        match (self, other) {
            (Self::At(..), Self::At(..)) => self.is_later(other) || other.is_later(self),
            (one, other) => std::mem::discriminant(&one) != std::mem::discriminant(&other),
        }
    }

    /// What lists are ordered by: unknown first, never last.
    pub const fn sort_key(self) -> i64 {
        match self {
            Self::At(end, _) => end.as_micros(),
            Self::Never => i64::MAX,
            Self::Unknown => 0,
        }
    }
}

/// What sort of token it is; decides how it may be renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// An hour or two; never stored.
    ShortLivedUser,
    /// About sixty days.
    LongLivedUser,
    /// Speaks for a page.
    Page,
    /// Speaks for a system user of a business.
    SystemUser,
}

/// Who a subject is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubjectType {
    /// A person.
    User,
    /// A page.
    Page,
    /// A system user of a business.
    SystemUser,
    /// The app itself.
    App,
    /// A type that this version does not know.
    Unknown,
}

/// Who the token speaks for at the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The provider's id; may be empty where it names none.
    pub id: String,
    /// Name for people; may be empty.
    pub name: String,
    /// Who that is.
    pub kind: SubjectType,
}

/// A scope, and the objects to which the person limited it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GranularScope {
    /// The scope.
    pub scope: String,
    /// Ids of the objects; empty means all.
    pub target_ids: Vec<String>,
}

/// Whether the person granted a permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantState {
    /// Yes.
    Granted,
    /// The person said no.
    Declined,
    /// Lapsed for disuse.
    Expired,
}

/// One permission, and what the person said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The permission.
    pub scope: String,
    /// The answer.
    pub state: GrantState,
}

/// What the provider says of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFacts {
    /// What sort of token.
    pub kind: TokenKind,
    /// The token's own end.
    pub expiry: Expiry,
    /// The end of data access, which only the person's presence moves.
    pub data_access: Expiry,
    /// When it was made, if the provider says.
    pub issued_at: Option<Timestamp>,
    /// What it may do.
    pub scopes: Vec<String>,
    /// Limits of those to particular objects.
    pub granular_scopes: Vec<GranularScope>,
}

/// Whether a token stands. Death by time is not here: that follows from expiry and clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// As far as known, the provider accepts it.
    Live,
    /// The provider refuses it.
    Invalid {
        /// When that was first known.
        since: Timestamp,
        /// Why.
        reason: RefusalReason,
        /// The provider's code for people: `190/460`.
        provider_code: String,
    },
    /// We ended it.
    Revoked {
        /// When.
        at: Timestamp,
        /// The principal that asked for it.
        by: String,
    },
}

/// What was observed; changes silently, without an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Observations {
    /// The last time that the provider was asked about it and answered.
    pub last_validated_at: Option<Timestamp>,
    /// The last time that its end moved by an exchange.
    pub last_rotated_at: Option<Timestamp>,
    /// The last time that it was seen to work.
    pub last_known_good: Option<Timestamp>,
    /// Ad accounts that it reaches; `None` until they were listed.
    pub ad_accounts: Option<u32>,
    /// Ad accounts that were reachable and are not.
    pub unreachable_ad_accounts: u32,
}

/// When the vault has to do something about a connection. Follows from its facts; kept so that due work is
/// found by index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Schedule {
    /// When time alone makes something to announce.
    pub next_deadline_at: Option<Timestamp>,
    /// When to try to renew it.
    pub next_renewal_at: Option<Timestamp>,
    /// Attempts to renew this version that did not move its end.
    pub attempts: u32,
}

/// One (workspace, provider, app, subject) and the token that it now holds. No secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Stable across reconnects.
    pub id: ConnectionId,
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// At which platform.
    pub provider: ProviderId,
    /// The provider's id of our app.
    pub app_id: String,
    /// Who the token speaks for.
    pub subject: Subject,
    /// Counts the secrets.
    pub version: TokenVersion,
    /// Names the secret.
    pub secret_id: SecretId,
    /// Keyed hash of the secret. `None` once it is destroyed.
    pub fingerprint: Option<Fingerprint>,
    /// Counts every write to this connection's facts.
    pub revision: i64,
    /// What the provider says.
    pub facts: TokenFacts,
    /// Whether it stands.
    pub standing: Standing,
    /// What was observed.
    pub seen: Observations,
    /// When the vault has to do something about it.
    pub schedule: Schedule,
    /// The connection that this one's token is read with, if the vault reads it itself.
    pub parent: Option<ConnectionId>,
    /// Sequence of the last event about it; 0 for none, below zero while that has no number yet.
    pub last_event: i64,
    /// When the connection came into being.
    pub created_at: Timestamp,
    /// The last write.
    pub updated_at: Timestamp,
}

/// What a token is worth now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Works, and is not near its end.
    Active,
    /// Works, and is inside the warning window.
    Expiring,
    /// Past its end.
    Expired,
    /// The provider refuses it.
    Invalid,
    /// We ended it.
    Revoked,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 5] = [Self::Active, Self::Expiring, Self::Expired, Self::Invalid, Self::Revoked];

    /// Whether a token of this status can be handed out.
    pub const fn is_usable(self) -> bool {
        matches!(self, Self::Active | Self::Expiring)
    }
}

/// Whether rotation can be hoped for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The vault renews it.
    ByVault,
    /// The vault may try; the provider does not promise.
    MaybeByVault,
    /// Only a person can.
    ByPerson,
    /// It does not end.
    NotNeeded,
}

/// The colour of a badge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadgeColor {
    /// In order.
    Green,
    /// Act soon.
    Amber,
    /// Act now.
    Red,
    /// Ended on purpose.
    Grey,
}

/// What a person sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Badge {
    /// Its colour.
    pub color: BadgeColor,
    /// Its words.
    pub text: String,
    /// Days to the end, rounded up; `None` when there is no end.
    pub days_left: Option<i32>,
}

/// What the operator decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How long before its end a token counts as expiring.
    pub warning_window: Duration,
    /// How long before its end each warning is given; longest first, each once, at least one.
    pub thresholds: Vec<Duration>,
    /// When the vault renews tokens by itself.
    pub renewal: RenewalPolicy,
    /// How long events are kept.
    pub event_retention: Duration,
    /// Scopes without which the job can't be done.
    pub required_scopes: Vec<String>,
    /// Scopes without which some of it can't.
    pub optional_scopes: Vec<String>,
}

/// How tokens are renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RenewalPolicy {
    /// Whether the vault renews at all.
    pub enabled: bool,
    /// How old a token must be.
    pub min_age: Duration,
    /// How long before its end the vault begins to try.
    pub window: Duration,
}

impl Policy {
    /// Which of the required scopes `granted` lacks.
    pub fn missing_required(&self, granted: &[String]) -> Vec<String> {
        missing(&self.required_scopes, granted)
    }

    /// Which of the optional scopes `granted` lacks.
    pub fn missing_optional(&self, granted: &[String]) -> Vec<String> {
        missing(&self.optional_scopes, granted)
    }
}

fn missing(wanted: &[String], granted: &[String]) -> Vec<String> {
    wanted.iter().filter(|scope| !granted.contains(scope)).cloned().collect()
}

/// Whole days from now to `end`, rounded up; 0 or less once it has passed.
pub(super) fn days_left(end: Timestamp, now: Timestamp) -> i32 {
    let day = 24 * 60 * 60 * 1_000_000_i64;
    let left = end.as_micros().saturating_sub(now.as_micros());
    let up = if left > 0 { left.saturating_add(day - 1) / day } else { left / day };
    i32::try_from(up).unwrap_or(i32::MAX)
}

impl Connection {
    /// The only place that decides what a token is worth. `now` is given, so that a test can stand
    /// on either side of every edge.
    pub fn status(&self, now: Timestamp, policy: &Policy) -> Status {
        match (&self.standing, self.facts.expiry) {
            (Standing::Revoked { .. }, _) => Status::Revoked,
            (Standing::Invalid { .. }, _) => Status::Invalid,
            (Standing::Live, Expiry::At(end, _)) if end <= now => Status::Expired,
            (Standing::Live, Expiry::At(end, _)) if end <= now + policy.warning_window => Status::Expiring,
            (Standing::Live, _) => Status::Active,
        }
    }

    /// The badge that a person sees.
    pub fn badge(&self, now: Timestamp, policy: &Policy) -> Badge {
        let status = self.status(now, policy);
        let days = self.facts.expiry.at().map(|end| days_left(end, now));
        let (color, text) = match status {
            Status::Active if self.facts.expiry == Expiry::Unknown => {
                (BadgeColor::Amber, "Expiry unknown".to_owned())
            }
            Status::Active => (BadgeColor::Green, "Active".to_owned()),
            Status::Expiring => {
                let days = days.unwrap_or(0);
                (BadgeColor::Amber, format!("Expiring in {days} day{}", if days == 1 { "" } else { "s" }))
            }
            Status::Expired => (BadgeColor::Red, "Token expired".to_owned()),
            Status::Invalid => (BadgeColor::Red, "Reconnect needed".to_owned()),
            Status::Revoked => (BadgeColor::Grey, "Revoked".to_owned()),
        };
        let days_left = if status == Status::Revoked { None } else { days };
        Badge { color, text, days_left }
    }

    /// Whether rotation can be hoped for.
    pub fn renewal(&self) -> Renewal {
        match (self.facts.expiry, self.facts.kind) {
            (Expiry::Never, _) => Renewal::NotNeeded,
            (_, TokenKind::SystemUser) => Renewal::ByVault,
            (_, TokenKind::LongLivedUser | TokenKind::ShortLivedUser) => Renewal::MaybeByVault,
            (_, TokenKind::Page) => Renewal::ByPerson,
        }
    }

    /// Whether a lapsed data access stops ads work. Meta exempts the ads permissions, so it warns only.
    pub fn problems(&self, now: Timestamp, policy: &Policy) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut add = |reason, severity, since, remedy, metadata: Vec<(&str, String)>| {
            let metadata: BTreeMap<_, _> = metadata.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
            problems.push(Problem { reason, severity, since, remedy, metadata });
        };
        match (self.status(now, policy), &self.standing) {
            (_, Standing::Revoked { at, .. }) => {
                let remedy = Remedy::new(
                    Fixer::WorkspaceOwner,
                    "The connection was ended on purpose.",
                    "Connect the account again if it is still wanted.",
                );
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
                    format!("The token ends in {days} day{}.", if days == 1 { "" } else { "s" }),
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
                "The vault asks again; nothing to do.",
            );
            add(ProblemReason::ExpiryUnknown, Severity::Warning, None, remedy, vec![]);
        }
        if let Some(end) = self.facts.data_access.at().filter(|end| *end <= now + policy.warning_window) {
            let (message, since) = if end <= now {
                (
                    "Data access has ended: the person has not used the app for 90 days. Ads permissions go on.",
                    end,
                )
            } else {
                (
                    "Data access ends soon: the person has not used the app for almost 90 days. Ads permissions go on.",
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
                "The token is in order and reaches no ad account.",
                "Have an ad account assigned to the person, or grant business_management if it belongs to a business.",
            );
            add(ProblemReason::NoAdAccounts, Severity::Warning, None, remedy, vec![]);
        }
        if self.seen.unreachable_ad_accounts > 0 {
            let remedy = Remedy::new(
                Fixer::AdAccountAdmin,
                format!("{} ad accounts refuse the token.", self.seen.unreachable_ad_accounts),
                "Have the person's role on those ad accounts restored.",
            );
            add(ProblemReason::AdAccountsUnreachable, Severity::Warning, None, remedy, vec![]);
        }
        problems.sort_by_key(|problem| std::cmp::Reverse(problem.severity));
        problems
    }

    /// How long a caller may keep the secret: never past its end, never past the warning of a death.
    pub fn cache_for(&self, now: Timestamp) -> Duration {
        const LONGEST: Duration = Duration::from_secs(60);
        self.facts.expiry.at().map_or(LONGEST, |end| end.since(now).min(LONGEST))
    }

    /// Time left before the end; `None` when there is no known end.
    pub fn life_left(&self, now: Timestamp) -> Option<Duration> {
        self.facts.expiry.at().map(|end| end.since(now))
    }
}

/// For tests: the product's defaults stand in `config/settings.rs`.
#[cfg(test)]
impl Default for Policy {
    fn default() -> Self {
        Self {
            warning_window: 7 * DAY,
            thresholds: vec![7 * DAY, 3 * DAY, DAY],
            renewal: RenewalPolicy { enabled: true, min_age: DAY, window: 30 * DAY },
            event_retention: 90 * DAY,
            required_scopes: Vec::new(),
            optional_scopes: Vec::new(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);

    pub(in crate::model) fn connection(expiry: Expiry, standing: Standing) -> Connection {
        Connection {
            id: ConnectionId::generate(NOW),
            workspace: WorkspaceId::parse("acme").unwrap(),
            provider: ProviderId::parse("meta").unwrap(),
            app_id: "1".into(),
            subject: Subject { id: "10".into(), name: "Ana".into(), kind: SubjectType::User },
            version: TokenVersion::FIRST,
            secret_id: SecretId::generate(),
            fingerprint: None,
            revision: 1,
            facts: TokenFacts {
                kind: TokenKind::LongLivedUser,
                expiry,
                data_access: Expiry::Never,
                issued_at: None,
                scopes: vec!["ads_read".into()],
                granular_scopes: vec![],
            },
            standing,
            seen: Observations::default(),
            schedule: Schedule::default(),
            parent: None,
            last_event: 0,
            created_at: NOW,
            updated_at: NOW,
        }
    }

    fn at(end: Timestamp) -> Expiry {
        Expiry::At(end, ExpirySource::Provider)
    }

    #[test]
    fn status_changes_exactly_at_its_edges() {
        let policy = Policy::default();
        let micro = Duration::from_micros(1);
        let invalid = Standing::Invalid {
            since: NOW,
            reason: RefusalReason::PasswordChanged,
            provider_code: "190/460".into(),
        };
        let revoked = Standing::Revoked { at: NOW, by: "ops".into() };
        for (expiry, standing, expected) in [
            (at(NOW + 7 * DAY + micro), Standing::Live, Status::Active),
            (at(NOW + 7 * DAY), Standing::Live, Status::Expiring),
            (at(NOW + micro), Standing::Live, Status::Expiring),
            (at(NOW), Standing::Live, Status::Expired),
            (Expiry::Never, Standing::Live, Status::Active),
            (Expiry::Unknown, Standing::Live, Status::Active),
            (at(NOW), invalid.clone(), Status::Invalid),
            (Expiry::Never, invalid, Status::Invalid),
            (at(NOW), revoked, Status::Revoked),
        ] {
            let connection = connection(expiry, standing);
            assert_eq!(connection.status(NOW, &policy), expected, "{expiry:?} {:?}", connection.standing);
        }
    }

    #[test]
    fn badges_count_days_upwards() {
        let policy = Policy::default();
        let badge = |left: Duration| connection(at(NOW + left), Standing::Live).badge(NOW, &policy);
        assert_eq!(badge(7 * DAY).text, "Expiring in 7 days");
        assert_eq!(badge(6 * DAY + Duration::from_secs(1)).text, "Expiring in 7 days");
        assert_eq!(badge(Duration::from_secs(1)).text, "Expiring in 1 day");
        assert_eq!(badge(8 * DAY).text, "Active");
        assert_eq!(connection(at(NOW), Standing::Live).badge(NOW, &policy).text, "Token expired");
        assert_eq!(connection(Expiry::Unknown, Standing::Live).badge(NOW, &policy).color, BadgeColor::Amber);
    }

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

    #[test]
    fn an_unknown_end_sorts_first_and_no_end_last() {
        assert!(Expiry::Unknown.sort_key() < at(NOW).sort_key());
        assert!(at(NOW).sort_key() < Expiry::Never.sort_key());
    }

    #[test]
    fn an_end_is_later_only_past_the_noise() {
        let minute = Duration::from_secs(60);
        let (soon, noise, late) = (at(NOW), at(NOW + minute), at(NOW + minute + Duration::from_micros(1)));
        assert!(late.is_later(soon) && !noise.is_later(soon) && !soon.is_later(late));
        assert!(Expiry::Never.is_later(late) && !late.is_later(Expiry::Never));
        assert!(soon.is_later(Expiry::Unknown) && Expiry::Never.is_later(Expiry::Unknown));
        assert!(!Expiry::Unknown.is_later(soon) && !Expiry::Never.is_later(Expiry::Never));
    }

    #[test]
    fn nobody_may_keep_a_secret_past_its_end() {
        let brief = connection(at(NOW + Duration::from_secs(5)), Standing::Live);
        assert_eq!(brief.cache_for(NOW), Duration::from_secs(5));
        assert_eq!(connection(Expiry::Never, Standing::Live).cache_for(NOW), Duration::from_secs(60));
    }
}
