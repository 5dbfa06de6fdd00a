//! What a person pastes: cleaned, bounded, and refused with advice when it can't be a token.

use crate::model::Secret;
use crate::vault::error::VaultError;

/// Longest token that is taken, in bytes.
pub(in crate::vault) const MAX_TOKEN: usize = 4_096;

/// Reads a pasted token. The error says what it looks like and what to paste; it never repeats it. `field`
/// is where the request has it.
pub(in crate::vault) fn parse(pasted: &Secret, field: &'static str) -> Result<Secret, VaultError> {
    let text = pasted.expose().trim();
    let refuse = |advice: &str| Err(VaultError::TokenMalformed { field, advice: advice.to_owned() });
    if text.is_empty() {
        return refuse("It is empty; paste the access token.");
    }
    if text.len() > MAX_TOKEN {
        return refuse("It is longer than 4096 bytes; paste the access token alone.");
    }
    if text.starts_with(['{', '[']) {
        return refuse("It looks like JSON; paste only the value of access_token.");
    }
    if text.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("bearer "))
        || text.eq_ignore_ascii_case("bearer")
    {
        return refuse("It starts with \"Bearer\"; paste what follows that word.");
    }
    if text.contains("access_token=") || text.starts_with("http://") || text.starts_with("https://") {
        return refuse("It looks like a URL or query string; paste only the value of access_token.");
    }
    if text.starts_with(['"', '\'']) || text.ends_with(['"', '\'']) {
        return refuse("It has quotation marks around it; paste what stands between them.");
    }
    if text.chars().any(char::is_whitespace) {
        return refuse("It has white space inside, perhaps from a line break; paste it as one piece.");
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return refuse(
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
