//! The portal of a world, in a process of its own, and the people who visit it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use token_vault_proto::v1::api_key::Role;

use super::{World, lock};
use crate::browser::Browser;

const URL: &str = "TOKEN_VAULT__PORTAL__URL";

impl World {
    /// Where browsers reach the portal.
    pub fn portal_url(&self) -> String {
        self.launch.value(URL).expect("there is always one").to_owned()
    }

    pub(super) async fn start_portal(&self) {
        let key = self.caller(Role::Portal, &[]).await;
        let file = self.folder().join("portal.apikey");
        fs::write(&file, key.key()).expect("the test's folder is writable");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("a mode can be set");
        let launch = self.launch().instead(["portal"]);
        let launch = launch
            .env("TOKEN_VAULT__PORTAL__VAULT_URL", self.endpoint())
            .env("TOKEN_VAULT__PORTAL__API_KEY_FILE", file.display().to_string());
        let portal = launch.serve(self.folder(), "portal");
        *lock(&self.portal) =
            Some(portal.unwrap_or_else(|ended| panic!("the portal does not start: {ended:#?}")));
    }

    /// Ends the portal by SIGTERM, and asserts that its exit code is zero.
    pub(super) fn stop_portal(&self) {
        if let Some(mut portal) = lock(&self.portal).take() {
            portal.terminate();
            let status = portal.wait();
            assert_eq!(status.code(), Some(0), "not a clean end:\n{}", portal.output());
        }
    }

    /// What the portal has written so far.
    pub fn portal_log(&self) -> String {
        let read = |end| fs::read(self.folder().join(format!("portal.{end}"))).unwrap_or_default();
        ["out", "err"].map(|end| String::from_utf8_lossy(&read(end)).into_owned()).concat()
    }

    /// A browser that has never been here.
    pub async fn browser(&self) -> Browser {
        Browser::start(&self.new_profile()).await
    }

    /// A browser whose user has switched JavaScript off.
    pub async fn browser_without_javascript(&self) -> Browser {
        Browser::without_javascript(&self.new_profile()).await
    }

    /// A short name, because the browser makes a socket below it, whose path has at most 107 bytes.
    fn new_profile(&self) -> PathBuf {
        let mut name = uuid::Uuid::new_v4().simple().to_string();
        name.truncate(8);
        self.folder().join(name)
    }
}
