//! Connects a person's pages, each as a connection of its own. A page token is read with the person's token and is
//! never exchanged: when the person's token changes, the page token is read again.

use std::sync::Arc;

use super::accept::{Accepted, IntakeOptions};
use super::save::{Destination, Settles};
use crate::model::{Check, CheckResult, Connection, ConnectionId, Fixer, RefusalKind, Remedy, Secret};
use crate::provider::{PageToken, Provider};
use crate::vault::error::VaultError;
use crate::vault::state::Vault;
use crate::vault::token::validate::checks::NO_TIME;

impl Vault {
    /// Connects every page that the person behind `parent` manages. There are no errors after the commit: the check
    /// says what failed.
    pub(super) async fn connect_pages(
        &self,
        parent: &Connection,
        secret: &Secret,
        provider: &dyn Provider,
    ) -> (Vec<ConnectionId>, Check) {
        let pages = match provider.pages(secret).await {
            Ok(pages) => pages,
            Err(refusal) if matches!(refusal.kind, RefusalKind::OutOfTime) => {
                return (Vec::new(), Check::new("pages", CheckResult::Skipped, Remedy::none(NO_TIME)));
            }
            Err(refusal) => {
                let remedy = Remedy::new(
                    Fixer::WorkspaceOwner,
                    "The person's pages could not be listed.",
                    "Check that pages_show_list is granted, and store the token again with connect_pages.",
                );
                let check = Check::new("pages", CheckResult::Warn, remedy)
                    .with("provider_code", refusal.provider_code());
                return (Vec::new(), check);
            }
        };
        let (mut connected, mut failed) = (Vec::new(), 0_usize);
        for page in pages {
            match self.connect_page(parent, page, provider).await {
                Ok(id) => connected.push(id),
                Err(error) => {
                    failed += 1;
                    tracing::warn!(parent = %parent.id, %error, "a page could not be connected");
                }
            }
        }
        let connected_pages = format!("{} pages are connected.", connected.len());
        let check = if failed == 0 {
            Check::new("pages", CheckResult::Pass, Remedy::none(connected_pages))
        } else {
            let remedy = Remedy::new(
                Fixer::Operator,
                format!("{connected_pages} {failed} could not be connected."),
                "See the vault's log, and store the token again with connect_pages.",
            );
            Check::new("pages", CheckResult::Warn, remedy)
        };
        let check = check.with("connected", connected.len()).with("failed", failed);
        (connected, check)
    }

    async fn connect_page(
        &self,
        parent: &Connection,
        page: PageToken,
        provider: &dyn Provider,
    ) -> Result<ConnectionId, VaultError> {
        let mut inspected = provider
            .inspect(&page.secret)
            .await
            .map_err(|refusal| VaultError::from_provider_trouble(&refusal, provider.id()))?;
        if inspected.subject.id != page.id {
            return Err(VaultError::SubjectMismatch {
                connection: None,
                expected: page.id,
                actual: inspected.subject.id,
            });
        }
        if inspected.facts.scopes.after(None).is_none() {
            return Err(VaultError::untold(provider.id(), "its scopes"));
        }
        inspected.subject.name = page.name;
        let destination = Destination {
            workspace: parent.workspace.clone(),
            provider: parent.provider.clone(),
            connection: None,
            parent: Some(parent.id),
            if_version: None,
            options: IntakeOptions::default(),
            settles: Settles::default(),
            link: None,
        };
        let accepted = Accepted::new(page.secret, inspected);
        let (connection, _) = self.save(&destination, Arc::new(accepted)).await?;
        Ok(connection.id)
    }
}
