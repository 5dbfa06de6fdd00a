//! What to try while the demo stays up: commands that work as pasted, on lines that fit.

use anyhow::Context;
use token_vault_sandbox::Sandbox;

use super::portal::Portal;
use super::serving::Serving;
use super::story::{WORKSPACE, person};
use crate::cli::terminal::paint::bold;
use crate::cli::terminal::say;
use crate::cli::terminal::screen::hanging;

pub(super) fn show(
    serving: &Serving,
    sandbox: &Sandbox,
    portal: &Portal,
    connection: &str,
) -> anyhow::Result<()> {
    let (vault, graph) = (serving.grpc, sandbox.url());
    person(sandbox, "bob");
    let of_connection = format!(r#"'{{"connection_id":"{connection}"}}'"#);
    let stored = format!(r#"'{{"workspace_id":"{WORKSPACE}","provider":"meta","access_token":"'$TOKEN'"}}'"#);
    // A new shell may have another working folder, so the program is named by its whole path.
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let program = program.display();

    title(
        "Connect an account in your browser: open this link, choose a person, and come back to a green card.",
    )?;
    command(&[&portal.link])?;

    title("Try it yourself, in another shell. The key works while the demo runs.")?;
    command(&[&format!("KEY=$(cat {})", serving.key_file.display())])?;
    command(&[&format!("export TOKEN_VAULT_API_KEY=$KEY TOKEN_VAULT_ENDPOINT=http://{vault}")])?;
    command(&[&format!("TV={program}")])?;

    title("How the tokens are, and what happens to them. Ctrl-C ends it.")?;
    command(&["$TV watch --from snapshot"])?;
    command(&["$TV watch --from earliest"])?;

    title("The jobs, and how they went.")?;
    command(&["$TV jobs"])?;
    command(&["$TV jobs runs meta-token-expiry"])?;

    title("The same with grpcurl, which needs no proto files.")?;
    command(&[&format!("grpcurl -plaintext {vault} describe tokenvault.v1.TokenVault")])?;
    call("ListTokens", "'{}'", &vault)?;
    call("FetchAccessToken", &of_connection, &vault)?;
    call("ValidateToken", &of_connection, &vault)?;
    call("WatchExpiryEvents", r#"'{"from":"FROM_EARLIEST"}'"#, &vault)?;

    title("Bob pastes a token. It is one of the sandbox, and worth nothing elsewhere.")?;
    command(&[
        r#"TOKEN=$(curl -s -d '{"kind":"short_lived"}' \"#,
        &format!("{graph}/_sandbox/users/bob/tokens | cut -d'\"' -f4)"),
    ])?;
    call("StoreToken", &stored, &vault)?;

    title("Ana changes her password. A day passes, and the daily job finds out.")?;
    command(&[
        r#"curl -d '{"action":"changes_password"}' \"#,
        &format!("{graph}/_sandbox/users/ana/actions"),
    ])?;
    command(&[&format!(r#"curl -d '{{"advance_seconds":86400}}' {graph}/_sandbox/clock"#)])?;

    title("From Rust: ingestion, alerting and fetch are the examples.")?;
    command(&["cargo run --example ingestion -- /tmp/feed-position"])?;

    say(format_args!("\nAll that the sandbox can do: curl {graph}/_sandbox"))?;
    say("Ctrl-C ends the demo and removes everything.")
}

fn title(text: &str) -> anyhow::Result<()> {
    say("")?;
    say(hanging("", &bold(text)))
}

/// A command; further lines are indented.
fn command(lines: &[&str]) -> anyhow::Result<()> {
    for (index, line) in lines.iter().enumerate() {
        say(format_args!("  {}{line}", if index == 0 { "" } else { "  " }))?;
    }
    Ok(())
}

fn call(method: &str, message: &str, vault: &std::net::SocketAddr) -> anyhow::Result<()> {
    command(&[
        "grpcurl -plaintext -H \"authorization: Bearer $KEY\" \\",
        &format!("-d {message} \\"),
        &format!("{vault} tokenvault.v1.TokenVault/{method}"),
    ])
}
