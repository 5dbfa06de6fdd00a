//! What authentication needs, and when each API key was last noted as used.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::{ApiKeyId, CertificateRule};
use crate::oidc::Issuer;
use parking_lot::Mutex;
use url::Url;

/// A key's last use is written at most this often.
const NOTED_EVERY: Duration = Duration::from_secs(60);

pub struct Access {
    pub key_uses: KeyUses,
    /// Which principal each certificate belongs to.
    pub certificates: Vec<CertificateRule>,
    /// The issuer whose tokens are accepted, if one is configured.
    pub issuer: Option<Arc<Issuer>>,
    pub links: LinkConfig,
}

/// Where connect links lead.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkConfig {
    /// The portal's address for browsers. Without it no links are made.
    pub portal: Option<Url>,
    /// The addresses that the portal may send browsers to.
    pub return_urls: Vec<Url>,
}

/// When each key's use was last written.
#[derive(Default)]
pub struct KeyUses(Mutex<HashMap<ApiKeyId, Instant>>);

impl KeyUses {
    /// Whether to write this use now. If so, it counts as written.
    pub fn is_due(&self, id: &ApiKeyId) -> bool {
        let mut noted = self.0.lock();
        match noted.get_mut(id) {
            Some(at) if at.elapsed() < NOTED_EVERY => false,
            Some(at) => {
                *at = Instant::now();
                true
            }
            None => {
                noted.insert(id.clone(), Instant::now());
                true
            }
        }
    }
}
