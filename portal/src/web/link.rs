//! The id and the token of a link.

use std::fmt;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// The public id of a link: 16 characters of `[a-z2-7]`. It is safe in paths, cookie names, pages and logs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct LinkId(String);

impl LinkId {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let good = text.len() == 16 && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'2'..=b'7'));
        good.then(|| Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The secret of a link. Whoever has it can connect an account, so it is never printed or written into a page.
pub(crate) struct LinkToken {
    pub(crate) id: LinkId,
    text: Zeroizing<String>,
}

impl LinkToken {
    /// Reads `tvl_<id>_<secret>`. Nothing else gets into a cookie or into a call's metadata.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix("tvl_")?.split_once('_')?;
        let id = LinkId::parse(id)?;
        let good = secret.len() == 43
            && secret.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        good.then(|| Self { id, text: Zeroizing::new(text.to_owned()) })
    }

    pub(crate) fn expose(&self) -> &str {
        &self.text
    }

    /// Stands for the token where it must not be kept.
    pub(crate) fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.text.as_bytes()).into()
    }
}

impl fmt::Debug for LinkToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkToken").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "AbcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN_-0";

    #[test]
    fn only_the_exact_form_is_a_token() {
        let good = format!("tvl_abcdefghijklmn27_{SECRET}");
        let token = LinkToken::parse(&good).unwrap();
        assert_eq!((token.id.as_str(), token.expose()), ("abcdefghijklmn27", good.as_str()));
        assert!(!format!("{token:?}").contains("Abcdef"));
        for bad in [
            format!("abcdefghijklmn27_{SECRET}"),
            format!("tvl_abcdefghijklmn28_{SECRET}"),
            format!("tvl_Abcdefghijklmn27_{SECRET}"),
            format!("tvl_abcdefghijklmn27_{SECRET}x"),
            format!("tvl_abcdefghijklmn27_{};", &SECRET[1..]),
            "tvl_".to_owned(),
            String::new(),
        ] {
            assert!(LinkToken::parse(&bad).is_none(), "{bad}");
        }
    }
}
