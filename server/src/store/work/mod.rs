//! Who does what: replicas, job runs, claims, requests, and what shapes their work.

mod policies;
mod provider_health;
mod replicas;
mod requests;
mod runs;

pub use provider_health::ProviderHealth;
pub(in crate::store) use replicas::{Beat, Observer, beat, register, report_master_keys};
pub use replicas::{Registration, Replica};
pub use requests::{Claim, Claimed, RequestOutcome};
pub use runs::{JobRun, RunCause, RunState};
