//! How API keys are shown: a table for people, JSON for programs.

use anyhow::Context;
use serde_json::{Value, json};
use token_vault_client::v1::ApiKey;
use token_vault_client::v1::api_key::Workspaces;

use super::new_file::NewFile;
use crate::cli::terminal::table::{Column, Fit, NOTHING, table};
use crate::cli::terminal::time::{from_wire, full, minute, now};
use crate::cli::terminal::{note, say};

/// The key itself goes to stdout or to its file, and everything else to stderr, so that stdout can be piped.
pub(super) fn show_new(
    new: Option<&ApiKey>,
    secret: &str,
    replaced: Option<&ApiKey>,
    file: Option<NewFile>,
    as_json: bool,
) -> anyhow::Result<()> {
    let key = new.context("the vault answered without the key")?;
    let path = file.as_ref().map(|file| file.path().display().to_string());
    if let Some(file) = file {
        file.fill(secret)?;
    }
    if as_json {
        let mut shown = describe(key);
        if let Some(fields) = shown.as_object_mut() {
            if path.is_none() {
                fields.insert("key".into(), json!(secret));
            }
            fields.extend(replaced.map(|old| ("replaced".into(), describe(old))));
        }
        return say(shown);
    }
    if let Some(old) = replaced {
        let end = old.expires_at.map_or("at once".to_owned(), |end| format!("at {} UTC", minute(end)));
        note(format_args!("The new key replaces {}, which ends {end}.", old.key_id));
    }
    let made = format!("API key {} of {} ({})", key.key_id, key.principal, role(key));
    if let Some(path) = path {
        note(format_args!("{made} is in {path}."));
        return Ok(());
    }
    note(format_args!("{made}; it is shown only now:"));
    say(secret)
}

/// The keys in a table.
pub(super) fn list(keys: &[ApiKey], wide: bool) -> String {
    if wide { wide_list(keys) } else { short_list(keys) }
}

fn short_list(keys: &[ApiKey]) -> String {
    let columns = [
        ("KEY ID", Column::Whole),
        ("PRINCIPAL", Column::Whole),
        ("ROLE", Column::Whole),
        ("WHERE", Column::Prose),
        ("LAST USED (UTC)", Column::Whole),
        ("STATE", Column::Prose),
    ];
    let rows: Vec<_> = keys
        .iter()
        .map(|key| {
            [
                key.key_id.clone(),
                key.principal.clone(),
                role(key),
                workspaces(key),
                key.last_used_at.map_or("never".to_owned(), minute),
                state(key),
            ]
        })
        .collect();
    table(columns, &rows, Fit::Screen)
}

fn wide_list(keys: &[ApiKey]) -> String {
    let names = [
        "KEY ID",
        "PRINCIPAL",
        "ROLE",
        "WORKSPACES",
        "CREATED",
        "EXPIRES",
        "LAST USED",
        "REVOKED",
        "REPLACED BY",
    ];
    let time = |at| full(at).unwrap_or_else(|| NOTHING.to_owned());
    let rows: Vec<_> = keys
        .iter()
        .map(|key| {
            [
                key.key_id.clone(),
                key.principal.clone(),
                role(key),
                workspaces(key),
                time(key.created_at),
                time(key.expires_at),
                time(key.last_used_at),
                time(key.revoked_at),
                key.replaced_by.clone().unwrap_or_else(|| NOTHING.to_owned()),
            ]
        })
        .collect();
    table(names.map(|name| (name, Column::Whole)), &rows, Fit::Wide)
}

/// Says whether the key works, until when, and whether another key replaces it.
fn state(key: &ApiKey) -> String {
    let mut state = match (key.revoked_at, key.expires_at) {
        (Some(at), _) => format!("revoked {}", minute(at)),
        (None, Some(end)) if from_wire(end) <= now() => format!("expired {}", minute(end)),
        (None, Some(end)) => format!("until {}", minute(end)),
        (None, None) => "works".to_owned(),
    };
    if key.replaced_by.is_some() {
        state.push_str(", replaced");
    }
    state
}

/// The key's facts as one JSON object.
pub(super) fn describe(key: &ApiKey) -> Value {
    json!({
        "key_id": key.key_id,
        "principal": key.principal,
        "role": role(key),
        "all_workspaces": named(key).is_none(),
        "workspaces": named(key).unwrap_or_default(),
        "created_at": full(key.created_at),
        "expires_at": full(key.expires_at),
        "last_used_at": full(key.last_used_at),
        "revoked_at": full(key.revoked_at),
        "replaced_by": key.replaced_by,
    })
}

fn role(key: &ApiKey) -> String {
    let name = key.role().as_str_name();
    name.strip_prefix("ROLE_").unwrap_or(name).to_ascii_lowercase()
}

fn workspaces(key: &ApiKey) -> String {
    named(key).map_or("all".to_owned(), |ids| ids.join(", "))
}

/// The workspaces that the key names; `None` for all.
fn named(key: &ApiKey) -> Option<&[String]> {
    match &key.workspaces {
        Some(Workspaces::Named(list)) => Some(&list.workspace_ids),
        Some(Workspaces::AllWorkspaces(_)) | None => None,
    }
}
