//! Colours, for a terminal.

use std::io::{IsTerminal, stdout};

fn paint(code: &str, text: &str) -> String {
    let colours = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    if colours { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}

#[cfg(feature = "demo")]
pub(in crate::cli) fn bold(text: &str) -> String {
    paint("1", text)
}

pub(in crate::cli) fn green(text: &str) -> String {
    paint("32", text)
}

pub(in crate::cli) fn amber(text: &str) -> String {
    paint("33", text)
}

pub(in crate::cli) fn red(text: &str) -> String {
    paint("31", text)
}

pub(in crate::cli) fn grey(text: &str) -> String {
    paint("90", text)
}

pub(in crate::cli) type Colour = fn(&str) -> String;

/// The text with these words in their colours. Painted after a table has been laid out, because the codes have no
/// width.
pub(in crate::cli) fn words(text: &str, colours: &[(&str, Colour)]) -> String {
    colours.iter().fold(text.to_owned(), |text, (word, colour)| text.replace(word, &colour(word)))
}
