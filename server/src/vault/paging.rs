//! A page of a list as it fills: how many rows to read next, and whether there are more.

use crate::store::Batch;

/// The most elements that a caller may ask for.
const MOST: usize = 1_000;
/// After this many reads a page ends, even if its filters left it empty.
const READS: usize = 20;

/// Whether a read found as many rows as it asked for, so that there may be more.
pub(in crate::vault) fn full(found: usize, asked: i64) -> bool {
    i64::try_from(found).unwrap_or(i64::MAX) >= asked
}

/// The caller of a list decides what fits: it takes each element, or does not, and then that element begins the next
/// page.
#[derive(Debug)]
pub(in crate::vault) struct Filling {
    /// Elements that the page may still take.
    wanted: usize,
    reads: usize,
    /// Rows that were read and not taken.
    filtered: usize,
    batch: Batch,
    full: bool,
    more: bool,
}

impl Filling {
    pub(in crate::vault) fn of(page_size: u32) -> Self {
        let wanted = usize::try_from(page_size).unwrap_or(MOST).clamp(1, MOST);
        Self { wanted, reads: 0, filtered: 0, batch: Batch::up_to(MOST), full: false, more: true }
    }

    /// How many rows to read next. `None`: the page is complete.
    pub(in crate::vault) fn next(&mut self) -> Option<i64> {
        if self.full || !self.more || self.reads == READS {
            return None;
        }
        self.reads += 1;
        // One more row than the page takes shows whether there is another page. Where filters pass over rows, more rows
        // are needed than elements.
        let rows = if self.filtered > 0 { MOST } else { self.wanted + 1 };
        i64::try_from(rows.min(self.batch.rows())).ok()
    }

    /// Notes that rows were read, about how many bytes each of them has, and whether there may be more.
    pub(in crate::vault) fn read(&mut self, sizes: impl ExactSizeIterator<Item = usize>, more: bool) {
        self.filtered += sizes.len();
        self.batch.read(sizes);
        self.more = more;
    }

    /// Offers an element. False: the page is full, and the element belongs to the next one.
    pub(in crate::vault) fn offer(&mut self, take: impl FnOnce() -> bool) -> bool {
        let taken = self.wanted > 0 && take();
        if taken {
            self.wanted -= 1;
            self.filtered -= 1;
        } else {
            self.full = true;
        }
        taken
    }

    /// Whether there is another page.
    pub(in crate::vault) fn has_more(&self) -> bool {
        self.full || self.more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lists the rows that are multiples of `every`, on pages of `size`, where only `fits` of them fit on one page.
    fn pages(rows: usize, every: usize, size: u32, fits: usize) -> Vec<Vec<usize>> {
        let (mut pages, mut after) = (Vec::new(), 0);
        loop {
            let mut page = Vec::new();
            let mut filling = Filling::of(size);
            'page: while let Some(asked) = filling.next() {
                let found: Vec<_> = (after..rows).take(usize::try_from(asked).unwrap()).collect();
                filling.read(found.iter().map(|_| 1_000), full(found.len(), asked));
                for row in found {
                    let mut take = || {
                        let room = page.len() < fits;
                        page.extend(room.then_some(row));
                        room
                    };
                    if row % every == 0 && !filling.offer(&mut take) {
                        break 'page;
                    }
                    after = row + 1;
                }
            }
            assert!(page.len() <= usize::try_from(size).unwrap());
            pages.push(page);
            if !filling.has_more() {
                return pages;
            }
        }
    }

    #[test]
    fn every_wanted_row_is_on_one_page_whatever_fits() {
        for rows in [0, 1, 127, 128, 129, 3_000] {
            for (every, size, fits) in
                [(1, 1, 9), (1, 50, 9), (3, 50, 50), (1, 1_000, 2_000), (700, 2, 9), (5, 129, 100)]
            {
                let pages = pages(rows, every, size, fits);
                let wanted: Vec<_> = (0..rows).step_by(every).collect();
                assert_eq!(pages.concat(), wanted, "{rows} rows, each {every}th, {size} a page, {fits} fit");
            }
        }
    }

    #[test]
    fn a_page_reads_no_more_rows_than_it_needs() {
        let asked = |size: u32, mean: usize| {
            let (mut filling, mut reads) = (Filling::of(size), Vec::new());
            while let Some(rows) = filling.next() {
                reads.push(rows);
                filling.read(vec![mean; usize::try_from(rows).unwrap()].into_iter(), true);
                (0..rows).all(|_| filling.offer(|| true));
            }
            reads
        };
        assert_eq!(asked(50, 600), [51]);
        assert_eq!(asked(1_000, 600), [128, 873]);
        assert_eq!(asked(200, 120_000), [128, 34, 34, 5]);
    }

    #[test]
    fn a_page_that_filters_leave_empty_ends_short() {
        let mut filling = Filling::of(10);
        let mut reads = 0;
        while let Some(rows) = filling.next() {
            filling.read(vec![600; usize::try_from(rows).unwrap()].into_iter(), true);
            reads += 1;
        }
        assert!(reads == READS && filling.has_more());
    }
}
