//! The policy in force, as far as this process knows.

use std::sync::Arc;

use crate::model::Policy;
use parking_lot::RwLock;

pub struct PolicyInForce(RwLock<(Arc<Policy>, i64)>);

impl PolicyInForce {
    /// The configured policy, before the database has given it a revision.
    pub fn configured(policy: Policy) -> Self {
        Self(RwLock::new((Arc::new(policy), 0)))
    }

    pub fn current(&self) -> Arc<Policy> {
        Arc::clone(&self.0.read().0)
    }

    pub fn revision(&self) -> i64 {
        self.0.read().1
    }

    /// Notes that this process's policy is the one of `revision`.
    pub fn confirm(&self, revision: i64) {
        self.0.write().1 = revision;
    }

    pub fn replace(&self, policy: Policy, revision: i64) {
        *self.0.write() = (Arc::new(policy), revision);
    }
}
