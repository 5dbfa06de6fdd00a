//! Keeps the operator from locking everybody out by revoking the last API key of an administrator.

use token_vault_client::v1::ApiKey;
use token_vault_client::v1::api_key::{Role, Workspaces};

use crate::cli::Mistake;
use crate::cli::terminal::program::program;
use crate::cli::terminal::time::{from_wire, now};
use crate::model::Timestamp;

/// Refuses to go on if nobody could administer the vault without the key `key_id`.
pub(super) fn check(key_id: &str, keys: &[ApiKey]) -> Result<(), Mistake> {
    if !is_last(key_id, keys, now()) {
        return Ok(());
    }
    Err(Mistake(format!(
        "{key_id} is the last admin key of all workspaces: without it nobody can make keys any more. Make another one \
         first:\n  {} api-key create --principal ops --role admin --all-workspaces \\\n      --output ops.apikey\nor repeat the \
         command with --lock-out, if administrators come with certificates or with an issuer's tokens",
        program()
    )))
}

fn is_last(key_id: &str, keys: &[ApiKey], now: Timestamp) -> bool {
    let mut admins = keys.iter().filter(|key| administers(key, now));
    admins.any(|key| key.key_id == key_id)
        && !keys.iter().any(|key| key.key_id != key_id && administers(key, now) && key.replaced_by.is_none())
}

/// Whether the key works now and may administer all workspaces.
fn administers(key: &ApiKey, now: Timestamp) -> bool {
    let everywhere = matches!(key.workspaces, Some(Workspaces::AllWorkspaces(_)) | None);
    let ended = key.revoked_at.is_some() || key.expires_at.is_some_and(|end| from_wire(end) <= now);
    key.role() == Role::Admin && everywhere && !ended
}

#[cfg(test)]
mod tests {
    use token_vault_client::Timestamp as Wire;
    use token_vault_client::v1::WorkspaceList;

    use super::*;

    fn admin(key_id: &str) -> ApiKey {
        ApiKey {
            key_id: key_id.into(),
            role: Role::Admin.into(),
            workspaces: Some(Workspaces::AllWorkspaces(true)),
            ..ApiKey::default()
        }
    }

    #[test]
    fn a_key_is_the_last_unless_another_one_opens_as_much() {
        let past = Some(Wire { seconds: 1, nanos: 0 });
        let named = Some(Workspaces::Named(WorkspaceList { workspace_ids: vec!["acme".into()] }));
        let others = [
            ("another admin", admin("b"), false),
            ("a revoked one", ApiKey { revoked_at: past, ..admin("b") }, true),
            ("an expired one", ApiKey { expires_at: past, ..admin("b") }, true),
            ("one that is being replaced", ApiKey { replaced_by: Some("a".into()), ..admin("b") }, true),
            ("one of named workspaces", ApiKey { workspaces: named, ..admin("b") }, true),
            ("a viewer", ApiKey { role: Role::Viewer.into(), ..admin("b") }, true),
        ];
        let now = Timestamp::from_micros(2_000_000);
        for (name, other, last) in others {
            assert_eq!(is_last("a", &[admin("a"), other], now), last, "{name}");
        }
        let viewer = ApiKey { role: Role::Viewer.into(), ..admin("v") };
        assert!(!is_last("v", &[admin("a"), viewer], now), "a key that administers nothing locks nobody out");
        assert!(!is_last("none", &[admin("a")], now));
    }
}
