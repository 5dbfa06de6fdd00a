//! ValidateToken: runs the checks, describes the findings in sentences, and updates the facts.

pub(in crate::vault) mod checks;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::model::{Check, CheckResult, Connection, DataWord, Principal, Remedy, Standing};
use crate::store::HeldToken;
use crate::vault::error::VaultError;
use crate::vault::state::Vault;
use crate::vault::state::work::Turn;
use crate::vault::token::inspection::{Applied, Findings};
use crate::vault::token::target::Target;
use crate::vault::token::view::TokenView;
use checks::{CHECKS, NO_TIME, Patient};

#[derive(Debug)]
pub struct ValidateToken {
    pub target: Target,
    /// Names out of [`CHECKS`]; empty means all.
    pub checks: BTreeSet<String>,
    /// The ad account for the smoke test.
    pub ad_account_id: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Validation {
    /// The token with its updated facts.
    pub token: TokenView,
    pub checks: Vec<Check>,
    pub cursor: String,
}

impl Vault {
    /// Runs the checks of a token and writes what they found. Succeeds whenever the connection exists.
    ///
    /// # Errors
    /// `ConnectionNotFound`.
    pub async fn validate_token(
        self: &Arc<Self>,
        caller: &Principal,
        command: ValidateToken,
    ) -> Result<Validation, VaultError> {
        let held = self.held(caller, &command.target).await?;
        let connection = &held.connection;
        let (id, secret) = (connection.id.as_uuid(), connection.secret_id.as_uuid());
        let account = command.ad_account_id.as_deref().unwrap_or_default();
        let mut parts: Vec<&[u8]> = vec![&id.as_bytes()[..], &secret.as_bytes()[..], account.as_bytes()];
        parts.extend(command.checks.iter().map(String::as_bytes));
        // Equal validations at once share one answer.
        let question = self.equal("ValidateToken", &parts);
        let wanted = command.checks.clone();
        // Each validation asks the provider several times, so there is one at a time per connection.
        let line = self.work.line(Turn::Inspection, connection.id);
        let (vault, caller) = (Arc::clone(self), caller.clone());
        let answer = self
            .work
            .answer(question, line, async move {
                // If the token changes meanwhile, the findings are about an old token: validate once more.
                for _ in 0..2 {
                    let held = vault.held_now(&caller, &command.target).await?;
                    if let Some(validation) = vault.validate(&held, &command).await? {
                        return Ok(validation);
                    }
                }
                Err(VaultError::ConcurrentChange(command.target.connection))
            })
            .await;
        match answer {
            Err(VaultError::OutOfTime) => self.not_validated(connection, &wanted).await,
            answer => answer,
        }
    }

    /// The answer when no time was left for any check.
    async fn not_validated(
        &self,
        connection: &Connection,
        wanted: &BTreeSet<String>,
    ) -> Result<Validation, VaultError> {
        let cursor = self.cursor();
        let skipped = |name: &&'static str| Check::new(name, CheckResult::Skipped, Remedy::none(NO_TIME));
        let names = CHECKS.iter().filter(|name| wanted.is_empty() || wanted.contains(**name));
        let checks = names.map(skipped).collect();
        Ok(Validation { token: self.view(connection.clone()).await?, checks, cursor })
    }

    async fn validate(
        self: &Arc<Self>,
        held: &HeldToken,
        command: &ValidateToken,
    ) -> Result<Option<Validation>, VaultError> {
        let cursor = self.cursor();
        let connection = &held.connection;
        if matches!(connection.standing, Standing::Revoked { .. }) {
            let remedy = Remedy::for_revocation();
            let checks = CHECKS
                .iter()
                .filter(|name| command.checks.is_empty() || command.checks.contains(**name))
                .map(|name| {
                    let result =
                        if *name == "token_accepted" { CheckResult::Fail } else { CheckResult::Skipped };
                    Check::new(name, result, remedy.clone())
                })
                .collect();
            return Ok(Some(Validation { token: self.view(connection.clone()).await?, checks, cursor }));
        }
        let provider = self.provider_of(connection)?;
        let secret = self.open_secret(held).await?;
        let policy = self.policy();
        let patient = Patient {
            provider: &*provider,
            secret: &secret,
            held: Some(&connection.facts),
            policy: &policy,
            now: self.clock.now(),
            wanted: &command.checks,
            ad_account: command.ad_account_id.as_deref(),
            listing: connection.seen.listing,
        };
        let mut found = patient.examine(None).await;
        // The checks that make data calls list the ad accounts too.
        let whole = found.data != DataWord::NotAsked;
        // A token that a data call refused is not believed before one works.
        if let (Some(_), Ok(inspected), DataWord::NotAsked) =
            (connection.seen.data_refusal, &found.inspection, &found.data)
        {
            found.data =
                DataWord::of(&provider.try_data(&secret, &inspected.facts.onto(&connection.facts)).await);
        }
        let findings = Findings {
            accounts: found.accounts.take(),
            data: found.data.clone(),
            whole,
            ..Findings::default()
        };
        let connection = match self.apply_inspection(connection, found.inspection.clone(), findings).await? {
            Applied::Updated(connection) => *connection,
            Applied::Doubted => connection.clone(),
            Applied::Superseded => return Ok(None),
        };
        found.settle(&connection.health(self.clock.now(), &policy));
        Ok(Some(Validation { token: self.view(connection).await?, checks: found.checks, cursor }))
    }
}
