//! Where the data is by default.

use crate::config::declare::{setting, settings};
use crate::config::values::{Checked, Switch};

settings! {
    /// **PostgreSQL**: `fsync` and `synchronous_commit` must be on, and the URL must not lead to a pooler in
    /// transaction mode. Any number of replicas share one database: give each the same master key and the same
    /// configuration. A replica that starts with another policy puts that in force for all replicas, and logs it.
    /// Keep clocks in step by NTP: a replica whose clock is more than 2 s off the database's announces no expiries.
    ["storage"] {
        /// The database: `sqlite:PATH` or `postgres://USER:PASSWORD@HOST/DATABASE`. A URL with a password is refused
        /// as a flag, since other users of the machine can see arguments; a file that holds one should be its
        /// owner's alone (mode 600).
        STORAGE_URL: Checked<String> = setting("storage.url", DATABASE)
            .unset("`sqlite:` + data folder + `/token-vault.db`", "\"sqlite:./data/token-vault.db\"")
            .flag("--database-url");
        /// Apply database migrations at start. Where this is off, run `token-vault migrate` with a database role
        /// that may change the schema.
        MIGRATE_ON_START: Switch = setting("storage.migrate_on_start", Switch).default("true");
    }
}

const DATABASE: Checked<String> = Checked {
    allowed: "sqlite:PATH or postgres://USER:PASSWORD@HOST/DATABASE",
    such_as: "",
    parse: database,
};

fn database(text: &str) -> Option<String> {
    let known = ["sqlite:", "postgres://", "postgresql://"];
    let good = known.iter().any(|scheme| text.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()));
    let server_can_be_found = text.starts_with("sqlite:") || url::Url::parse(text).is_ok();
    (good && server_can_be_found).then(|| text.to_owned())
}
