//! How many rows to read at once, so that a read takes about the same memory however large its rows are.

/// Rows of the first read, before any size is known.
const FIRST: usize = 128;
/// The fewest rows of a read.
const LEAST: usize = 8;
/// About how many bytes a read may take.
const BYTES: usize = 4 * 1024 * 1024;

#[derive(Debug, Clone, Copy)]
pub struct Batch {
    rows: usize,
    most: usize,
    bytes: usize,
}

impl Batch {
    pub fn up_to(most: usize) -> Self {
        Self { rows: FIRST.min(most), most, bytes: BYTES }
    }

    /// For a reader of which there are many: about this many bytes at once.
    #[must_use]
    pub const fn of_bytes(self, bytes: usize) -> Self {
        Self { bytes, ..self }
    }

    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// Learns from the sizes of rows that were read.
    pub fn read(&mut self, sizes: impl ExactSizeIterator<Item = usize>) {
        let rows = sizes.len();
        if let Some(mean) = sizes.sum::<usize>().checked_div(rows) {
            self.rows = (self.bytes / mean.max(1)).clamp(LEAST.min(self.most), self.most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_rows_are_read_in_few_at_once_and_small_ones_in_many() {
        for (mean, expected) in [(1, 1_000), (600, 1_000), (10_000, 419), (100_000, 41), (100_000_000, 8)] {
            let mut batch = Batch::up_to(1_000);
            assert_eq!(batch.rows(), 128);
            batch.read([mean; 3].into_iter());
            assert_eq!(batch.rows(), expected, "{mean}");
            batch.read(std::iter::empty());
            assert_eq!(batch.rows(), expected, "nothing read, nothing learned");
        }
        let mut few = Batch::up_to(4).of_bytes(1_000);
        few.read([900].into_iter());
        assert_eq!(few.rows(), 4);
    }
}
