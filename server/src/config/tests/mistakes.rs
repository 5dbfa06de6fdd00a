//! A table of mistakes: every key of the configuration is given what it can't mean, and each time the start is refused
//! with the key and with what it takes instead. A key without a row fails the test.

use std::collections::BTreeSet;

use super::*;
use crate::config::declare::{Default, Documented};
use crate::config::defaults::sections;

/// Stands in every value; no message may repeat it.
const SECRET: &str = "hunter2hunter2hunter2";

struct Row {
    key: &'static str,
    /// What every refusal of such a value says.
    rule: &'static str,
    /// Values as TOML writes them that this key can't mean.
    words: &'static [&'static str],
    /// Values just outside of the bounds.
    out_of_range: &'static [&'static str],
}

const fn row(
    key: &'static str,
    rule: &'static str,
    words: &'static [&'static str],
    out_of_range: &'static [&'static str],
) -> Row {
    Row { key, rule, words, out_of_range }
}

const WORDS: &[&str] = &["'hunter2hunter2hunter2'", "''", "'never'"];
/// Secrets in the place of a path, one of each form.
const SECRETS: &[&str] = &[
    "''",
    "'hunter2hunter2hunter2'",
    "'tvk1:2026:hunter2hunter2hunter2/8='",
    "'tva_hunter2hunter2hunter2_/x'",
    "'hvs.hunter2hunter2hunter2'",
    "'0b3f0a52-6f0c-4f0e-9a55-2f3f2a1b4c5d'",
    "\"-----BEGIN PRIVATE KEY-----\\nhunter2hunter2hunter2\"",
];
const CONTROL: &[&str] = &["''", r#""hunter2hunter2hunter2\tx""#];
const URLS: &[&str] =
    &["'hunter2hunter2hunter2'", "''", "'http://example.com'", "'https://u:hunter2hunter2hunter2@h'"];
const TABLES: &[&str] = &["'hunter2hunter2hunter2'", "['hunter2hunter2hunter2']", "''"];
const BRACKETS: &[&str] = &["'/run/hunter2hunter2hunter2'", "''", "['']"];

const FILE: &str = "must be the path of a file";
const TIME: &str = "must be a length of time from";
const NUMBER: &str = "must be a number from";
const SWITCH: &str = "must be true or false";
const CRON: &str = "must be a cron expression of six fields, seconds first, in UTC";
const HTTPS: &str = "must be an https:// URL without";
const CLAIM: &str = "must be the name of a claim";
const TEXT: &str = "must be a text of 1 to 256 characters";

#[rustfmt::skip]
const TABLE: &[Row] = &[
    row("data_dir", "must be the path of a folder", SECRETS, &[]),
    row("server.listen", "must be an IP address and a port", WORDS, &["'127.0.0.1:65536'", "'256.0.0.1:1'"]),
    row("server.admin_listen", "must be an IP address and a port", WORDS, &["'127.0.0.1:65536'", "7444"]),
    row("server.allow_plaintext", SWITCH, WORDS, &["1"]),
    row("server.allow_remote_admin", SWITCH, WORDS, &["1"]),
    row("server.tls.cert_file", FILE, SECRETS, &[]),
    row("server.tls.key_file", FILE, SECRETS, &[]),
    row("server.tls.client_auth", "must be none, optional or required", WORDS, &[]),
    row("server.tls.client_ca_file", FILE, SECRETS, &[]),
    row("server.tls.reload_interval", TIME, WORDS, &["'99ms'", "'61m'", "5"]),
    row("server.limits.per_principal_rps", NUMBER, WORDS, &["-1", "1000001"]),
    row("server.limits.per_principal_burst", NUMBER, WORDS, &["0", "1000001"]),
    row("server.limits.per_principal_watches", NUMBER, WORDS, &["0", "1000001"]),
    row("server.limits.max_watches", NUMBER, WORDS, &["0", "1000001"]),
    row("server.limits.failed_authentications_per_minute", NUMBER, WORDS, &["-1", "1000001"]),
    row("server.limits.max_calls", NUMBER, WORDS, &["0", "100001"]),
    row("server.limits.max_calls_per_principal", NUMBER, WORDS, &["0", "100001"]),
    row("server.limits.max_request_bytes", NUMBER, WORDS, &["65535", "67108865"]),
    row("server.limits.max_header_bytes", NUMBER, WORDS, &["4095", "1048577"]),
    row("server.limits.max_connections", NUMBER, WORDS, &["0", "1000001"]),
    row("server.limits.max_streams_per_connection", NUMBER, WORDS, &["0", "100001"]),
    row("server.limits.max_open_streams", NUMBER, WORDS, &["0", "100001"]),
    row("server.limits.handshake_timeout", TIME, WORDS, &["'99ms'", "'11m'", "10"]),
    row("server.limits.idle_timeout", TIME, WORDS, &["'999ms'", "'8d'"]),
    row("server.limits.keepalive_interval", TIME, WORDS, &["'99ms'", "'11m'"]),
    row("server.limits.keepalive_timeout", TIME, WORDS, &["'99ms'", "'11m'"]),
    row("server.limits.max_connection_age", TIME, WORDS, &["'999ms'", "'8d'"]),
    row("server.limits.max_connection_age_grace", TIME, WORDS, &["'99ms'", "'11m'"]),
    row("storage.url", "must be sqlite:PATH or postgres://",
        &["'hunter2hunter2hunter2'", "''", "'mysql://u:hunter2hunter2hunter2@h/d'", "'postgres://'"],
        &["'postgres://u:hunter2hunter2hunter2@h:65536/d'"]),
    row("storage.migrate_on_start", SWITCH, WORDS, &["0"]),
    row("keys.master_key_file", FILE, SECRETS, &[]),
    row("keys.break_glass_sealing_key_file", FILE, SECRETS, &[]),
    row("keys.transit.address", HTTPS, URLS, &["'https://h:65536'"]),
    row("keys.transit.mount", "must be 1 to 128 characters of", &["'a b'", "'../x'", "''"], &[]),
    row("keys.transit.key", "must be 1 to 128 characters of", &["'a b'", "'x//y'", "''"], &[]),
    row("keys.transit.namespace", "must be 1 to 128 characters of", &["'a b'", "'./x'", "''"], &[]),
    row("keys.transit.token_file", FILE, SECRETS, &[]),
    row("keys.transit.role_id", TEXT, CONTROL, &[]),
    row("keys.transit.secret_id_file", FILE, SECRETS, &[]),
    row("keys.transit.ca_file", FILE, SECRETS, &[]),
    row("auth.bootstrap_key_file", FILE, SECRETS, &[]),
    row("auth.certificates", "must be a list of tables with san, principal, role, workspaces", TABLES, &[]),
    row("auth.oidc.issuer", HTTPS, URLS, &["'https://h:65536'"]),
    row("auth.oidc.audience", TEXT, CONTROL, &[]),
    row("auth.oidc.jwks_uri", HTTPS, URLS, &["'https://h:65536'"]),
    row("auth.oidc.ca_file", FILE, SECRETS, &[]),
    row("auth.oidc.algorithms", "RS256, ES256", &["'RS256'", "['HS256']", "['rs256']", "['']", "''"], &[]),
    row("auth.oidc.leeway", TIME, WORDS, &["'301s'", "'-1s'"]),
    row("auth.oidc.principal_claim", CLAIM, &["'a b'", "''"], &[]),
    row("auth.oidc.role_claim", CLAIM, &["'a b'", "''"], &[]),
    row("auth.oidc.roles", "must be a list of tables with value, role", TABLES, &[]),
    row("auth.oidc.workspaces_claim", CLAIM, &["'a b'", "''"], &[]),
    row("auth.oidc.workspaces", "must be a list of tables with value, workspaces", TABLES, &[]),
    row("auth.oidc.all_workspaces", SWITCH, WORDS, &["1"]),
    row("auth.oidc.refresh", TIME, WORDS, &["'999ms'", "'25h'"]),
    row("auth.oidc.refresh_at_most_every", TIME, WORDS, &["'99ms'", "'61m'"]),
    row("auth.oidc.stale_for", TIME, WORDS, &["'999ms'", "'8d'"]),
    row("providers.meta.app_id", "must be the app's number, 1 to 32 digits",
        &["'hunter2hunter2hunter2'", "''", "'my app'"], &["'123456789012345678901234567890123'"]),
    row("providers.meta.app_secret_files", "path", BRACKETS, &[]),
    row("providers.meta.graph_url", HTTPS, URLS, &["'https://h:65536'"]),
    row("providers.meta.login_config_id", "must be the configuration's number, 1 to 32 digits", &["''", "'ab'", "'1 2'"], &[]),
    row("providers.meta.dialog_url", HTTPS, URLS, &["'https://h:65536'"]),
    row("providers.meta.api_version", "must be a version of the Graph API, such as v26.0",
        &["'hunter2hunter2hunter2'", "''", "26", "'26.0'"], &["'v1000.0'"]),
    row("providers.meta.request_timeout", TIME, WORDS, &["'99ms'", "'21s'"]),
    row("providers.meta.required_scopes", "permission", &["'ads_read'", "['a b']", "['']", "''"], &[]),
    row("providers.meta.optional_scopes", "permission", &["'ads_read,x'", "['a b']", "['']", "''"], &[]),
    row("providers.meta.webhook_verify_token_file", FILE, SECRETS, &[]),
    row("providers.meta.data_deletion_url", HTTPS, URLS, &["'https://h:65536'"]),
    row("providers.meta.follow_sandbox_clock", SWITCH, WORDS, &["1"]),
    row("portal.url", HTTPS, URLS, &["'https://h:65536'"]),
    row("portal.return_urls", "URL", &["'https://app.example'", "['hunter2hunter2hunter2']", "['http://app.example']"], &[]),
    row("portal.listen", "must be an IP address and a port", WORDS, &["'127.0.0.1:65536'"]),
    row("portal.vault_url", HTTPS, URLS, &["'https://h:65536'"]),
    row("portal.vault_ca_file", FILE, SECRETS, &[]),
    row("portal.api_key_file", FILE, SECRETS, &[]),
    row("portal.cert_file", FILE, SECRETS, &[]),
    row("portal.key_file", FILE, SECRETS, &[]),
    row("portal.behind_proxy", SWITCH, WORDS, &["1"]),
    row("portal.frame_ancestors", "URL", &["['*']", "['hunter2hunter2hunter2']", "['http://app.example']"], &[]),
    row("portal.name", TEXT, CONTROL, &[]),
    row("portal.logo_file", FILE, SECRETS, &[]),
    row("portal.color", "must be a colour of the form #rrggbb", &["'red'", "''", "'#12345'", "'#12345g'"], &[]),
    row("expiry.warning_window", TIME, WORDS, &["'59m'", "'61d'"]),
    row("expiry.thresholds", "from 1m to 60d", &["'7d'", "'7d,3d'", "''", "['soon']"],
        &["['59s']", "['61d']", "[]", "['1d','2d','3d','4d','5d','6d','7d','8d','9d','10d','11d']"]),
    row("events.retention", TIME, WORDS, &["'59m'", "'3651d'"]),
    row("rotation.enabled", SWITCH, WORDS, &["1"]),
    row("rotation.min_age", TIME, WORDS, &["'59s'", "'61d'"]),
    row("rotation.window", TIME, WORDS, &["'59m'", "'61d'"]),
    row("jobs.meta_token_expiry", CRON, &["'daily'", "''", "'0 6 * * *'"], &["'0 0 24 * * *'", "'0 60 * * * *'"]),
    row("jobs.rotation", CRON, &["'never'", "''", "'Off'"], &["'0 0 24 * * *'", "'0 0 6 32 * *'"]),
    row("jobs.event_retention", CRON, &["'@daily'", "''", "'0 0 0 1 ENE *'"], &["'0 0 6 * 13 *'"]),
    row("jobs.housekeeping", CRON, &["'hunter2hunter2hunter2'", "''", "'a b c d e f'"], &["'0 0 6 * * 8'"]),
    row("jobs.overdue_after", TIME, WORDS, &["'999ms'", "'25h'"]),
    row("jobs.sweep_concurrency", NUMBER, WORDS, &["0", "65"]),
    row("audit.sink", "must be file, stdout or off", WORDS, &[]),
    row("audit.file", FILE, SECRETS, &[]),
    row("audit.sync", "must be soon or always", WORDS, &[]),
    row("audit.max_bytes", NUMBER, WORDS, &["4095", "1099511627777"]),
    row("audit.keep", "must be all, or a number of files from 1 to 1000000", WORDS, &["0", "1000001"]),
    row("log.level", "must be a level (error, warn, info, debug, trace), or a list of levels of parts",
        &["'warning'", "'inof'", "'off'", "''", "'a=loud'", "'token-vault=debug'", "'info,debug'"], &["3", "0"]),
    row("log.format", "must be auto, json or text", WORDS, &[]),
];

fn settings() -> impl Iterator<Item = &'static dyn Documented> {
    sections().flat_map(|section| section.settings.iter().copied())
}

/// Checks that the configuration is refused, with one mistake for `key` that says `rule`, and without the secret.
fn refused(toml: &str, key: &str, rule: &str) {
    let found = match read(toml) {
        Err(found) => found.0,
        Ok(_) => panic!("accepted: {toml}"),
    };
    let about = |text: &&String| text.split(' ').next() == Some(key);
    let about: Vec<_> = found.iter().filter(about).collect();
    assert!(about.iter().any(|text| text.contains(rule)), "{toml}: no {rule:?} about {key} in {found:?}");
    assert!(!found.iter().any(|text| text.contains(SECRET)), "{toml} is repeated: {found:?}");
    assert!(!found.iter().any(|text| text.contains("0b3f0a52")), "{toml} is repeated: {found:?}");
}

/// Values of a wrong type for a setting, as TOML writes them. Text may write a number, and a switch.
fn wrong_types(setting: &dyn Documented) -> Vec<&'static str> {
    let mut wrong = vec![
        "1.5",
        "1979-05-27",
        "{ a = 'hunter2hunter2hunter2' }",
        "[['hunter2hunter2hunter2']]",
        "[{ hunter2hunter2hunter2 = 1 }, [true]]",
    ];
    if setting.allowed() != "true or false" {
        wrong.push("true");
    }
    let takes_lists = matches!(setting.default(), Default::Entries(_))
        || setting.allowed().starts_with("a list")
        || setting.allowed().starts_with("1 to 10");
    wrong.push(if takes_lists { "'/hunter2hunter2hunter2'" } else { "['hunter2hunter2hunter2']" });
    wrong
}

#[test]
fn every_key_has_a_row() {
    let declared: BTreeSet<_> = settings().map(|setting| setting.name()).collect();
    let rows: BTreeSet<_> = TABLE.iter().map(|row| row.key).collect();
    assert_eq!(rows.len(), TABLE.len(), "a key has two rows");
    let difference: Vec<_> = declared.symmetric_difference(&rows).collect();
    assert!(difference.is_empty(), "keys without a row here, or rows without a key: {difference:?}");
    for setting in settings() {
        let row = TABLE.iter().find(|row| row.key == setting.name()).unwrap();
        assert!(!row.words.is_empty(), "{}", row.key);
        assert!(
            setting.allowed().contains(" from ") <= !row.out_of_range.is_empty(),
            "{} has bounds",
            row.key
        );
    }
}

#[test]
fn a_wrong_type_is_refused_for_every_key() {
    for setting in settings() {
        let row = TABLE.iter().find(|row| row.key == setting.name()).unwrap();
        // A value of a wrong type never reaches the parser of cron expressions, whose rule says more.
        let rule = if row.rule == CRON { "must be a cron expression, or off" } else { row.rule };
        for value in wrong_types(setting) {
            refused(&format!("{} = {value}", row.key), row.key, rule);
        }
    }
}

#[test]
fn a_wrong_word_is_refused_for_every_key() {
    for row in TABLE {
        for &value in row.words {
            let rule = if value == "''" && !row.rule.contains("true or") { "" } else { row.rule };
            refused(&format!("{} = {value}", row.key), row.key, rule);
        }
    }
}

#[test]
fn what_is_out_of_range_is_refused_for_every_key_with_bounds() {
    for row in TABLE {
        for value in row.out_of_range {
            refused(&format!("{} = {value}", row.key), row.key, row.rule);
        }
    }
}

#[test]
fn a_cron_line_that_never_comes_is_refused_and_says_how_to_switch_a_job_off() {
    let jobs: Vec<_> = TABLE.iter().filter(|row| row.rule == CRON).collect();
    assert_eq!(jobs.len(), settings().filter(|setting| setting.allowed().contains("cron")).count());
    let never = ["0 0 0 30 2 *", "0 0 0 31 4,6,9,11 *", "* * * 31 2 *", "0 0 0 30,31 2 *"];
    for (row, never) in jobs.into_iter().zip(never) {
        let rule =
            "is never due, since there is no such day: give another one, or write off to switch the job off";
        refused(&format!("{} = '{never}'", row.key), row.key, rule);
        for comes in ["0 0 0 29 2 *", "0 0 0 30 2 1"] {
            assert!(read(&format!("{} = '{comes}'", row.key)).is_ok(), "{comes}");
        }
        let config = read(&format!("{} = 'off'", row.key)).unwrap();
        assert!(config.warnings[0].starts_with(row.key), "{:?}", config.warnings);
    }
}

#[test]
#[rustfmt::skip]
fn contradictions_are_refused_with_both_keys() {
    let oidc = "auth.oidc.issuer = 'https://i'\nauth.oidc.audience = 'a'\nauth.oidc.roles = [{ value = 'v', role = 'viewer' }]\n";
    let rule = "{ san = 'a', principal = 'p', role = 'viewer', workspaces = ['all', 'acme'] }";
    for (toml, key, other) in [
        ("server.listen = '127.0.0.1:1'\nserver.admin_listen = '127.0.0.1:1'", "server.admin_listen", "server.listen"),
        ("server.listen = '0.0.0.0:1'", "server.listen", "server.tls.cert_file"),
        ("server.admin_listen = '0.0.0.0:1'", "server.admin_listen", "server.allow_remote_admin"),
        ("server.tls.cert_file = '/c'", "server.tls.key_file", "server.tls.cert_file"),
        ("server.tls.key_file = '/k'", "server.tls.cert_file", "server.tls.key_file"),
        ("server.tls.client_auth = 'required'", "server.tls.client_auth", "server.tls.cert_file"),
        ("server.tls.client_auth = 'required'", "server.tls.client_ca_file", "server.tls.client_auth"),
        ("server.tls.client_ca_file = '/ca'", "server.tls.client_ca_file", "server.tls.client_auth"),
        ("auth.certificates = [{}]", "auth.certificates", "server.tls.client_auth"),
        (&format!("auth.certificates = [{rule}]"), "auth.certificates", "\"all\" alone, or a list without it"),
        ("auth.oidc.audience = 'a'", "auth.oidc.issuer", "auth.oidc"),
        ("auth.oidc.ca_file = '/ca'", "auth.oidc.issuer", "auth.oidc"),
        ("auth.oidc.jwks_uri = 'https://i'", "auth.oidc.issuer", "auth.oidc"),
        ("auth.oidc.workspaces_claim = 'groups'", "auth.oidc.issuer", "auth.oidc"),
        ("auth.oidc.all_workspaces = true", "auth.oidc.issuer", "auth.oidc"),
        ("auth.oidc.issuer = 'https://i'", "auth.oidc.audience", "must be set"),
        (oidc, "auth.oidc.workspaces_claim", "auth.oidc.all_workspaces"),
        (&format!("{oidc}auth.oidc.all_workspaces = true\nauth.oidc.workspaces_claim = 'g'"), "auth.oidc.workspaces_claim", "auth.oidc.all_workspaces"),
        (&format!("{oidc}auth.oidc.all_workspaces = true\nauth.oidc.stale_for = '1s'"), "auth.oidc.stale_for", "auth.oidc.refresh"),
        (&format!("{oidc}auth.oidc.all_workspaces = true\nauth.oidc.algorithms = []"), "auth.oidc.algorithms", "at least one of"),
        ("keys.transit.token_file = '/t'", "keys.transit.address", "keys.transit"),
        ("keys.transit.namespace = 'ads'", "keys.transit.address", "keys.transit"),
        ("keys.transit.ca_file = '/ca'", "keys.transit.address", "keys.transit"),
        ("keys.transit.role_id = 'r'", "keys.transit.address", "keys.transit"),
        ("keys.transit.address = 'https://h'\nkeys.transit.role_id = 'r'", "keys.transit.token_file", "keys.transit.secret_id_file"),
        ("keys.transit.address = 'https://h'\nkeys.transit.token_file = '/t'\nkeys.transit.role_id = 'r'\nkeys.transit.secret_id_file = '/s'",
         "keys.transit.token_file", "instead"),
        ("providers.meta.app_id = 1", "providers.meta.app_secret_files", "providers.meta.app_id"),
        ("providers.meta.app_secret_files = ['/s']", "providers.meta.app_id", "providers.meta.app_secret_files"),
        ("providers.meta.follow_sandbox_clock = true", "providers.meta.follow_sandbox_clock", "providers.meta.graph_url"),
        ("providers.meta.required_scopes = ['a', 'b']\nproviders.meta.optional_scopes = ['b']", "providers.meta.optional_scopes", "providers.meta.required_scopes"),
        ("providers.meta.required_scopes = ['a', 'a']", "providers.meta.required_scopes", "nothing twice"),
        ("expiry.thresholds = ['1d', '1d']", "expiry.thresholds", "nothing twice"),
        ("expiry.thresholds = ['1d', '24h']", "expiry.thresholds", "differ"),
        ("audit.sink = 'stdout'\naudit.file = '/a'", "audit.file", "audit.sink"),
    ] {
        refused(toml, key, other);
    }
}

/// Every secret that a key's file should hold, in the place of the file's path, with a slash so that it may be one.
#[test]
fn a_secret_in_the_place_of_its_file_is_not_repeated_even_if_it_may_be_a_path() {
    for secret in ["hunter2hunter2hunter2/aXMgYS/x=", "/hunter2hunter2hunter2"] {
        refused(
            &format!("providers.meta.app_id = 1\nproviders.meta.app_secret_files = ['{secret}']"),
            "providers.meta.app_secret_files",
            "[0] names a file below ",
        );
        let key = "keys.break_glass_sealing_key_file";
        refused(&format!("{key} = '{secret}'"), key, "names a file below ");
    }
}

#[test]
fn a_scope_that_is_optional_by_default_may_be_required() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "0123abcd").unwrap();
    let app = format!(
        "providers.meta.app_id = 1\nproviders.meta.app_secret_files = ['{}']\n",
        file.path().display()
    );
    let config =
        read(&format!("{app}providers.meta.required_scopes = ['ads_read', 'business_management']")).unwrap();
    let meta = config.providers.meta.unwrap().config;
    assert_eq!((meta.required_scopes.len(), meta.optional_scopes.len()), (2, 0));
}

/// Variables of the environment, as figment gives them.
struct Environment(&'static str, &'static str);

impl figment::Provider for Environment {
    fn metadata(&self) -> figment::Metadata {
        figment::Metadata::named("`TOKEN_VAULT__` environment variable(s)")
    }

    fn data(&self) -> Result<figment::value::Map<figment::Profile, Dict>, figment::Error> {
        let nested = figment::util::nest(self.0, self.1.into());
        Ok(figment::Profile::Default.collect(nested.into_dict().unwrap()))
    }
}

#[test]
fn only_the_environment_may_write_a_list_as_a_text_and_leave_a_key_empty() {
    let variable =
        |key, value| Config::from_sources(Figment::from(Environment(key, value)), Flags::default(), None);
    let config = variable("expiry.thresholds", "2d, 1d").unwrap();
    assert_eq!(config.expiry.thresholds, [2 * DAY, DAY]);
    assert_eq!(variable("expiry.thresholds", "").unwrap().expiry.thresholds, [7 * DAY, 3 * DAY, DAY]);
    assert_eq!(variable("log.level", "").unwrap().log.level, "info");
    for text in ["warning", "inof"] {
        let found = variable("log.level", text).unwrap_err().0;
        assert!(
            found[0].starts_with("log.level (from TOKEN_VAULT__LOG__LEVEL) must be a level"),
            "{found:?}"
        );
    }
}
