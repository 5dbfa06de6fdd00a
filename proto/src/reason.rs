//! The form of [`ErrorReason`] in `ErrorInfo.reason`: the name of the value without its prefix.

use crate::v1::ErrorReason;

const PREFIX: &str = "ERROR_REASON_";

impl ErrorReason {
    /// The name in `ErrorInfo.reason`, such as `TOKEN_EXPIRED`.
    pub fn reason(&self) -> &'static str {
        let name = self.as_str_name();
        name.strip_prefix(PREFIX).unwrap_or(name)
    }

    /// The reason with this name. `None` if this crate does not know it yet, and for `UNSPECIFIED`, which is never
    /// sent.
    pub fn from_reason(reason: &str) -> Option<Self> {
        Self::from_str_name(&format!("{PREFIX}{reason}")).filter(|known| *known != Self::Unspecified)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_comes_back_from_its_name() {
        let known: Vec<_> = (1..1000).filter_map(|number| ErrorReason::try_from(number).ok()).collect();
        assert!(known.len() > 50, "the enum is all there: {}", known.len());
        for reason in known {
            assert!(!reason.reason().starts_with(PREFIX));
            assert_eq!(ErrorReason::from_reason(reason.reason()), Some(reason));
        }
    }

    #[test]
    fn foreign_names_are_no_reason() {
        assert_eq!(ErrorReason::TokenExpired.reason(), "TOKEN_EXPIRED");
        for foreign in ["", "UNSPECIFIED", "ERROR_REASON_TOKEN_EXPIRED", "token_expired", "OF_THE_FUTURE"] {
            assert_eq!(ErrorReason::from_reason(foreign), None, "{foreign}");
        }
    }
}
