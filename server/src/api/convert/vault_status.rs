//! The status of vault, providers and replicas as messages.

use std::collections::HashMap;

use token_vault_proto::v1 as pb;
use token_vault_proto::v1::provider_status::Circuit;

use super::time::{instant, signed_length};
use super::token::{severity, status};
use crate::model::{Misconfiguration, ProviderId, ProviderTrouble, Remedy, Severity, Timestamp};
use crate::provider::GUIDE;
use crate::vault::{ProviderState, ReplicaState, VaultStatus};

/// Incremented with every addition to `tokenvault.v1`.
const API_REVISION: i32 = 6;

impl From<VaultStatus> for pb::GetVaultStatusResponse {
    fn from(vault: VaultStatus) -> Self {
        let master_keys = vault.master_keys.into_iter().map(|key| pb::MasterKeyStatus {
            key_id: key.id,
            active: key.active,
            data_key_count: key.keys,
        });
        let token_counts = vault.tokens_by_status.into_iter().map(|(status_of, count)| pb::TokenCount {
            status: status(status_of).into(),
            count: i64::try_from(count).unwrap_or(i64::MAX),
        });
        Self {
            version: vault.version.to_owned(),
            api_revision: API_REVISION,
            server_time: Some(instant(vault.server_time)),
            backend: vault.backend.to_owned(),
            replica: vault.replica,
            head_sequence: vault.head_sequence,
            oldest_sequence: vault.oldest_sequence,
            cursor: vault.cursor,
            providers: vault.providers.into_iter().map(Into::into).collect(),
            master_keys: master_keys.collect(),
            overdue_tokens: i64::try_from(vault.overdue_tokens).unwrap_or(i64::MAX),
            token_counts: token_counts.collect(),
            replicas: vault.replicas.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<ProviderState> for pb::ProviderStatus {
    fn from(state: ProviderState) -> Self {
        let circuit = if state.circuit_open { Circuit::Open } else { Circuit::Closed };
        Self {
            provider: state.provider.to_string(),
            api_version: state.api_version,
            circuit: circuit.into(),
            implausible_values: i64::try_from(state.implausible_values).unwrap_or(i64::MAX),
            problems: state
                .trouble
                .map(|(trouble, since)| problem(&state.provider, trouble, since))
                .into_iter()
                .chain(state.other_api_version.as_ref().map(|other| other_version(&state.provider, other)))
                .collect(),
            served_api_version: state.other_api_version.map(|(version, _)| version).unwrap_or_default(),
        }
    }
}

fn problem(provider: &ProviderId, trouble: ProviderTrouble, since: Timestamp) -> pb::Problem {
    let (reason, metadata) = match trouble {
        ProviderTrouble::Unreachable => (pb::ErrorReason::ProviderUnavailable, HashMap::new()),
        ProviderTrouble::Throttled => (pb::ErrorReason::ProviderThrottled, HashMap::new()),
        ProviderTrouble::Misconfigured(_) | ProviderTrouble::ManyDeaths => (
            pb::ErrorReason::ProviderMisconfigured,
            HashMap::from([("problem".to_owned(), trouble.as_str().to_owned())]),
        ),
    };
    pb::Problem {
        reason: reason.into(),
        severity: severity(trouble.severity()).into(),
        since: Some(instant(since)),
        remedy: Some(trouble.remedy(provider, GUIDE).into()),
        metadata,
    }
}

fn other_version(provider: &ProviderId, (served, since): &(String, Timestamp)) -> pb::Problem {
    pb::Problem {
        reason: pb::ErrorReason::ProviderMisconfigured.into(),
        severity: severity(Severity::Warning).into(),
        since: Some(instant(*since)),
        remedy: Some(Remedy::for_other_api_version(provider, GUIDE).into()),
        metadata: HashMap::from([
            ("problem".to_owned(), Misconfiguration::ApiVersion.as_str().to_owned()),
            ("served_api_version".to_owned(), served.clone()),
        ]),
    }
}

impl From<ReplicaState> for pb::ReplicaStatus {
    fn from(replica: ReplicaState) -> Self {
        Self {
            name: replica.name,
            started_at: Some(instant(replica.started_at)),
            version: replica.version,
            clock_offset: Some(signed_length(replica.clock_offset)),
            this_one: replica.is_this_one,
        }
    }
}
