//! Section `auth.oidc`: whose tokens callers may come with, and what their claims mean.

use std::time::Duration;

use url::Url;

use super::reader::Reader;
use super::{DAY, HOUR, MINUTE, certificates, duration_between};
use crate::model::{BadValue, Role};
use crate::oidc::{OidcConfig, Places, RoleRule, Signing, WorkspaceRule};
use crate::provider::is_loopback;

const ISSUER: &str = "auth.oidc.issuer";
const AUDIENCE: &str = "auth.oidc.audience";
const ROLES: &str = "auth.oidc.roles";
const WORKSPACES: &str = "auth.oidc.workspaces";
const WORKSPACES_CLAIM: &str = "auth.oidc.workspaces_claim";
const EVERYWHERE: &str = "auth.oidc.all_workspaces";
const SECOND: Duration = Duration::from_secs(1);

/// Reads the section; `None` while no issuer is named.
pub(super) fn read(reader: &mut Reader) -> Option<OidcConfig> {
    let issuer = reader.parsed(ISSUER, None, |text| url(text).map(|_| Some(text.to_owned())));
    let audience = reader.text(AUDIENCE);
    let jwks_uri = reader.parsed("auth.oidc.jwks_uri", None, |text| url(text).map(Some));
    let ca_file = reader.path("auth.oidc.ca_file");
    let algorithms = reader.list("auth.oidc.algorithms", &["RS256", "ES256", "EdDSA"], Signing::parse);
    let leeway = reader.parsed("auth.oidc.leeway", 30 * SECOND, |text| {
        duration_between(text, Duration::ZERO, 5 * MINUTE, "0s", "5m")
    });
    let claim = |reader: &mut Reader, key: &str, default: &str| {
        reader.parsed(key, default.to_owned(), |text| {
            let good = text.len() <= 128 && text.bytes().all(|b| b.is_ascii_graphic());
            if good { Ok(text.to_owned()) } else { Err("must be the name of a claim".to_owned()) }
        })
    };
    let principal_claim = claim(reader, "auth.oidc.principal_claim", "sub");
    let role_claim = claim(reader, "auth.oidc.role_claim", "roles");
    let workspaces_claim = claim(reader, WORKSPACES_CLAIM, "");
    let roles = roles(reader);
    let rules = workspaces(reader);
    let everywhere = reader.flag(EVERYWHERE, false);
    let refresh = reader
        .parsed("auth.oidc.refresh", 5 * MINUTE, |text| duration_between(text, SECOND, DAY, "1s", "24h"));
    let refresh_at_most_every = reader.parsed("auth.oidc.refresh_at_most_every", 10 * SECOND, |text| {
        duration_between(text, SECOND / 10, HOUR, "100ms", "1h")
    });
    let stale_for = reader
        .parsed("auth.oidc.stale_for", HOUR, |text| duration_between(text, SECOND, 7 * DAY, "1s", "7d"));
    let Some(issuer) = issuer else {
        let said = audience.is_some() || !roles.is_empty() || !rules.is_empty() || jwks_uri.is_some();
        if said && !reader.is_mistaken(ISSUER) {
            reader.mistake(ISSUER, "must be set where another key of auth.oidc is");
        }
        return None;
    };
    if audience.is_none() {
        reader.mistake(
            AUDIENCE,
            "must be set: a token for another service of the issuer is none for this vault",
        );
    }
    if algorithms.is_empty() {
        reader.mistake("auth.oidc.algorithms", "must name at least one of RS256, ES256, EdDSA");
    }
    if roles.is_empty() && !reader.is_mistaken(ROLES) {
        reader.mistake(
            ROLES,
            "must say what a token may do, such as [{ value = \"vault-ingestion\", role = \"ingestion\" }]",
        );
    }
    if stale_for < refresh {
        reader.mistake("auth.oidc.stale_for", "must be at least auth.oidc.refresh");
    }
    let places = match (everywhere, workspaces_claim.is_empty(), rules.is_empty()) {
        (true, true, true) => Places::Everywhere,
        (false, false, true) => Places::Claimed(workspaces_claim),
        (false, false, false) => Places::Mapped(workspaces_claim, rules),
        _ => {
            reader.mistake(
                WORKSPACES_CLAIM,
                format!("must name the claim with the workspaces, with or without {WORKSPACES}; or, in place of both, set {EVERYWHERE} = true"),
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
        places,
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
    for mut table in reader.tables(ROLES) {
        let (value, role) = (table.parsed("value", value), table.parsed("role", Role::parse));
        if let Ok(value) = &value
            && rules.iter().any(|rule| rule.value == *value)
        {
            table.mistake("value", "is there already: one value is one role");
        }
        table.finish(reader, ROLES);
        if let (Ok(value), Ok(role)) = (value, role) {
            rules.push(RoleRule { value, role });
        }
    }
    rules
}

fn workspaces(reader: &mut Reader) -> Vec<WorkspaceRule> {
    let mut rules = Vec::new();
    for mut table in reader.tables(WORKSPACES) {
        let value = table.parsed("value", value);
        let places = table.texts("workspaces").and_then(|texts| certificates::workspaces(&texts));
        if let Err(bad) = &places {
            table.mistake("workspaces", &bad.rule);
        }
        table.finish(reader, WORKSPACES);
        if let (Ok(value), Ok(workspaces)) = (value, places) {
            rules.push(WorkspaceRule { value, workspaces });
        }
    }
    rules
}

/// Keys come from there: over TLS, but for an issuer on this machine.
fn url(text: &str) -> Result<Url, String> {
    let rule = || "must be a URL such as https://login.example; http:// only to loopback".to_owned();
    let url = Url::parse(text).map_err(|_| rule())?;
    let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    let safe = url.scheme() == "https" || url.scheme() == "http" && is_loopback(&url);
    if plain && safe && url.host().is_some() { Ok(url) } else { Err(rule()) }
}
