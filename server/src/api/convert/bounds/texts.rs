//! Texts that come from others, such as names and a provider's words, cut to what a response can carry.

use std::collections::{BTreeMap, HashMap};

/// The most bytes of a sentence, or of a value in metadata.
const SENTENCE: usize = 4 * 1024;
/// The most bytes of a name.
const NAME: usize = 1024;
/// What stands at the end of a text that was cut.
const ELLIPSIS: &str = "…";
/// What separates the entries of a list in metadata.
const SEPARATOR: &str = ", ";
/// The key in metadata that counts the entries of lists that are left out.
const LEFT_OUT: &str = "left_out";

pub(in crate::api) fn sentence(text: String) -> String {
    shortened(text, SENTENCE)
}

pub(in crate::api) fn name(text: String) -> String {
    shortened(text, NAME)
}

/// A text of at most `most` bytes, the mark of the cut included.
pub(in crate::api) fn shortened(mut text: String, most: usize) -> String {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most.saturating_sub(ELLIPSIS.len())));
        text.push_str(ELLIPSIS);
    }
    text
}

/// Facts for programs. Of a list that is too long, whole entries are left out and counted.
pub(in crate::api) fn metadata(facts: BTreeMap<String, String>) -> HashMap<String, String> {
    bounded(facts, SENTENCE)
}

/// [`metadata`], with values of at most `most` bytes each.
pub(in crate::api) fn bounded(
    facts: impl IntoIterator<Item = (String, String)>,
    most: usize,
) -> HashMap<String, String> {
    let mut left_out = 0;
    let mut bounded: HashMap<_, _> = facts
        .into_iter()
        .map(|(key, value)| {
            let (value, left) = first_entries(value, most);
            left_out += left;
            (key, value)
        })
        .collect();
    if left_out > 0 {
        bounded.insert(LEFT_OUT.to_owned(), left_out.to_string());
    }
    bounded
}

/// As many entries of a list as fit, and how many do not. A single entry that is too long is cut as text.
fn first_entries(mut list: String, most: usize) -> (String, usize) {
    if list.len() <= most {
        return (list, 0);
    }
    // An entry fits if the separator behind it begins at `most` or before.
    let window = list.floor_char_boundary(most.saturating_add(SEPARATOR.len()));
    match list.get(..window).and_then(|start| start.rfind(SEPARATOR)) {
        Some(end) => {
            let left = list.get(end..).map_or(0, |rest| rest.matches(SEPARATOR).count());
            list.truncate(end);
            (list, left)
        }
        None => (shortened(list, most), 0),
    }
}
