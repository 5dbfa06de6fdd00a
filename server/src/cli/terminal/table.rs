//! Tables for people, and times as they are shown.

use std::time::Duration;

use crate::model::{Clock, Timestamp};

/// Columns as wide as their widest cell.
pub(in crate::cli) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let lines = rows.iter().map(|row| {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A cell with a time, or with a dash.
pub(in crate::cli) fn cell(at: Option<prost_types::Timestamp>) -> String {
    time(at).unwrap_or_else(|| "-".to_owned())
}

/// RFC 3339, in UTC.
pub(in crate::cli) fn time(at: Option<prost_types::Timestamp>) -> Option<String> {
    at.map(|at| from_wire(at).to_string())
}

/// The same to the second.
pub(in crate::cli) fn seconds(at: prost_types::Timestamp) -> String {
    from_wire(prost_types::Timestamp { nanos: 0, ..at }).to_string()
}

/// So long after now.
pub(in crate::cli) fn from_now(after: Duration) -> Timestamp {
    Clock::system().now() + after
}

pub(in crate::cli) fn to_wire(at: Timestamp) -> prost_types::Timestamp {
    let (seconds, nanos) = at.unix_parts();
    prost_types::Timestamp {
        seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
        nanos: i32::try_from(nanos).unwrap_or(0),
    }
}

fn from_wire(at: prost_types::Timestamp) -> Timestamp {
    Timestamp::from_micros(at.seconds.saturating_mul(1_000_000).saturating_add(i64::from(at.nanos) / 1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other() {
        let rows = [["A", "B"], ["long one", ""], ["ä", "x"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows), "A         B\nlong one\nä         x");
    }

    #[test]
    fn times_are_rfc_3339_and_absent_ones_a_dash() {
        let at = prost_types::Timestamp { seconds: 1_800_000_000, nanos: 250_000_000 };
        assert_eq!(cell(Some(at)), "2027-01-15T08:00:00.25Z");
        assert_eq!(seconds(at), "2027-01-15T08:00:00Z");
        assert_eq!(cell(None), "-");
    }
}
