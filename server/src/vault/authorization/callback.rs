//! What came back through the browser: the query of the redirect, or its whole URL as a person or a server copies it.

use crate::model::Secret;
use crate::vault::error::{FieldViolation, VaultError};

/// Longest callback, in bytes.
const LONGEST: usize = 8 * 1024;
/// What decides how an authorization ends.
const DECISIVE: [&str; 4] = ["state", "code", "error", "error_code"];

/// The callback's names and values. The errors name the field `callback_query`.
pub(super) fn pairs(text: &Secret) -> Result<Vec<(String, String)>, VaultError> {
    let wrong = |rule: &str| Err(VaultError::Fields(vec![FieldViolation::new("callback_query", rule)]));
    let text = text.expose().trim();
    if text.is_empty() {
        return wrong("must be the query that the provider sent back, or the whole URL");
    }
    if text.len() > LONGEST {
        return wrong("must be at most 8192 bytes");
    }
    // Meta appends a fragment, which people and some servers pass along.
    let text = text.split('#').next().unwrap_or_default();
    let query = text.split_once('?').map_or(text, |(_, query)| query);
    let pairs: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    for name in DECISIVE {
        if pairs.iter().filter(|(known, _)| known == name).count() > 1 {
            return wrong(&format!("must not have {name} twice"));
        }
    }
    Ok(pairs)
}

pub(super) fn value<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(String, String)>, VaultError> {
        pairs(&Secret::new(text.into()))
    }

    #[test]
    fn a_query_and_a_url_are_read_alike() {
        for text in [
            "code=a%2Fb&state=s",
            "?code=a%2Fb&state=s",
            "code=a%2Fb&state=s#_=_",
            " https://app.example/cb?code=a%2Fb&state=s#_=_\n",
            "/cb?code=a%2Fb&state=s",
        ] {
            let pairs = read(text).unwrap();
            assert_eq!((value(&pairs, "code"), value(&pairs, "state")), (Some("a/b"), Some("s")), "{text}");
        }
        assert_eq!(value(&read("nothing").unwrap(), "code"), None);
    }

    #[test]
    fn what_cannot_be_read_names_the_field_and_the_rule() {
        let long = format!("code={}", "a".repeat(LONGEST));
        for (text, rule) in [
            ("", "must be the query"),
            (" \n", "must be the query"),
            (long.as_str(), "must be at most"),
            ("code=a&code=b", "must not have code twice"),
            ("state=a&x=1&state=a", "must not have state twice"),
            ("error=a&error=b", "must not have error twice"),
        ] {
            let Err(VaultError::Fields(fields)) = read(text) else { panic!("{text}") };
            assert_eq!(fields[0].field, "callback_query");
            assert!(fields[0].rule.starts_with(rule), "{:?}", fields[0].rule);
        }
    }
}
