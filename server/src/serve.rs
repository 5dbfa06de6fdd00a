//! Builds everything once, serves, and shuts down in order: no new calls, the last responses, the database.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::api::{self, Tls};
use crate::config::{Config, ConfigError};
use crate::jobs;
use crate::model::Clock;
use crate::provider::follow_sandbox_clock;
use crate::vault::{StartWait, Vault};

/// How long calls in flight and work in progress may take to end at shutdown. With [`LAST_WORDS`], [`CLOSE`] and the
/// second that the runtime gives its threads (`cli::run`), a stop takes 7.5 s at most: less than the 8 s that are
/// promised, because Docker kills after 10 s.
const DRAIN: Duration = Duration::from_millis(3_500);
/// How long the responses may then take that tell callers of the stop.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How long the vault may then take to close the audit log and the database.
const CLOSE: Duration = Duration::from_millis(2_500);

/// Serves until SIGTERM or SIGINT. A second signal ends the process at once. `program` is how an operator calls this
/// program.
pub async fn run(config: Config, program: &str) -> anyhow::Result<()> {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    for exposed in exposures() {
        tracing::warn!("{exposed}");
    }
    let mut limits = config.server.limits.clone();
    limits.max_connections = make_room_for_connections(limits.max_connections)?;
    // Checked before anything is created: a bad certificate is a mistake in the configuration.
    let tls = match config.server.tls.clone() {
        Some(files) => Some(Arc::new(Tls::load(files).map_err(|bad| ConfigError(vec![bad.to_string()]))?)),
        None => None,
    };
    // From here on this process handles signals itself, also while the vault opens.
    let mut signals = Signals::new().context("cannot listen for signals")?;
    // An address that is in use is the most common failure, so it is found before anything is created.
    let grpc_listener = api::listen(config.server.listen).await?;
    let admin_listener = api::listen(config.server.admin_listen).await?;
    let bound = (grpc_listener.local_addr()?, admin_listener.local_addr()?);
    let (vault_config, provider_configs) = config.into_vault_config();
    let clock = Clock::system();
    let stop = CancellationToken::new();
    if let Some((key, url)) = provider_configs.sandbox_clock() {
        // Follow the sandbox's clock before the vault opens, so that the vault starts with the sandbox's time.
        let following = follow_sandbox_clock(clock.clone(), url, stop.clone());
        tokio::select! {
            followed = following => followed.map(drop).context(key)?,
            () = signals.next() => {
                tracing::info!("stopped while asking the sandbox for its time");
                return Ok(());
            }
        }
    }
    let providers = provider_configs.connect(&clock)?;
    // The probes tell from the start on that the process lives, and is not ready.
    let (tell_health, health) = watch::channel(false);
    let mut admin = tokio::spawn(api::serve_admin_http(admin_listener, health, stop.clone()));
    let (tell, missing) = watch::channel(None);
    let give_up = CancellationToken::new();
    let wait = StartWait::UntilItIsBack { tell, give_up: give_up.clone() };
    let told = async {
        let mut missing = missing;
        // An error: the start is over, and this future with it.
        let _ = missing.wait_for(Option::is_some).await;
        api::serve_before_opening(&grpc_listener, tls.clone(), limits.clone(), missing).await;
    };
    let mut opening = Box::pin(Vault::open(vault_config, providers, clock, &wait));
    let opened = tokio::select! {
        opened = &mut opening => opened,
        () = told => bail!("the gRPC server ended without being told to"),
        () = signals.next() => {
            give_up.cancel();
            // It closes what it has opened.
            if let Ok(Ok((vault, _))) = timeout(CLOSE, opening).await {
                let _ = timeout(CLOSE, vault.close()).await;
            }
            tracing::info!("stopped while opening the vault");
            return Ok(());
        }
    };
    drop(opening);
    let (vault, first) = opened?;
    tell_health.send_replace(*vault.health().borrow());
    tokio::spawn(pass_on(vault.health(), tell_health));
    if let Some(file) = &first.master_key_file {
        tracing::warn!(file = %file.display(), "made a master key: back it up, because without it every secret is lost");
    }
    if let Some(file) = &first.bootstrap_key_file {
        tracing::warn!(file = %file.display(), "made the bootstrap admin key");
    }

    let scheme = if tls.is_some() { "https" } else { "http" };
    let hangups = signals.hangups(tls.is_some());
    if let Some(tls) = tls.clone() {
        tokio::spawn(tls.follow(hangups, stop.clone()));
    }
    let last_call = CancellationToken::new();
    let serving = api::serve(grpc_listener, tls, limits, vault.clone(), stop.clone(), last_call.clone());
    let mut grpc = tokio::spawn(serving);
    tokio::spawn({
        let (vault, stop) = (Arc::clone(&vault), stop.clone());
        async move { vault.follow_issuer(stop).await }
    });
    let clockwork = jobs::start(vault.clone()).await.context("the clockwork can't be started")?;
    print_ready(bound)?;
    if let Some(file) = &first.bootstrap_key_file {
        show_next_steps(program, bound.0, scheme, file);
    }

    let failure = tokio::select! {
        () = signals.next() => None,
        ended = &mut grpc => Some(ended.context("the gRPC server ended")?.err().map(anyhow::Error::from)),
        ended = &mut admin => Some(ended.context("the admin server ended")?.err().map(anyhow::Error::from)),
    };
    if let Some(failure) = failure {
        timeout(CLOSE, vault.close()).await.ok();
        return Err(failure.unwrap_or_else(|| anyhow::anyhow!("a server ended without being told to")));
    }

    tracing::info!("stopping: no new calls, {} s for those in flight", DRAIN.as_secs_f32());
    // Stop the watches first, because they would keep the server from ending.
    vault.stop_watches();
    stop.cancel();
    let drained = async {
        let grpc_cut = grpc.abort_handle();
        let calls_and_work = async {
            let _ = tokio::join!(&mut grpc, clockwork.stop());
            vault.finish_work().await;
        };
        let mut calls_and_work = pin!(calls_and_work);
        if timeout(DRAIN, &mut calls_and_work).await.is_err() {
            let seconds = DRAIN.as_secs_f32();
            tracing::warn!("calls or work were still in progress after {seconds} s; they are cut off");
            // Who still waits is told, and may repeat the call; then the connections are cut.
            last_call.cancel();
            let _ = timeout(LAST_WORDS, calls_and_work).await;
            grpc_cut.abort();
        }
        if timeout(CLOSE, vault.close()).await.is_err() {
            tracing::warn!("the database did not close within {} s", CLOSE.as_secs_f32());
        }
        // The probes tell until the end that the vault is stopping.
        admin.abort();
    };
    tokio::select! {
        () = drained => {
            tracing::info!("stopped");
            Ok(())
        }
        () = signals.next() => bail!("a second signal: stopped at once"),
    }
}

/// Tells one channel what another one says.
async fn pass_on(mut from: watch::Receiver<bool>, to: watch::Sender<bool>) {
    loop {
        to.send_replace(*from.borrow_and_update());
        if from.changed().await.is_err() {
            return;
        }
    }
}

/// Lists the protections of this process's secrets that `main` asked the system for and did not get.
fn exposures() -> Vec<&'static str> {
    use rustix::process::{Resource, getrlimit};
    let mut exposed = Vec::new();
    if getrlimit(Resource::Core).current != Some(0) {
        exposed.push("the system did not let core files be turned off: one would hold secrets");
    }
    #[cfg(target_os = "linux")]
    if !matches!(rustix::process::dumpable_behavior(), Ok(rustix::process::DumpableBehavior::NotDumpable)) {
        exposed.push("the system lets other processes of this user read this one's memory and environment");
    }
    exposed
}

/// Open files that are not connections of callers: the database, the providers, the log.
const OWN_FILES: u64 = 256;
/// With room for fewer connections, callers would keep closing each other's, and nobody would be served.
const FEWEST_CONNECTIONS: usize = 64;

/// Every connection is an open file: raises the limit of open files as far as the system allows, and returns how many
/// connections there is room for, at most as many as wanted.
///
/// # Errors
/// There is room for so few that nobody would be served.
fn make_room_for_connections(wanted: usize) -> anyhow::Result<usize> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let room = usize::try_from(files.saturating_sub(OWN_FILES)).unwrap_or(usize::MAX);
    let needed =
        |connections: usize| OWN_FILES.saturating_add(u64::try_from(connections).unwrap_or(u64::MAX));
    let (least, all) = (needed(wanted.min(FEWEST_CONNECTIONS)), needed(wanted));
    if files < least {
        bail!(
            "at most {files} open files are allowed, too few to serve callers: at least {least} are needed, and {all} for \
             server.limits.max_connections = {wanted}; {RAISE}"
        );
    }
    if files < all {
        tracing::warn!(
            "at most {files} open files are allowed, which leaves room for {room} connections: {all} are needed for \
             server.limits.max_connections = {wanted}; {RAISE}, or lower that key"
        );
    }
    Ok(room.min(wanted))
}

const RAISE: &str = "raise the hard limit (ulimit -Hn; systemd: LimitNOFILE=; containers: --ulimit nofile=)";

/// Prints the one line on stdout, for scripts.
fn print_ready((grpc, admin): (SocketAddr, SocketAddr)) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "token-vault ready: grpc={grpc} admin={admin}").and_then(|()| stdout.flush())?;
    tracing::info!(%grpc, %admin, version = env!("CARGO_PKG_VERSION"), "ready");
    Ok(())
}

/// Logs what the operator should do after the first start.
fn show_next_steps(program: &str, grpc: SocketAddr, scheme: &str, bootstrap_key: &Path) {
    let with = format!("--endpoint {scheme}://{grpc} --key-file {}", bootstrap_key.display());
    tracing::info!(
        "next: make an admin key of your own: \
         {program} api-key create --principal ops --role admin --all-workspaces --output ops.apikey {with}"
    );
    tracing::info!(
        "then: make a key for each service, and revoke the bootstrap key: {program} api-key list {with}"
    );
    tracing::info!("to read: {program} --help, and docs/operating.md in the repository");
}

/// SIGTERM and SIGINT end the process. SIGHUP reloads the TLS files, and never ends it.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Option<Signal>,
    /// Registered and never awaited: with it, reaching a limit on the size of files is an error of the write, like a
    /// full disk, instead of the end of the process.
    _file_too_large: Option<Signal>,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: Some(signal(SignalKind::hangup())?),
            _file_too_large: signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw())).ok(),
        })
    }

    /// Sends a message for each SIGHUP from here on.
    fn hangups(&mut self, reloads: bool) -> mpsc::Receiver<()> {
        let (sender, receiver) = mpsc::channel(1);
        if let Some(mut hangup) = self.hangup.take() {
            tokio::spawn(async move {
                while hangup.recv().await.is_some() {
                    if !reloads {
                        tracing::info!("SIGHUP: without TLS there is nothing to read again");
                    }
                    // If one message is waiting already, that is enough.
                    let _ = sender.try_send(());
                }
            });
        }
        receiver
    }

    /// Waits for the next signal that ends the process.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
