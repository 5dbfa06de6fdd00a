//! Sends the same request to a vault and to its models, and keeps the models that give the same answer.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use token_vault::model::{ConnectionId, Principal, Secret, SecretId, Timestamp};
use token_vault::provider::ReportedRefusal;
use token_vault::vault::{
    ExchangeSubject, ExchangeToken, IntakeOptions, ReportTokenError, ReportedSecret, RevokeToken, StoreToken,
    Target, ValidateToken, Vault, VaultError,
};

use super::super::model::{Claim, Model};
use super::super::steps::{Act, Life};

use super::replica::origin;
use super::{NAMES, World, meta, workspace};

/// An act with everything that it needs.
#[derive(Clone)]
pub(super) struct Ready {
    act: Act,
    /// The token to paste.
    token: Option<(usize, String)>,
    target: Option<(ConnectionId, SecretId)>,
    now: i64,
}

impl World {
    /// Collects what an act needs. `None`: there is no connection that it could be about.
    pub(super) fn prepare(&mut self, act: &Act) -> Option<Ready> {
        let slot = act.slot();
        let token = match act {
            Act::Paste { life, .. } => {
                let (number, user) = (self.texts.len(), self.sandbox.user(NAMES[slot.1]));
                let (text, long, seconds) = match life {
                    Life::Short => (user.short_lived_token(), false, 5_400),
                    Life::Long { hours } => {
                        let life = Duration::from_secs(hours.unsigned_abs() * 3_600);
                        (user.long_lived_token_with_life(life), true, hours * 3_600)
                    }
                };
                self.texts.push(text);
                self.pasted.insert(slot, number);
                self.models.iter_mut().for_each(|model| model.mint(number, slot.1, long, seconds));
                Some(number)
            }
            Act::PasteAgain { .. } => Some(*self.pasted.get(&slot)?),
            _ => None,
        };
        let target = self.known.get(&slot).map(|connection| (connection.id, connection.secret_id));
        if token.is_none() && target.is_none() {
            return None;
        }
        let token = token.map(|number| (number, self.texts[number].clone()));
        Some(Ready { act: act.clone(), token, target, now: self.now })
    }

    pub(super) async fn ask_for(&mut self, on: usize, act: &Act) -> Result<(), String> {
        let Some(ready) = self.prepare(act) else { return Ok(()) };
        let outcome = self.ask(on, &ready).await;
        self.conclude(&ready, &outcome).await
    }

    /// Sends the request to a vault, and returns its answer as one word.
    pub(super) async fn ask(&self, on: usize, ready: &Ready) -> String {
        if let Act::Revoke { slot, at_provider: true } = ready.act {
            self.coherent(on, slot).await;
        }
        let (caller, ready) = (self.caller(), ready.clone());
        self.replica(on).run(|vault| perform(vault, caller, ready)).await
    }

    /// Keeps the models that would have answered the same.
    pub(super) async fn conclude(&mut self, ready: &Ready, outcome: &str) -> Result<(), String> {
        let mut wanted = BTreeSet::new();
        self.models.retain_mut(|model| {
            let answer = apply(model, ready);
            wanted.insert(answer);
            answer == outcome
        });
        if self.models.is_empty() {
            return Err(format!("the vault answered {outcome}, and should have answered one of {wanted:?}"));
        }
        self.settle().await;
        Ok(())
    }

    pub(super) async fn together(&mut self, first: &Act, second: &Act) -> Result<(), String> {
        if first.slot().1 == second.slot().1 {
            return Ok(());
        }
        let (Some(one), Some(other)) = (self.prepare(first), self.prepare(second)) else { return Ok(()) };
        let (answer, other_answer, ..) =
            tokio::join!(self.ask(0, &one), self.ask(1, &other), self.announce(0), self.announce(1));
        // A connection that an act held locked during the first announcement is announced now.
        self.announce(0).await;
        self.models.iter_mut().for_each(Model::announce);
        self.conclude(&one, &answer).await?;
        self.conclude(&other, &other_answer).await?;
        Ok(())
    }

    /// Lets a process die while it works. Everything that it had committed stays, and nothing else does.
    pub(super) async fn die(&mut self, on: usize, act: &Act, after: u64) {
        // A claim on an exchange outlives its owner by 25 s of real time, which is too long for this test.
        if matches!(act, Act::Lengthen { .. } | Act::Revoke { at_provider: true, .. }) {
            return;
        }
        let Some(ready) = self.prepare(act) else { return };
        let on = on % self.replicas.len();
        let (caller, vault) = (self.caller(), self.replicas[on].vault());
        let (runtime, _) = self.replicas[on].running.as_ref().expect("the replica runs");
        runtime.spawn(origin().scope(perform(vault, caller, ready.clone())));
        tokio::time::sleep(Duration::from_millis(after)).await;
        self.replicas[on].cut();
        // The database carries out a COMMIT that was sent, although nobody waits for it.
        tokio::time::sleep(Duration::from_millis(200)).await;
        self.open(on).await;
        let mut possible = Vec::new();
        for model in self.models.drain(..) {
            let mut whole = model.clone();
            apply(&mut whole, &ready);
            let mut half = model.clone();
            match (&ready.act, &ready.token) {
                (Act::Paste { slot, .. } | Act::PasteAgain { slot }, Some((token, _))) => {
                    half.save(*slot, *token);
                }
                (Act::Report { slot, claim, success }, _) => {
                    half.report_only(*slot, *claim, success.map(|ago| ready.now - ago));
                }
                (Act::Validate { slot }, _) => half.validate_only(*slot),
                _ => {}
            }
            possible.extend([whole, half, model]);
        }
        self.models = possible;
    }
}

/// Does in the model what the vault was asked to do.
fn apply(model: &mut Model, ready: &Ready) -> &'static str {
    match &ready.act {
        Act::Paste { slot, .. } | Act::PasteAgain { slot } => {
            model.store(*slot, ready.token.as_ref().expect("there is a token to paste").0)
        }
        Act::Validate { slot } => {
            model.validate(*slot);
            "Done"
        }
        Act::Report { slot, claim, success } => {
            model.report(*slot, *claim, success.map(|ago| ready.now - ago))
        }
        Act::Lengthen { slot } => model.lengthen(*slot),
        Act::Revoke { slot, at_provider } => {
            model.revoke(*slot, *at_provider);
            "Done"
        }
    }
}

/// Names a refusal that says something about the token in one word, and any other by its own text.
fn refused(error: &VaultError) -> String {
    match error {
        VaultError::ProviderRefusedToken { .. }
        | VaultError::ScopesMissing { .. }
        | VaultError::ScopesShrunk { .. }
        | VaultError::ExchangeNotPossible { .. }
        | VaultError::TokenExpired { .. }
        | VaultError::TokenInvalid { .. }
        | VaultError::TokenRevoked { .. } => "Refused".to_owned(),
        other => format!("{other:?}"),
    }
}

async fn perform(vault: Arc<Vault>, caller: Arc<Principal>, ready: Ready) -> String {
    let target = || {
        let (connection, _) = ready.target.expect("there is a connection");
        Target { connection, workspace: None }
    };
    let answer = match &ready.act {
        Act::Paste { slot, .. } | Act::PasteAgain { slot } => {
            let (_, text) = ready.token.clone().expect("there is a token to paste");
            let command = StoreToken {
                request_id: None,
                if_version: None,
                workspace: workspace(*slot),
                provider: meta(),
                connection: None,
                access_token: Secret::new(text),
                options: IntakeOptions::default(),
                validate_only: false,
            };
            vault.store_token(&caller, command).await.map(|intake| format!("{:?}", intake.outcome))
        }
        Act::Validate { .. } => {
            let command = ValidateToken { target: target(), checks: BTreeSet::new(), ad_account_id: None };
            vault.validate_token(&caller, command).await.map(|_| "Done".to_owned())
        }
        Act::Report { claim, success, .. } => {
            let current = ready.target.expect("there is a connection").1;
            let (secret, code) = match claim {
                Claim::Dead => (current, "190"),
                Claim::DeadBefore => (SecretId::generate(), "190"),
                Claim::Throttled => (current, "4"),
            };
            let command = ReportTokenError {
                target: target(),
                secret: ReportedSecret::Id(secret),
                refusal: ReportedRefusal { http_status: 400, code: code.into(), ..Default::default() },
                observed_at: None,
                last_success_at: success.map(|ago| Timestamp::from_unix_seconds(ready.now - ago)),
            };
            vault.report_token_error(&caller, command).await.map(|report| format!("{:?}", report.verdict))
        }
        Act::Lengthen { .. } => {
            let subject = ExchangeSubject::Stored(target());
            let command = ExchangeToken { request_id: None, if_version: None, subject };
            vault.exchange_token(&caller, command).await.map(|exchange| format!("{:?}", exchange.outcome))
        }
        Act::Revoke { at_provider, .. } => {
            let command = RevokeToken {
                request_id: None,
                if_version: None,
                target: target(),
                revoke_at_provider: *at_provider,
                allow_shared: true,
                erase_subject: false,
            };
            vault.revoke_token(&caller, command).await.map(|_| "Done".to_owned())
        }
    };
    answer.unwrap_or_else(|error| refused(&error))
}
