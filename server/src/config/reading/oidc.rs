//! Section `auth.oidc`: the issuer whose tokens are accepted, and what their claims mean.

use super::certificates;
use crate::config::defaults::{
    OIDC_ALGORITHMS, OIDC_ALL_WORKSPACES, OIDC_AUDIENCE, OIDC_CA_FILE, OIDC_ISSUER, OIDC_JWKS_URI,
    OIDC_LEEWAY, OIDC_PRINCIPAL_CLAIM, OIDC_REFRESH, OIDC_REFRESH_AT_MOST_EVERY, OIDC_ROLE_CLAIM, OIDC_ROLES,
    OIDC_STALE_FOR, OIDC_WORKSPACES, OIDC_WORKSPACES_CLAIM,
};
use crate::config::reader::Reader;
use crate::config::values::Describe;
use crate::model::{BadValue, Role};
use crate::oidc::{OidcConfig, RoleRule, WorkspaceMapping, WorkspaceRule};

/// Reads the section; `None` while no issuer is named.
pub(in crate::config) fn read(reader: &mut Reader) -> Option<OidcConfig> {
    let issuer = reader.find(&OIDC_ISSUER);
    let audience = reader.find(&OIDC_AUDIENCE);
    let jwks_uri = reader.find(&OIDC_JWKS_URI);
    let ca_file = reader.find(&OIDC_CA_FILE);
    let algorithms = reader.list(&OIDC_ALGORITHMS);
    let leeway = reader.get(&OIDC_LEEWAY);
    let principal_claim = reader.get(&OIDC_PRINCIPAL_CLAIM);
    let role_claim = reader.get(&OIDC_ROLE_CLAIM);
    let workspaces_claim = reader.find(&OIDC_WORKSPACES_CLAIM);
    let roles = roles(reader);
    let rules = workspaces(reader);
    let everywhere = reader.flag(&OIDC_ALL_WORKSPACES);
    let refresh = reader.get(&OIDC_REFRESH);
    let refresh_at_most_every = reader.get(&OIDC_REFRESH_AT_MOST_EVERY);
    let stale_for = reader.get(&OIDC_STALE_FOR);
    let Some(issuer) = issuer else {
        let any = audience.is_some()
            || jwks_uri.is_some()
            || ca_file.is_some()
            || workspaces_claim.is_some()
            || everywhere
            || !roles.is_empty()
            || !rules.is_empty();
        if any && !reader.is_mistaken(OIDC_ISSUER.name) {
            reader.mistake(OIDC_ISSUER.name, "must be set where another key of auth.oidc is");
        }
        return None;
    };
    if audience.is_none() {
        reader.mistake(
            OIDC_AUDIENCE.name,
            "must be set: a token that the issuer made for another service must not be accepted here",
        );
    }
    if algorithms.is_empty() {
        let names = OIDC_ALGORITHMS.kind.each.allowed();
        reader.mistake(OIDC_ALGORITHMS.name, format!("must name at least one of {names}"));
    }
    if roles.is_empty() && !reader.is_mistaken(OIDC_ROLES.name) {
        reader.mistake(
            OIDC_ROLES.name,
            "must say what a token may do, such as [{ value = \"vault-ingestion\", role = \"ingestion\" }]",
        );
    }
    if stale_for < refresh {
        reader.mistake(OIDC_STALE_FOR.name, "must be at least auth.oidc.refresh");
    }
    let workspaces = match (everywhere, workspaces_claim, rules.is_empty()) {
        (true, None, true) => WorkspaceMapping::Everywhere,
        (false, Some(claim), true) => WorkspaceMapping::Claimed(claim),
        (false, Some(claim), false) => WorkspaceMapping::Mapped(claim, rules),
        _ => {
            reader.mistake(
                OIDC_WORKSPACES_CLAIM.name,
                format!(
                    "must name the claim with the workspaces, with or without {}; or set {} = true instead of both",
                    OIDC_WORKSPACES.name, OIDC_ALL_WORKSPACES.name
                ),
            );
            return None;
        }
    };
    Some(OidcConfig {
        issuer,
        audience: audience?,
        jwks_uri,
        ca_file,
        algorithms: algorithms.into_iter().collect(),
        leeway,
        principal_claim,
        role_claim,
        roles,
        workspaces,
        refresh,
        refresh_at_most_every,
        stale_for,
    })
}

fn value(text: &str) -> Result<String, BadValue> {
    let good = (1..=256).contains(&text.len()) && !text.chars().any(char::is_control);
    if good { Ok(text.to_owned()) } else { Err(BadValue::new("must be 1 to 256 characters of the claim")) }
}

fn roles(reader: &mut Reader) -> Vec<RoleRule> {
    let mut rules: Vec<RoleRule> = Vec::new();
    for mut table in reader.tables(&OIDC_ROLES) {
        let (value, role) = (table.parsed("value", value), table.parsed("role", Role::parse));
        if let Ok(value) = &value
            && rules.iter().any(|rule| rule.value == *value)
        {
            table.mistake("value", "is there already: a value means one role");
        }
        table.finish(reader, OIDC_ROLES.name);
        if let (Ok(value), Ok(role)) = (value, role) {
            rules.push(RoleRule { value, role });
        }
    }
    rules
}

fn workspaces(reader: &mut Reader) -> Vec<WorkspaceRule> {
    let mut rules = Vec::new();
    for mut table in reader.tables(&OIDC_WORKSPACES) {
        let value = table.parsed("value", value);
        let places = certificates::workspaces(&mut table);
        if let Err(bad) = &places {
            table.mistake("workspaces", &bad.rule);
        }
        table.finish(reader, OIDC_WORKSPACES.name);
        if let (Ok(value), Ok(workspaces)) = (value, places) {
            rules.push(WorkspaceRule { value, workspaces });
        }
    }
    rules
}
