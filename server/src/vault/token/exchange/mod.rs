//! ExchangeToken: exchanges a token for one that lives longer, and verifies that it does.

pub(in crate::vault) mod save;
pub(in crate::vault) mod settle;
pub(in crate::vault) mod weigh;
#[cfg(test)]
mod weigh_tests;

use std::sync::Arc;

use crate::model::{
    Connection, Expiry, Principal, ProviderId, Refusal, RequestId, Secret, TokenKind, TokenVersion,
    WorkspaceId,
};
use crate::provider::Provider;
use crate::store::Origin;
use crate::vault::error::VaultError;
use crate::vault::once::claims::Fence;
use crate::vault::once::idempotency::RequestClaim;
use crate::vault::state::Vault;
use crate::vault::token::store::accept::IntakeOptions;
use crate::vault::token::store::pasted_text;
use crate::vault::token::store::save::{Destination, Settles};
use crate::vault::token::store::take_in::TakenIn;
use crate::vault::token::target::Target;
use crate::vault::token::view::TokenView;
use save::{Done, ExchangeOutcome, ExchangedBefore, movement};
use settle::{Exchanging, Settled};
use weigh::Drawback;

#[derive(Debug)]
pub struct ExchangeToken {
    pub request_id: Option<RequestId>,
    /// Exchange only if the connection holds this version.
    pub if_version: Option<TokenVersion>,
    pub subject: ExchangeSubject,
}

#[derive(Debug)]
pub enum ExchangeSubject {
    /// The token of a connection.
    Stored(Target),
    /// A token that is not stored yet, and is stored afterwards.
    New {
        workspace: WorkspaceId,
        provider: ProviderId,
        /// The text as pasted.
        access_token: Secret,
    },
}

#[derive(Debug, Clone)]
pub struct Exchange {
    pub token: TokenView,
    pub outcome: ExchangeOutcome,
    pub previous_expiry: Expiry,
    pub cursor: String,
}

fn version_bytes(version: Option<TokenVersion>) -> [u8; 4] {
    version.map_or(0, TokenVersion::get).to_be_bytes()
}

impl Vault {
    /// Exchanges the token of a connection, or exchanges and stores a new one. Says whether the expiry really moved.
    ///
    /// # Errors
    /// `ExchangeNotPossible` for kinds that can't be exchanged; those of StoreToken; `TokenExpired`, `TokenInvalid`,
    /// `TokenRevoked` for a connection whose token is dead.
    pub async fn exchange_token(
        self: &Arc<Self>,
        caller: &Principal,
        command: ExchangeToken,
    ) -> Result<Exchange, VaultError> {
        match command.subject {
            ExchangeSubject::Stored(target) => {
                self.exchange_held(caller, command.request_id, command.if_version, target).await
            }
            ExchangeSubject::New { workspace, provider, access_token } => {
                if !caller.workspaces.contains(&workspace) {
                    return Err(VaultError::WorkspaceNotFound(workspace));
                }
                self.provider(&provider)?;
                let pasted = pasted_text::parse(&access_token, "new_token.access_token")?;
                let version = version_bytes(command.if_version);
                let parts: [&[u8]; 5] = [
                    b"new",
                    workspace.as_str().as_bytes(),
                    provider.as_str().as_bytes(),
                    pasted.expose().as_bytes(),
                    &version,
                ];
                let equal = self.equal("ExchangeToken", &parts);
                let request = self.request("ExchangeToken", command.request_id.as_ref(), &parts);
                let (vault, if_version) = (Arc::clone(self), command.if_version);
                let work = async |claim| {
                    let exchange = |claim| async move {
                        let adapter = vault.provider(&provider)?;
                        let destination = Destination {
                            workspace,
                            provider,
                            connection: None,
                            parent: None,
                            if_version,
                            options: IntakeOptions::default(),
                            settles: Settles::Request(claim),
                            link: None,
                        };
                        vault.exchange_new(&*adapter, pasted, &destination).await
                    };
                    let outcome = |exchange: &Exchange| {
                        Some(ExchangedBefore {
                            connection: exchange.token.connection.id,
                            outcome: Done::Exchanged(exchange.outcome),
                            previous_expiry: exchange.previous_expiry,
                        })
                    };
                    let exchange = self.together(equal, None, claim, exchange, outcome).await?;
                    Origin::note_subject(&exchange.token.connection);
                    Ok(exchange)
                };
                let repeat = async |before| self.exchanged_before(caller, before).await;
                self.once(caller, request, work, repeat).await
            }
        }
    }

    async fn exchange_held(
        self: &Arc<Self>,
        caller: &Principal,
        request_id: Option<RequestId>,
        if_version: Option<TokenVersion>,
        target: Target,
    ) -> Result<Exchange, VaultError> {
        self.held(caller, &target).await?;
        let (vault, caller) = (Arc::clone(self), caller.clone());
        self.work.detached(async move {
            let (text, version) = (target.connection.to_string(), version_bytes(if_version));
            let parts: [&[u8]; 3] = [b"stored", text.as_bytes(), &version];
            let request = vault.request("ExchangeToken", request_id.as_ref(), &parts);
            let work = async |claim| {
                let exchange = vault.exchange_stored(&caller, &target, if_version, claim).await?;
                tracing::info!(connection = %target.connection, outcome = ?exchange.outcome, by = caller.name, "token exchanged");
                Ok(exchange)
            };
            let repeat = async |before| vault.exchanged_before(&caller, before).await;
            vault.once(&caller, request, work, repeat).await
        })
        .await
    }

    async fn exchanged_before(
        &self,
        caller: &Principal,
        before: ExchangedBefore,
    ) -> Result<Exchange, VaultError> {
        let cursor = self.cursor();
        let connection = self.seen_again(caller, before.connection).await?;
        Ok(Exchange {
            token: self.view(connection).await?,
            outcome: before.outcome.into(),
            previous_expiry: before.previous_expiry,
            cursor,
        })
    }

    async fn exchange_new(
        self: &Arc<Self>,
        provider: &dyn Provider,
        pasted: Secret,
        destination: &Destination,
    ) -> Result<Exchange, VaultError> {
        let TakenIn { accepted, connection, .. } = self.take_in(provider, pasted, destination).await?;
        let previous_expiry = accepted.pasted_expiry;
        let outcome = movement(accepted.inspected.facts.expiry, previous_expiry);
        tracing::info!(connection = %connection.id, ?outcome, "token exchanged and stored");
        Ok(Exchange {
            token: self.view_stored(connection).await,
            outcome,
            previous_expiry,
            cursor: self.cursor(),
        })
    }

    /// Exchanges the token of a connection. Only one task on all replicas does so at a time.
    async fn exchange_stored(
        self: &Arc<Self>,
        caller: &Principal,
        target: &Target,
        if_version: Option<TokenVersion>,
        claim: RequestClaim,
    ) -> Result<Exchange, VaultError> {
        let Some(claimed) = self.claim_exchange(target.connection).await? else {
            return Err(VaultError::ConcurrentChange(target.connection));
        };
        let mut outcome = self.exchange_claimed(caller, target, if_version, &claim, &claimed.fence).await;
        // The connection changed while the provider was asked. What it gave is pending: weigh it again.
        if let Err(VaultError::ConcurrentChange(_)) = outcome {
            outcome = self.exchange_claimed(caller, target, if_version, &claim, &claimed.fence).await;
        }
        self.release(claimed).await;
        outcome
    }

    async fn exchange_claimed(
        self: &Arc<Self>,
        caller: &Principal,
        target: &Target,
        if_version: Option<TokenVersion>,
        claim: &RequestClaim,
        fence: &Fence,
    ) -> Result<Exchange, VaultError> {
        let held = self.held_now(caller, target).await?;
        let connection = &held.connection;
        if let Some(expected) = if_version
            && expected != connection.version
        {
            return Err(VaultError::TokenVersionMismatch {
                connection: connection.id,
                expected,
                actual: connection.version,
            });
        }
        // An exchange that was left behind is finished, whatever became of the token meanwhile.
        if self.store.read().await?.pending_secret(connection.id).await?.is_none() {
            self.check_exchangeable(connection)?;
        }
        let provider = self.provider_of(connection)?;
        self.work.begin(&connection.workspace, None).await?;
        let exchanging = Exchanging { held: &held, provider: &*provider, fence, claim };
        let (connection, outcome) = match self.exchange(&exchanging).await? {
            Settled::Replaced { connection, outcome, .. } => (connection, outcome),
            Settled::Kept { connection, drawback } => match drawback.outcome() {
                Some(outcome) => (connection, outcome),
                None => return Err(impossible(&connection, why_kept(&drawback))),
            },
            Settled::Buried(dead) => {
                let why = "the provider refuses the token and what it gave for it";
                return Err(self.check_usable(&dead).err().unwrap_or_else(|| impossible(&dead, why.into())));
            }
            Settled::Doubted => {
                let why = "the provider refuses the token, and so many others that the vault doubts it";
                return Err(impossible(connection, why.into()));
            }
            Settled::Open(refusal) => return Err(trouble(connection, &refusal)),
        };
        Ok(Exchange {
            token: self.view_stored(connection).await,
            outcome,
            previous_expiry: held.connection.facts.expiry,
            cursor: self.cursor(),
        })
    }

    fn check_exchangeable(&self, connection: &Connection) -> Result<(), VaultError> {
        self.check_usable(connection)?;
        match (connection.facts.kind, connection.facts.expiry) {
            (TokenKind::Page, _) => {
                let why = "a page token is read with its user's token, not exchanged";
                Err(impossible(connection, why.into()))
            }
            (_, Expiry::Never) => Err(impossible(connection, "the token does not expire".into())),
            _ => Ok(()),
        }
    }
}

fn impossible(connection: &Connection, why: String) -> VaultError {
    VaultError::ExchangeNotPossible {
        connection: Some(connection.id),
        provider: connection.provider.clone(),
        why,
        end: connection.facts.expiry,
    }
}

/// The error for a provider that could not be asked. The caller brought no token, so none of it is his fault.
fn trouble(connection: &Connection, refusal: &Refusal) -> VaultError {
    match VaultError::from_provider_trouble(refusal, &connection.provider) {
        VaultError::ProviderRefusedToken { provider_code, .. } => impossible(
            connection,
            format!("the provider refuses to speak about the token, with code {provider_code}"),
        ),
        other => other,
    }
}

fn why_kept(drawback: &Drawback) -> String {
    match drawback {
        Drawback::AtCeiling => "the provider does not extend the token's life".into(),
        Drawback::Shortened => "the provider gave a token that expires earlier".into(),
        Drawback::FewerScopes(lost) => {
            format!("the provider gave a token that lacks the scopes {}", lost.join(", "))
        }
        Drawback::Foreign => "the provider gave a token of another subject or app".into(),
        Drawback::Dead => "the provider gave a token that it refuses itself".into(),
        Drawback::Refused => {
            "the provider refuses to exchange the token, although it still accepts it".into()
        }
    }
}
