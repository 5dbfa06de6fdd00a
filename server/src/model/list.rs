//! How lists are ordered.

/// In which order tokens are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ListOrder {
    /// By end; unknown first, never last.
    #[default]
    ExpiresFirst,
    /// Oldest connection first.
    CreatedFirst,
    /// Youngest connection first.
    CreatedLast,
}
