//! What happens to a token, step by step.

use anyhow::{Context, bail};
use token_vault_client::v1::{
    CreateApiKeyRequest, IntakeResult, ListTokensRequest, ReportTokenErrorRequest, StoreTokenRequest, Token,
    WorkspaceList, api_key, create_api_key_request, store_token_request,
};
use token_vault_client::{ApiKey, Vault};
use token_vault_sandbox::{Sandbox, User};

use super::serving::Serving;
use super::sixty_days;
use super::stage::{DETAIL, check, remark, show, step};
use crate::cli::terminal::paint::{bold, red};
use crate::cli::terminal::{counted, say};

pub(super) const WORKSPACE: &str = "acme";

/// Tells the story. Returns the connection that works at its end.
pub(super) async fn tell(
    serving: &Serving,
    sandbox: &Sandbox,
    days_per_second: u32,
) -> anyhow::Result<String> {
    let admin = serving.connect(ApiKey::from_file(&serving.key_file)?).await?;
    say(format_args!("\n{}\n", bold("Token Vault: the life of a token")))?;

    let connector = serving.connect(new_key(&admin, "web", api_key::Role::Connector).await?).await?;
    let ingestion = serving.connect(new_key(&admin, "ingestion", api_key::Role::Ingestion).await?).await?;
    step(
        1,
        "API keys",
        "One for the web service (connector) and one for ingestion, each for the workspace acme only.",
    )?;

    let ana = person(sandbox, "ana");
    let stored = store(&connector, &ana.short_lived_token()).await?;
    let token = stored.token.context("the vault answered without the token")?;
    step(
        2,
        "StoreToken",
        "Ana pastes a short-lived token. The vault exchanges it for a long-lived one, checks it, seals it and proves \
         that it works.",
    )?;
    show(&token)?;
    for found in &stored.checks {
        let message = found.remedy.as_ref().map(|remedy| remedy.message.as_str()).unwrap_or_default();
        check(found.result(), &found.name, message)?;
    }

    let fetched = ingestion.fetch_access_token(&token.connection_id).await?;
    step(3, "FetchAccessToken", "Ingestion gets the long-lived token, and what Meta wants along with it.")?;
    let parts: Vec<_> = fetched.send_with().map(|(_, name, _)| name.to_owned()).collect();
    remark(&format!(
        "Version {}, {} long, to be sent with {}; keep it for {} at most.",
        fetched.version,
        counted(fetched.secret().len(), "character"),
        parts.join(", "),
        counted(fetched.cache_for.as_secs(), "second")
    ))?;

    ana.changes_password();
    let report = ReportTokenErrorRequest {
        connection_id: token.connection_id.clone(),
        secret_id: Some(fetched.secret_id.clone()),
        http_status: 400,
        code: "190".into(),
        subcode: "460".into(),
        ..ReportTokenErrorRequest::default()
    };
    let verdict = ingestion.report_token_error(report).await?;
    step(
        4,
        "ReportTokenError",
        "Ana changes her password. Ingestion is refused with code 190/460 and reports it; the vault asks Meta itself.",
    )?;
    show(&reported(verdict.token)?)?;

    step(5, "FetchAccessToken", "The dead token is denied, with the reason and who can fix it.")?;
    match ingestion.fetch_access_token(&token.connection_id).await {
        Ok(_) => bail!("a dead token was handed out"),
        Err(error) => {
            let denied = format!("{DETAIL}{} ", red("✗"));
            say(crate::cli::terminal::screen::hanging(
                &denied,
                &format!("{}: {}", error.reason_name(), error.message()),
            ))?;
        }
    }

    ana.heals();
    let stored = store(&connector, &ana.short_lived_token()).await?;
    step(6, "StoreToken", "Ana reconnects: the same connection, the next version.")?;
    show(&reported(stored.token)?)?;

    let listed = admin.list_tokens(ListTokensRequest::default()).await?;
    step(7, "ListTokens", &format!("{} in the vault.", counted(listed.tokens.len(), "connection")))?;
    for token in &listed.tokens {
        show(token)?;
    }
    sixty_days::tell(sandbox, &connector, &admin, days_per_second).await?;
    Ok(token.connection_id)
}

fn reported(token: Option<Token>) -> anyhow::Result<Token> {
    token.context("the vault answered without the token")
}

pub(super) async fn store(connector: &Vault, secret: &str) -> anyhow::Result<IntakeResult> {
    let request = StoreTokenRequest {
        workspace_id: WORKSPACE.into(),
        provider: "meta".into(),
        credential: Some(store_token_request::Credential::AccessToken(secret.to_owned())),
        ..StoreTokenRequest::default()
    };
    connector.store_token(request).await?.result.context("the vault answered without a result")
}

pub(super) async fn new_key(admin: &Vault, principal: &str, role: api_key::Role) -> anyhow::Result<ApiKey> {
    let named = WorkspaceList { workspace_ids: vec![WORKSPACE.into()] };
    let request = CreateApiKeyRequest {
        principal: principal.into(),
        role: role.into(),
        workspaces: Some(create_api_key_request::Workspaces::Named(named)),
        ..CreateApiKeyRequest::default()
    };
    Ok(ApiKey::new(admin.create_api_key(request).await?.key))
}

pub(super) fn person(sandbox: &Sandbox, name: &str) -> User {
    sandbox.user(name).grants(["ads_read", "ads_management", "business_management"]).with_ad_accounts(3)
}
