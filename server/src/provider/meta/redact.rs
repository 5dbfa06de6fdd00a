//! Removes everything from the provider's texts that must not be stored, logged or shown.

use std::sync::Arc;

use crate::model::Secret;

/// The replacement for what was removed.
const STARS: &str = "***";
/// The longest result, in bytes.
const LONGEST: usize = 300;
/// The shortest run of letters and digits that is taken for a secret.
const OPAQUE: usize = 32;
/// Parameters whose values are secret, in lower case.
const SECRET_PARAMETERS: [&str; 9] = [
    "access_token",
    "input_token",
    "revoke_token",
    "fb_exchange_token",
    "client_secret",
    "app_secret",
    "appsecret_proof",
    "signed_request",
    "code",
];

/// Cleans text that came from outside.
#[derive(Debug, Clone)]
pub(super) struct Redactor {
    secrets: Arc<[Secret]>,
}

impl Redactor {
    pub(super) fn new(secrets: Arc<[Secret]>) -> Self {
        Self { secrets }
    }

    /// `text` on one line of at most 300 bytes, without `token`, the app's secrets, and anything that looks like a
    /// secret.
    pub(super) fn clean(&self, text: &str, token: Option<&Secret>) -> String {
        let mut text = text.to_owned();
        for secret in self.secrets.iter().chain(token) {
            let secret = secret.expose();
            // A shorter one would match ordinary words, and no platform issues such secrets.
            if secret.len() >= 6 {
                text = text.replace(secret, STARS);
            }
        }
        shorten(&scrub(&text))
    }
}

/// Replaces everything that looks like a secret, and control characters.
fn scrub(text: &str) -> String {
    let mut clean = String::with_capacity(text.len().min(4 * LONGEST));
    let mut rest = text;
    let mut before = ' ';
    while let Some(next) = rest.chars().next() {
        let starts_word = !is_word(before);
        if let Some((kept, after)) = secret_at(rest, starts_word) {
            clean.push_str(kept);
            clean.push_str(STARS);
            rest = after;
            before = '*';
            continue;
        }
        clean.push(if next.is_control() || is_format(next) { ' ' } else { next });
        before = next;
        rest = rest.get(next.len_utf8()..).unwrap_or("");
    }
    clean
}

/// If `text` starts with a secret, returns the part of it that may stay (a parameter's name), and the text after the
/// secret.
fn secret_at(text: &str, starts_word: bool) -> Option<(&str, &str)> {
    if text.starts_with("EAA") {
        let (token, after) = split_run(text, |c| c.is_ascii_alphanumeric());
        if token.len() >= "EAA".len() + 8 {
            return Some(("", after));
        }
    }
    if !starts_word {
        return None;
    }
    let (word, after) = split_run(text, is_word);
    if word.is_empty() {
        return None;
    }
    if SECRET_PARAMETERS.iter().any(|name| name.eq_ignore_ascii_case(word))
        && let Some(value) = value_of(after)
    {
        let kept = text.len() - value.len();
        let (_, after) = split_run(value, |c| !c.is_whitespace() && !"&\"',;)}]<>".contains(c));
        return Some((text.get(..kept)?, after));
    }
    // An app token has the form APPID|SECRET; its bar may be percent-encoded.
    if word.bytes().all(|b| b.is_ascii_digit())
        && let Some(secret) = after.strip_prefix('|').or_else(|| strip_bar(after))
    {
        let (secret, after) = split_run(secret, |c| is_word(c) || c == '-');
        if !secret.is_empty() {
            return Some(("", after));
        }
    }
    let (run, after) = split_run(text, |c| is_word(c) || c == '-');
    let mixed = run.bytes().any(|b| b.is_ascii_digit()) && run.bytes().any(|b| b.is_ascii_alphabetic());
    (run.len() >= OPAQUE && mixed).then_some(("", after))
}

/// The value after `=`, `:`, or the `":"` of JSON. `None` when there is no value.
fn value_of(after_name: &str) -> Option<&str> {
    let after = after_name.trim_start_matches(['"', '\\', '\'']).trim_start_matches(' ');
    let value = after.strip_prefix(['=', ':']).or_else(|| after.strip_prefix("%3D"))?;
    let value = value.trim_start_matches([' ', '"', '\\', '\'']);
    (!value.is_empty()).then_some(value)
}

fn strip_bar(text: &str) -> Option<&str> {
    text.strip_prefix("%7C").or_else(|| text.strip_prefix("%7c"))
}

fn split_run(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|c| !belongs(c)).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Invisible characters that reorder or hide text.
fn is_format(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

fn shorten(text: &str) -> String {
    let text = text.trim();
    if text.len() <= LONGEST {
        return text.to_owned();
    }
    let mark = "…";
    let mut end = LONGEST - mark.len();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{mark}", text.get(..end).unwrap_or(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redactor() -> Redactor {
        Redactor::new(Arc::from([Secret::new("sécret-of-the-app".into())]))
    }

    #[test]
    fn secrets_are_taken_out() {
        let proof = "ab8e5ab5223668d5adbf137c67a1668d28499522dbf607bb323e34e0bcbff502";
        let table = [
            ("Malformed access token EAABsbCS1iHgBAKZC.", "Malformed access token ***."),
            ("xEAABsbCS1iHgBAKZCy", "x***"),
            ("/me?access_token=abc&limit=1", "/me?access_token=***&limit=1"),
            ("/me?Access_Token=abc", "/me?Access_Token=***"),
            (r#"{"access_token":"abc","x":1}"#, r#"{"access_token":"***","x":1}"#),
            (r#"{"access_token": "abc"}"#, r#"{"access_token": "***"}"#),
            (r#"{\"client_secret\":\"abc\"}"#, r#"{\"client_secret\":\"***"}"#),
            ("client_secret=abc appsecret_proof=def", "client_secret=*** appsecret_proof=***"),
            ("the app token 123456789012345|aBc-D_f failed", "the app token *** failed"),
            ("access_token=12%7Cabc&x=1", "access_token=***&x=1"),
            ("12345%7Cabc&x=1", "***&x=1"),
            ("secret sécret-of-the-app!", "secret ***!"),
            ("mine is my-own-token-without-shape.", "mine is ***."),
            ("?code=AQD-xyz#_=_", "?code=***"),
        ];
        let token = Secret::new("my-own-token-without-shape".into());
        for (dirty, clean) in table {
            let got = redactor().clean(dirty, Some(&token));
            // A backslash before a quote may go with the value.
            assert_eq!(got.replace('\\', ""), clean.replace('\\', ""), "{dirty}");
        }
        assert_eq!(redactor().clean(&format!("proof {proof}."), None), "proof ***.");
    }

    #[test]
    fn ordinary_words_stay() {
        for text in [
            "(#17) User request limit reached",
            "Error validating access token: Session has expired on Tuesday, 03-May-16 11:00:00 PDT.",
            "The user has not authorized application 123456789012345.",
            "error code 190, trace AbCdEfGhIjKlMnOpQrStUv",
            "Ångström | 12 | x",
            "EAA",
            "",
        ] {
            assert_eq!(redactor().clean(text, None), text);
        }
    }

    #[test]
    fn what_comes_out_is_one_short_line() {
        assert_eq!(redactor().clean("a\r\nb\u{1b}[31mc\u{202e}d\0", None), "a  b [31mc d");
        let long = redactor().clean(&"ä".repeat(1_000), None);
        assert!(long.len() <= LONGEST && long.ends_with('…'));
        let token = format!("{}EAAB{}", "a ".repeat(145), "x".repeat(100));
        assert!(!redactor().clean(&token, None).contains("EAAB"));
    }
}
