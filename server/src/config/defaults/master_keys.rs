//! Where the master keys come from by default.

use super::{FILE, TEXT};
use crate::config::declare::{setting, settings};
use crate::config::values::{Checked, FilePath, SecureUrl};

settings! {
    /// A master key is one line `tvk1:<id>:<base64 of 32 random bytes>`, in a file or in the environment variable
    /// `TOKEN_VAULT_MASTER_KEY` (which is not a key of the configuration file; set one of the two). Several lines
    /// are several keys. With SQLite the first start makes the file; with PostgreSQL every replica needs the same
    /// key, so it must be given: `token-vault keys generate` makes one.
    ["keys"] {
        /// The file with the master keys.
        MASTER_KEY_FILE: FilePath = setting("keys.master_key_file", FILE)
            .unset("data folder + `/master.key`", "\"./data/master.key\"");
        /// The file with the break-glass sealing key; every key is then encrypted with it too, so that the offline
        /// opening key can recover them.
        BREAK_GLASS_SEALING_KEY_FILE: FilePath = setting("keys.break_glass_sealing_key_file", FILE)
            .unset("no break-glass key", "\"break-glass.sealing\"");
    }

    /// A key service (OpenBao or HashiCorp Vault, transit engine) as the master key. The vault's token or AppRole needs `read` on
    /// `transit/keys/token-vault` and `update` on its `encrypt` and `decrypt`.
    ["keys.transit"] {
        /// The key service.
        TRANSIT_ADDRESS: SecureUrl = setting("keys.transit.address", SecureUrl { query: false, example: "https://bao.example:8200" })
            .unset("no key service", "\"https://bao.example:8200\"");
        /// Where the transit engine is mounted.
        TRANSIT_MOUNT: Checked<String> = setting("keys.transit.mount", TRANSIT_NAME).default("transit");
        /// The name of the key.
        TRANSIT_KEY: Checked<String> = setting("keys.transit.key", TRANSIT_NAME).default("token-vault");
        /// The namespace.
        TRANSIT_NAMESPACE: Checked<String> = setting("keys.transit.namespace", TRANSIT_NAME).unset("none", "\"ads\"");
        /// The file with the vault's token for the key service. It is read again when it changes. Set this, or both
        /// `role_id` and `secret_id_file`.
        TRANSIT_TOKEN_FILE: FilePath = setting("keys.transit.token_file", FILE).unset("none", "\"transit.token\"");
        /// The AppRole's id.
        TRANSIT_ROLE_ID: Checked<String> = setting("keys.transit.role_id", TEXT).unset("none", "\"token-vault\"");
        /// The file with the AppRole's secret id.
        TRANSIT_SECRET_ID_FILE: FilePath = setting("keys.transit.secret_id_file", FILE).unset("none", "\"transit.secret-id\"");
        /// PEM file with the certificates to trust instead of the system's.
        TRANSIT_CA_FILE: FilePath = setting("keys.transit.ca_file", FILE).unset("the system's", "\"transit-ca.crt\"");
    }
}

const TRANSIT_NAME: Checked<String> =
    Checked { allowed: "1 to 128 characters of A-Z a-z 0-9 . _ - /", such_as: "", parse: transit_name };

fn transit_name(text: &str) -> Option<String> {
    let good = (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b))
        && !text.split('/').any(|part| part.is_empty() || part == "." || part == "..");
    good.then(|| text.to_owned())
}
