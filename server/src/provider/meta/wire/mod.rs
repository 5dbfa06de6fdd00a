//! The form of Meta's replies. Any field may be missing, and unknown keys are normal. What is there is read as known or
//! as implausible: of a wrong type, out of range, or not exact. A number may be text, and an id a number.

mod doubts;
mod json;

use std::collections::BTreeMap;

use crate::model::{Expiry, ExpirySource, Secret, Timestamp};

pub(super) use doubts::Doubts;
pub(super) use json::Json;

/// The longest name, in characters.
const LONGEST_NAME: usize = 200;
/// The longest word that a program reads: a scope, a status, a code of a currency.
const LONGEST_WORD: usize = 128;
/// The longest id, in digits.
const LONGEST_ID: usize = 32;
/// The longest list within an object.
const LONGEST_LIST: usize = 50_000;
/// Meta's tokens have a hundred characters and more. What is shorter than this is none.
const SHORTEST_TOKEN: usize = 20;
/// The vault stores no longer token.
const LONGEST_TOKEN: usize = 4_096;

/// What a reply tells in one field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told<T> {
    Known(T),
    /// The field is missing, or null.
    Absent,
    /// The field has a value that can't be true.
    Implausible,
}

impl<T> Told<T> {
    /// An implausible value is as good as none.
    pub(super) fn known(self) -> Option<T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Absent | Self::Implausible => None,
        }
    }

    fn and_then<U>(self, read: impl FnOnce(T) -> Option<U>) -> Told<U> {
        match self {
            Self::Known(value) => read(value).map_or(Told::Implausible, Told::Known),
            Self::Absent => Told::Absent,
            Self::Implausible => Told::Implausible,
        }
    }
}

/// An object of a reply, read field by field.
#[derive(Clone, Copy)]
pub(super) struct Object<'a> {
    fields: &'a BTreeMap<String, Json>,
    /// The reply, for the log.
    of: &'static str,
    /// Where implausible values are counted; `None` for what a caller reports.
    doubts: Option<&'a Doubts>,
}

impl<'a> Object<'a> {
    /// The object that `json` is; `None` if it is another value.
    pub(super) fn of(json: &'a Json, of: &'static str, doubts: Option<&'a Doubts>) -> Option<Self> {
        match json {
            Json::Object(fields) => Some(Self { fields, of, doubts }),
            _ => None,
        }
    }

    pub(super) fn has(&self, field: &str) -> bool {
        self.fields.contains_key(field)
    }

    /// Reads a field, and notes when its value is implausible.
    fn read<T>(&self, field: &'static str, read: impl FnOnce(&'a Json) -> Option<T>) -> Told<T> {
        let told = match self.fields.get(field) {
            None | Some(Json::Null) => Told::Absent,
            Some(value) => Told::Known(value).and_then(read),
        };
        if let (Told::Implausible, Some(doubts)) = (&told, self.doubts) {
            doubts.note(self.of, field);
        }
        told
    }

    /// A name for people: on one line, without control characters, and cut to 200 characters.
    pub(super) fn name(&self, field: &'static str) -> Told<String> {
        self.read(field, |value| as_text(value).map(clean))
    }

    /// A text that nobody sees and nothing stores: a cursor, or a message before it is redacted.
    pub(super) fn text(&self, field: &'static str) -> Told<String> {
        self.read(field, |value| as_text(value).map(str::to_owned))
    }

    /// A word of Meta's vocabulary.
    pub(super) fn word(&self, field: &'static str) -> Told<String> {
        self.read(field, as_word)
    }

    /// A word of Meta's vocabulary that is a number.
    pub(super) fn code(&self, field: &'static str) -> Told<String> {
        self.read(field, |value| as_integer(value).map(|code| code.to_string()))
    }

    /// An id: digits, as they stand on the wire.
    pub(super) fn id(&self, field: &'static str) -> Told<String> {
        self.read(field, as_id)
    }

    pub(super) fn integer(&self, field: &'static str) -> Told<i64> {
        self.read(field, as_integer)
    }

    pub(super) fn truth(&self, field: &'static str) -> Told<bool> {
        self.read(field, as_truth)
    }

    /// An instant in seconds since 1970.
    pub(super) fn instant(&self, field: &'static str) -> Told<Timestamp> {
        self.read(field, |value| Timestamp::plausible(as_integer(value)?))
    }

    /// An end in seconds since 1970. 0 means never. It must not be read as the year 1970.
    pub(super) fn end(&self, field: &'static str) -> Told<Expiry> {
        self.read(field, |value| match as_integer(value)? {
            0 => Some(Expiry::Never),
            seconds => Timestamp::plausible(seconds).map(|end| Expiry::At(end, ExpirySource::Provider)),
        })
    }

    /// An access token.
    pub(super) fn token(&self, field: &'static str) -> Told<Secret> {
        self.read(field, |value| as_token(as_text(value)?))
    }

    /// The words of a list. One that can't be read makes the whole list implausible, since the others would look like
    /// all of them.
    pub(super) fn words(&self, field: &'static str) -> Told<Vec<String>> {
        self.read(field, |value| as_list(value)?.iter().map(as_word).collect())
    }

    /// The ids of a list, under the same condition.
    pub(super) fn ids(&self, field: &'static str) -> Told<Vec<String>> {
        self.read(field, |value| as_list(value)?.iter().map(as_id).collect())
    }

    pub(super) fn object(&self, field: &'static str) -> Told<Object<'a>> {
        self.read(field, |value| Object::of(value, self.of, self.doubts))
    }

    /// The objects of a list, under the same condition as [`Self::words`].
    pub(super) fn objects(&self, field: &'static str) -> Told<Vec<Object<'a>>> {
        self.read(field, |value| {
            as_list(value)?.iter().map(|entry| Object::of(entry, self.of, self.doubts)).collect()
        })
    }
}

/// A boolean, also as text, as in the reply of `/oauth/revoke`.
pub(super) fn as_truth(value: &Json) -> Option<bool> {
    match value {
        Json::Bool(truth) => Some(*truth),
        Json::Text(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// A text that may be an access token. That it is one, only the provider can say.
pub(super) fn as_token(text: &str) -> Option<Secret> {
    let plausible = (SHORTEST_TOKEN..=LONGEST_TOKEN).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic());
    plausible.then(|| Secret::new(text.to_owned()))
}

fn as_text(value: &Json) -> Option<&str> {
    match value {
        Json::Text(text) => Some(text),
        _ => None,
    }
}

fn as_integer(value: &Json) -> Option<i64> {
    match value {
        Json::Number(digits) => digits.parse().ok(),
        Json::Text(digits) => digits.trim().parse().ok(),
        _ => None,
    }
}

fn as_id(value: &Json) -> Option<String> {
    let digits = match value {
        Json::Number(digits) => digits.as_str(),
        Json::Text(digits) => digits.as_str(),
        _ => return None,
    };
    // An id of zero would be everybody's.
    let exact = (1..=LONGEST_ID).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && !digits.starts_with('0');
    exact.then(|| digits.to_owned())
}

fn as_word(value: &Json) -> Option<String> {
    let word = as_text(value)?;
    let plausible =
        (1..=LONGEST_WORD).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_graphic());
    plausible.then(|| word.to_owned())
}

fn as_list(value: &Json) -> Option<&[Json]> {
    match value {
        Json::List(list) if list.len() <= LONGEST_LIST => Some(list),
        _ => None,
    }
}

/// A name without characters that are not seen: they break databases and terminals, and disguise one name as another.
fn clean(name: &str) -> String {
    let hidden = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let shown: String = name.chars().map(|c| if hidden(c) { ' ' } else { c }).take(LONGEST_NAME).collect();
    shown.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads the field `x` of a body.
    fn read<T>(body: &str, read: impl FnOnce(Object<'_>) -> Told<T>) -> (Told<T>, u64) {
        let (json, doubts) = (Json::parse(body.as_bytes()).unwrap(), Doubts::default());
        let told = read(Object::of(&json, "test", Some(&doubts)).unwrap());
        (told, doubts.count())
    }

    /// What each kind of field makes of a value: `+` known, `-` absent, `?` implausible.
    #[test]
    fn every_value_is_known_or_absent_or_implausible_in_every_kind_of_field() {
        fn mark<T>((told, counted): (Told<T>, u64)) -> char {
            let (mark, expected) = match told {
                Told::Known(_) => ('+', 0),
                Told::Absent => ('-', 0),
                Told::Implausible => ('?', 1),
            };
            assert_eq!(counted, expected, "what is implausible is counted, and nothing else");
            mark
        }
        // Columns: name, word, code, id, truth, instant, end, token, words, ids, object, objects.
        let long = format!("\"{}\"", "E".repeat(600_000));
        let table = [
            (r#"{}"#, "------------"),
            (r#"{"x":null}"#, "------------"),
            (r#"{"x":""}"#, "+???????????"),
            (r#"{"x":"ads_read"}"#, "++??????????"),
            (r#"{"x":"12"}"#, "++++????????"),
            (r#"{"x":"1763859600"}"#, "++++?++?????"),
            (r#"{"x":"true"}"#, "++??+???????"),
            (r#"{"x":"EAABsbCS1iHgBAKZCtoken"}"#, "++?????+????"),
            (r#"{"x":0}"#, "??+???+?????"),
            (r#"{"x":-1}"#, "??+?????????"),
            (r#"{"x":1763859600}"#, "??++?++?????"),
            (r#"{"x":1763859600000}"#, "??++????????"),
            (r#"{"x":9223372036854775808}"#, "???+????????"),
            (r#"{"x":18446744073709551617}"#, "???+????????"),
            (r#"{"x":1e30}"#, "????????????"),
            (r#"{"x":1.5}"#, "????????????"),
            (r#"{"x":true}"#, "????+???????"),
            (r#"{"x":[]}"#, "????????++?+"),
            (r#"{"x":["ads_read"]}"#, "????????+???"),
            (r#"{"x":["1",18446744073709551617]}"#, "?????????+??"),
            (r#"{"x":["1",null]}"#, "????????????"),
            (r#"{"x":[{},{}]}"#, "???????????+"),
            (r#"{"x":[{},null]}"#, "????????????"),
            (r#"{"x":{}}"#, "??????????+?"),
            (r#"{"x":"a\u0000b"}"#, "+???????????"),
            (r#"{"x":"a\ud800b"}"#, "+???????????"),
            (r#"{"x":1,"x":2}"#, "????????????"),
            (&format!("{{\"x\":{long}}}"), "+???????????"),
        ];
        for (body, expected) in table {
            let marks: String = [
                mark(read(body, |object| object.name("x"))),
                mark(read(body, |object| object.word("x"))),
                mark(read(body, |object| object.code("x"))),
                mark(read(body, |object| object.id("x"))),
                mark(read(body, |object| object.truth("x"))),
                mark(read(body, |object| object.instant("x"))),
                mark(read(body, |object| object.end("x"))),
                mark(read(body, |object| object.token("x").and_then(|_| Some(())))),
                mark(read(body, |object| object.words("x"))),
                mark(read(body, |object| object.ids("x"))),
                mark(read(body, |object| object.object("x").and_then(|_| Some(())))),
                mark(read(body, |object| object.objects("x").and_then(|_| Some(())))),
            ]
            .iter()
            .collect();
            assert_eq!(marks, expected, "{}", body.get(..60).unwrap_or(body));
        }
    }

    #[test]
    fn an_id_past_64_bits_keeps_each_digit() {
        let id = |body| read(body, |object| object.id("x")).0;
        let (one, other) = (id(r#"{"x":18446744073709551617}"#), id(r#"{"x":18446744073709551616}"#));
        assert_eq!(one, Told::Known("18446744073709551617".to_owned()));
        assert_ne!(one, other, "two people stay two");
        for rounded in [r#"{"x":1.8446744073709552e19}"#, r#"{"x":1e21}"#, r#"{"x":17.0}"#, r#"{"x":"1e21"}"#]
        {
            assert_eq!(id(rounded), Told::Implausible, "{rounded}");
        }
    }

    #[test]
    fn zero_is_never_and_no_end_is_unknown() {
        let end = |body| read(body, |object| object.end("x")).0;
        assert_eq!(end(r#"{"x":0}"#), Told::Known(Expiry::Never));
        assert_eq!(end("{}"), Told::Absent);
        let at = Timestamp::from_unix_seconds(1_763_859_600);
        assert_eq!(end(r#"{"x":1763859600}"#), Told::Known(Expiry::At(at, ExpirySource::Provider)));
    }

    proptest::proptest! {
        #[test]
        fn names_are_clean_and_short_whatever_comes(name: String) {
            let clean = clean(&name);
            proptest::prop_assert!(clean.chars().count() <= LONGEST_NAME);
            proptest::prop_assert!(!clean.chars().any(char::is_control));
            proptest::prop_assert!(!name.chars().all(char::is_alphanumeric) || name.starts_with(&clean));
        }

        #[test]
        fn an_id_is_its_digits_or_nothing(number: i128) {
            let body = format!("{{\"x\":{number}}}");
            let id = read(&body, |object| object.id("x")).0.known();
            proptest::prop_assert_eq!(id, (number > 0 && number.to_string().len() <= LONGEST_ID).then(|| number.to_string()));
        }
    }
}
