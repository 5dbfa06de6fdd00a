//! `portal`: serves the connection card to people with a connect link, until SIGTERM or SIGINT.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use token_vault_client::{ApiKey, Vault};
use token_vault_portal::{Logo, PortalConfig, TlsFiles, serve};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::arguments::ConfigArgs;
use super::terminal::say;
use crate::config::{Config, ConfigError, Portal};
use crate::model::Secret;
use crate::telemetry;

/// A page asks the vault up to three times, and the portal gives it 75 seconds.
const DEADLINE: Duration = Duration::from_secs(20);
const RELOAD_INTERVAL: Duration = Duration::from_secs(60);
/// One byte more than a logo may have.
const TOO_LARGE: u64 = 256 * 1024 + 1;

/// Arguments of `portal`.
#[derive(Debug, Args)]
#[command(after_help = "\
The portal reads the section [portal] of the configuration, and nothing of the vault's own: give it a file and a host of \
its own. Make its key with

  token-vault api-key create --principal portal --role portal --all-workspaces --output portal.apikey

It prints one line on stdout when it is ready: `token-vault portal ready: http=… url=…`. Logs go to stderr.")]
pub(super) struct PortalArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) async fn run(args: PortalArgs) -> anyhow::Result<()> {
    let start = Config::portal(args.config.into())?;
    telemetry::init(start.log.format, &start.log.level)?;
    for warning in start.warnings {
        tracing::warn!("{warning}");
    }
    let address = start.portal.listen;
    let portal = with_its_files(start.portal, &start.api_key)?;
    let mistake = |error: &dyn std::fmt::Display| ConfigError(vec![format!("portal: {error}")]);
    portal.check().map_err(|error| mistake(&error))?;
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} (portal.listen)"))?;
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stopping = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stopping.cancel();
    });
    say(format_args!("token-vault portal ready: http={} url={}", listener.local_addr()?, portal.public_url))?;
    serve(portal, listener, stop).await.context("the portal stopped")
}

/// The portal's configuration, with what its files hold.
fn with_its_files(config: Portal, key: &Secret) -> anyhow::Result<PortalConfig> {
    let url = config.vault_url.as_str().trim_end_matches('/').to_owned();
    let mut vault = Vault::builder(url, ApiKey::new(key.expose())).deadline(DEADLINE);
    if let Some(file) = config.vault_ca_file {
        vault = vault.ca_file(file);
    }
    let public_url = config.links.portal.map(|url| url.origin().ascii_serialization()).unwrap_or_default();
    Ok(PortalConfig {
        tls: config.tls.map(|(cert_file, key_file)| TlsFiles {
            cert_file,
            key_file,
            reload_interval: RELOAD_INTERVAL,
        }),
        trusted_proxy: config.behind_proxy,
        frame_ancestors: config.frame_ancestors,
        name: config.name,
        logo: config.logo_file.as_deref().map(logo).transpose()?,
        accent: Some(config.color),
        ..PortalConfig::new(public_url, vault.connect_lazy()?)
    })
}

fn logo(file: &Path) -> anyhow::Result<Logo> {
    let content_type = match file.extension().and_then(|extension| extension.to_str()) {
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("webp") => "image/webp",
        _ => {
            let rule = "portal.logo_file must name a .png, .svg, .jpg or .webp file";
            return Err(ConfigError(vec![rule.to_owned()]).into());
        }
    };
    let mut bytes = Vec::new();
    let read = File::open(file).and_then(|file| file.take(TOO_LARGE).read_to_end(&mut bytes));
    read.map_err(|error| ConfigError(vec![format!("portal.logo_file can't be read: {error}")]))?;
    Ok(Logo { bytes, content_type: content_type.to_owned() })
}
