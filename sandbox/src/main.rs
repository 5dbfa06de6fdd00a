//! `token-vault-sandbox`: the Graph API sandbox as a program.

use std::io::{Write, stdout};
use std::net::SocketAddr;

use clap::Parser;
use token_vault_sandbox::{App, DEFAULT_APP_ID, DEFAULT_APP_SECRET, Sandbox, SandboxConfig};

/// A sandbox that replaces Meta's Graph API and login dialog.
///
/// Set a client's Graph URL and dialog URL to it. It keeps everything in memory.
/// `GET /_sandbox` explains how to create people and tokens, move time and script faults.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Address to listen on; port 0 picks a free port.
    #[arg(long, env = "TOKEN_VAULT_SANDBOX_LISTEN", default_value = "127.0.0.1:7500")]
    listen: SocketAddr,

    /// Id of the app that exists at the start.
    #[arg(long, default_value = DEFAULT_APP_ID)]
    app_id: String,

    /// Its secret.
    #[arg(long, env = "TOKEN_VAULT_SANDBOX_APP_SECRET", default_value = DEFAULT_APP_SECRET)]
    app_secret: String,

    /// Require an `appsecret_proof` for calls with a token.
    #[arg(long)]
    require_proof: bool,

    /// A person to create, with ads permissions and three ad accounts; can be repeated.
    #[arg(long = "user", value_name = "NAME", default_value = "ana")]
    users: Vec<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let arguments = Arguments::parse();
    let app = App {
        id: arguments.app_id,
        secrets: vec![arguments.app_secret],
        require_proof: arguments.require_proof,
        ..App::default()
    };
    let config = SandboxConfig { listen: arguments.listen, apps: vec![app], ..SandboxConfig::default() };
    let sandbox = Sandbox::start(config).await?;
    stdout().write_all(greeting(&sandbox, &arguments.users).as_bytes())?;
    tokio::select! {
        () = sandbox.wait() => {}
        ended = tokio::signal::ctrl_c() => ended?,
    }
    sandbox.shutdown().await;
    Ok(())
}

/// The people and tokens, and commands to try them with.
fn greeting(sandbox: &Sandbox, users: &[String]) -> String {
    let (url, app) = (sandbox.url(), sandbox.app());
    let secret = app.secrets.first().cloned().unwrap_or_default();
    let mut text = format!("Graph API sandbox at {url}\n  app {}  secret {secret}\n", app.id);
    for name in users {
        let user = sandbox
            .user(name)
            .grants(["ads_read", "ads_management", "business_management"])
            .with_ad_accounts(3);
        let token = user.short_lived_token();
        let account = user.ad_account_ids().into_iter().next().unwrap_or_default();
        text += &format!(
            "\n{name} ({}), a short-lived token:\n  {token}\n\n  \
             curl '{url}/v26.0/me/adaccounts?fields=id,name,account_status&access_token={token}'\n  \
             curl '{url}/v26.0/act_{account}/insights?fields=spend&access_token={token}'\n  \
             curl -G '{url}/v26.0/debug_token' -d 'input_token={token}' --data-urlencode 'access_token={}|{secret}'\n  \
             curl '{url}/v26.0/oauth/access_token?grant_type=fb_exchange_token&client_id={}&client_secret={secret}\
             &fb_exchange_token={token}'\n  \
             curl -d '{{\"action\":\"changes_password\"}}' '{url}/_sandbox/users/{name}/actions'\n",
            user.id(),
            app.id,
            app.id
        );
    }
    text + &format!("\nEverything that it can do: curl {url}/_sandbox\n")
}
