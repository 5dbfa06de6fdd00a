//! How large a response gets. A page of a list and a message of a stream have at most [`PAGE`] bytes, because clients
//! commonly reject messages over 4 MiB, and a message that its client rejects would end a list or a watch for good. So
//! no size ever reaches a caller as an error.
//!
//! Each element is measured once, by `encoded_len`, and only one that is too large by itself is measured again. It is
//! cut in its lists (`lists`). Texts of others are short from the start (`texts`).

mod lists;
mod page;
#[cfg(test)]
mod tests;
pub(in crate::api) mod texts;

use prost::Message;
use token_vault_proto::v1 as pb;

pub(in crate::api) use page::{Filled, Page};

/// The most bytes of a page's elements, which leaves room in one MiB for page token, cursor and times.
pub(super) const PAGE: usize = 1024 * 1024 - 16 * 1024;
/// The most bytes of a token that stands alone in its response: as much as clients accept by default, less some room
/// for the rest of the response.
const WHOLE: usize = 4 * 1024 * 1024 - 64 * 1024;

/// What a page consists of.
pub(in crate::api) trait Element: Message {
    /// Shortens the element's lists, so that it has at most `most` bytes, and counts what is left out.
    fn cut(&mut self, most: usize);
}

impl Element for pb::Token {
    fn cut(&mut self, most: usize) {
        lists::cut_token(self, most);
    }
}

impl Element for pb::ExpiryEvent {
    fn cut(&mut self, most: usize) {
        lists::cut_event(self, most);
    }
}

/// Elements whose parts are all bounded when they are made, to far less than a page in all.
macro_rules! small {
    ($($element:ident),+) => {
        $(impl Element for pb::$element {
            fn cut(&mut self, _most: usize) {}
        })+
    };
}
small!(AdAccount, ApiKey, ConnectLink, JobRun, Subscription, Workspace);

/// Cuts an element that is too large. Returns how many bytes it has.
pub(super) fn fit<M: Element>(element: &mut M, most: usize) -> usize {
    let length = element.encoded_len();
    if length <= most {
        return length;
    }
    element.cut(most);
    element.encoded_len()
}

/// The token in a response that is about something else.
pub(super) fn beside(token: impl Into<pb::Token>) -> Option<pb::Token> {
    let mut token = token.into();
    fit(&mut token, PAGE);
    Some(token)
}

/// The token in the response that exists for it.
pub(super) fn whole(token: impl Into<pb::Token>) -> Option<pb::Token> {
    let mut token = token.into();
    fit(&mut token, WHOLE);
    Some(token)
}
