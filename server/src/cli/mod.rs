//! The command line. Each file is one command; here are the arguments, and what the exit code means.

mod api_key;
mod audit;
mod config;
mod connect;
#[cfg(feature = "demo")]
pub mod demo;
mod encryption_keys;
mod healthcheck;
mod jobs;
mod terminal;
mod watch;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigError, Flags};
use crate::vault::Vault;
use crate::{serve, telemetry};

/// Something failed while running.
const FAILED: u8 = 1;
/// The command line or the configuration is wrong; nothing was done.
const MISTAKE: u8 = 2;

const EXAMPLES: &str = "\
Examples:
  token-vault                                        run with all defaults, data in ./data
  token-vault serve --config /etc/token-vault.toml   run as configured
  token-vault api-key create --principal ingestion --role ingestion --all-workspaces
  token-vault watch --from snapshot                  how tokens are, then what happens to them
  token-vault jobs                                   what runs by the clock, and how it went
  token-vault healthcheck                            exit 0 while the vault serves

Configuration: defaults, then the file of --config, then the environment, then flags; the later wins.
The key server.listen is TOKEN_VAULT__SERVER__LISTEN in the environment, and so on for every key.
TOKEN_VAULT_MASTER_KEY holds the master keys if they are not in a file.

Exit codes: 0 done, 1 failed while running, 2 mistake in the command line or configuration.";

/// Self-hosted vault for ad-platform access tokens, over gRPC.
///
/// Without a command it serves.
#[derive(Debug, Parser)]
#[command(name = "token-vault", version, after_help = EXAMPLES)]
struct CommandLine {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Flags of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Configuration")]
struct ConfigArgs {
    /// Configuration file, in TOML.
    #[arg(long, value_name = "FILE", env = "TOKEN_VAULT_CONFIG", global = true)]
    config: Option<PathBuf>,
    /// Address for gRPC: IP and port; port 0 picks a free one [key: server.listen] [default: 127.0.0.1:7443].
    #[arg(long, value_name = "ADDRESS", global = true)]
    listen: Option<String>,
    /// Database: sqlite:PATH or postgres://… [key: storage.url] [default: in the data folder].
    ///
    /// A URL with a password is refused here, since other users of the machine can see arguments: give it as
    /// TOKEN_VAULT__STORAGE__URL or in the configuration file.
    #[arg(long, value_name = "URL", global = true)]
    database_url: Option<String>,
    /// Folder for database, master key and bootstrap key [key: data_dir] [default: ./data].
    #[arg(long, value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
}

impl From<ConfigArgs> for Flags {
    fn from(args: ConfigArgs) -> Self {
        Self {
            file: args.config,
            listen: args.listen,
            database_url: args.database_url,
            data_dir: args.data_dir,
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the vault until SIGTERM or SIGINT.
    ///
    /// Prints one line on stdout when it is ready: `token-vault ready: grpc=… admin=…`. Logs go to stderr.
    Serve,
    /// Bring the database's schema up to this version, and end.
    ///
    /// Needed only where storage.migrate_on_start is off.
    Migrate,
    /// Make, list and revoke API keys.
    #[command(subcommand)]
    ApiKey(api_key::Command),
    /// Follow what happens to tokens, one line per event.
    Watch(watch::WatchArgs),
    /// List the jobs, start one, or see how their runs went.
    Jobs(jobs::JobsArgs),
    /// List, make, rotate and recover the keys that everything is encrypted by.
    #[command(subcommand)]
    Keys(encryption_keys::Command),
    /// Check the audit log, and read it.
    #[command(subcommand)]
    Audit(audit::Command),
    /// Print every configuration key, as an example file or as a reference.
    Config(config::ConfigDocument),
    /// Ask a running vault whether it serves: exit 0 if so, 1 if not.
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Run a vault and a provider sandbox, and tell a story in the terminal.
    #[cfg(feature = "demo")]
    Demo(demo::DemoArgs),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

/// Runs one command line, program name first.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let line = match CommandLine::try_parse_from(arguments) {
        Ok(line) => line,
        Err(told) => {
            // Help and version are told this way too, on stdout.
            let _ = told.print();
            return if told.use_stderr() { ExitCode::from(MISTAKE) } else { ExitCode::SUCCESS };
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&anyhow::Error::from(error).context("cannot start threads")),
    };
    let outcome = runtime.block_on(dispatch(line));
    runtime.shutdown_timeout(Duration::from_secs(1));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error),
    }
}

async fn dispatch(line: CommandLine) -> anyhow::Result<()> {
    let flags = Flags::from(line.config);
    match line.command {
        None | Some(Command::Serve) => {
            let config = Config::load(flags)?;
            telemetry::init(config.log.format, &config.log.level)?;
            serve::run(config).await
        }
        Some(Command::Migrate) => {
            let config = Config::load(flags)?;
            telemetry::init(config.log.format, &config.log.level)?;
            let (vault, _) = config.into_vault_config();
            let applied = Vault::migrate(&vault).await?;
            say(format_args!("applied {applied} migrations"))
        }
        Some(Command::ApiKey(command)) => api_key::run(command, flags).await,
        Some(Command::Watch(args)) => watch::run(args, flags).await,
        Some(Command::Jobs(args)) => jobs::run(args, flags).await,
        Some(Command::Keys(command)) => encryption_keys::run(command, flags).await,
        Some(Command::Audit(command)) => audit::run(command, flags).await,
        Some(Command::Config(args)) => config::run(&args),
        Some(Command::Healthcheck(args)) => healthcheck::run(args).await,
        #[cfg(feature = "demo")]
        Some(Command::Demo(args)) => demo::run(args, flags.listen).await,
    }
}

/// One line on stdout.
fn say(line: impl std::fmt::Display) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{line}").map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Unread.into(),
        _ => anyhow::Error::from(error).context("cannot write to stdout"),
    })
}

/// One line on stderr, for people who keep stdout.
fn note(line: impl std::fmt::Display) {
    // Nobody can be told that telling failed.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Tells why, and gives the exit code.
fn complain(error: &anyhow::Error) -> ExitCode {
    if error.is::<Unread>() {
        return ExitCode::SUCCESS;
    }
    note(format_args!("token-vault: {error:#}"));
    let mistaken = error.is::<ConfigError>() || error.is::<Mistake>();
    ExitCode::from(if mistaken { MISTAKE } else { FAILED })
}

/// Who read stdout has gone, as `head` does when it has enough. No failure: the command ends.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads stdout any more")]
struct Unread;

/// An argument that the parser could not judge, and that is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Mistake(String);

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn no_command_means_serve_and_flags_stand_anywhere() {
        let parse = |line: &str| CommandLine::try_parse_from(line.split(' ')).map_err(|e| e.to_string());
        let bare = parse("token-vault --listen 127.0.0.1:0").unwrap();
        assert!(bare.command.is_none());
        assert_eq!(bare.config.listen.as_deref(), Some("127.0.0.1:0"));
        let named = parse("token-vault serve --listen 127.0.0.1:0").unwrap();
        assert_eq!(named.config.listen.as_deref(), Some("127.0.0.1:0"));
    }

    #[test]
    fn a_key_names_workspaces_or_says_all() {
        let parse = |more: &str| {
            let line = format!("token-vault api-key create --principal p --role viewer{more}");
            CommandLine::try_parse_from(line.split(' ')).is_ok()
        };
        assert!(parse(" --all-workspaces"));
        assert!(parse(" --workspace a --workspace b"));
        assert!(!parse(""));
        assert!(!parse(" --all-workspaces --workspace a"));
    }
}
