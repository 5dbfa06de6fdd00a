//! A denial as a caller understands it: the error status with which the vault refuses a call.

use std::collections::HashMap;
use std::time::Duration;

use token_vault_proto::v1::ErrorReason;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// A failed call, with its decoded details.
#[derive(Debug, Clone)]
pub struct Denial(Box<Details>);

#[derive(Clone)]
struct Details {
    code: Code,
    message: String,
    reason: String,
    domain: String,
    metadata: HashMap<String, String>,
    fields: Vec<String>,
    retry_after: Option<Duration>,
    raw: Vec<u8>,
}

impl std::fmt::Debug for Details {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Leave out the raw bytes, because they repeat all of this.
        f.debug_struct("Denial")
            .field("code", &self.code)
            .field("message", &self.message)
            .field("reason", &self.reason)
            .field("metadata", &self.metadata)
            .field("fields", &self.fields)
            .field("retry_after", &self.retry_after)
            .finish()
    }
}

impl From<Status> for Denial {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info();
        let fields = details.bad_request().map_or_else(Vec::new, |bad| {
            bad.field_violations.iter().map(|violation| violation.field.clone()).collect()
        });
        Self(Box::new(Details {
            code: status.code(),
            message: status.message().to_owned(),
            reason: info.map_or(String::new(), |info| info.reason.clone()),
            domain: info.map_or(String::new(), |info| info.domain.clone()),
            metadata: info.map_or_else(HashMap::new, |info| info.metadata.clone()),
            fields,
            retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
            raw: status.details().to_vec(),
        }))
    }
}

impl Denial {
    pub fn code(&self) -> Code {
        self.0.code
    }

    pub fn message(&self) -> &str {
        &self.0.message
    }

    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// The retry delay, if there is one.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    pub fn fact(&self, key: &str) -> Option<&str> {
        self.0.metadata.get(key).map(String::as_str)
    }

    /// The bytes of the message and of the details, as they travel in the trailers.
    pub fn size(&self) -> usize {
        self.0.message.len() + self.0.raw.len().div_ceil(3) * 4
    }

    /// Everything that was received, so that a test can search it for secrets.
    pub fn everything(&self) -> Vec<u8> {
        [self.0.message.as_bytes(), &self.0.raw, format!("{:?}", self.0).as_bytes()].concat()
    }

    #[track_caller]
    pub fn is(&self, code: Code, reason: ErrorReason) -> &Self {
        assert_eq!((self.0.code, self.0.reason.as_str()), (code, reason.reason()), "{self:#?}");
        assert_eq!(self.0.domain, "tokenvault.v1", "{self:#?}");
        self
    }

    /// Everything that stands beside the reason.
    pub fn facts(&self) -> &HashMap<String, String> {
        &self.0.metadata
    }

    /// Asserts that the field is among the violations, and returns the denial.
    #[track_caller]
    pub fn field(&self, field: &str) -> &Self {
        assert!(self.0.fields.iter().any(|given| given == field), "{field} is not told: {self:#?}");
        self
    }

    #[track_caller]
    pub fn says(&self, key: &str, value: impl AsRef<str>) -> &Self {
        assert_eq!(self.fact(key), Some(value.as_ref()), "{key} in {self:#?}");
        self
    }

    /// Asserts that the denial names a retry delay.
    #[track_caller]
    pub fn has_retry(&self) -> &Self {
        assert!(self.0.retry_after.is_some_and(|wait| !wait.is_zero()), "no RetryInfo: {self:#?}");
        self
    }

    /// Asserts that the message contains `part`.
    #[track_caller]
    pub fn words(&self, part: &str) -> &Self {
        assert!(self.0.message.contains(part), "{part:?} is not in {self:#?}");
        self
    }
}
