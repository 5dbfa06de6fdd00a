//! Which configuration is understood, and how mistakes are listed.

mod mistakes;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use figment::providers::{Format, Toml};

use super::*;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn read(toml: &str) -> Result<Config, ConfigError> {
    Config::from_sources(Figment::from(Toml::string(toml)), Flags::default(), None)
}

fn mistakes(toml: &str) -> Vec<String> {
    read(toml).expect_err("a mistake").0
}

#[test]
fn an_empty_configuration_has_the_documented_defaults() {
    let config = read("").unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:7443");
    assert_eq!(config.server.admin_listen.to_string(), "127.0.0.1:7444");
    assert_eq!(config.storage.url.expose(), "sqlite:./data/token-vault.db");
    assert!(config.storage.migrate_on_start);
    assert!(config.providers.meta.is_none());
    assert_eq!(config.expiry.warning_window, 7 * DAY);
    assert_eq!(config.expiry.thresholds, [7 * DAY, 3 * DAY, DAY]);
    assert_eq!(config.events.retention, 90 * DAY);
    assert_eq!(config.rotation, RenewalPolicy { enabled: true, min_age: DAY, window: 30 * DAY });
    let jobs = Timetable {
        meta_token_expiry: Cron::parse("0 0 6 * * *").ok(),
        rotation: Cron::parse("0 * * * * *").ok(),
        event_retention: Cron::parse("0 30 3 * * *").ok(),
        housekeeping: Cron::parse("0 15 * * * *").ok(),
        overdue_after: 15 * MINUTE,
        sweep_concurrency: 8,
    };
    assert_eq!(config.jobs, jobs);
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    assert_eq!(config.log.level, "info");
}

#[test]
fn flags_win_over_the_file() {
    let flags = Flags {
        listen: Some("127.0.0.1:0".into()),
        database_url: Some("postgres://u:p@db/v".into()),
        data_dir: Some("/tmp/x".into()),
        file: None,
    };
    let file =
        Toml::string("data_dir = '/tmp/y'\n[server]\nlisten = '127.0.0.1:1'\n[storage]\nurl = 'sqlite:z'");
    let config = Config::from_sources(Figment::from(file), flags, None).unwrap();
    assert_eq!(config.server.listen.port(), 0);
    assert_eq!(config.storage.url.expose(), "postgres://u:p@db/v");
    assert_eq!(config.data_dir, PathBuf::from("/tmp/x"));
}

#[test]
fn all_mistakes_are_listed_at_once_with_their_keys() {
    let found = mistakes(
        "[server]\nlisten = 'here'\nlistne = '127.0.0.1:1'\n[storage]\nurl = 'mysql://secret@host'\n\
         [expiry]\nwarning_window = 'soon'\nthresholds = ['1d', 'x', '2y']\n\
         [jobs]\nmeta_token_expiry = '0 6 * * *'\n[log]\nlevel = 'a=loud'\nformat = 'xml'\n[nonsense]\na.b = 1",
    );
    let keys: Vec<_> = found.iter().map(|text| text.split(' ').next().unwrap()).collect();
    assert_eq!(
        keys,
        [
            "server.listen",
            "storage.url",
            "expiry.warning_window",
            "expiry.thresholds",
            "expiry.thresholds",
            "jobs.meta_token_expiry",
            "log.format",
            "log.level",
            "nonsense.a.b",
            "server.listne",
        ]
    );
    assert!(!found.join("\n").contains("secret"), "no value is repeated: {found:?}");
}

#[test]
fn every_configured_value_reaches_the_vault() {
    let config = read(
        "[expiry]\nthresholds = ['1h', '10d', '2d']\nwarning_window = '10d'\n[events]\nretention = '30d'\n\
         [rotation]\nenabled = false\nmin_age = '2h'\nwindow = '5d'\n\
         [jobs]\nmeta_token_expiry = '*/5 * * * * MON'\nevent_retention = 'off'\n\
         housekeeping = '0 0 * L * *'\noverdue_after = '2s'\nsweep_concurrency = 64",
    )
    .unwrap();
    assert!(
        config.warnings.len() == 1 && config.warnings[0].starts_with("jobs.event_retention is off"),
        "{:?}",
        config.warnings
    );
    let (vault, _) = config.into_vault_config();
    let policy = Policy {
        warning_window: 10 * DAY,
        thresholds: vec![10 * DAY, 2 * DAY, HOUR],
        renewal: RenewalPolicy { enabled: false, min_age: 2 * HOUR, window: 5 * DAY },
        event_retention: 30 * DAY,
        ..Policy::default()
    };
    assert_eq!(vault.policy, policy);
    let schedule = Timetable {
        meta_token_expiry: Cron::parse("*/5 * * * * MON").ok(),
        rotation: Cron::parse("0 * * * * *").ok(),
        event_retention: None,
        housekeeping: Cron::parse("0 0 * L * *").ok(),
        overdue_after: Duration::from_secs(2),
        sweep_concurrency: 64,
    };
    assert_eq!(vault.timetable, schedule);
}

#[test]
fn bounds_hold_at_their_edges() {
    for (section, key, good, bad) in [
        ("events", "retention", ["1h", "3650d"], ["59m", "3651d"]),
        ("rotation", "min_age", ["1m", "60d"], ["59s", "61d"]),
        ("rotation", "window", ["1h", "60d"], ["59m", "61d"]),
        ("rotation", "enabled", ["true", "false"], ["maybe", "2"]),
        ("jobs", "overdue_after", ["1s", "24h"], ["999ms", "25h"]),
        ("jobs", "sweep_concurrency", ["1", "64"], ["0", "65"]),
        ("jobs", "housekeeping", ["* * * * * *", "0 0 0 29 2 *"], ["0 60 * * * *", "0 * * * *"]),
        ("jobs", "event_retention", ["0 0 0 1 JAN *", "0 0 0 * * 7"], ["0 0 0 1 ENE *", "a b c d e f"]),
        ("expiry", "warning_window", ["1h", "60d"], ["59m", "61d"]),
    ] {
        for text in good {
            assert!(read(&format!("[{section}]\n{key} = '{text}'")).is_ok(), "{section}.{key} = {text}");
        }
        for text in bad {
            let found = mistakes(&format!("[{section}]\n{key} = '{text}'"));
            assert!(
                found.len() == 1 && found[0].starts_with(&format!("{section}.{key}")),
                "{text}: {found:?}"
            );
        }
    }
}

#[test]
fn thresholds_are_few_distinct_and_sorted() {
    let thresholds =
        |list: &str| read(&format!("[expiry]\nthresholds = [{list}]")).map(|c| c.expiry.thresholds);
    assert_eq!(thresholds("'1m', '60d', '24h'").unwrap(), [60 * DAY, DAY, MINUTE]);
    let ten: Vec<_> = (1..=10).map(|days| format!("'{days}d'")).collect();
    assert_eq!(thresholds(&ten.join(",")).unwrap().len(), 10);
    for (bad, why) in [
        ("", "1 to 10"),
        (&*format!("{},'11d'", ten.join(",")), "1 to 10"),
        ("'1d', '24h'", "differ"),
        ("'59s'", "from 1m to 60d"),
        ("'61d'", "from 1m to 60d"),
        ("'soon'", "from 1m to 60d"),
    ] {
        let found = thresholds(bad).unwrap_err().0;
        assert!(found.len() == 1 && found[0].contains(why), "{bad}: {found:?}");
    }
}

#[test]
fn off_loopback_without_tls_is_refused_unless_explicitly_allowed() {
    for address in ["0.0.0.0:7443", "[::]:7443", "10.0.0.1:7443"] {
        let listen = format!("[server]\nlisten = '{address}'\n");
        let found = mistakes(&listen);
        assert!(found.len() == 1 && found[0].starts_with("server.listen"), "{found:?}");
        assert!(
            found[0].contains("server.tls.cert_file") && found[0].contains("allow_plaintext"),
            "{found:?}"
        );
        let config = read(&format!("{listen}allow_plaintext = true")).unwrap();
        assert!(config.warnings.iter().any(|warning| warning.contains("in the clear")), "{config:?}");
        let config = read(&format!("{listen}[server.tls]\ncert_file = '/c'\nkey_file = '/k'")).unwrap();
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
        let admin = format!("[server]\nadmin_listen = '{address}'\n");
        let found = mistakes(&admin);
        assert!(found.len() == 1 && found[0].starts_with("server.admin_listen"), "{found:?}");
        assert!(read(&format!("{admin}allow_remote_admin = true")).is_ok());
    }
    assert!(read("[server]\nlisten = '[::1]:7443'\nadmin_listen = '127.0.0.2:7444'").is_ok());
}

#[test]
fn tls_is_whole_or_not_at_all() {
    let tls = |more: &str| format!("[server.tls]\n{more}");
    let one = |toml: &str, key: &str| {
        let found = mistakes(&tls(toml));
        assert!(found.len() == 1 && found[0].starts_with(key), "{toml}: {found:?}");
    };
    one("cert_file = '/c'", "server.tls.key_file");
    one("key_file = '/k'", "server.tls.cert_file");
    one("client_auth = 'optional'\nclient_ca_file = '/ca'", "server.tls.client_auth");
    one("cert_file = '/c'\nkey_file = '/k'\nclient_auth = 'required'", "server.tls.client_ca_file");
    one("cert_file = '/c'\nkey_file = '/k'\nclient_ca_file = '/ca'", "server.tls.client_ca_file");
    one("cert_file = '/c'\nkey_file = '/k'\nclient_auth = 'maybe'", "server.tls.client_auth");
    let whole = "cert_file = '/c'\nkey_file = '/k'\nclient_auth = 'required'\nclient_ca_file = '/ca'";
    let files = read(&tls(whole)).unwrap().server.tls.unwrap();
    assert_eq!(files.client_auth, ClientAuth::Required);
    assert_eq!(files.reload_interval, Duration::from_secs(5));
    assert!(read("").unwrap().server.tls.is_none());
}

#[test]
fn a_certificates_principal_is_fully_described() {
    let tls =
        "[server.tls]\ncert_file = '/c'\nkey_file = '/k'\nclient_auth = 'optional'\nclient_ca_file = '/ca'\n";
    let auth = |list: &str| read(&format!("{tls}[auth]\ncertificates = [{list}]"));
    let good = "{ san = 'spiffe://acme/ingestion', principal = 'ingestion', role = 'ingestion', workspaces = ['acme'] }, \
                { san = 'ops.acme.example', principal = 'ops', role = 'admin', workspaces = 'all' }";
    let (vault, _) = auth(good).unwrap().into_vault_config();
    let found: Vec<_> =
        vault.callers.certificates.iter().map(|rule| (rule.san.as_str(), rule.role.as_str())).collect();
    assert_eq!(found, [("spiffe://acme/ingestion", "ingestion"), ("ops.acme.example", "admin")]);
    for (wrong, why) in [
        ("{ san = '*.acme.example', principal = 'p', role = 'viewer', workspaces = 'all' }", "[0].san"),
        ("{ san = 'a', principal = 'no spaces', role = 'viewer', workspaces = 'all' }", "[0].principal"),
        ("{ san = 'a', principal = 'p', role = 'king', workspaces = 'all' }", "[0].role"),
        ("{ san = 'a', principal = 'p', role = 'viewer' }", "[0].workspaces"),
        ("{ san = 'a', principal = 'p', role = 'viewer', workspaces = [] }", "[0].workspaces"),
        ("{ san = 'a', principal = 'p', role = 'viewer', workspaces = ['a b'] }", "[0].workspaces"),
        ("{ san = 'a', principal = 'p', role = 'viewer', workspaces = 'all', cn = 'x' }", "[0].cn"),
        (
            "{ san = 'a', principal = 'p', role = 'viewer', workspaces = 'all' }, \
             { san = 'A', principal = 'q', role = 'viewer', workspaces = 'all' }",
            "[1].san",
        ),
        ("'spiffe://acme/x'", "must be a list of tables"),
    ] {
        let found = auth(wrong).unwrap_err().0;
        assert!(found.len() == 1 && found[0].contains(why), "{wrong}: {found:?}");
        assert!(found[0].starts_with("auth.certificates"), "{found:?}");
    }
    let found = mistakes(&format!("[auth]\ncertificates = [{good}]"));
    assert!(found.len() == 1 && found[0].contains("server.tls.client_auth"), "{found:?}");
}

#[test]
fn limits_are_bounded_and_documented_by_their_defaults() {
    let config = read("").unwrap();
    let limits = Limits {
        max_connections: 16_384,
        handshake_timeout: Duration::from_secs(10),
        idle_timeout: 15 * MINUTE,
        max_connection_age: HOUR,
        max_connection_age_grace: 5 * MINUTE,
        keepalive_interval: Duration::from_secs(30),
        keepalive_timeout: Duration::from_secs(10),
        max_streams_per_connection: 1024,
        max_open_streams: 256,
        max_header_bytes: 16 * 1024,
        max_request_bytes: 4 * 1024 * 1024,
        max_calls: 1024,
        max_calls_per_principal: 256,
        per_principal_rps: 5_000,
        per_principal_burst: 10_000,
        failed_authentications_per_minute: 120,
    };
    assert_eq!(config.server.limits, limits);
    assert_eq!(config.watches, WatchLimits { total: 20_000, per_principal: 10_000 });
    let limits =
        read("[server.limits]\nper_principal_rps = 0\nmax_connections = 7\nidle_timeout = '2m'").unwrap();
    assert_eq!(limits.server.limits.per_principal_rps, 0);
    assert_eq!(limits.server.limits.max_connections, 7);
    assert_eq!(limits.server.limits.idle_timeout, 2 * MINUTE);
    for (key, bad) in [
        ("max_connections", "0"),
        ("max_calls", "many"),
        ("max_calls_per_principal", "0"),
        ("max_request_bytes", "1"),
        ("max_header_bytes", "99999999"),
        ("per_principal_burst", "0"),
        ("per_principal_watches", "0"),
        ("max_watches", "0"),
        ("max_open_streams", "0"),
        ("max_streams_per_connection", "0"),
        ("failed_authentications_per_minute", "-1"),
        ("handshake_timeout", "1h"),
        ("idle_timeout", "0s"),
        ("max_connection_age", "30d"),
        ("max_connection_age_grace", "1ms"),
        ("keepalive_interval", "soon"),
        ("keepalive_timeout", "1h"),
    ] {
        let found = mistakes(&format!("[server.limits]\n{key} = '{bad}'"));
        assert!(
            found.len() == 1 && found[0].starts_with(&format!("server.limits.{key}")),
            "{key}: {found:?}"
        );
    }
}

#[test]
fn a_password_is_no_argument_and_is_not_repeated() {
    for url in ["postgres://u:hidden-pw@db/v", "postgres://db/v?user=u&password=hidden-pw"] {
        let found = Config::load(Flags { database_url: Some(url.into()), ..Flags::default() }).unwrap_err();
        let found = found.to_string();
        assert!(found.contains("--database-url") && found.contains("TOKEN_VAULT__STORAGE__URL"), "{found}");
        assert!(!found.contains("hidden-pw"), "{found}");
    }
    assert!(!holds_password("postgres://u@db/v") && !holds_password("sqlite:/data/a:b@c.db"));
}

#[test]
fn a_configuration_file_with_a_password_is_for_its_owner_and_group() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vault.toml");
    let refused = |text: &str, mode: u32| {
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        check_file(&file).unwrap()
    };
    let secret = "[storage]\nurl = 'postgres://u:p@db/v'";
    let why = refused(secret, 0o604).unwrap();
    assert!(why.contains("storage.url") && why.contains("chmod 600") && !why.contains("u:p"), "{why}");
    assert_eq!((refused(secret, 0o640), refused(secret, 0o600)), (None, None));
    assert_eq!(refused("[storage]\nurl = 'postgres://u@db/v'", 0o644), None);
}

#[test]
fn an_app_needs_its_id_and_a_secret() {
    assert!(mistakes("[providers.meta]\napp_id = '12'")[0].starts_with("providers.meta.app_secret_files"));
    let found = mistakes("[providers.meta]\napp_secret_files = ['/no/such/file']");
    assert!(found.iter().any(|text| text.contains("[0] names a file below /, ")), "{found:?}");
    assert!(found.iter().any(|text| text.starts_with("providers.meta.app_id")), "{found:?}");
}

#[test]
fn secrets_come_from_files_and_are_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let (newest, older) = (folder.path().join("new"), folder.path().join("old"));
    fs::write(&newest, "0123abcd\n").unwrap();
    fs::write(&older, "feedbeef").unwrap();
    fs::set_permissions(&newest, fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(&older, fs::Permissions::from_mode(0o640)).unwrap();
    let config = read(&format!(
        "[providers.meta]\napp_id = 1020304050\napp_secret_files = ['{}', '{}']\ngraph_url = 'http://127.0.0.1:9000'",
        newest.display(),
        older.display()
    ))
    .unwrap();
    let meta = config.providers.meta.as_ref().unwrap();
    assert_eq!(meta.config.app_id, "1020304050");
    let secrets: Vec<_> = meta.config.app_secrets.iter().map(Secret::expose).collect();
    assert_eq!(secrets, ["0123abcd", "feedbeef"]);
    assert!(config.warnings.is_empty(), "the group may read them: {:?}", config.warnings);
    let shown = format!("{config:?}");
    assert!(!shown.contains("0123abcd") && !shown.contains("feedbeef"), "{shown}");
}

#[test]
fn secrets_go_to_tls_or_loopback_only() {
    for (url, good) in [
        ("https://graph.facebook.com", true),
        ("http://localhost:9000", true),
        ("http://[::1]:9000/graph", true),
        ("http://graph.facebook.com", false),
        ("https://user:pass@graph.facebook.com", false),
        ("https://graph.facebook.com?x=1", false),
        ("ftp://localhost", false),
        ("graph.facebook.com", false),
    ] {
        assert_eq!(read(&format!("[providers.meta]\ngraph_url = '{url}'")).is_ok(), good, "{url}");
    }
}

#[test]
fn the_sandboxs_time_is_for_loopback_only_and_warned_about() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.secret");
    fs::write(&file, "0123abcd").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let with = |more: &str| {
        read(&format!("[providers.meta]\napp_id = '1'\napp_secret_files = ['{}']\n{more}", file.display()))
    };
    assert!(!with("").unwrap().providers.meta.unwrap().follow_sandbox_clock);
    let config = with("follow_sandbox_clock = true\ngraph_url = 'http://127.0.0.1:9000'").unwrap();
    assert!(config.providers.meta.unwrap().follow_sandbox_clock);
    assert!(config.warnings[0].contains("never in production"), "{:?}", config.warnings);
    for url in ["https://graph.facebook.com", "https://10.0.0.1"] {
        let found = with(&format!("follow_sandbox_clock = true\ngraph_url = '{url}'")).unwrap_err().0;
        assert!(found.len() == 1 && found[0].contains("loopback"), "{found:?}");
    }
    let found = with("follow_sandbox_clock = true").unwrap_err().0;
    assert!(found.len() == 1 && found[0].contains("loopback"), "the default is Meta's own: {found:?}");
    let found = mistakes("[providers.meta]\nfollow_sandbox_clock = true\ngraph_url = 'http://[::1]:1'");
    assert!(found.len() == 1 && found[0].contains("providers.meta.app_id"), "{found:?}");
}

#[test]
fn the_master_key_has_one_source() {
    let figment = Figment::from(Toml::string("[keys]\nmaster_key_file = '/k'"));
    let found =
        Config::from_sources(figment, Flags::default(), Some(Secret::new("tvk1:a:b".into()))).unwrap_err();
    assert!(found.0[0].contains(MASTER_KEY_ENV) && !found.to_string().contains("tvk1:a:b"), "{found}");
}

#[test]
fn a_broken_file_is_named_and_not_quoted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vault.toml");
    fs::write(&file, "[storage]\nurl = 'postgres://vault:hunter2@db").unwrap();
    let found = check_file(&file).unwrap_err().to_string();
    assert!(found.contains("vault.toml") && found.contains("line 2"), "{found}");
    assert!(!found.contains("hunter2"), "{found}");
    let found = check_file(&folder.path().join("absent")).unwrap_err().to_string();
    assert!(found.contains("absent"), "{found}");
}
