//! ExchangeToken: exchanges a token for one that lives longer, and verifies that it does.

pub(in crate::vault) mod save;

use std::sync::Arc;

use crate::model::{
    Connection, Expiry, Principal, ProviderId, Refusal, RefusalKind, RequestId, Secret, TokenKind,
    TokenVersion, WorkspaceId,
};
use crate::provider::Provider;
use crate::vault::error::VaultError;
use crate::vault::once::claims::Fence;
use crate::vault::once::idempotency::RequestClaim;
use crate::vault::state::Vault;
use crate::vault::token::inspection::Findings;
use crate::vault::token::store::accept::{Accepted, IntakeOptions, ShortLived};
use crate::vault::token::store::pasted_text;
use crate::vault::token::store::save::{Destination, check_replaces};
use crate::vault::token::target::Target;
use crate::vault::token::view::TokenView;
use save::{ExchangeOutcome, ExchangedBefore, movement};

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

#[derive(Debug)]
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
                let adapter = self.provider(&provider)?;
                let pasted = pasted_text::parse(&access_token, "new_token.access_token")?;
                let (vault, caller) = (Arc::clone(self), caller.clone());
                self.work
                    .detached(async move {
                        let version = version_bytes(command.if_version);
                        let parts: [&[u8]; 5] = [
                            b"new",
                            workspace.as_str().as_bytes(),
                            provider.as_str().as_bytes(),
                            pasted.expose().as_bytes(),
                            &version,
                        ];
                        let request = vault.request("ExchangeToken", command.request_id.as_ref(), &parts);
                        let work = async |claim| {
                            let destination = Destination {
                                workspace,
                                provider,
                                connection: None,
                                parent: None,
                                if_version: command.if_version,
                                options: IntakeOptions::default(),
                                claim,
                            };
                            vault.exchange_new(&*adapter, pasted, &destination).await
                        };
                        let repeat = async |before| vault.exchanged_before(&caller, before).await;
                        vault.once(&caller, request, work, repeat).await
                    })
                    .await
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
        let accepted = self.accept(provider, pasted, destination.options, ShortLived::Exchange).await?;
        let previous_expiry = accepted.pasted_expiry;
        let outcome = movement(accepted.inspected.facts.expiry, previous_expiry);
        let (connection, _) = self.save(destination, Arc::new(accepted)).await?;
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
        let fence = claimed.fence.clone();
        let outcome = self.exchange_claimed(caller, target, if_version, claim, fence).await;
        self.release(claimed).await;
        outcome
    }

    async fn exchange_claimed(
        self: &Arc<Self>,
        caller: &Principal,
        target: &Target,
        if_version: Option<TokenVersion>,
        claim: RequestClaim,
        fence: Fence,
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
        self.check_usable(connection)?;
        let impossible = |why| VaultError::ExchangeNotPossible {
            connection: Some(connection.id),
            provider: connection.provider.clone(),
            why,
        };
        match (connection.facts.kind, connection.facts.expiry) {
            (TokenKind::Page, _) => {
                let why = "a page token is read with its user's token, not exchanged".into();
                return Err(impossible(why));
            }
            (_, Expiry::Never) => {
                return Err(impossible("the token does not expire".into()));
            }
            _ => {}
        }
        let provider = self.provider_of(connection)?;
        let secret = self.open_secret(&held).await?;
        self.confirm_claim(&fence, connection.id).await?;
        let exchanged = match provider.exchange(&secret, connection.facts.kind).await {
            Ok(exchanged) => exchanged,
            Err(refusal) => {
                return Err(self.refused_exchange(connection, &*provider, &secret, refusal).await);
            }
        };
        let inspected = match provider.inspect(&exchanged.secret).await {
            Ok(inspected) => inspected,
            Err(refusal) => return Err(VaultError::from_provider_trouble(&refusal, provider.id())),
        };
        check_replaces(connection, &inspected, IntakeOptions::default(), self.clock.now(), &self.policy())?;
        let previous_expiry = connection.facts.expiry;
        let outcome = movement(inspected.facts.expiry, previous_expiry);
        let accepted = match outcome {
            ExchangeOutcome::Extended | ExchangeOutcome::NowNeverExpires => {
                Some(Accepted { secret: exchanged.secret, inspected, pasted_expiry: previous_expiry })
            }
            // The new token is discarded and the old one stays. A person is asked to reconnect in time.
            ExchangeOutcome::AtCeiling => None,
            ExchangeOutcome::Shortened => {
                tracing::error!(connection = %connection.id, "an exchange gave a token that expires earlier; it was discarded");
                None
            }
        };
        let connection = self.save_exchanged(&held, accepted, outcome, &claim, Some(&fence)).await?;
        Ok(Exchange {
            token: self.view_stored(connection).await,
            outcome,
            previous_expiry,
            cursor: self.cursor(),
        })
    }

    /// A refusal during an exchange may be the first sign of a dead token. It counts once an inspection confirms it.
    async fn refused_exchange(
        self: &Arc<Self>,
        connection: &Connection,
        provider: &dyn Provider,
        secret: &Secret,
        refusal: Refusal,
    ) -> VaultError {
        let RefusalKind::Dead { reason } = refusal.kind else {
            return VaultError::from_provider_trouble(&refusal, &connection.provider);
        };
        let inspection = provider.inspect(secret).await;
        let confirmed =
            matches!(&inspection, Err(refusal) if matches!(refusal.kind, RefusalKind::Dead { .. }));
        if let Err(error) = self.apply_inspection(connection, inspection, Findings::default()).await {
            return error;
        }
        if confirmed {
            return VaultError::TokenInvalid {
                connection: connection.id,
                provider: connection.provider.clone(),
                version: connection.version,
                since: self.clock.now(),
                reason,
                provider_code: refusal.provider_code(),
            };
        }
        VaultError::ExchangeNotPossible {
            connection: Some(connection.id),
            provider: connection.provider.clone(),
            why: "the provider refuses to exchange the token, although it still accepts it".into(),
        }
    }
}
