//! The fenced blocks of a Markdown document, and the comments above them that say how to run them.

use std::fs;
use std::path::Path;

/// How a block is run.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Run {
    /// The block runs to its end.
    ToItsEnd,
    /// The block stays up in its own terminal. The document goes on once the block has printed this text.
    StaysUp { after: String, elsewhere: bool },
    /// The block runs in the reader's terminal until it has printed this text (or what the document shows), then gets
    /// Ctrl-C.
    UntilCtrlC { after: String },
    /// The block is the content of this file.
    SavedAs(String),
    /// The block does not run, for this reason.
    Not(String),
}

#[derive(Debug)]
pub(super) struct Block {
    pub(super) line: usize,
    pub(super) language: String,
    pub(super) run: Run,
    pub(super) text: String,
}

/// The parts of a document, in order.
#[derive(Debug)]
pub(super) enum Part {
    Block(Block),
    /// `<!-- the test stops everything here -->`
    StopEverything,
}

pub(super) fn parts(document: &Path) -> Vec<Part> {
    let text = fs::read_to_string(document).unwrap_or_else(|error| panic!("{}: {error}", document.display()));
    let mut parts = Vec::new();
    let mut lines = text.lines().enumerate();
    let mut above = "";
    while let Some((number, line)) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let inside: Vec<_> =
                lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
            let run = how(above).unwrap_or_else(|| panic!("{}:{number}: {above}", document.display()));
            let (line, language) = (number + 1, language.to_owned());
            parts.push(Part::Block(Block { line, language, run, text: inside.join("\n") + "\n" }));
        } else if line == "<!-- the test stops everything here -->" {
            parts.push(Part::StopEverything);
        }
        above = line;
    }
    parts
}

/// Reads the line above a block. `None`: it is a comment of an unknown form. A block inside a comment is visible only
/// to the test: the comment opens above the block and closes below it.
fn how(above: &str) -> Option<Run> {
    let Some(comment) = above.strip_prefix("<!--") else { return Some(Run::ToItsEnd) };
    let comment = comment.trim_end_matches("-->").trim();
    let comment =
        comment.strip_prefix("only for the test").map_or(comment, |rest| rest.trim_start_matches([':', ' ']));
    if let Some(reason) = comment.strip_prefix("not run: ") {
        return Some(Run::Not(reason.to_owned()));
    }
    if let Some(name) = comment.strip_prefix("file: ") {
        return Some(Run::SavedAs(name.to_owned()));
    }
    let after = comment.split('"').nth(1).unwrap_or_default().to_owned();
    match comment.split(',').next().unwrap_or_default() {
        "" => Some(Run::ToItsEnd),
        "stays up" => Some(Run::StaysUp { after, elsewhere: comment.ends_with("in a folder of its own") }),
        "runs until Ctrl-C" => Some(Run::UntilCtrlC { after }),
        _ => None,
    }
}

/// The commands of a `console` block, each with the output that the document shows.
pub(super) fn commands(console: &str) -> Vec<(String, String)> {
    let mut commands: Vec<(String, String)> = Vec::new();
    for line in console.lines() {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push((command.to_owned() + "\n", String::new())),
            (None, Some((command, shown))) if shown.is_empty() && command.ends_with("\\\n") => {
                *command += line;
                command.push('\n');
            }
            (None, Some((_, shown))) => *shown = format!("{shown}{line}\n"),
            (None, None) => panic!("a console block begins with a command: {line}"),
        }
    }
    commands
}

/// Returns the first word that the document shows and the output lacks. Documents format JSON in their own way, leave
/// parts out (`…`), and show ids and times of another day. So this compares words in order, and skips words with a
/// digit.
pub(super) fn lacking<'t>(shown: &'t str, output: &str) -> Option<&'t str> {
    fn words(text: &str) -> impl Iterator<Item = &str> {
        text.split(|c: char| c.is_whitespace() || "{}[],:\"".contains(c)).filter(|word| !word.is_empty())
    }
    let mut printed = words(output);
    words(shown)
        .filter(|word| !word.contains(|c: char| c.is_ascii_digit() || c == '…'))
        .find(|word| !printed.any(|other| other == *word))
}

#[test]
fn a_document_shows_the_shape_of_an_answer() {
    let printed = "{\"id\": \"17\", \"status\": \"GOOD\", \"more\": {\"left\": 3}}\nDone.\n";
    assert_eq!(lacking("{ \"id\": \"99\", …, \"more\": { … } }\nDone.", printed), None);
    assert_eq!(lacking("{ \"status\": \"BAD\" }", printed), Some("BAD"));
    assert_eq!(lacking("{ \"more\": …, \"status\": … }", printed), Some("status"));
    let two = "$ a \\\n  b\n$ c\nd\n";
    assert_eq!(commands(two), [("a \\\n  b\n".into(), String::new()), ("c\n".into(), "d\n".into())]);
}

#[test]
fn a_comment_above_a_block_says_how_it_is_run() {
    assert_eq!(how("Some text:"), Some(Run::ToItsEnd));
    assert_eq!(how("<!-- not run: needs Meta -->"), Some(Run::Not("needs Meta".into())));
    assert_eq!(how("<!-- file: vault.toml -->"), Some(Run::SavedAs("vault.toml".into())));
    let up = Run::StaysUp { after: "ready".into(), elsewhere: false };
    assert_eq!(how("<!-- only for the test: stays up, after \"ready\""), Some(up));
    assert_eq!(how("<!-- runs until Ctrl-C -->"), Some(Run::UntilCtrlC { after: String::new() }));
    assert_eq!(how("<!-- no such thing -->"), None);
}
