//! `demo`: a vault, its portal and a Graph API sandbox on loopback, the life of a token in the terminal, and all stay up.
//!
//! The vault is this very program in its own process, so the demo shows what an operator gets.

mod portal;
mod serving;
mod sixty_days;
mod stage;
mod story;
mod try_it;

use std::io;
use std::net::SocketAddr;
use std::pin::pin;

use anyhow::{Context, bail};
use clap::Args;
use token_vault_sandbox::{Sandbox, SandboxConfig};
use tokio::signal::unix::{SignalKind, signal};

pub(super) use self::serving::{DemoVaultArgs, run_vault};

use self::portal::{Place, Portal};
use self::serving::{DemoFolder, Serving};
use super::terminal::say;
use crate::config::DEFAULT_LISTEN;

/// Simulated days per second: when somebody watches in a terminal, and when nobody does.
const PACE: (u32, u32) = (1, 8);

/// Arguments of `demo`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  token-vault demo
      Show the life of a token, then stay up with commands to try.
  token-vault demo --listen 127.0.0.1:0 --sandbox-listen 127.0.0.1:0 --portal-listen 127.0.0.1:0
      On ports that are free, next to other vaults.

The demo makes a folder below the system's temporary folder and removes it at its end. It takes nothing from the \
configuration and reaches nothing outside this machine.")]
pub struct DemoArgs {
    /// Where the vault listens for gRPC; port 0 picks a free one.
    #[arg(long, value_name = "ADDRESS", default_value = DEFAULT_LISTEN)]
    listen: String,
    /// Where the Graph API sandbox listens; port 0 picks a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7500")]
    sandbox_listen: SocketAddr,
    /// Where the portal listens, in which you can connect an account in a browser; port 0 picks a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7480")]
    portal_listen: SocketAddr,
    /// End after the story in place of staying up.
    #[arg(long)]
    once: bool,
}

/// Runs the demo.
///
/// # Errors
/// When an address is taken, or a step of the story does not go as it should.
pub async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let mut stopped = pin!(signals()?);
    let folder = DemoFolder::create()?;
    let (sandbox, mut serving, portal, connection) = tokio::select! {
        begun = begin(&args, &folder) => begun?,
        // Dropping the story kills the vault.
        () = &mut stopped => bail!("stopped in the middle of the story"),
    };
    if args.once {
        serving.stop().await;
        return Ok(());
    }
    try_it::show(&serving, &sandbox, &portal, &connection)?;
    tokio::select! {
        // A terminal's Ctrl-C reaches the vault too, which may be the first to end.
        biased;
        () = &mut stopped => {}
        ended = serving.child.wait() => bail!("the vault ended ({}): {}", ended?, folder.last_log_line()),
    }
    // The terminal may be gone.
    let _ = say("\nStopping.");
    serving.stop().await;
    Ok(())
}

/// Waits for the first signal that asks the demo to end. SIGHUP comes when its terminal is closed.
fn signals() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

/// Starts all and tells the story. Returns the connection that works at its end.
async fn begin(args: &DemoArgs, folder: &DemoFolder) -> anyhow::Result<(Sandbox, Serving, Portal, String)> {
    let sandbox = Sandbox::start(SandboxConfig { listen: args.sandbox_listen, ..SandboxConfig::default() })
        .await
        .with_context(|| {
            format!("the sandbox cannot listen on {}; try --sandbox-listen 127.0.0.1:0", args.sandbox_listen)
        })?;
    let place = Place::reserve(args.portal_listen).await?;
    let serving = Serving::start(&args.listen, folder, &sandbox, &place.url()?).await?;
    let days_per_second = if args.once { PACE.1 } else { PACE.0 };
    // The log is deleted with the folder, so its last line is shown here.
    let connection = story::tell(&serving, &sandbox, days_per_second).await.map_err(|error| {
        error.context(format!("the story broke off; the vault's log ends with: {}", folder.last_log_line()))
    })?;
    let portal = place.open(&serving).await?;
    Ok((sandbox, serving, portal, connection))
}
