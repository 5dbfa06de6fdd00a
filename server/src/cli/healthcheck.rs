//! `healthcheck`: for container probes and scripts.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::connect::{EndpointArgs, denied, reach};
use super::terminal::say;

/// Arguments of `healthcheck`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  token-vault healthcheck --config /etc/token-vault.toml
      The vault of this configuration, on this machine.
  token-vault healthcheck --endpoint https://vault.example:7443 --ca-file ca.crt
      A vault elsewhere.")]
pub(super) struct HealthcheckArgs {
    /// Configuration file of the vault, in TOML.
    #[arg(long, value_name = "FILE", env = "TOKEN_VAULT_CONFIG", help_heading = "Configuration")]
    config: Option<PathBuf>,
    #[command(flatten)]
    at: EndpointArgs,
}

/// Asks the standard health service.
pub(super) async fn run(args: HealthcheckArgs) -> anyhow::Result<()> {
    let target = args.at.target(&reach(args.config)?).await?;
    let mut client = HealthClient::new(target.connect().await?);
    let response = client.check(HealthCheckRequest { service: String::new() }).await.map_err(denied)?;
    match response.into_inner().status() {
        ServingStatus::Serving => say("SERVING"),
        other => bail!("the vault answers {}", other.as_str_name()),
    }
}
