//! Verifying and searching the audit log, without a running vault.

use std::path::PathBuf;

use crate::audit::{Anchor, FileSet, Head, Query, Report, SinkConfig, file_sets, search, verify};
use crate::model::AuditRecord;
use crate::store::{ChainState, open_for_reading};
use crate::vault::error::OpenError;
use crate::vault::opening::config::VaultConfig;
use crate::vault::opening::master_keys::{check_master_keys, key_source, no_key};
use crate::vault::state::Vault;
use crate::vault::state::keyring::Keys;

impl Vault {
    /// Verifies the log against the vault's audit key and the database's anchors. The vault may run meanwhile. Without
    /// `files`, the configured ones are read.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub async fn verify_audit(config: &VaultConfig, files: &[PathBuf]) -> Result<Report, OpenError> {
        let mut session = open_for_reading(config.database_url.expose()).await?;
        let record = session.vault().await?.ok_or_else(|| OpenError("the database holds no vault".into()))?;
        let source = key_source(config)?;
        let master = source.read(false)?.ok_or_else(|| no_key(&record))?;
        check_master_keys(&master, &record, &mut session).await?;
        let keys = Keys::load(source, None, master, record, &mut session).await?;
        // Read the anchors before the files: the log may grow meanwhile, but must never be shorter than an anchor says.
        let anchors = session.audit_chains().await?.into_iter().map(anchor).collect::<Result<Vec<_>, _>>()?;
        let sets = audit_files(config, files)?;
        verify(&keys.audit, &sets, &anchors)
            .map_err(|error| OpenError(format!("the audit log can't be read: {error}")))
    }

    /// Searches the log. Needs neither the database nor a key.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn search_audit(
        config: &VaultConfig,
        files: &[PathBuf],
        query: &Query,
    ) -> Result<Vec<AuditRecord>, OpenError> {
        let sets = audit_files(config, files)?;
        search(&sets, query).map_err(|error| OpenError(format!("the audit log can't be read: {error}")))
    }
}

fn audit_files(config: &VaultConfig, files: &[PathBuf]) -> Result<Vec<FileSet>, OpenError> {
    if !files.is_empty() {
        if let Some(missing) = files.iter().find(|file| !file.exists()) {
            return Err(OpenError(format!("there is no file {}", missing.display())));
        }
        return Ok(files.iter().map(FileSet::new).collect());
    }
    match &config.audit.sink {
        SinkConfig::File(file) => Ok(vec![FileSet::new(file)]),
        SinkConfig::Folder(folder) => {
            let sets = file_sets(folder).map_err(|error| {
                OpenError(format!("the audit logs in {} can't be read: {error}", folder.display()))
            })?;
            // If no file is left, let verification report that the first one is missing.
            Ok(if sets.is_empty() { vec![FileSet::new(folder.join("audit.jsonl"))] } else { sets })
        }
        SinkConfig::Stdout | SinkConfig::Off => {
            Err(OpenError("audit.sink is no file: name the file that holds the log by --file".into()))
        }
    }
}

fn anchor(chain: ChainState) -> Result<Anchor, OpenError> {
    let altered = || OpenError("an anchor of the audit log is damaged: the database was altered".into());
    let mac = chain.mac.try_into().map_err(|_| altered())?;
    let number = |number: i64| u64::try_from(number).map_err(|_| altered());
    Ok(Anchor {
        head: Head { chain: chain.chain, number: number(chain.number)?, mac },
        log: chain.log,
        dropped_to: number(chain.dropped_to)?,
    })
}
