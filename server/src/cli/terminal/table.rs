//! Tables for people. They keep to the width: cells wrap between words, and a table that is too wide even so is shown
//! as a list of its rows.

use comfy_table::{ColumnConstraint, ContentArrangement, Table as Layout, Width};
use textwrap::core::display_width;

use super::screen;

/// Spaces between two columns.
const GAP: usize = 2;
/// Stands for a cell without content.
pub(in crate::cli) const NOTHING: &str = "-";

/// How the cells of a column are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Column {
    /// Stays on one line, as long as there is room.
    Whole,
    /// Wraps between words when the table is too wide.
    Prose,
}

/// How wide a table may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Fit {
    /// As wide as the terminal.
    Screen,
    /// As wide as its content: one line for each row.
    Wide,
}

/// The rows of a table, and the header of their columns.
pub(in crate::cli) fn table<const N: usize>(
    columns: [(&str, Column); N],
    rows: &[[String; N]],
    fit: Fit,
) -> String {
    within(if fit == Fit::Wide { usize::MAX } else { screen::width() }, columns, rows)
}

fn within<const N: usize>(width: usize, columns: [(&str, Column); N], rows: &[[String; N]]) -> String {
    let names = columns.map(|(name, _)| name.to_owned());
    let all = || std::iter::once(&names).chain(rows);
    let widest = |index: usize| {
        all().filter_map(|row| row.get(index)).map(|cell| display_width(cell)).max().unwrap_or(0)
    };
    let longest_word = |index: usize| {
        let words = all().filter_map(|row| row.get(index)).flat_map(|cell| cell.split(' '));
        words.map(display_width).max().unwrap_or(0)
    };
    let gaps = GAP * N.saturating_sub(1);
    let kept_whole = |index: usize, column: Column| match column {
        Column::Whole => widest(index),
        Column::Prose => longest_word(index),
    };
    let least: usize = columns.iter().enumerate().map(|(index, (_, kind))| kept_whole(index, *kind)).sum();
    let least_of_all: usize = (0..N).map(longest_word).sum();
    if least_of_all + gaps > width {
        return as_list(width, &names, rows);
    }
    let mut layout = Layout::new();
    layout.load_style(comfy_table::presets::NOTHING);
    layout.set_header(&names).add_rows(rows);
    if let Ok(width) = u16::try_from(width) {
        layout.set_width(width).set_content_arrangement(ContentArrangement::Dynamic);
    }
    for (index, (_, kind)) in columns.iter().enumerate() {
        let gap = if index + 1 == N { 0 } else { GAP };
        let whole = *kind == Column::Whole && least + gaps <= width;
        let narrowest = if whole { widest(index) } else { longest_word(index) };
        let narrowest = u16::try_from(narrowest + gap).unwrap_or(u16::MAX);
        if let Some(column) = layout.column_mut(index) {
            column.set_padding((0, u16::try_from(gap).unwrap_or(0)));
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(narrowest)));
        }
    }
    layout.trim_fmt()
}

/// A paragraph for each row, a line for each cell that holds something.
fn as_list<const N: usize>(width: usize, names: &[String; N], rows: &[[String; N]]) -> String {
    let label = names.iter().map(|name| display_width(name)).max().unwrap_or(0) + GAP;
    let paragraphs = rows.iter().map(|row| {
        let cells = names.iter().zip(row).filter(|(_, cell)| *cell != NOTHING);
        let lines = cells.map(|(name, cell)| {
            let first = format!("{name}{}", " ".repeat(label.saturating_sub(display_width(name))));
            screen::hanging_within(width, &first, cell)
        });
        lines.collect::<Vec<_>>().join("\n")
    });
    paragraphs.collect::<Vec<_>>().join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [(&str, Column); 3] =
        [("ID", Column::Whole), ("AT", Column::Whole), ("WHAT", Column::Prose)];

    fn rows() -> Vec<[String; 3]> {
        vec![
            ["abcdefgh", "2027-01-15 08:00", "succeeded"].map(str::to_owned),
            ["ä", NOTHING, "failed: the provider did not answer in time"].map(str::to_owned),
        ]
    }

    fn lines(width: usize) -> Vec<String> {
        let shown = within(width, COLUMNS, &rows());
        let lines: Vec<_> = shown.lines().map(str::to_owned).collect();
        assert!(lines.iter().all(|line| display_width(line) <= width), "{shown}");
        lines
    }

    #[test]
    fn columns_stand_under_each_other() {
        assert_eq!(
            lines(120),
            [
                "ID        AT                WHAT",
                "abcdefgh  2027-01-15 08:00  succeeded",
                "ä         -                 failed: the provider did not answer in time",
            ]
        );
    }

    #[test]
    fn prose_wraps_first_then_everything_and_no_word_is_broken() {
        assert_eq!(
            lines(50),
            [
                "ID        AT                WHAT",
                "abcdefgh  2027-01-15 08:00  succeeded",
                "ä         -                 failed: the provider",
                "                            did not answer in time",
            ]
        );
        for width in [32, 40, 44, 60, 80] {
            let shown = lines(width).join("\n");
            let words = ["abcdefgh", "2027-01-15", "succeeded", "provider"];
            assert!(words.iter().all(|word| shown.contains(word)), "{width}:\n{shown}");
        }
    }

    #[test]
    fn a_table_that_is_too_wide_is_a_list() {
        assert_eq!(lines(22).first().map(String::as_str), Some("ID    abcdefgh"));
        let wide = within(usize::MAX, COLUMNS, &rows());
        assert_eq!(wide.lines().count(), 3);
    }
}
