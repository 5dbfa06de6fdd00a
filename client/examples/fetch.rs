//! Stores or fetches a token, and shows what each kind of error asks for. Never prints a secret.
//!
//! Run `token-vault demo` in one terminal. In another, with the key in `TOKEN_VAULT_API_KEY`, or in a file that
//! `TOKEN_VAULT_API_KEY_FILE` names:
//!
//! `cargo run --example fetch -- CONNECTION_ID` fetches a connection's token.
//!
//! `cargo run --example fetch -- --store WORKSPACE < token.txt` stores a token of Meta.

#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::env;
use std::io::{self, Read as _};
use std::process::ExitCode;

use token_vault_client::{ApiKey, Error, ErrorKind, Vault};

const USAGE: &str = "usage: fetch CONNECTION_ID | fetch --store WORKSPACE < TOKEN
       with TOKEN_VAULT_API_KEY or TOKEN_VAULT_API_KEY_FILE, and TOKEN_VAULT_ENDPOINT unless it is the demo's";

#[tokio::main]
async fn main() -> ExitCode {
    let Some(key) = api_key() else { return usage() };
    let arguments: Vec<String> = env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--store", workspace] => store(key, workspace).await,
        [connection] if !connection.starts_with('-') => fetch(key, connection).await,
        _ => return usage(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            explain(&error);
            ExitCode::FAILURE
        }
    }
}

async fn fetch(key: ApiKey, connection: &str) -> Result<(), Error> {
    let vault = Vault::connect(endpoint(), key).await?;
    let token = vault.fetch_access_token(connection).await?;
    println!(
        "version {} of the token, {} characters; keep it for at most {:?}",
        token.version,
        token.secret().len(),
        token.cache_for
    );
    for (place, name, _) in token.send_with() {
        println!("send along: {name} ({place:?})");
    }
    Ok(())
}

async fn store(key: ApiKey, workspace: &str) -> Result<(), Error> {
    let mut pasted = String::new();
    if let Err(error) = io::stdin().read_to_string(&mut pasted) {
        println!("cannot read the token: {error}");
    }
    let vault = Vault::connect(endpoint(), key).await?;
    let stored = vault.store_access_token(workspace, "meta", pasted).await?;
    let token = stored.token.clone().unwrap_or_default();
    println!("{:?}: connection {}, version {}", stored.outcome(), token.connection_id, token.token_version);
    for check in &stored.checks {
        println!("  {:?} {}", check.result(), check.name);
    }
    Ok(())
}

/// What a service does for each kind of error.
fn explain(error: &Error) {
    match error.kind() {
        ErrorKind::Pause => println!("pause this connection (who can fix it: {:?}): {error}", error.fixer()),
        ErrorKind::RetryAfter(wait) => println!("try again in {wait:?}: {error}"),
        ErrorKind::Conflict => println!("read again, then decide: {error}"),
        ErrorKind::YourBug(fields) => println!("correct the request {fields:?}: {error}"),
        ErrorKind::Access => println!("use another API key: {error}"),
        ErrorKind::CallOperator => println!("call the vault's operator, call {:?}: {error}", error.call_id()),
        other => println!("{other:?}: {error}"),
    }
}

fn endpoint() -> String {
    env::var("TOKEN_VAULT_ENDPOINT").unwrap_or_else(|_| "http://127.0.0.1:7443".into())
}

fn api_key() -> Option<ApiKey> {
    match env::var("TOKEN_VAULT_API_KEY") {
        Ok(key) => Some(ApiKey::new(key)),
        Err(_) => ApiKey::from_file(env::var_os("TOKEN_VAULT_API_KEY_FILE")?).ok(),
    }
}

fn usage() -> ExitCode {
    println!("{USAGE}");
    ExitCode::from(2)
}
