//! A link with which a person connects an account.

use std::time::Duration;

use crate::model::{ConnectLinkId, ConnectionId, ProviderId, Timestamp, WorkspaceId};

/// How long a link still shows the card after the last account that it allows was connected.
const SHOWN_AFTER_USE: Duration = Duration::from_secs(60 * 60);

/// A link without its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectLink {
    pub id: ConnectLinkId,
    pub workspace: WorkspaceId,
    pub provider: ProviderId,
    /// The only connection that it reconnects.
    pub connection: Option<ConnectionId>,
    /// Where the portal sends the browser afterwards; may be empty.
    pub return_url: String,
    pub max_uses: u32,
    pub uses: u32,
    /// The principal's name.
    pub created_by: String,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub opened_at: Option<Timestamp>,
    pub last_used_at: Option<Timestamp>,
    pub last_connection: Option<ConnectionId>,
    pub revoked_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectLinkState {
    Open,
    /// As many accounts were connected as it allows.
    Used,
    Expired,
    Revoked,
}

impl ConnectLink {
    pub fn state(&self, now: Timestamp) -> ConnectLinkState {
        if self.revoked_at.is_some() {
            ConnectLinkState::Revoked
        } else if self.uses >= self.max_uses {
            ConnectLinkState::Used
        } else if self.expires_at <= now {
            ConnectLinkState::Expired
        } else {
            ConnectLinkState::Open
        }
    }

    /// Whether another account may be connected with it.
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.state(now) == ConnectLinkState::Open
    }

    /// Whether it opens the card: whoever connected the last account sees what became of it.
    pub fn shows_card(&self, now: Timestamp) -> bool {
        match self.state(now) {
            ConnectLinkState::Open => true,
            ConnectLinkState::Used => self.last_used_at.is_some_and(|at| now < at + SHOWN_AFTER_USE),
            ConnectLinkState::Expired | ConnectLinkState::Revoked => false,
        }
    }

    /// Whether it reaches a connection of its workspace.
    pub fn reaches(&self, provider: &ProviderId, connection: ConnectionId) -> bool {
        self.provider == *provider && self.connection.is_none_or(|only| only == connection)
    }
}

#[cfg(test)]
impl ConnectLink {
    /// A link that nobody has opened, made at 1 000 s and good until 90 000 s.
    pub(crate) fn unopened() -> Self {
        let at = Timestamp::from_unix_seconds;
        Self {
            id: ConnectLinkId::parse("a".repeat(16)).unwrap(),
            workspace: WorkspaceId::parse("acme").unwrap(),
            provider: ProviderId::parse("an_ad_platform").unwrap(),
            connection: None,
            return_url: String::new(),
            max_uses: 1,
            uses: 0,
            created_by: "web".into(),
            created_at: at(1_000),
            expires_at: at(90_000),
            opened_at: None,
            last_used_at: None,
            last_connection: None,
            revoked_at: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_ends_by_use_by_time_or_by_revocation() {
        let at = Timestamp::from_unix_seconds;
        let link = ConnectLink::unopened();
        assert_eq!(link.state(at(89_999)), ConnectLinkState::Open);
        assert_eq!(link.state(at(90_000)), ConnectLinkState::Expired);
        assert!(link.shows_card(at(89_999)) && !link.shows_card(at(90_000)));
        let used = ConnectLink { uses: 1, last_used_at: Some(at(89_000)), ..link.clone() };
        assert_eq!(used.state(at(90_000)), ConnectLinkState::Used);
        assert!(used.shows_card(at(92_599)) && !used.shows_card(at(92_600)));
        let revoked = ConnectLink { revoked_at: Some(at(2_000)), ..used };
        assert_eq!(revoked.state(at(2_001)), ConnectLinkState::Revoked);
        assert!(!revoked.shows_card(at(2_001)));
    }
}
