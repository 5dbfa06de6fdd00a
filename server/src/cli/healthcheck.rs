//! `healthcheck`: for container probes and scripts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::connect::{EndpointArgs, denied, reach, unreachable};
use super::terminal::say;

/// How long a probe may take. Orchestrators give it a few seconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longer than every answer of a probe.
const LONGEST_ANSWER: u64 = 4 * 1024;

/// Arguments of `healthcheck`.
#[derive(Debug, Args)]
#[command(after_help = "\
Without --endpoint it asks the probes of the vault of this configuration (server.admin_listen), which need neither TLS nor \
a certificate. With --endpoint it asks the gRPC health service there.

Examples:
  token-vault healthcheck --live
      Whether the process of this configuration lives. Restart it only if not.
  token-vault healthcheck --config /etc/token-vault.toml
      Whether the vault of this configuration, on this machine, answers calls.
  token-vault healthcheck --endpoint https://vault.example:7443 --ca-file ca.crt
      A vault elsewhere.")]
pub(super) struct HealthcheckArgs {
    /// Ask whether the process lives, even if it can't answer calls now.
    #[arg(long, conflicts_with = "ready")]
    live: bool,
    /// Ask whether calls are answered [default].
    #[arg(long)]
    ready: bool,
    /// Configuration file of the vault, in TOML.
    #[arg(long, value_name = "FILE", env = "TOKEN_VAULT_CONFIG", help_heading = "Configuration")]
    config: Option<PathBuf>,
    #[command(flatten)]
    at: EndpointArgs,
}

/// Asks the HTTP probes, or the standard health service where an endpoint is named.
pub(super) async fn run(args: HealthcheckArgs) -> anyhow::Result<()> {
    let reach = reach(args.config)?;
    if let (false, Some(probes)) = (args.at.is_named(), reach.probes()) {
        let path = if args.live { "/livez" } else { "/readyz" };
        let answer = timeout(PATIENCE, ask(probes, path)).await;
        let answer = answer.unwrap_or_else(|_| bail!("no answer within {} s", PATIENCE.as_secs()));
        let (good, words) = answer.map_err(|cause| unreachable(&format!("http://{probes}"), cause))?;
        return match (good, args.live) {
            (true, true) => say("ALIVE"),
            (true, false) => say("SERVING"),
            (false, _) => bail!("the vault answers NOT_SERVING: {words}"),
        };
    }
    let target = args.at.target(&reach).await?;
    let mut client = HealthClient::new(target.connect().await?);
    let response = client.check(HealthCheckRequest { service: String::new() }).await.map_err(denied)?;
    match response.into_inner().status() {
        _ if args.live => say("ALIVE"),
        ServingStatus::Serving => say("SERVING"),
        other => bail!("the vault answers {}", other.as_str_name()),
    }
}

/// Whether the probe's answer is good, and its words.
async fn ask(probes: SocketAddr, path: &str) -> anyhow::Result<(bool, String)> {
    let mut socket = TcpStream::connect(probes).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {probes}\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    socket.take(LONGEST_ANSWER).read_to_string(&mut answer).await?;
    let (head, words) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split(' ').nth(1) {
        Some("200") => Ok((true, words.trim().to_owned())),
        Some("503") => Ok((false, words.trim().to_owned())),
        _ => bail!("what answers there is no vault"),
    }
}
