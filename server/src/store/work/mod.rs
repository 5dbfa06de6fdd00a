//! Replicas, job runs, claims and requests, the policy in force, and the health of the providers.

mod policies;
mod provider_health;
mod replicas;
mod requests;
mod runs;

pub use provider_health::{ProviderHealth, Spread};
pub use replicas::Registration;
pub(in crate::store) use replicas::{Beat, BeatRow};
pub use requests::{Claim, Claimed, RequestOutcome};
pub use runs::{JobRun, RunCause, RunState};
