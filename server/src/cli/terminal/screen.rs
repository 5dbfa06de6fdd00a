//! The width of a line, and text that is wrapped to it.

use std::io::stdout;

use textwrap::{Options, WordSeparator, WordSplitter, WrapAlgorithm};

/// The width if stdout is not a terminal and COLUMNS is not set.
const FIXED: usize = 100;
/// The longest line of prose that is easy to read.
const PROSE: usize = 110;
/// The narrowest width to lay out for. A narrower terminal breaks the lines itself.
const NARROWEST: usize = 40;

/// The columns of a line on stdout.
pub(in crate::cli) fn width() -> usize {
    let terminal = terminal_size::terminal_size_of(stdout()).map(|(width, _)| usize::from(width.0));
    let columns = || std::env::var("COLUMNS").ok()?.parse().ok();
    terminal.or_else(columns).unwrap_or(FIXED).max(NARROWEST)
}

/// Prose that begins with `first`, and whose further lines are indented like it.
#[cfg(feature = "demo")]
pub(in crate::cli) fn hanging(first: &str, text: &str) -> String {
    hanging_within(width(), first, text)
}

pub(super) fn hanging_within(width: usize, first: &str, text: &str) -> String {
    let indent = " ".repeat(textwrap::core::display_width(first));
    wrapped(width, first, &indent, text)
}

/// Prose whose lines begin with `indent`.
pub(in crate::cli) fn indented(indent: &str, text: &str) -> String {
    wrapped(width(), indent, indent, text)
}

/// Prose of several lines. A line that is indented already, such as a command or an entry of a list, stays as it is.
pub(in crate::cli) fn paragraphs(text: &str) -> String {
    let lines =
        text.lines().map(|line| if line.starts_with(' ') { line.to_owned() } else { indented("", line) });
    lines.collect::<Vec<_>>().join("\n")
}

/// Lines are broken between words only: an id or a URL that is too long for its line stays whole.
fn wrapped(width: usize, first: &str, indent: &str, text: &str) -> String {
    let options = Options::new(width.min(PROSE))
        .initial_indent(first)
        .subsequent_indent(indent)
        .break_words(false)
        .word_separator(WordSeparator::AsciiSpace)
        .word_splitter(WordSplitter::NoHyphenation)
        .wrap_algorithm(WrapAlgorithm::FirstFit);
    textwrap::fill(text, options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_to_the_width_and_words_stay_whole() {
        let text = "The person changed the password, see https://vault.example/a-long-address-of-help";
        let shown = hanging_within(40, "  ● \u{1b}[31mana\u{1b}[0m  ", text);
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(
            lines,
            [
                "  ● \u{1b}[31mana\u{1b}[0m  The person changed the",
                "         password, see",
                "         https://vault.example/a-long-address-of-help",
            ]
        );
    }
}
