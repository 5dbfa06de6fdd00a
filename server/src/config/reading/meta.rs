//! Section `providers.meta`: the app at Meta, and its secrets, read from their files.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::config::defaults::{
    META_API_VERSION, META_APP_ID, META_APP_SECRET_FILES, META_DATA_DELETION_URL, META_DIALOG_URL,
    META_FOLLOW_SANDBOX_CLOCK, META_GRAPH_URL, META_LOGIN_CONFIG_ID, META_OPTIONAL_SCOPES,
    META_REQUEST_TIMEOUT, META_REQUIRED_SCOPES, META_WEBHOOK_VERIFY_TOKEN_FILE,
};
use crate::config::reader::Reader;
use crate::model::Secret;
use crate::provider::{MetaApp, MetaConfig, is_loopback};

/// The whole of an operation, retries included; a replica that takes over waits longer than this.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(20);

/// Reads the section. `None` when no app is configured: the vault then knows no provider.
pub(in crate::config) fn read(reader: &mut Reader) -> Option<MetaApp> {
    let app_id = reader.find(&META_APP_ID);
    let files = reader.list(&META_APP_SECRET_FILES);
    let graph_url = reader.get(&META_GRAPH_URL);
    let dialog_url = reader.get(&META_DIALOG_URL);
    let login_config_id = reader.find(&META_LOGIN_CONFIG_ID);
    let api_version = reader.get(&META_API_VERSION);
    let request_timeout = reader.get(&META_REQUEST_TIMEOUT);
    let follow_sandbox_clock = reader.flag(&META_FOLLOW_SANDBOX_CLOCK);
    let required_scopes = reader.list(&META_REQUIRED_SCOPES);
    let optional_is_set = reader.is_set(META_OPTIONAL_SCOPES.name);
    let mut optional_scopes = reader.list(&META_OPTIONAL_SCOPES);
    let deletion_page = reader.find(&META_DATA_DELETION_URL);
    let verify_token_file = reader.find(&META_WEBHOOK_VERIFY_TOKEN_FILE);
    let token_key = META_WEBHOOK_VERIFY_TOKEN_FILE.name;
    let webhook_verify_token = verify_token_file.and_then(|file| reader.secret(token_key, None, &file));

    let before = optional_scopes.len();
    optional_scopes.retain(|scope| !required_scopes.contains(scope));
    // Whoever requires a scope that is optional by default has contradicted nothing.
    if optional_is_set && optional_scopes.len() < before {
        let required = META_REQUIRED_SCOPES.name;
        reader.mistake(
            META_OPTIONAL_SCOPES.name,
            format!("must name no scope that {required} names too: remove it from one of the two"),
        );
    }
    if follow_sandbox_clock {
        let name = META_FOLLOW_SANDBOX_CLOCK.name;
        if !is_loopback(&graph_url) && !reader.is_mistaken(META_GRAPH_URL.name) {
            let url = META_GRAPH_URL.name;
            reader.mistake(name, format!("must be false unless the host of {url} is loopback"));
        }
        if app_id.is_none() {
            reader.mistake(name, format!("needs an app: set {}", META_APP_ID.name));
        }
        reader.warn(format!("{name}: time is the sandbox's; never in production"));
    }
    let (id, secrets) = (META_APP_ID.name, META_APP_SECRET_FILES.name);
    let read = |(at, file): (usize, &PathBuf)| reader.secret(secrets, Some(at), file);
    let app_secrets: Vec<Secret> = files.iter().enumerate().filter_map(read).collect();
    let app_id = match (app_id, files.is_empty()) {
        (Some(app_id), false) => app_id,
        (Some(_), true) => {
            reader.mistake(secrets, format!("must name at least one file with the secret of {id}"));
            return None;
        }
        (None, false) => {
            reader.mistake(id, format!("must be set, since {secrets} is"));
            return None;
        }
        (None, true) => return None,
    };
    let config = MetaConfig {
        app_id,
        app_secrets,
        graph_url,
        dialog_url,
        login_config_id,
        api_version,
        request_timeout,
        operation_timeout: OPERATION_TIMEOUT,
        required_scopes,
        optional_scopes,
        webhook_verify_token,
        deletion_page,
    };
    Some(MetaApp { config, follow_sandbox_clock })
}

/// Where the portal shows what became of a request to delete data.
pub(in crate::config) fn deletion_page(portal: &Url) -> Option<Url> {
    portal.join("/callbacks/meta/data-deletion").ok()
}
