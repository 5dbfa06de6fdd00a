//! Text that callers give to the vault, as fuzzing makes it.

use super::{candidate, position};
use crate::model::Secret;

/// A pasted token, and a cursor.
pub fn text(text: &str) {
    match candidate::parse(&Secret::new(text.to_owned()), "access_token") {
        Ok(token) => {
            let again = candidate::parse(&token, "access_token").expect("what was taken once is taken again");
            assert_eq!(again.expose(), token.expose());
        }
        Err(why) => {
            let told = why.to_string();
            assert!(text.trim().len() < 24 || !told.contains(text.trim()), "the error repeats the token");
        }
    }
    position::fuzz(text);
}
