//! The command line. Each file or folder is one command; here are the list of commands and the exit codes.

mod api_key;
mod arguments;
mod audit;
mod config;
mod connect;
#[cfg(feature = "demo")]
pub mod demo;
mod encryption_keys;
mod healthcheck;
mod jobs;
mod links;
mod portal;
mod terminal;
mod watch;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::{Config, ConfigError};
use crate::vault::Vault;
use crate::{serve, telemetry};

use arguments::{DatabaseArgs, ServeArgs};
use terminal::program::{program, with_name, with_name_in_help};
use terminal::screen::paragraphs;
use terminal::{Unread, counted, note, say};

/// The command failed while running.
const FAILED: u8 = 1;
/// The command line or the configuration is wrong; nothing was done.
const MISTAKE: u8 = 2;

const EXAMPLES: &str = "\
Examples:
  token-vault
      Serve with all defaults, with data in ./data.
  token-vault serve --config /etc/token-vault.toml
      Serve as configured.
  token-vault api-key create --principal ops --role admin --all-workspaces \\
      --output ops.apikey
      Make an admin key of your own, the first step after the first start.
  token-vault watch --from snapshot
      See how the tokens are, and then what happens to them.
  token-vault jobs
      List the jobs, and how their latest runs went.
  token-vault healthcheck
      Exit with 0 while the vault answers calls.

Configuration: a value comes from the defaults, the file of --config, the environment or flags; the later wins. \
The key server.listen is TOKEN_VAULT__SERVER__LISTEN in the environment, and so on for every key. \
TOKEN_VAULT_MASTER_KEY holds the master keys if they are not in a file.

Exit codes: 0 done, 1 failed while running, 2 mistake in the command line or the configuration.";

/// Self-hosted vault for ad-platform access tokens, over gRPC.
///
/// Without a command it serves.
#[derive(Debug, Parser)]
#[command(name = "token-vault", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(flatten)]
    serve: ServeArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the vault until SIGTERM or SIGINT.
    ///
    /// Prints one line on stdout when it is ready: `token-vault ready: grpc=… admin=…`. Logs go to stderr.
    Serve(ServeArgs),
    /// Bring the database's schema up to date with this version.
    ///
    /// Needed only where storage.migrate_on_start is off.
    Migrate(DatabaseArgs),
    /// Make, list, rotate and revoke API keys.
    #[command(subcommand)]
    ApiKey(api_key::Command),
    /// Make, list and revoke the links with which people connect accounts.
    #[command(subcommand)]
    Links(links::Command),
    /// Follow what happens to tokens.
    Watch(watch::WatchArgs),
    /// List the jobs, start one, or see how their runs went.
    Jobs(jobs::JobsArgs),
    /// List, make, rotate and recover the keys that everything is encrypted with.
    #[command(subcommand)]
    Keys(encryption_keys::Command),
    /// Check the audit log, and read it.
    #[command(subcommand)]
    Audit(audit::Command),
    /// Print every configuration key, as an example file or as a reference.
    Config(config::ConfigDocument),
    /// Run the portal, where people with a connect link connect accounts, until SIGTERM or SIGINT.
    Portal(portal::PortalArgs),
    /// Ask a running vault whether it answers calls, or whether it lives: exit 0 if so, 1 if not.
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Run a vault and a provider sandbox, and show the life of a token in the terminal.
    #[cfg(feature = "demo")]
    Demo(demo::DemoArgs),
    /// The vault of the demo, which the demo starts.
    #[cfg(feature = "demo")]
    #[command(hide = true)]
    DemoVault(demo::DemoVaultArgs),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

/// Runs one command line, program name first.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let parsed = with_name_in_help(CommandLine::command()).try_get_matches_from(command_first(arguments));
    let line = match parsed.and_then(|matches| CommandLine::from_arg_matches(&matches)) {
        Ok(line) => line,
        Err(error) => {
            // Help and version come as errors too, and go to stdout.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(MISTAKE) } else { ExitCode::SUCCESS };
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

/// Puts `serve` or `migrate` before the flags that stand in front of it. Service files were written both ways.
fn command_first(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    const FLAGS: [&str; 4] = ["--config", "--data-dir", "--database-url", "--listen"];
    let mut arguments: Vec<_> = arguments.into_iter().collect();
    let mut at = 1;
    while let Some(flag) = arguments.get(at).and_then(|argument| argument.to_str()) {
        let name = flag.split_once('=').map_or(flag, |(name, _)| name);
        if !FLAGS.contains(&name) {
            break;
        }
        at += if name == flag { 2 } else { 1 };
    }
    if at > 1 && arguments.get(at).is_some_and(|command| command == "serve" || command == "migrate") {
        let command = arguments.remove(at);
        arguments.insert(1, command);
    }
    arguments
}

async fn dispatch(line: CommandLine) -> anyhow::Result<()> {
    match line.command {
        None => serve(line.serve).await,
        Some(Command::Serve(args)) => serve(args).await,
        Some(Command::Migrate(args)) => {
            let config = Config::load(args.into())?;
            telemetry::init(config.log.format, &config.log.level)?;
            let (vault, _) = config.into_vault_config();
            let applied = Vault::migrate(&vault).await?;
            say(format_args!("applied {}", counted(applied, "migration")))
        }
        Some(Command::ApiKey(command)) => api_key::run(command).await,
        Some(Command::Links(command)) => links::run(command).await,
        Some(Command::Watch(args)) => watch::run(args).await,
        Some(Command::Jobs(args)) => jobs::run(args).await,
        Some(Command::Keys(command)) => encryption_keys::run(command).await,
        Some(Command::Audit(command)) => audit::run(command).await,
        Some(Command::Config(args)) => config::run(&args),
        Some(Command::Portal(args)) => portal::run(args).await,
        Some(Command::Healthcheck(args)) => healthcheck::run(args).await,
        #[cfg(feature = "demo")]
        Some(Command::Demo(args)) => demo::run(args).await,
        #[cfg(feature = "demo")]
        Some(Command::DemoVault(args)) => demo::run_vault(args).await,
    }
}

async fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let config = Config::load(args.into())?;
    telemetry::init(config.log.format, &config.log.level)?;
    serve::run(config, &program()).await
}

/// Says on stderr what went wrong, and returns the exit code.
fn complain(error: &anyhow::Error) -> ExitCode {
    if error.is::<Unread>() {
        return ExitCode::SUCCESS;
    }
    let text = with_name(&format!("token-vault: {error:#}"));
    note(if std::io::stderr().is_terminal() { paragraphs(&text) } else { text });
    let mistaken = error.is::<ConfigError>() || error.is::<Mistake>();
    ExitCode::from(if mistaken { MISTAKE } else { FAILED })
}

/// A wrong argument that the parser could not recognize as such.
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
    fn flags_of_serve_and_migrate_may_stand_before_the_command() {
        let ordered = |line: &str| {
            let arguments = command_first(line.split(' ').map(OsString::from));
            arguments.iter().map(|argument| argument.to_str().unwrap()).collect::<Vec<_>>().join(" ")
        };
        for (given, meant) in [
            ("token-vault --config a.toml serve --listen b", "token-vault serve --config a.toml --listen b"),
            ("token-vault --data-dir=d --config a migrate", "token-vault migrate --data-dir=d --config a"),
            ("token-vault --config serve", "token-vault --config serve"),
            ("token-vault --listen a", "token-vault --listen a"),
            ("token-vault --config a watch", "token-vault --config a watch"),
            ("token-vault --config", "token-vault --config"),
            ("token-vault", "token-vault"),
        ] {
            assert_eq!(ordered(given), meant);
        }
    }

    #[test]
    fn no_command_means_serve() {
        let parse = |line: &str| CommandLine::try_parse_from(line.split(' ')).map_err(|e| e.to_string());
        let bare = parse("token-vault --listen 127.0.0.1:0").unwrap();
        assert!(bare.command.is_none());
        assert_eq!(bare.serve.listen.as_deref(), Some("127.0.0.1:0"));
        let named = parse("token-vault serve --listen 127.0.0.1:0").unwrap();
        let Some(Command::Serve(named)) = named.command else { panic!("not serve") };
        assert_eq!(named.listen.as_deref(), Some("127.0.0.1:0"));
    }

    #[test]
    fn a_flag_that_a_command_does_not_use_is_refused() {
        let refused = [
            "healthcheck --listen 127.0.0.1:9999",
            "api-key list --listen 127.0.0.1:9999",
            "api-key list --database-url sqlite:x",
            "api-key create --principal p --role viewer --all-workspaces --database-url sqlite:x",
            "watch --database-url sqlite:x",
            "demo --data-dir x",
            "demo --config x",
            "keys break-glass generate --opening-key a --sealing-key b --config x",
            "--listen 127.0.0.1:9999 healthcheck",
        ];
        for line in refused {
            let words = std::iter::once("token-vault").chain(line.split(' '));
            assert!(CommandLine::try_parse_from(words).is_err(), "{line}");
        }
        for line in
            ["healthcheck --config x", "api-key list --config x --data-dir y", "demo --listen 127.0.0.1:0"]
        {
            let words = std::iter::once("token-vault").chain(line.split(' '));
            assert!(CommandLine::try_parse_from(words).is_ok(), "{line}");
        }
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
