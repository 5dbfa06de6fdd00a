//! `healthcheck`: for container probes and scripts.

use anyhow::bail;
use clap::Args;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::connect::{EndpointArgs, refused};
use super::say;

/// Arguments of `healthcheck`.
#[derive(Debug, Args)]
pub(super) struct HealthcheckArgs {
    #[command(flatten)]
    at: EndpointArgs,
}

/// Asks the standard health service.
pub(super) async fn run(args: HealthcheckArgs) -> anyhow::Result<()> {
    let mut client = HealthClient::new(args.at.connect().await?);
    let answer = client.check(HealthCheckRequest { service: String::new() }).await.map_err(refused)?;
    match answer.into_inner().status() {
        ServingStatus::Serving => say("SERVING"),
        other => bail!("the vault answers {}", other.as_str_name()),
    }
}
