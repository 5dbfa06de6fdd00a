//! The `state`: the authorization's id, and a MAC over what it is bound to. The database holds no state, and whoever can
//! write to it can't bind one to another workspace, connection or session.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::crypto::MacKey;
use crate::model::{AuthorizationId, Secret};
use crate::store::AuthorizationScope;

const ID: usize = 16;

/// What the browser carries.
pub(super) struct State {
    pub(super) id: AuthorizationId,
    mac: Vec<u8>,
}

impl State {
    /// `None`: no vault made it.
    pub(super) fn read(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (id, mac) = bytes.split_at_checked(ID)?;
        let id = AuthorizationId::from_uuid(uuid::Uuid::from_slice(id).ok()?);
        (mac.len() == 32).then(|| Self { id, mac: mac.to_vec() })
    }

    /// Whether it was made for exactly this. In constant time.
    pub(super) fn is_of(&self, key: &MacKey, scope: &AuthorizationScope) -> bool {
        self.id == scope.id && with_parts(scope, |parts| key.verify("authorization-state", parts, &self.mac))
    }
}

pub(super) fn state_of(key: &MacKey, scope: &AuthorizationScope) -> Secret {
    let mac = with_parts(scope, |parts| key.mac("authorization-state", parts));
    let bytes = [scope.id.as_uuid().as_bytes().as_slice(), &mac].concat();
    Secret::new(URL_SAFE_NO_PAD.encode(bytes))
}

fn with_parts<T>(scope: &AuthorizationScope, work: impl FnOnce(&[&[u8]]) -> T) -> T {
    let AuthorizationScope {
        id,
        workspace,
        provider,
        connection,
        redirect_uri,
        session_binding,
        options,
        expires_at,
        link,
    } = scope;
    let connection = connection.map(|id| id.to_string()).unwrap_or_default();
    let id = id.as_uuid();
    let (options, expires_at) = (options.to_be_bytes(), expires_at.as_micros().to_be_bytes());
    let mut parts: Vec<&[u8]> = vec![
        id.as_bytes(),
        workspace.as_str().as_bytes(),
        provider.as_str().as_bytes(),
        connection.as_bytes(),
        redirect_uri.as_bytes(),
        session_binding,
        &options,
        &expires_at,
    ];
    parts.extend(link.iter().map(|link| link.as_str().as_bytes()));
    work(&parts)
}

/// The verifier of PKCE. It is derived, so that it is stored nowhere.
pub(super) fn verifier_of(key: &MacKey, id: AuthorizationId) -> Secret {
    Secret::new(URL_SAFE_NO_PAD.encode(key.mac("authorization-verifier", &[id.as_uuid().as_bytes()])))
}

/// What of a browser session is stored.
pub(super) fn binding_of(key: &MacKey, session: &str) -> Vec<u8> {
    key.mac("authorization-session", &[session.as_bytes()]).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::RawKey;
    use crate::model::{ConnectionId, ProviderId, Timestamp, WorkspaceId};

    fn key(byte: u8) -> MacKey {
        MacKey::new(&RawKey::from_bytes([byte; 32]))
    }

    fn scope() -> AuthorizationScope {
        AuthorizationScope {
            id: AuthorizationId::generate(),
            workspace: WorkspaceId::parse("acme").unwrap(),
            provider: ProviderId::parse("meta").unwrap(),
            connection: None,
            redirect_uri: "https://app.example/cb".into(),
            session_binding: binding_of(&key(1), "cookie"),
            options: 0,
            expires_at: Timestamp::from_micros(1),
            link: None,
        }
    }

    #[test]
    fn a_state_is_of_its_scope_alone() {
        let (other_key, key, scope) = (key(2), key(1), scope());
        let text = state_of(&key, &scope);
        assert_eq!(text.expose().len(), 64);
        let state = State::read(text.expose()).unwrap();
        assert!(state.id == scope.id && state.is_of(&key, &scope));
        let other = ConnectionId::generate(Timestamp::EPOCH);
        let changes: [fn(&mut AuthorizationScope); 7] = [
            |scope| scope.id = AuthorizationId::generate(),
            |scope| scope.workspace = WorkspaceId::parse("beta").unwrap(),
            |scope| scope.provider = ProviderId::parse("google_ads").unwrap(),
            |scope| scope.redirect_uri.push('/'),
            |scope| scope.session_binding[0] ^= 1,
            |scope| scope.options = 1,
            |scope| scope.expires_at = Timestamp::from_micros(2),
        ];
        for change in changes {
            let mut changed = scope.clone();
            change(&mut changed);
            assert!(!state.is_of(&key, &changed), "{changed:?}");
        }
        assert!(!state.is_of(&key, &AuthorizationScope { connection: Some(other), ..scope.clone() }));
        assert!(!state.is_of(&other_key, &scope), "another vault's key");
    }

    #[test]
    fn any_changed_or_cut_text_is_no_state() {
        let (key, scope) = (key(1), scope());
        let text = state_of(&key, &scope).expose().to_owned();
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(State::read(&changed).is_none_or(|state| !state.is_of(&key, &scope)), "{at}");
            assert!(State::read(&text[..at]).is_none(), "{at}");
        }
        for text in ["", "=", "ä", &format!("{text}A"), &format!("{text} ")] {
            assert!(State::read(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_verifier_has_the_form_of_rfc_7636() {
        let verifier = verifier_of(&key(1), AuthorizationId::generate());
        let text = verifier.expose();
        assert!((43..=128).contains(&text.len()), "{}", text.len());
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)));
    }
}
