//! What a process remembers while it follows changes of the master keys.

use parking_lot::Mutex;

pub struct KeyChanges {
    /// Held while changes are adopted: a later read must not be overtaken by an earlier one.
    pub adopting: tokio::sync::Mutex<()>,
    /// The ids of the master keys that this process has reported to the other replicas.
    pub reported: Mutex<Vec<String>>,
    pub key_service: OngoingProblem,
    pub key_file: OngoingProblem,
}

impl KeyChanges {
    pub fn new(reported: Vec<String>) -> Self {
        Self {
            adopting: tokio::sync::Mutex::default(),
            reported: Mutex::new(reported),
            key_service: OngoingProblem::default(),
            key_file: OngoingProblem::default(),
        }
    }
}

/// A problem with master keys that recurs every second but is logged once.
#[derive(Default)]
pub struct OngoingProblem(Mutex<Option<String>>);

impl OngoingProblem {
    pub fn log(&self, problem: &str) {
        let mut logged = self.0.lock();
        if logged.as_deref() != Some(problem) {
            tracing::error!("master keys: {problem}");
            *logged = Some(problem.to_owned());
        }
    }

    pub fn clear(&self) {
        if self.0.lock().take().is_some() {
            tracing::info!("master keys: the problem is over");
        }
    }
}
