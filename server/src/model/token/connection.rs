//! A connection: the token that the vault now holds for one (workspace, provider, app, subject).

use super::{Listing, Subject, TokenFacts};
use crate::model::{
    ConnectionId, Fingerprint, ProviderId, RefusalReason, SecretId, Timestamp, TokenVersion, WorkspaceId,
};

/// What is known about a token apart from time: whether it has expired follows from its expiry and the clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// As far as is known, the provider accepts it.
    Live,
    /// The provider refuses it.
    Invalid {
        /// When that was first known.
        since: Timestamp,
        reason: RefusalReason,
        /// The provider's code for people: `190/460`.
        provider_code: String,
    },
    /// A caller ended the connection.
    Revoked {
        at: Timestamp,
        /// The principal that asked for it.
        by: String,
    },
}

/// What the vault observed about a token. A change of it is no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Observations {
    /// The last time that the provider was asked about the token and replied.
    pub last_validated_at: Option<Timestamp>,
    /// The last time that an exchange moved its end.
    pub last_rotated_at: Option<Timestamp>,
    /// The last time that the vault saw the token work.
    pub last_known_good: Option<Timestamp>,
    /// How many ad accounts it reaches; `None` until they have been listed.
    pub ad_accounts: Option<u32>,
    /// How many ad accounts it reached before and no longer reaches.
    pub unreachable_ad_accounts: u32,
    /// What the last list of ad accounts taught.
    pub listing: Listing,
    /// The first of the vault's own data calls with this secret that the provider refused; `None` once one works. As long
    /// as it is there, an inspector that calls the token valid is not believed.
    pub data_refusal: Option<DataRefusal>,
}

/// A data call of the vault's own that the provider refused for the token's or the person's sake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataRefusal {
    pub at: Timestamp,
    pub reason: RefusalReason,
}

/// The vault can't renew this token by itself, which was announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RenewalFailure {
    pub since: Timestamp,
    /// The provider replied and did not move the end. Otherwise no exchange worked.
    pub at_ceiling: bool,
}

/// When the vault has to do something about a connection. It follows from the facts, and is stored so that due work
/// is found by an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Schedule {
    /// When the passing of time alone has to be announced.
    pub next_deadline_at: Option<Timestamp>,
    pub next_renewal_at: Option<Timestamp>,
    /// Attempts to renew this version that did not move its end.
    pub attempts: u32,
    /// `None` while renewal may work.
    pub renewal_failure: Option<RenewalFailure>,
    /// Since when work on it has waited for too long, which was announced.
    pub overdue_since: Option<Timestamp>,
    /// When to ask the provider about the token again. `None`: nothing is left to ask.
    pub next_validation_at: Option<Timestamp>,
    /// How many times in a row the provider could not be asked about it.
    pub failed_validations: u32,
}

/// A connection without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Stable across reconnects.
    pub id: ConnectionId,
    pub workspace: WorkspaceId,
    pub provider: ProviderId,
    /// The provider's id of our app.
    pub app_id: String,
    pub subject: Subject,
    /// Counts the secrets.
    pub version: TokenVersion,
    pub secret_id: SecretId,
    /// `None` once the secret is destroyed.
    pub fingerprint: Option<Fingerprint>,
    /// Counts every write of this connection's facts.
    pub revision: i64,
    pub facts: TokenFacts,
    pub standing: Standing,
    pub seen: Observations,
    pub schedule: Schedule,
    /// The connection whose token reads this one's token, for tokens that the vault reads itself.
    pub parent: Option<ConnectionId>,
    /// Sequence of the last event about it: 0 for none, negative while the event has no number yet.
    pub last_event: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Connection {
    /// About how many bytes it takes, in memory as well as in a response.
    pub fn about_bytes(&self) -> usize {
        let targets = self.facts.granular_scopes.iter().flat_map(|granular| &granular.target_ids);
        1_024 + self.facts.scopes.iter().chain(targets).map(|text| text.len() + 24).sum::<usize>()
    }
}

/// The order of a list of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ListOrder {
    /// By end: unknown ends first, tokens without an end last.
    #[default]
    ExpiresFirst,
    /// Oldest first.
    CreatedFirst,
    /// Youngest first.
    CreatedLast,
}
