//! What a page tells at its top: what happened, who can help, and what to do.

use token_vault_client::v1::{Check, ErrorReason, Fixer, RefusalReason, check};
use token_vault_client::{Error, ErrorKind};

use crate::texts;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Good,
    Neutral,
    Bad,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) tone: Tone,
    pub(crate) title: String,
    pub(crate) text: String,
    pub(crate) helper: Option<Fixer>,
    pub(crate) action: Option<String>,
    /// Scopes that are missing, by the provider's names.
    pub(crate) missing: Vec<String>,
    /// Where to do it: an `https` address.
    pub(crate) url: Option<String>,
}

impl Notice {
    pub(crate) fn new(tone: Tone, title: impl Into<String>, text: impl Into<String>) -> Self {
        let (title, text) = (title.into(), text.into());
        Self { tone, title, text, helper: None, action: None, missing: Vec::new(), url: None }
    }

    pub(crate) fn help(mut self, fixer: Fixer) -> Self {
        self.helper = Some(fixer);
        self
    }

    pub(crate) fn action(mut self, action: impl Into<String>) -> Self {
        self.action = Some(action.into());
        self
    }

    /// What an error of the vault means for the person, with the details that the vault gives. None of them is a secret.
    pub(crate) fn of(error: &Error, provider: &str) -> Self {
        let mut notice = match (error.reason(), error.kind()) {
            (Some(reason), _) => texts::trouble(Some(reason), provider),
            (None, ErrorKind::RetryAfter(_)) => texts::unavailable(),
            (None, _) => texts::faulty(),
        };
        let fact = |name: &str| error.metadata().get(name).filter(|value| !value.is_empty());
        match error.reason() {
            Some(ErrorReason::ScopesMissing | ErrorReason::ScopesShrunk) => {
                let missing = fact("missing").map(String::as_str).unwrap_or_default();
                let names = missing.split([',', ' ']).filter(|name| !name.is_empty());
                notice.missing = names.map(str::to_owned).collect();
            }
            Some(ErrorReason::TokenMalformed) => {
                if let Some(hint) = fact("hint") {
                    notice.text = format!("{} {hint}", notice.text);
                }
            }
            Some(ErrorReason::ProviderRefusedToken) => {
                let name = fact("refusal").map(|name| format!("REFUSAL_REASON_{name}"));
                let refusal = name.and_then(|name| RefusalReason::from_str_name(&name));
                notice.text = texts::refused_because(refusal, provider);
                notice.helper = error.fixer().or(notice.helper);
                notice.url = fact("url").and_then(|url| https(url));
            }
            _ => {}
        }
        notice
    }
}

/// An account was connected. The checks may have found that it does not do its work yet.
pub(crate) fn connected(provider: &str, checks: &[Check]) -> Notice {
    if any_failed(checks) { texts::connected_with_problems(provider) } else { texts::connected(provider) }
}

pub(crate) fn any_failed(checks: &[Check]) -> bool {
    checks.iter().any(|check| check.result() == check::Result::Fail)
}

/// The address, if it is one that a page may link to. `javascript:` is not.
pub(crate) fn https(url: &str) -> Option<String> {
    url::Url::parse(url).ok().filter(|url| url.scheme() == "https").map(String::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_is_linked_to() {
        assert_eq!(https("https://a.example/b").as_deref(), Some("https://a.example/b"));
        for bad in ["http://a.example", "javascript:alert(1)", "data:text/html,x", "//a.example", ""] {
            assert_eq!(https(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_reason_has_words() {
        let reasons = (0..=200).filter_map(|number| ErrorReason::try_from(number).ok());
        for reason in reasons {
            let notice = texts::trouble(Some(reason), "Meta");
            assert!(!notice.title.is_empty() && !notice.text.is_empty(), "{reason:?}");
        }
    }
}
