//! What every route needs of HTTP: cookies, forms, headers and limits.

pub(crate) mod cookies;
pub(crate) mod form;
pub(crate) mod headers;
pub(crate) mod limits;
pub(crate) mod link;
pub(crate) mod session;
