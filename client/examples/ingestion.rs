//! An ingestion service's watch: which connections not to use, and what to fetch afterwards.
//!
//! Run `token-vault demo` in one terminal. In another, with the key in `TOKEN_VAULT_API_KEY`, or in a file that
//! `TOKEN_VAULT_API_KEY_FILE` names:
//!
//! `cargo run --example ingestion -- POSITION_FILE`
//!
//! Ctrl-C ends it, and the next run goes on where it was.

#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::env;

use futures::StreamExt as _;
use token_vault_client::{
    ApiKey, Error, FileCheckpoint, Ingestion, Instruction, Start, Timestamp, Vault, WatchItem, WatchOptions,
};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let (Some(key), Some(file)) = (api_key(), env::args_os().nth(1)) else {
        println!("usage: ingestion POSITION_FILE, with TOKEN_VAULT_API_KEY or TOKEN_VAULT_API_KEY_FILE");
        return Ok(());
    };
    let endpoint = env::var("TOKEN_VAULT_ENDPOINT").unwrap_or_else(|_| "http://127.0.0.1:7443".into());
    let vault = Vault::connect(endpoint, key).await?;
    // Without a position, the state of every connection comes first.
    let options = WatchOptions::new().start(Start::Snapshot).checkpoint(FileCheckpoint::new(file));
    let mut stream = vault.watch(options);
    let mut ingestion = Ingestion::new();
    loop {
        let item = tokio::select! {
            item = stream.next() => item,
            _ = tokio::signal::ctrl_c() => break,
        };
        let Some(item) = item.transpose()? else { break };
        match &item {
            WatchItem::CaughtUp => println!("caught up; {} paused", ingestion.paused().count()),
            WatchItem::HistoryLost(error) | WatchItem::Interrupted(error) => println!("({error})"),
            WatchItem::CheckpointFailed(error) => println!("the position is not stored yet: {error}"),
            _ => {}
        }
        for instruction in ingestion.take(&item) {
            carry_out(instruction);
        }
        // Asking for the next item marks this one as handled.
    }
    stream.close().await
}

fn carry_out(instruction: Instruction) {
    match instruction {
        Instruction::Pause { connection_id } => println!("pause    {connection_id}"),
        Instruction::Resume { connection_id } => println!("resume   {connection_id}"),
        Instruction::Backfill(gap) => {
            let moment = |time: Option<Timestamp>| time.map_or("?".into(), |time| time.to_string());
            println!("backfill {} from {} to {}", gap.connection_id, moment(gap.from), moment(gap.to));
        }
    }
}

fn api_key() -> Option<ApiKey> {
    match env::var("TOKEN_VAULT_API_KEY") {
        Ok(key) => Some(ApiKey::new(key)),
        Err(_) => ApiKey::from_file(env::var_os("TOKEN_VAULT_API_KEY_FILE")?).ok(),
    }
}
