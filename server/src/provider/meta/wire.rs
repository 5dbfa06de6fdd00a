//! The form of Meta's replies. Reading is lenient: any field may be missing, a number may be text, and unknown keys
//! are normal. A field of a wrong type counts as missing.

use serde::de::{Deserialize, DeserializeOwned, Deserializer};
use serde_json::Value;
use zeroize::Zeroizing;

/// `{"error":{…}}`, and the `error` within `debug_token`'s data.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct ErrorObject {
    #[serde(deserialize_with = "text")]
    pub(super) message: String,
    #[serde(deserialize_with = "integer")]
    pub(super) code: Option<i64>,
    #[serde(deserialize_with = "integer")]
    pub(super) error_subcode: Option<i64>,
    /// Its name within `debug_token`.
    #[serde(deserialize_with = "integer")]
    pub(super) subcode: Option<i64>,
    #[serde(deserialize_with = "truth")]
    pub(super) is_transient: Option<bool>,
    #[serde(deserialize_with = "text")]
    pub(super) error_user_msg: String,
    #[serde(deserialize_with = "text")]
    pub(super) fbtrace_id: String,
}

/// `data` of `debug_token`.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct DebugToken {
    #[serde(deserialize_with = "text")]
    pub(super) app_id: String,
    #[serde(rename = "type", deserialize_with = "text")]
    pub(super) kind: String,
    #[serde(deserialize_with = "truth")]
    pub(super) is_valid: Option<bool>,
    #[serde(deserialize_with = "integer")]
    pub(super) expires_at: Option<i64>,
    #[serde(deserialize_with = "integer")]
    pub(super) data_access_expires_at: Option<i64>,
    #[serde(deserialize_with = "integer")]
    pub(super) issued_at: Option<i64>,
    #[serde(deserialize_with = "texts")]
    pub(super) scopes: Vec<String>,
    #[serde(deserialize_with = "list")]
    pub(super) granular_scopes: Vec<GranularScope>,
    #[serde(deserialize_with = "text")]
    pub(super) user_id: String,
    #[serde(deserialize_with = "text")]
    pub(super) profile_id: String,
    #[serde(deserialize_with = "maybe")]
    pub(super) error: Option<ErrorObject>,
}

/// A scope and the objects that it is limited to.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct GranularScope {
    #[serde(deserialize_with = "text")]
    pub(super) scope: String,
    #[serde(deserialize_with = "texts")]
    pub(super) target_ids: Vec<String>,
}

/// The reply of the token endpoint. It holds a secret, so it has no `Debug`.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct TokenReply {
    #[serde(deserialize_with = "secret")]
    pub(super) access_token: Zeroizing<String>,
    #[serde(deserialize_with = "integer")]
    pub(super) expires_in: Option<i64>,
    /// Its former name.
    #[serde(deserialize_with = "integer")]
    pub(super) expires: Option<i64>,
}

/// One entry of `/me/permissions`.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Permission {
    #[serde(deserialize_with = "text")]
    pub(super) permission: String,
    #[serde(deserialize_with = "text")]
    pub(super) status: String,
}

/// One entry of `/me/accounts`: a page. It holds a secret, so it has no `Debug`.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct PageEntry {
    #[serde(deserialize_with = "text")]
    pub(super) id: String,
    #[serde(deserialize_with = "text")]
    pub(super) name: String,
    #[serde(deserialize_with = "secret")]
    pub(super) access_token: Zeroizing<String>,
}

/// One entry of `/me/adaccounts`.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct AdAccount {
    #[serde(deserialize_with = "text")]
    pub(super) id: String,
    #[serde(deserialize_with = "text")]
    pub(super) account_id: String,
    #[serde(deserialize_with = "text")]
    pub(super) name: String,
    #[serde(deserialize_with = "text")]
    pub(super) account_status: String,
    #[serde(deserialize_with = "text")]
    pub(super) currency: String,
    #[serde(deserialize_with = "text")]
    pub(super) timezone_name: String,
    #[serde(deserialize_with = "maybe")]
    pub(super) business: Option<Named>,
}

/// An object with an id and a name.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Named {
    #[serde(deserialize_with = "text")]
    pub(super) id: String,
    #[serde(deserialize_with = "text")]
    pub(super) name: String,
}

/// Where a list continues.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Paging {
    #[serde(deserialize_with = "maybe")]
    pub(super) cursors: Option<Cursors>,
    /// Contains the token: only its presence and its `after` are used, and it is never stored or logged.
    #[serde(deserialize_with = "text")]
    pub(super) next: String,
}

/// Cursors of a page.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Cursors {
    #[serde(deserialize_with = "text")]
    pub(super) after: String,
}

/// `value` as a `T`, if it can be read as one.
pub(super) fn read<T: DeserializeOwned>(value: Value) -> Option<T> {
    serde_json::from_value(value).ok()
}

/// An integer: as a number, whole or not, or as text.
pub(super) fn as_integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => {
            number.as_i64().or_else(|| number.to_string().split('.').next()?.parse().ok())
        }
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(as_text(&Value::deserialize(from)?).unwrap_or_default())
}

/// A text that is wiped from memory, like the copy that the parser made.
fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<Zeroizing<String>, D::Error> {
    Ok(match Value::deserialize(from)? {
        Value::String(text) => Zeroizing::new(text),
        other => Zeroizing::new(as_text(&other).unwrap_or_default()),
    })
}

fn integer<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    Ok(as_integer(&Value::deserialize(from)?))
}

/// A boolean, also as text, as in the reply of `/oauth/revoke`.
pub(super) fn as_truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(truth) => Some(*truth),
        Value::String(text) => text.trim().parse().ok(),
        Value::Number(number) => number.as_i64().map(|number| number != 0),
        _ => None,
    }
}

fn truth<'de, D: Deserializer<'de>>(from: D) -> Result<Option<bool>, D::Error> {
    Ok(as_truth(&Value::deserialize(from)?))
}

fn texts<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let value = Value::deserialize(from)?;
    Ok(value.as_array().map(|list| list.iter().filter_map(as_text).collect()).unwrap_or_default())
}

fn list<'de, D: Deserializer<'de>, T: DeserializeOwned>(from: D) -> Result<Vec<T>, D::Error> {
    Ok(match Value::deserialize(from)? {
        Value::Array(list) => list.into_iter().filter_map(read).collect(),
        _ => Vec::new(),
    })
}

fn maybe<'de, D: Deserializer<'de>, T: DeserializeOwned>(from: D) -> Result<Option<T>, D::Error> {
    Ok(match Value::deserialize(from)? {
        value @ Value::Object(_) => read(value),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_of_wrong_types_read_as_missing_ones() {
        let token: DebugToken = read(json!({
            "app_id": 123, "type": null, "is_valid": "true", "expires_at": "0", "issued_at": 17.0,
            "data_access_expires_at": [], "scopes": ["a", 5, null], "granular_scopes": [{"scope": "a"}, 3],
            "user_id": 99_999_999_999_999_u64, "error": "text", "unheard_of": {}
        }))
        .unwrap();
        assert_eq!((token.app_id.as_str(), token.kind.as_str()), ("123", ""));
        assert_eq!((token.is_valid, token.expires_at, token.issued_at), (Some(true), Some(0), Some(17)));
        assert_eq!((token.data_access_expires_at, token.user_id.as_str()), (None, "99999999999999"));
        assert_eq!((token.scopes.len(), token.granular_scopes.len()), (2, 1));
        assert!(token.error.is_none());
    }
}
