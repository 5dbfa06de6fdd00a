//! Fetches a connection's token and shows what each kind of error asks for.
//!
//! Run `token-vault demo` in one terminal, and the line that it prints for this example in another:
//! `TOKEN_VAULT_API_KEY=… cargo run -p token-vault-client --example fetch -- CONNECTION_ID`

#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::process::ExitCode;

use token_vault_client::{ApiKey, ErrorKind, Vault};

#[tokio::main]
async fn main() -> ExitCode {
    let endpoint = std::env::var("TOKEN_VAULT_ENDPOINT").unwrap_or_else(|_| "http://127.0.0.1:7443".into());
    let (Ok(key), Some(connection)) = (std::env::var("TOKEN_VAULT_API_KEY"), std::env::args().nth(1)) else {
        println!("usage: TOKEN_VAULT_API_KEY=… fetch CONNECTION_ID");
        return ExitCode::from(2);
    };
    let fetched = async {
        let vault = Vault::connect(endpoint, ApiKey::new(key)).await?;
        vault.fetch_access_token(connection).await
    };
    match fetched.await {
        Ok(token) => {
            println!(
                "version {} of the token, {} characters; keep it at most {:?}",
                token.version,
                token.secret().len(),
                token.cache_for
            );
            for (place, name, _) in token.send_with() {
                println!("send with it: {name} ({place:?})");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            match error.kind() {
                ErrorKind::Pause => println!("pause this connection: {error}"),
                ErrorKind::RetryAfter(wait) => println!("try again in {wait:?}: {error}"),
                ErrorKind::YourBug(fields) => println!("mend the request ({fields:?}): {error}"),
                other => println!("{other:?}: {error}"),
            }
            ExitCode::FAILURE
        }
    }
}
