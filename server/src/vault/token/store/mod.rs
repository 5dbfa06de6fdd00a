//! StoreToken: a person pastes a token, and the vault keeps it.
//!
//! The token goes one way: [`pasted_text`] cleans the text, [`accept`] asks the provider (inspect, exchange if it is
//! short-lived, check the scopes), [`save`] writes everything in one transaction ([`take_in`] does both), and then the
//! checks of [`super::validate`] try the stored token out. Callers who paste the same at once share one intake. No
//! transaction is open while the provider is asked, and a failure at any step before the commit leaves the old token in
//! place and working.

pub(in crate::vault) mod accept;
mod connect_pages;
pub(in crate::vault) mod pasted_text;
pub(in crate::vault) mod save;
pub(in crate::vault) mod take_in;

use std::sync::Arc;

use crate::model::{
    Check, CheckResult, ConnectLinkId, ConnectionId, DataWord, Listing, Principal, ProviderId, RequestId,
    Secret, TokenFacts, TokenVersion, WorkspaceId,
};
use crate::provider::Provider;
use crate::store::Origin;
use crate::vault::access::connect_links::{connection_for, must_be_open};
use crate::vault::error::VaultError;
use crate::vault::once::idempotency::RequestClaim;
use crate::vault::state::Vault;
use crate::vault::state::work::Turn;
use crate::vault::token::inspection::{Applied, Findings};
use crate::vault::token::target::Target;
use crate::vault::token::validate::checks::{Examination, Patient, settle_lost_accounts, worst};
use crate::vault::token::view::TokenView;
use accept::{Accepted, IntakeOptions};
use save::{Destination, IntakeOutcome, Settles, StoredBefore, check_replaces, new_connection};
use take_in::TakenIn;

#[derive(Debug)]
pub struct StoreToken {
    pub request_id: Option<RequestId>,
    /// Store only if the connection holds this version.
    pub if_version: Option<TokenVersion>,
    pub workspace: WorkspaceId,
    pub provider: ProviderId,
    /// The connection to reconnect; `None` finds it by the token's subject.
    pub connection: Option<ConnectionId>,
    /// The text as pasted.
    pub access_token: Secret,
    pub options: IntakeOptions,
    /// Inspect and check, but store nothing.
    pub validate_only: bool,
}

#[derive(Debug, Clone)]
pub struct Intake {
    /// The stored token; for `ValidatedOnly` the token that would be stored.
    pub token: TokenView,
    pub outcome: IntakeOutcome,
    pub checks: Vec<Check>,
    /// The connections of the person's pages, if the caller asked to connect them.
    pub pages: Vec<ConnectionId>,
    pub cursor: String,
}

impl Intake {
    /// The worst result.
    pub fn overall(&self) -> CheckResult {
        worst(&self.checks)
    }
}

impl Vault {
    /// Stores a pasted token.
    ///
    /// # Errors
    /// See [`VaultError`]: `TokenMalformed`, `ProviderRefusedToken`, `TokenOfOtherApp`, `ScopesMissing`,
    /// `ScopesShrunk`, `SubjectMismatch`, `ExchangeNotPossible`, `ProviderUnavailable` and more. None of them
    /// changes anything.
    pub async fn store_token(
        self: &Arc<Self>,
        caller: &Principal,
        command: StoreToken,
    ) -> Result<Intake, VaultError> {
        let connection =
            connection_for(caller, &command.provider, command.connection, command.options.bits() != 0)?;
        let command = StoreToken { connection, ..command };
        self.may_store(caller, &command).await?;
        let pasted = pasted_text::parse(&command.access_token, "access_token")?;
        let options = command.options;
        let flags = [
            u8::from(options.allow_missing_scopes),
            u8::from(options.allow_fewer_scopes),
            u8::from(options.allow_subject_change),
            u8::from(options.connect_pages),
            u8::from(command.validate_only),
        ];
        let connection = command.connection.map(|id| id.to_string()).unwrap_or_default();
        let version = command.if_version.map_or(0, TokenVersion::get).to_be_bytes();
        let mut parts: Vec<&[u8]> = vec![
            command.workspace.as_str().as_bytes(),
            command.provider.as_str().as_bytes(),
            connection.as_bytes(),
            pasted.expose().as_bytes(),
            &flags,
            &version,
        ];
        let link = caller.link.as_ref().map(|link| link.id.clone());
        parts.extend(link.as_ref().map(|link| link.as_str().as_bytes()));
        let equal = self.equal("StoreToken", &parts);
        // A validation stores nothing, so it may be repeated.
        let id = command.request_id.as_ref().filter(|_| !command.validate_only);
        let request = self.request("StoreToken", id, &parts);
        let line = command.connection.map(|id| self.work.line(Turn::Intake, id));
        let vault = Arc::clone(self);
        let work = async |claim| {
            must_be_open(caller, self.clock.now())?;
            let store = |claim| async move { vault.store_pasted(&command, pasted, link, claim).await };
            let outcome = |intake: &Intake| {
                let stored = intake.outcome != IntakeOutcome::ValidatedOnly;
                let connection = intake.token.connection.id;
                stored.then_some(StoredBefore { connection, outcome: intake.outcome })
            };
            let intake = self.together(equal, line, claim, store, outcome).await?;
            let token = &intake.token.connection;
            Origin::note_subject(token);
            tracing::info!(
                connection = %token.id, workspace = %token.workspace, version = %token.version, outcome = ?intake.outcome,
                by = caller.name, "token stored"
            );
            Ok(intake)
        };
        let repeat = async |before: StoredBefore| self.stored_before(caller, before).await;
        self.once(caller, request, work, repeat).await
    }

    /// Whether the caller may store a token there. Checked before the provider is asked.
    async fn may_store(&self, caller: &Principal, command: &StoreToken) -> Result<(), VaultError> {
        if !caller.workspaces.contains(&command.workspace) {
            return Err(VaultError::WorkspaceNotFound(command.workspace.clone()));
        }
        self.provider(&command.provider)?;
        if let Some(connection) = command.connection {
            let target = Target { connection, workspace: Some(command.workspace.clone()) };
            let held = self.held(caller, &target).await?;
            if held.connection.provider != command.provider {
                return Err(VaultError::ConnectionNotFound(connection));
            }
        }
        Ok(())
    }

    pub(in crate::vault) async fn stored_before(
        &self,
        caller: &Principal,
        before: StoredBefore,
    ) -> Result<Intake, VaultError> {
        let cursor = self.cursor();
        let connection = self.seen_again(caller, before.connection).await?;
        Ok(Intake {
            token: self.view(connection).await?,
            outcome: before.outcome,
            checks: Vec::new(),
            pages: Vec::new(),
            cursor,
        })
    }

    async fn store_pasted(
        self: &Arc<Self>,
        command: &StoreToken,
        pasted: Secret,
        link: Option<ConnectLinkId>,
        claim: RequestClaim,
    ) -> Result<Intake, VaultError> {
        // It may have waited for its turn meanwhile.
        self.may_change()?;
        let provider = self.provider(&command.provider)?;
        let options = command.options;
        if command.validate_only {
            let accepted = self.accept(&*provider, pasted, options).await?;
            return self.only_validated(command, &*provider, accepted).await;
        }
        let destination = Destination {
            workspace: command.workspace.clone(),
            provider: command.provider.clone(),
            connection: command.connection,
            parent: None,
            if_version: command.if_version,
            options,
            settles: Settles::Request(claim),
            link,
        };
        let taken = self.take_in(&*provider, pasted, &destination).await?;
        self.try_out(taken, options).await
    }

    /// Tries a stored token out. After the commit there are no errors: what can't be checked is reported in the checks.
    /// Even if an exchange had to go on to its end, the checks have only the time that the caller has left.
    pub(in crate::vault) async fn try_out(
        self: &Arc<Self>,
        taken: TakenIn,
        options: IntakeOptions,
    ) -> Result<Intake, VaultError> {
        let TakenIn { accepted, connection, outcome } = taken;
        let provider = self.provider(&connection.provider)?;
        let found =
            self.examine(&*provider, &accepted, Some(&connection.facts), connection.seen.listing).await;
        let whole = found.data != DataWord::NotAsked;
        let findings = Findings { accounts: found.accounts, data: found.data, whole, ..Findings::default() };
        let connection = match self.apply_inspection(&connection, found.inspection, findings).await {
            Ok(Applied::Updated(connection)) => *connection,
            Ok(Applied::Superseded | Applied::Doubted) => connection,
            Err(error) => {
                tracing::warn!(%error, "the checks of a stored token could not be written");
                connection
            }
        };
        let (mut checks, mut pages) = (found.checks, Vec::new());
        settle_lost_accounts(&mut checks, &connection.health(self.clock.now(), &self.policy()));
        if options.connect_pages {
            let (connected, check) = self.connect_pages(&connection, &accepted.secret, &*provider).await;
            pages = connected;
            checks.push(check);
        }
        let token = self.view_stored(connection).await;
        Ok(Intake { token, outcome, checks, pages, cursor: self.cursor() })
    }

    async fn examine(
        &self,
        provider: &dyn Provider,
        accepted: &Accepted,
        held: Option<&TokenFacts>,
        listing: Listing,
    ) -> Examination {
        let policy = self.policy();
        let patient = Patient {
            provider,
            secret: &accepted.secret,
            held,
            policy: &policy,
            now: self.clock.now(),
            wanted: &Default::default(),
            ad_account: None,
            listing,
        };
        patient.examine(Some(accepted.inspected.clone())).await
    }

    async fn only_validated(
        &self,
        command: &StoreToken,
        provider: &dyn Provider,
        accepted: Accepted,
    ) -> Result<Intake, VaultError> {
        let now = self.clock.now();
        let held = match command.connection {
            Some(id) => self.store.read().await?.connection(id).await?,
            None => {
                let (app, subject) = (&accepted.inspected.app_id, &accepted.inspected.subject.id);
                let mut session = self.store.read().await?;
                session.connection_of_subject(&command.workspace, &command.provider, app, subject).await?
            }
        };
        let policy = self.policy();
        if let Some(held) = &held {
            check_replaces(held, &accepted.inspected, command.options, now, &policy)?;
        }
        let listing = held.as_ref().map(|held| held.seen.listing).unwrap_or_default();
        let found = self.examine(provider, &accepted, None, listing).await;
        let mut connection = new_connection(&command.workspace, &command.provider, &accepted.inspected, now);
        let is_new = held.is_none();
        if let Some(held) = held {
            (connection.id, connection.version, connection.created_at) =
                (held.id, held.version, held.created_at);
        }
        if let Some(list) = found.accounts {
            connection.seen.ad_accounts = u32::try_from(list.accounts.len()).ok();
            connection.seen.listing = list.listing;
        }
        let token = TokenView { is_new, ..TokenView::new(connection, 0, now, &policy) };
        Ok(Intake {
            token,
            outcome: IntakeOutcome::ValidatedOnly,
            checks: found.checks,
            pages: Vec::new(),
            cursor: self.cursor(),
        })
    }
}
