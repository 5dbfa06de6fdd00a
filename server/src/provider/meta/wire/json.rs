//! JSON as it stands on the wire. The parser of `serde_json` rounds integers past 64 bits, refuses a whole reply for one
//! lone surrogate, and lets the last of two equal keys win. Here a number keeps its digits, a lone surrogate becomes a
//! replacement character, and a key that is there twice with two values has none.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use zeroize::Zeroizing;

/// The key under which [`exact`] hides a number's digits from the parser.
const NUMBER: &str = "$number";
/// Integers of no more digits fit into an `i64`.
const SAFE_DIGITS: usize = 18;

/// A value of a reply. It may hold a secret, so it has no `Debug`.
#[derive(PartialEq)]
pub(in crate::provider::meta) enum Json {
    Null,
    Bool(bool),
    /// As it was written.
    Number(String),
    Text(Zeroizing<String>),
    List(Vec<Json>),
    Object(BTreeMap<String, Json>),
    /// The values of a key that is in its object more than once, with different values.
    Contradiction,
}

impl Json {
    /// `None` if the bytes are no JSON.
    pub(in crate::provider::meta) fn parse(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(&exact(body)).ok()
    }
}

/// The same JSON, with every lone surrogate and every wrong byte replaced, control characters in texts escaped, and each
/// number that the parser would not keep as it is put into an object under [`NUMBER`].
fn exact(body: &[u8]) -> Zeroizing<Vec<u8>> {
    let text = Zeroizing::new(String::from_utf8_lossy(body).into_owned());
    let mut exact = Zeroizing::new(Vec::with_capacity(text.len() + 64));
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        match first {
            b'"' => {
                exact.push(first);
                rest = copy_text(after, &mut exact);
            }
            b'-' | b'0'..=b'9' => {
                let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
                let end = rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len());
                let (number, after) = rest.split_at(end);
                let digits = number.strip_prefix(b"-").unwrap_or(number);
                if digits.len() <= SAFE_DIGITS && digits.iter().all(u8::is_ascii_digit) {
                    exact.extend_from_slice(number);
                } else {
                    exact.extend_from_slice(format!("{{\"{NUMBER}\":\"").as_bytes());
                    exact.extend_from_slice(number);
                    exact.extend_from_slice(b"\"}");
                }
                rest = after;
            }
            _ => {
                exact.push(first);
                rest = after;
            }
        }
    }
    exact
}

/// Copies a text up to and with its closing quotation mark, and returns what follows.
fn copy_text<'a>(mut rest: &'a [u8], exact: &mut Vec<u8>) -> &'a [u8] {
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'"' => {
                exact.push(first);
                return rest;
            }
            b'\\' => {
                let (escape, after) = rest.split_at(escape_length(rest));
                rest = after;
                let lone = matches!((escape.len(), unit(escape)), (5, Some(0xd800..=0xdfff)));
                exact.push(first);
                exact.extend_from_slice(if lone { b"ufffd" } else { escape });
            }
            0..=0x1f => exact.extend_from_slice(format!("\\u{first:04x}").as_bytes()),
            _ => exact.push(first),
        }
    }
    rest
}

/// How many bytes after a backslash belong to its escape; both halves of a surrogate pair count.
fn escape_length(after: &[u8]) -> usize {
    let pair = |low: &[u8]| low.strip_prefix(b"\\").and_then(unit);
    match unit(after) {
        Some(0xd800..=0xdbff) if matches!(after.get(5..).and_then(pair), Some(0xdc00..=0xdfff)) => 11,
        Some(_) => 5,
        None => after.len().min(1),
    }
}

/// The unit of UTF-16 at the start of `uXXXX`.
fn unit(escape: &[u8]) -> Option<u16> {
    let digits = escape.strip_prefix(b"u")?.get(..4)?;
    let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
    u16::from_str_radix(digits, 16).ok()
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Values)
    }
}

struct Values;

impl<'de> Visitor<'de> for Values {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Json, E> {
        Ok(Json::Bool(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
        Ok(Json::Number(number.to_string()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Number(number.to_string()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Json, E> {
        Ok(Json::Number(number.to_string()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(Zeroizing::new(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = values.next_element()? {
            list.push(value);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut object = BTreeMap::new();
        while let Some((key, value)) = entries.next_entry::<String, Json>()? {
            match object.entry(key) {
                Entry::Vacant(place) => {
                    place.insert(value);
                }
                Entry::Occupied(mut known) if *known.get() != value => {
                    known.insert(Json::Contradiction);
                }
                Entry::Occupied(_) => {}
            }
        }
        match (object.len(), object.get(NUMBER)) {
            (1, Some(Json::Text(digits))) => Ok(Json::Number(digits.to_string())),
            _ => Ok(Json::Object(object)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(body: &str) -> Json {
        match Json::parse(body.as_bytes()) {
            Some(Json::Object(mut object)) => object.remove("x").unwrap(),
            _ => panic!("{body} is no object"),
        }
    }

    fn text(body: &str) -> String {
        match field(body) {
            Json::Text(text) => text.to_string(),
            _ => panic!("{body} is no text"),
        }
    }

    #[test]
    fn numbers_keep_their_digits() {
        for number in [
            "0",
            "-1",
            "999999999999999999",
            "9223372036854775808",
            "18446744073709551617",
            "123456789012345678901234567890",
            "1e21",
            "1.0",
            "-0.5E-7",
            "1e999",
        ] {
            for body in [format!("{{\"x\":{number}}}"), format!("{{\"x\" : {number} ,\"y\":[{number}]}}")] {
                assert!(field(&body) == Json::Number(number.to_owned()), "{body}");
            }
        }
    }

    #[test]
    fn texts_that_look_like_numbers_stay_texts() {
        assert_eq!(text(r#"{"x":"18446744073709551617"}"#), "18446744073709551617");
        assert_eq!(text(r#"{"x":"a \"1e21\" b \\"}"#), "a \"1e21\" b \\");
    }

    #[test]
    fn a_lone_surrogate_costs_one_character_and_a_pair_none() {
        for (escaped, plain) in [
            (r"a\ud800b", "a\u{fffd}b"),
            (r"\udc00", "\u{fffd}"),
            (r"\ud800\ud800", "\u{fffd}\u{fffd}"),
            (r"\ud83d\ude00", "\u{1f600}"),
            (r"\uD83D\uDE00\ud83d", "\u{1f600}\u{fffd}"),
            (r"\ud800\n", "\u{fffd}\n"),
            (r"\\ud800", r"\ud800"),
            (r"\u0000", "\0"),
            ("a\0b\nc", "a\0b\nc"),
        ] {
            assert_eq!(text(&format!("{{\"x\":\"{escaped}\"}}")), plain, "{escaped}");
        }
        let cesu = Json::parse(b"{\"x\":\"a\xed\xa0\x80b\xff\"}");
        assert!(matches!(cesu, Some(Json::Object(_))), "bytes that are no UTF-8 cost no reply either");
    }

    #[test]
    fn a_key_with_two_values_has_none() {
        assert!(field(r#"{"x":1,"x":2}"#) == Json::Contradiction);
        assert!(field(r#"{"x":1,"x":2,"x":2}"#) == Json::Contradiction);
        assert!(field(r#"{"x":null,"x":2}"#) == Json::Contradiction);
        assert!(
            field(r#"{"x":["a"],"x":["a"]}"#) == Json::List(vec![Json::Text(Zeroizing::new("a".into()))])
        );
    }

    #[test]
    fn what_is_no_json_is_none() {
        for body in ["", "{", "[1,", "\"a", "\"\\", "\"\\u12", "{\"x\":}", "<html>", "{\"x\":1}2", "nul"] {
            assert!(Json::parse(body.as_bytes()).is_none(), "{body}");
        }
        assert!(Json::parse("[".repeat(100_000).as_bytes()).is_none(), "a deep one");
    }

    proptest::proptest! {
        /// JSON that another writer made reads as what he wrote.
        #[test]
        fn what_was_written_is_read(texts: Vec<String>, numbers: Vec<i64>, big: u128) {
            let body = format!("[{},{},{big}]", serde_json::json!(texts), serde_json::json!(numbers));
            let texts = texts.into_iter().map(|text| Json::Text(Zeroizing::new(text))).collect();
            let numbers = numbers.into_iter().map(|number| Json::Number(number.to_string())).collect();
            let expected = Json::List(vec![Json::List(texts), Json::List(numbers), Json::Number(big.to_string())]);
            proptest::prop_assert!(Json::parse(body.as_bytes()) == Some(expected));
        }

        /// Whatever the parser of `serde_json` accepts, this one accepts too, and nothing makes it panic.
        #[test]
        fn nothing_is_refused_that_is_json(body in "[\\[\\]{}:,\"\\\\u0-9a-fA-F.eE+-]{0,40}") {
            let known = serde_json::from_str::<serde_json::Value>(&body).is_ok();
            proptest::prop_assert!(!known || Json::parse(body.as_bytes()).is_some());
        }
    }
}
