//! Key `auth.certificates`: which client certificate is which principal.

use std::collections::BTreeSet;

use crate::api::ClientAuth;
use crate::config::defaults::CERTIFICATES;
use crate::config::reader::{Reader, Table};
use crate::model::{
    BadValue, CertificateName, CertificateRule, Role, WorkspaceId, WorkspaceSet, check_principal_name,
};
use crate::oidc::NAME_PREFIX;

/// `client_auth` says whether clients are asked for a certificate; without TLS they are not.
pub(in crate::config) fn read(reader: &mut Reader, client_auth: ClientAuth) -> Vec<CertificateRule> {
    let tables = reader.tables(&CERTIFICATES);
    let any = !tables.is_empty();
    let mut rules: Vec<CertificateRule> = Vec::new();
    for table in tables {
        if let Some(rule) = rule(reader, table, &rules) {
            rules.push(rule);
        }
    }
    if any && client_auth == ClientAuth::None {
        reader
            .mistake(CERTIFICATES.name, "is of no use unless server.tls.client_auth is optional or required");
    }
    rules
}

fn rule(reader: &mut Reader, mut table: Table, before: &[CertificateRule]) -> Option<CertificateRule> {
    let san = table.parsed("san", CertificateName::parse);
    let principal = table.parsed("principal", |text| check_principal_name(text).map(|()| text.to_owned()));
    if principal.as_ref().is_ok_and(|name| name.starts_with(NAME_PREFIX)) {
        table.mistake(
            "principal",
            "must not begin with oidc: since such names belong to callers with tokens of an issuer",
        );
    }
    let role = table.parsed("role", Role::parse);
    let workspaces = workspaces(&mut table);
    if let Ok(san) = &san
        && before.iter().any(|rule| rule.san == *san)
    {
        table.mistake("san", "is there already: a name belongs to one principal");
    }
    let workspaces = match workspaces {
        Ok(workspaces) => Some(workspaces),
        Err(rule) => {
            table.mistake("workspaces", &rule.rule);
            None
        }
    };
    table.finish(reader, CERTIFICATES.name);
    Some(CertificateRule {
        san: san.ok()?,
        principal: principal.ok()?,
        role: role.ok()?,
        workspaces: workspaces?,
    })
}

/// The workspaces in a table's key `workspaces`.
pub(super) fn workspaces(table: &mut Table) -> Result<WorkspaceSet, BadValue> {
    const ALL: &str = "all";
    let rule = || BadValue::new("must be \"all\", or a list of at least one workspace");
    match table.texts("workspaces", ALL).ok_or_else(rule)?.as_slice() {
        [] => Err(rule()),
        [all] if all == ALL => Ok(WorkspaceSet::All),
        names if names.iter().any(|name| name == ALL) => {
            Err(BadValue::new("must be \"all\" alone, or a list without it"))
        }
        names => names
            .iter()
            .map(|name| WorkspaceId::parse(name.clone()))
            .collect::<Result<BTreeSet<_>, _>>()
            .map(WorkspaceSet::Named),
    }
}
