//! The text that a person pastes: trimmed, limited in length, and denied with advice if it can't be a token.

use crate::model::Secret;
use crate::vault::error::VaultError;

/// The longest accepted token, in bytes.
pub(in crate::vault) const MAX_TOKEN: usize = 4_096;

/// Parses a pasted token. The error says what the text looks like and what to paste, but never repeats it. `field` is
/// the request's field.
pub(in crate::vault) fn parse(pasted: &Secret, field: &'static str) -> Result<Secret, VaultError> {
    let text = pasted.expose().trim();
    let denied = |advice: &str| Err(VaultError::TokenMalformed { field, advice: advice.to_owned() });
    if text.is_empty() {
        return denied("It is empty; paste the access token.");
    }
    if text.len() > MAX_TOKEN {
        return denied("It is longer than 4096 bytes; paste the access token alone.");
    }
    if text.starts_with(['{', '[']) {
        return denied("It looks like JSON; paste only the value of access_token.");
    }
    if text.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("bearer "))
        || text.eq_ignore_ascii_case("bearer")
    {
        return denied("It starts with \"Bearer\"; paste what follows that word.");
    }
    if text.contains("access_token=") || text.starts_with("http://") || text.starts_with("https://") {
        return denied("It looks like a URL or query string; paste only the value of access_token.");
    }
    if text.starts_with(['"', '\'']) || text.ends_with(['"', '\'']) {
        return denied("It has quotation marks around it; paste what stands between them.");
    }
    if text.chars().any(char::is_whitespace) {
        return denied("It has white space inside, perhaps from a line break; paste it as one piece.");
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return denied(
            "It has characters that no token has (control characters, or not ASCII); copy it again from its source.",
        );
    }
    Ok(Secret::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_around_is_trimmed() {
        let token = parse(&Secret::new(" \n EAABsbCS1iHgBAKZC|x-_.~ \t".into()), "access_token").unwrap();
        assert_eq!(token.expose(), "EAABsbCS1iHgBAKZC|x-_.~");
    }

    #[test]
    fn each_mistake_has_its_own_advice() {
        let mut seen = std::collections::BTreeSet::new();
        let long = "E".repeat(4_097);
        for pasted in [
            "",
            "{\"access_token\":\"EAAB\"}",
            "Bearer EAAB",
            "https://x/?access_token=EAAB",
            "\"EAAB\"",
            "EAAB\nEAAB",
            "EAAB\u{0}",
            &long,
        ] {
            let VaultError::TokenMalformed { advice, .. } =
                parse(&Secret::new(pasted.into()), "access_token").unwrap_err()
            else {
                panic!("{pasted}")
            };
            assert!(!advice.contains("EAAB"), "{advice}");
            seen.insert(advice);
        }
        assert_eq!(seen.len(), 8);
        for pasted in ["EAABä", "\u{fffd}\u{fffd}", "bearer EAAB", "EA AB"] {
            assert!(parse(&Secret::new(pasted.into()), "access_token").is_err(), "{pasted}");
        }
        assert!(parse(&Secret::new("E".repeat(4_096)), "access_token").is_ok());
    }
}
