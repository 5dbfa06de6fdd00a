//! An alerting service's watch: what is wrong now, who can fix it, and when it is over.
//!
//! Run `token-vault demo` in one terminal. In another, with the key in `TOKEN_VAULT_API_KEY`, or in a file that
//! `TOKEN_VAULT_API_KEY_FILE` names:
//!
//! `cargo run --example alerting -- SUBSCRIPTION`
//!
//! The vault keeps the position under the subscription's name. A real service also stores `Alerts::open`, so that it
//! knows after a restart what it has reported.

#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::env;

use futures::StreamExt as _;
use token_vault_client::v1::{EventFilter, Severity};
use token_vault_client::{
    Alert, Alerts, ApiKey, Error, Incident, Start, SubscriptionCheckpoint, Vault, WatchItem, WatchOptions,
};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let (Some(key), Some(subscription)) = (api_key(), env::args().nth(1)) else {
        println!("usage: alerting SUBSCRIPTION, with TOKEN_VAULT_API_KEY or TOKEN_VAULT_API_KEY_FILE");
        return Ok(());
    };
    let endpoint = env::var("TOKEN_VAULT_ENDPOINT").unwrap_or_else(|_| "http://127.0.0.1:7443".into());
    let vault = Vault::connect(endpoint, key).await?;
    // Events that close an incident pass the filter too.
    let filter = EventFilter { min_severity: Severity::Warning.into(), ..EventFilter::default() };
    let options = WatchOptions::new()
        .filter(filter)
        .start(Start::Snapshot)
        .checkpoint(SubscriptionCheckpoint::new(&vault, subscription));
    let mut stream = vault.watch(options);
    let mut alerts = Alerts::new();
    loop {
        let item = tokio::select! {
            item = stream.next() => item,
            _ = tokio::signal::ctrl_c() => break,
        };
        let Some(item) = item.transpose()? else { break };
        if let WatchItem::Interrupted(error) | WatchItem::CheckpointFailed(error) = &item {
            println!("({error})");
        }
        for alert in alerts.take(&item) {
            match alert {
                Alert::Opened(incident) => show("opened", &incident),
                Alert::Updated(incident) => show("updated", &incident),
                Alert::Resolved(incident) => show("resolved", &incident),
            }
        }
    }
    stream.close().await
}

fn show(what: &str, incident: &Incident) {
    println!("{what} {:?} {:?}: {:?}", incident.severity, incident.cause, incident.scope);
    if let Some(remedy) = incident.remedy.as_ref().filter(|_| what != "resolved") {
        println!("  {} {} ({:?})", remedy.message, remedy.action, remedy.fixer());
    }
}

fn api_key() -> Option<ApiKey> {
    match env::var("TOKEN_VAULT_API_KEY") {
        Ok(key) => Some(ApiKey::new(key)),
        Err(_) => ApiKey::from_file(env::var_os("TOKEN_VAULT_API_KEY_FILE")?).ok(),
    }
}
