//! What the validation of a token found.

use std::collections::BTreeMap;

use super::{Harm, Problem, Remedy};

/// Ordered from best to worst, so that the worst of several results is their maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CheckResult {
    /// Not run: not asked for, or no time left.
    Skipped,
    Pass,
    /// The provider could not be asked.
    Unknown,
    /// Works, and needs attention.
    Warn,
    Fail,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Its name in the API: `token_accepted`.
    pub name: &'static str,
    pub result: CheckResult,
    pub remedy: Remedy,
    /// Facts for programs.
    pub metadata: BTreeMap<String, String>,
}

impl Check {
    pub fn new(name: &'static str, result: CheckResult, remedy: Remedy) -> Self {
        Self { name, result, remedy, metadata: BTreeMap::new() }
    }

    /// A check that fails if `problem` keeps the token from its work, warns of a lesser one, and passes with `good` if
    /// there is none.
    pub fn of(name: &'static str, problem: Option<Problem>, good: Remedy) -> Self {
        let Some(Problem { harm, remedy, metadata, .. }) = problem else {
            return Self::new(name, CheckResult::Pass, good);
        };
        let result = match harm {
            Harm::None => CheckResult::Pass,
            Harm::Later | Harm::Soon => CheckResult::Warn,
            Harm::Now => CheckResult::Fail,
        };
        Self { name, result, remedy, metadata }
    }

    /// Adds a fact.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.metadata.insert(key.to_owned(), value.to_string());
        self
    }
}
