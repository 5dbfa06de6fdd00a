//! Entry points for fuzzing the text that callers send.

use crate::model::Secret;
use crate::vault::position;
use crate::vault::token::store::pasted_text;

const MARK: &str = "EAAxq7Zk2m";

/// Parses a pasted token and a cursor.
pub fn text(text: &str) {
    match pasted_text::parse(&Secret::new(text.to_owned()), "access_token") {
        Ok(token) => {
            let again =
                pasted_text::parse(&token, "access_token").expect("what was accepted once is accepted again");
            assert_eq!(again.expose(), token.expose());
        }
        Err(why) => drop(why.to_string()),
    }
    // No error may repeat the text.
    for text in [format!("{MARK}{text}"), format!("{text}{MARK}")] {
        if let Err(why) = pasted_text::parse(&Secret::new(text), "access_token") {
            assert!(!why.to_string().contains(MARK), "the error repeats the token");
        }
    }
    position::fuzz(text);
}
