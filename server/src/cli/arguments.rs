//! The flags that several commands share. Each command takes only those that it uses, so that none is ignored.

use std::path::PathBuf;

use clap::Args;

use crate::config::Flags;

const HEADING: &str = "Configuration";

/// For commands that read the configuration.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = HEADING)]
pub(super) struct ConfigArgs {
    /// Configuration file, in TOML.
    #[arg(long, value_name = "FILE", env = "TOKEN_VAULT_CONFIG")]
    pub(super) config: Option<PathBuf>,
    /// Folder for the database, the master key and the bootstrap key [key: data_dir] [default: ./data].
    #[arg(long, value_name = "DIR")]
    pub(super) data_dir: Option<PathBuf>,
}

/// For commands that open the database.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = HEADING)]
pub(super) struct DatabaseArgs {
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    /// Database: sqlite:PATH or postgres://… [key: storage.url] [default: in the data folder].
    ///
    /// A URL with a password is refused here, because other users of the machine can see arguments: give it as
    /// TOKEN_VAULT__STORAGE__URL or in the configuration file.
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
}

/// For `serve`.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = HEADING)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// Address for gRPC: IP and port; port 0 picks a free one [key: server.listen] [default: 127.0.0.1:7443].
    #[arg(long, value_name = "ADDRESS")]
    pub(super) listen: Option<String>,
}

impl From<ConfigArgs> for Flags {
    fn from(args: ConfigArgs) -> Self {
        Self { file: args.config, data_dir: args.data_dir, ..Self::default() }
    }
}

impl From<DatabaseArgs> for Flags {
    fn from(args: DatabaseArgs) -> Self {
        Self { database_url: args.database_url, ..args.config.into() }
    }
}

impl From<ServeArgs> for Flags {
    fn from(args: ServeArgs) -> Self {
        Self { listen: args.listen, ..args.database.into() }
    }
}
