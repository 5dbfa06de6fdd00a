//! A token's claims: each may be a text or a list of texts, and a time any number.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::model::Timestamp;

/// No `Debug`: claims are personal data.
#[derive(Clone, Deserialize)]
pub(super) struct Claims(Map<String, Value>);

impl Claims {
    /// The claim with that name, or else the one inside an object that a name with dots leads to: `realm_access.roles`.
    fn find(&self, name: &str) -> Option<&Value> {
        self.0.get(name).or_else(|| {
            let (outer, inner) = name.split_once('.')?;
            inner.split('.').try_fold(self.0.get(outer)?, |value, part| value.get(part))
        })
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.find(name)?.as_str().filter(|text| !text.is_empty())
    }

    /// None if the claim is missing or is something else.
    pub(super) fn texts(&self, name: &str) -> Vec<&str> {
        match self.find(name) {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// `None` if the claim is missing, `Some(None)` if it is no time.
    pub(super) fn time(&self, name: &str) -> Option<Option<Timestamp>> {
        let value = self.0.get(name)?;
        // Whole seconds are enough; a fraction is cut off, which is on the safe side for an end.
        let seconds = value.as_i64().or_else(|| value.as_f64().and_then(whole));
        Some(
            seconds
                .filter(|seconds| (0..=253_402_300_799).contains(seconds))
                .map(Timestamp::from_unix_seconds),
        )
    }
}

fn whole(seconds: f64) -> Option<i64> {
    // Parsed from its text, since a cast would turn even NaN into a number.
    format!("{:.0}", seconds.trunc()).parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claims_are_read_as_they_stand_and_by_their_path() {
        let claims: Claims = serde_json::from_value(json!({
            "aud": "one", "groups": ["a", 1, "b"], "realm_access": {"roles": ["x"]}, "a.b": "dotted",
            "a": {"b": "nested"}, "exp": 1_700_000_000.9, "nbf": "soon", "empty": "", "iat": -1,
        }))
        .unwrap();
        assert_eq!(claims.texts("aud"), ["one"]);
        assert_eq!(claims.texts("groups"), ["a", "b"]);
        assert_eq!(claims.texts("realm_access.roles"), ["x"]);
        assert_eq!(claims.text("a.b"), Some("dotted"), "the name itself comes first");
        assert_eq!(
            (claims.text("empty"), claims.text("groups"), claims.text("nothing.at.all")),
            (None, None, None)
        );
        assert_eq!(claims.time("exp"), Some(Some(Timestamp::from_unix_seconds(1_700_000_000))));
        assert_eq!(
            (claims.time("nbf"), claims.time("iat"), claims.time("auth_time")),
            (Some(None), Some(None), None)
        );
    }
}
