//! Every key of the configuration: name, kind of value with its bounds, default, flag and meaning; a file for each part.
//! Reading and checking, the reference `docs/configuration.md` and the example file are made from these tables. A doc
//! comment in a table is what the reference says. To add a key: add a row, read it in `reading/`, and renew the two
//! documents by the commands that the test `the_documents_are_up_to_date` names.

mod audit;
mod auth;
mod expiry;
mod jobs;
mod log;
mod master_keys;
mod meta;
mod portal;
mod server;
mod storage;

pub(super) use audit::*;
pub(super) use auth::*;
pub(super) use expiry::*;
pub(super) use jobs::*;
pub(super) use log::*;
pub(super) use master_keys::*;
pub(super) use meta::*;
pub(super) use portal::*;
#[cfg(feature = "demo")]
pub use server::DEFAULT_LISTEN;
pub(super) use server::*;
pub(super) use storage::*;

use super::declare::Section;
use super::values::{Checked, FilePath};

/// Every table of the configuration, in the order of the reference.
pub(super) fn sections() -> impl Iterator<Item = &'static Section> {
    [
        server::SECTIONS,
        storage::SECTIONS,
        master_keys::SECTIONS,
        auth::SECTIONS,
        meta::SECTIONS,
        expiry::SECTIONS,
        jobs::SECTIONS,
        audit::SECTIONS,
        portal::SECTIONS,
        log::SECTIONS,
    ]
    .into_iter()
    .flatten()
}

const FILE: FilePath = FilePath("the path of a file");
const TEXT: Checked<String> = Checked {
    allowed: "a text of 1 to 256 characters, without control characters",
    such_as: "",
    parse: text,
};

fn text(text: &str) -> Option<String> {
    let good = (1..=256).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    good.then(|| text.to_owned())
}
