//! What a list of ad accounts contains, what it leaves out, and what that teaches for the next one.

use strum::VariantArray;

use super::AdAccount;
use crate::model::{Fixer, Guide, Matter, ProviderId, Remedy};

/// Something about ad accounts that could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::EnumString, strum::VariantArray)]
#[strum(const_into_str, serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum UnreadPart {
    /// Who owns the accounts: the token lacks the scope that shows it.
    OwnersNotGranted,
    /// Who owns the accounts: the provider hides it from the person, whatever the scopes.
    OwnersHidden,
    /// Which businesses the person is in, and so the accounts that only a business lists.
    Businesses,
    /// The accounts of some of the businesses.
    BusinessAccounts,
    /// The rest of a list that is too long.
    Rest,
}

impl UnreadPart {
    /// The name in the database and in metadata.
    pub const fn as_str(self) -> &'static str {
        self.into_str()
    }

    const fn bit(self) -> u8 {
        match self {
            Self::OwnersNotGranted => 1,
            Self::OwnersHidden => 1 << 1,
            Self::Businesses => 1 << 2,
            Self::BusinessAccounts => 1 << 3,
            Self::Rest => 1 << 4,
        }
    }
}

/// A set of [`UnreadPart`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unread(u8);

impl Unread {
    pub const fn add(&mut self, part: UnreadPart) {
        self.0 |= part.bit();
    }

    pub const fn contains(self, part: UnreadPart) -> bool {
        self.0 & part.bit() != 0
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn parts(self) -> impl Iterator<Item = UnreadPart> {
        UnreadPart::VARIANTS.iter().copied().filter(move |part| self.contains(*part))
    }

    /// Whether owners of accounts are unknown.
    pub const fn owners(self) -> bool {
        self.contains(UnreadPart::OwnersNotGranted) || self.contains(UnreadPart::OwnersHidden)
    }

    /// Whether accounts may be missing.
    pub const fn accounts(self) -> bool {
        self.contains(UnreadPart::Businesses)
            || self.contains(UnreadPart::BusinessAccounts)
            || self.contains(UnreadPart::Rest)
    }

    /// The names of the parts, separated by commas.
    pub fn names(self) -> String {
        self.parts().map(UnreadPart::as_str).collect::<Vec<_>>().join(", ")
    }
}

impl FromIterator<UnreadPart> for Unread {
    fn from_iter<I: IntoIterator<Item = UnreadPart>>(parts: I) -> Self {
        parts.into_iter().fold(Self::default(), |mut all, part| {
            all.add(part);
            all
        })
    }
}

impl Remedy {
    /// Ad accounts, or facts about them, that could not be read.
    pub(in crate::model) fn for_unread(unread: Unread, provider: &ProviderId, guide: Guide) -> Self {
        let (fixer, message, action) = if unread.contains(UnreadPart::Rest) {
            (
                Fixer::Nobody,
                "The token reaches more ad accounts than the provider lists.",
                "Nothing to do: the token works for the others too.",
            )
        } else if unread.accounts() {
            (
                Fixer::AdAccountAdmin,
                "The ad accounts that only a business lists could not all be read.",
                "Have the person's role in the business restored, if these ad accounts are wanted.",
            )
        } else if unread.contains(UnreadPart::OwnersNotGranted) {
            (
                Fixer::WorkspaceOwner,
                "Who owns the ad accounts could not be read, since the scope for that is not granted.",
                "Ask the workspace owner to reconnect the account and grant the optional scopes, if the owners are wanted.",
            )
        } else {
            (
                Fixer::AdAccountAdmin,
                "Who owns the ad accounts could not be read, since the provider hides it from the person.",
                "Give the person a role in the owning business, if the owners are wanted.",
            )
        };
        let remedy = Self::new(fixer, message, action);
        if fixer == Fixer::AdAccountAdmin {
            return guide.improve(provider, Matter::AdAccounts, remedy);
        }
        remedy
    }
}

/// What the last list of a token's ad accounts taught. The next one asks at once for what works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Listing {
    /// The most rows that the provider puts into a page; `None` while its usual number works.
    pub rows: Option<u32>,
    pub unread: Unread,
}

/// The ad accounts that a token reaches.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AdAccountList {
    /// Each account once.
    pub accounts: Vec<AdAccount>,
    pub listing: Listing,
}

impl AdAccountList {
    /// Whether an account that is not in the list is not reached.
    pub const fn is_complete(&self) -> bool {
        !self.listing.unread.accounts()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_of_parts_says_what_is_missing() {
        for bits in 0..1_u8 << UnreadPart::VARIANTS.len() {
            let unread = Unread(bits);
            assert_eq!(unread.parts().collect::<Unread>(), unread);
            assert_eq!(u32::try_from(unread.parts().count()), Ok(bits.count_ones()));
            assert_eq!(unread.is_empty(), !unread.owners() && !unread.accounts());
            let list = AdAccountList { accounts: vec![], listing: Listing { rows: None, unread } };
            assert_eq!(list.is_complete(), !unread.accounts());
        }
    }
}
