//! Section `providers.meta`: the app at Meta, and its secrets, read from their files.

use std::path::Path;
use std::time::Duration;

use url::Url;

use super::MetaApp;
use super::reader::Reader;
use crate::model::Secret;
use crate::provider::{MetaConfig, is_loopback};

/// Meta's own Graph API.
const GRAPH_URL: &str = "https://graph.facebook.com";
/// Where Meta asks people for consent.
const DIALOG_URL: &str = "https://www.facebook.com";
/// The newest version of the reference.
const API_VERSION: &str = "v26.0";
/// The whole of an operation, retries included; a replica that takes over waits longer than this.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(20);
/// One request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads the section. `None` when no app is configured: the vault then knows no provider.
pub(super) fn read(reader: &mut Reader) -> Option<MetaApp> {
    const APP_ID: &str = "providers.meta.app_id";
    const SECRETS: &str = "providers.meta.app_secret_files";
    const FOLLOW: &str = "providers.meta.follow_sandbox_clock";
    let app_id = reader.parsed(APP_ID, None, |text| app_id(text).map(Some));
    let files = reader.list(SECRETS, &[], |text| Ok(text.to_owned()));
    let graph_url =
        reader.parsed("providers.meta.graph_url", parse(GRAPH_URL), |text| base_url(text).map(Some));
    let dialog_url =
        reader.parsed("providers.meta.dialog_url", parse(DIALOG_URL), |text| base_url(text).map(Some));
    let api_version = reader.parsed("providers.meta.api_version", API_VERSION.to_owned(), api_version);
    let request_timeout = reader.parsed("providers.meta.request_timeout", REQUEST_TIMEOUT, |text| {
        super::duration_between(text, Duration::from_millis(100), OPERATION_TIMEOUT, "100ms", "20s")
    });
    let follow_sandbox_clock = reader.flag(FOLLOW, false);
    let required_scopes =
        reader.list("providers.meta.required_scopes", &["ads_read", "ads_management"], scope);
    let optional_scopes = reader.list("providers.meta.optional_scopes", &["business_management"], scope);

    if follow_sandbox_clock {
        if graph_url.as_ref().is_some_and(|url| !is_loopback(url)) {
            reader.mistake(FOLLOW, "must be false unless the host of providers.meta.graph_url is loopback");
        }
        if app_id.is_none() {
            reader.mistake(FOLLOW, "needs an app: set providers.meta.app_id");
        }
        reader.warn(
            "providers.meta.follow_sandbox_clock: time is the sandbox's; never in production".to_owned(),
        );
    }
    let app_secrets: Vec<Secret> =
        files.iter().filter_map(|file| reader.secret(SECRETS, Path::new(file))).collect();
    let app_id = match (app_id, files.is_empty()) {
        (Some(app_id), false) => app_id,
        (Some(_), true) => {
            reader.mistake(SECRETS, "must name at least one file with the secret of providers.meta.app_id");
            return None;
        }
        (None, false) => {
            reader.mistake(APP_ID, "must be set, since providers.meta.app_secret_files is");
            return None;
        }
        (None, true) => return None,
    };
    let config = MetaConfig {
        app_id,
        app_secrets,
        graph_url: graph_url?,
        api_version,
        request_timeout,
        operation_timeout: OPERATION_TIMEOUT,
        required_scopes,
        optional_scopes,
    };
    Some(MetaApp { config, dialog_url: dialog_url?, follow_sandbox_clock })
}

fn parse(url: &str) -> Option<Url> {
    Url::parse(url).ok()
}

/// A base that secrets may be sent to: TLS, or a loopback host (the sandbox).
fn base_url(text: &str) -> Result<Url, String> {
    let rule = "must be an https:// URL without user, query or fragment (http:// only for a loopback host)";
    let url = Url::parse(text).map_err(|_| rule.to_owned())?;
    let safe = url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url));
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
        && url.has_host();
    if safe && plain { Ok(url) } else { Err(rule.to_owned()) }
}

fn app_id(text: &str) -> Result<String, String> {
    if (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()) {
        Ok(text.to_owned())
    } else {
        Err("must be the app's number, 1 to 32 digits, as the app dashboard shows it".to_owned())
    }
}

fn api_version(text: &str) -> Result<String, String> {
    let digits = |part: &str| !part.is_empty() && part.len() <= 3 && part.bytes().all(|b| b.is_ascii_digit());
    match text.strip_prefix('v').and_then(|rest| rest.split_once('.')) {
        Some((major, minor)) if digits(major) && digits(minor) => Ok(text.to_owned()),
        _ => Err("must be a version of the Graph API, such as v26.0".to_owned()),
    }
}

fn scope(text: &str) -> Result<String, String> {
    if (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:-/".contains(&b))
    {
        Ok(text.to_owned())
    } else {
        Err("must be the name of a permission, such as ads_read".to_owned())
    }
}
