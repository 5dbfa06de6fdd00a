//! `demo`: a vault, a provider sandbox and a story in the terminal.

use clap::Args;

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {}

/// Runs the demo.
#[expect(clippy::unused_async, reason = "the story is asynchronous")]
pub async fn run(_args: DemoArgs) -> anyhow::Result<()> {
    anyhow::bail!("the demo is not part of this build")
}
