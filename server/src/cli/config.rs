//! `token-vault config`: the documents about the configuration.

use clap::Args;

use crate::config::reference;

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct ConfigDocument {
    /// Print an example file with every key and its default.
    #[arg(long)]
    example: bool,
    /// Print the reference of all keys, in Markdown.
    #[arg(long)]
    markdown: bool,
}

pub(super) fn run(args: &ConfigDocument) -> anyhow::Result<()> {
    let text = if args.markdown { reference::markdown() } else { reference::example() };
    super::say(text.trim_end())
}
