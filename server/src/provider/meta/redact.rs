//! What a provider says may hold a token (in a URL, in a message). Nothing is told on before it went through here.

/// Longest text that is told on.
const LONGEST: usize = 300;
const HIDDEN: &str = "***";

/// Shortens a text, drops control characters, and hides whatever looks like a credential.
pub(super) fn redact(text: &str) -> String {
    let mut told = String::new();
    let mut word = String::new();
    for character in text.chars().take(4 * LONGEST).chain(std::iter::once(' ')) {
        if character.is_ascii_alphanumeric() || matches!(character, '|' | '-' | '_' | '.' | '~' | '+' | '%') {
            word.push(character);
            continue;
        }
        told.push_str(if is_secret(&word) { HIDDEN } else { &word });
        word.clear();
        told.push(if character.is_control() { ' ' } else { character });
    }
    let told = told.trim_end();
    told.chars().take(LONGEST).collect()
}

/// A token, an app token, or anything long enough to be a key. Ids of replies (up to 24 letters) and numbers stay.
fn is_secret(word: &str) -> bool {
    let app_token = word.split_once('|').is_some_and(|(id, key)| !id.is_empty() && key.len() >= 8);
    let token = word.starts_with("EAA") && word.len() >= 12;
    let long = word.len() >= 28 && !word.bytes().all(|b| b.is_ascii_digit());
    app_token || token || long
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_keys_and_proofs_are_hidden_and_words_stay() {
        let text = "GET /me?access_token=EAABsbCS1iHgBAKZC12&appsecret_proof=ab8e5ab5223668d5adbf137c67a1668d28499522dbf607bb323e34e0bcbff502 \
                    with 123456789012345|aBcDeFgHiJ failed: (#190) Session has expired on Tuesday\u{0}\n";
        let told = redact(text);
        for secret in ["EAABsb", "ab8e5ab5", "aBcDeFgHiJ"] {
            assert!(!told.contains(secret), "{told}");
        }
        assert!(told.contains("(#190) Session has expired on Tuesday"), "{told}");
        assert!(!told.contains('\u{0}') && !told.contains('\n'));
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(redact(&"a b ".repeat(1_000)).chars().count(), LONGEST);
    }
}
