//! The elements of one page, as far as they fit.

use super::{Element, PAGE, fit};

/// The bytes of an element's tag, and of its length.
const FRAME: usize = 1 + 4;

/// Collects a page. The vault offers elements to [`Page::take`] until one does not fit.
#[derive(Debug)]
pub(in crate::api) struct Page<M> {
    elements: Vec<M>,
    bytes: usize,
}

/// A complete page: its elements, and the rest of the response.
#[derive(Debug)]
pub(in crate::api) struct Filled<R, M> {
    pub(in crate::api) rest: R,
    pub(in crate::api) elements: Vec<M>,
}

impl<M> Default for Page<M> {
    fn default() -> Self {
        Self { elements: Vec::new(), bytes: 0 }
    }
}

impl<M: Element> Page<M> {
    /// Adds an element. False: it does not fit, and belongs to the next page. The first one always fits.
    pub(in crate::api) fn take(&mut self, element: impl Into<M>) -> bool {
        self.push(element.into()).is_ok()
    }

    /// [`Self::take`], which gives an element back that does not fit.
    fn push(&mut self, mut element: M) -> Result<(), M> {
        let bytes = fit(&mut element, PAGE - FRAME) + FRAME;
        if !self.elements.is_empty() && self.bytes + bytes > PAGE {
            return Err(element);
        }
        self.bytes += bytes;
        self.elements.push(element);
        Ok(())
    }

    /// The elements in order, on as many pages as they need.
    pub(in crate::api) fn split(elements: impl IntoIterator<Item = impl Into<M>>) -> Vec<Vec<M>> {
        let (mut pages, mut page) = (Vec::new(), Self::default());
        for element in elements {
            if let Err(element) = page.push(element.into()) {
                pages.push(std::mem::take(&mut page).elements);
                // It was cut already, so it is only measured.
                page.take(element);
            }
        }
        if !page.elements.is_empty() {
            pages.push(page.elements);
        }
        pages
    }

    /// Completes the page.
    pub(in crate::api) fn with<R>(self, rest: R) -> Filled<R, M> {
        Filled { rest, elements: self.elements }
    }
}
