//! Troubles of a provider as a whole, and how they are announced.

use std::time::Duration;

use super::{Announced, Detail, EventKind, EventWord};
use crate::model::{Expiry, Guide, Misconfiguration, ProviderId, Remedy, Severity, Timestamp};

/// Something wrong with a provider that is not about a single token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProviderTrouble {
    /// The provider does not reply, or replies with its own errors.
    Unreachable,
    /// The provider limits the calls of our app.
    Throttled,
    /// Our configuration there is wrong.
    Misconfigured(Misconfiguration),
    /// So many tokens died at once that the refusals are not believed yet.
    ManyDeaths,
}

impl ProviderTrouble {
    /// The name in the database and in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "UNREACHABLE",
            Self::Throttled => "THROTTLED",
            Self::Misconfigured(problem) => problem.as_str(),
            Self::ManyDeaths => "MANY_DEATHS",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "UNREACHABLE" => Some(Self::Unreachable),
            "THROTTLED" => Some(Self::Throttled),
            "MANY_DEATHS" => Some(Self::ManyDeaths),
            _ => name.parse().ok().map(Self::Misconfigured),
        }
    }

    pub fn remedy(self, provider: &ProviderId, guide: Guide) -> Remedy {
        match self {
            Self::Unreachable => Remedy::for_unreachable(provider, guide),
            Self::Throttled => Remedy::for_limited_app(provider, guide),
            Self::Misconfigured(problem) => Remedy::for_misconfiguration(problem, provider, guide),
            Self::ManyDeaths => Remedy::for_many_deaths(provider, guide),
        }
    }

    pub const fn severity(self) -> Severity {
        match self {
            Self::Throttled => Severity::Warning,
            Self::Unreachable | Self::Misconfigured(_) | Self::ManyDeaths => Severity::Critical,
        }
    }
}

impl Remedy {
    /// Calls succeed, but by the rules of another version of the provider's API than the configured one.
    pub fn for_other_api_version(provider: &ProviderId, guide: Guide) -> Self {
        let message = "The provider serves another version of its API than the configured one; replies may differ from what the vault expects.";
        let retired = Self::for_misconfiguration(Misconfiguration::ApiVersion, provider, guide);
        Self { message: message.to_owned(), ..retired }
    }
}

impl Announced {
    /// Announces that something is wrong with a provider, unless that is announced already. The code is that of the
    /// refusal, if there is one.
    pub fn provider_alarm(
        &mut self,
        provider: &ProviderId,
        trouble: ProviderTrouble,
        (guide, provider_code): (Guide, &str),
        now: Timestamp,
    ) {
        let kind = match trouble {
            ProviderTrouble::Throttled => EventKind::Throttled,
            _ => EventKind::ProviderAlarm,
        };
        let word = EventWord {
            severity: trouble.severity(),
            provider_code: provider_code.to_owned(),
            ..word(kind, provider, trouble.remedy(provider, guide), now)
        };
        self.open_with(word, None, Duration::ZERO);
    }

    /// Announces that it is over, if it was announced.
    pub fn provider_recovered(&mut self, provider: &ProviderId, now: Timestamp) {
        if self.open().next().is_none() {
            return;
        }
        let remedy = Remedy::none("The provider answers again.");
        self.settle_with(word(EventKind::ProviderRecovered, provider, remedy, now), |_| true);
    }
}

fn word(kind: EventKind, provider: &ProviderId, remedy: Remedy, now: Timestamp) -> EventWord {
    EventWord {
        kind,
        severity: Severity::Info,
        workspace: None,
        provider: provider.clone(),
        connection: None,
        version: 0,
        occurred_at: now,
        status: None,
        expiry: Expiry::Unknown,
        reason: None,
        provider_code: String::new(),
        remedy,
        incident: 0,
        closes: Vec::new(),
        link: None,
        detail: Detail::None,
    }
}
