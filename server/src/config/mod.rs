//! Configuration: defaults, then one TOML file, then the environment, then flags; the later wins.
//!
//! Everything is read and judged once, at start. All mistakes are told together, each with its key and
//! where it was set; no value that may hold a secret is ever part of a message. Nothing else in this
//! program reads the environment.

mod audit;
mod certificates;
#[cfg(fuzzing)]
pub mod fuzzing;
mod keys;
mod meta;
mod oidc;
mod reader;
mod server;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use figment::value::Dict;

use crate::api::{ClientAuth, Limits, TlsFiles};
use crate::audit::AuditConfig;
use crate::model::{CertificateRule, Cron, Policy, RenewalPolicy, Secret, Timestamp, exposure_of};
use crate::oidc::OidcConfig;
use crate::provider::MetaConfig;
use crate::telemetry::{self, LogFormat};
use crate::vault::{BreakGlassSealingKey, CallerPolicy, Timetable, TransitConfig, VaultConfig, WatchLimits};
use reader::Reader;

/// Environment variables of this prefix name keys: `TOKEN_VAULT__SERVER__LISTEN` is `server.listen`.
pub const ENV_PREFIX: &str = "TOKEN_VAULT__";

/// The environment variable with the master keys themselves.
pub const MASTER_KEY_ENV: &str = "TOKEN_VAULT_MASTER_KEY";

/// The data folder when nothing names one.
pub const DEFAULT_DATA_DIR: &str = "./data";

/// Where gRPC listens when nothing names an address.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7443);

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Everything that an operator decides.
#[derive(Debug)]
pub struct Config {
    /// Where the database, key file and bootstrap key go unless other keys say otherwise. Key `data_dir`.
    pub data_dir: PathBuf,
    /// Section `server`.
    pub server: Server,
    /// How many may watch at once. Keys `server.limits.max_watches` and `server.limits.per_principal_watches`.
    pub watches: WatchLimits,
    /// Section `storage`.
    pub storage: Storage,
    /// Section `keys`.
    pub keys: Keys,
    /// Section `auth`.
    pub auth: Auth,
    /// Section `providers.meta`; `None` while no app is configured.
    pub meta: Option<MetaApp>,
    /// Section `expiry`.
    pub expiry: Expiry,
    /// Section `events`.
    pub events: Events,
    /// Section `rotation`.
    pub rotation: RenewalPolicy,
    /// Section `jobs`.
    pub jobs: Timetable,
    /// Section `audit`.
    pub audit: AuditConfig,
    /// Section `log`.
    pub log: Log,
    /// What works and is worth a word in the log at start.
    pub warnings: Vec<String>,
}

/// Section `server`.
#[derive(Debug)]
pub struct Server {
    /// gRPC. Off loopback with TLS only, unless told otherwise. Port 0 picks a free one.
    pub listen: SocketAddr,
    /// HTTP with `/healthz` and `/readyz`. Tells nothing secret. On loopback only, unless told otherwise.
    pub admin_listen: SocketAddr,
    /// Section `server.tls`; `None`: in the clear.
    pub tls: Option<TlsFiles>,
    /// Section `server.limits`.
    pub limits: Limits,
}

/// Section `storage`.
#[derive(Debug)]
pub struct Storage {
    /// `sqlite:PATH` or `postgres://…`; may hold a password.
    pub url: Secret,
    /// Apply migrations at start. Off: run `token-vault migrate` with a role that may.
    pub migrate_on_start: bool,
}

/// Section `keys`.
#[derive(Debug)]
pub struct Keys {
    /// File with master keys; unset means the one in the data folder.
    pub master_key_file: Option<PathBuf>,
    /// The master keys themselves, from `TOKEN_VAULT_MASTER_KEY`.
    pub master_key: Option<Secret>,
    /// A key service that holds a master key: section `keys.transit`.
    pub transit: Option<TransitConfig>,
    /// The public key that every key is encrypted to as well.
    pub break_glass: Option<BreakGlassSealingKey>,
}

/// Section `auth`.
#[derive(Debug)]
pub struct Auth {
    /// File with the admin key to adopt at first start; unset means that one is made.
    pub bootstrap_key_file: Option<PathBuf>,
    /// Who comes with which client certificate.
    pub certificates: Vec<CertificateRule>,
    /// Whose tokens are good. Keys `auth.oidc.*`; `None` while no issuer is named.
    pub oidc: Option<OidcConfig>,
}

/// Section `providers.meta`.
pub struct MetaApp {
    /// What the provider module needs.
    pub config: MetaConfig,
    /// Where people consent.
    pub dialog_url: url::Url,
    /// Take the sandbox's time for now. For demos and tests; loopback only.
    pub follow_sandbox_clock: bool,
}

impl fmt::Debug for MetaApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetaApp")
            .field("app_id", &self.config.app_id)
            .field("app_secrets", &self.config.app_secrets.len())
            .field("api_version", &self.config.api_version)
            .field("dialog_url", &self.dialog_url.as_str())
            .field("follow_sandbox_clock", &self.follow_sandbox_clock)
            .finish_non_exhaustive()
    }
}

/// Section `expiry`.
#[derive(Debug)]
pub struct Expiry {
    /// How long before its end a token counts as expiring. An hour to sixty days.
    pub warning_window: Duration,
    /// How long before its end each warning is given; one to ten, each a minute to sixty days, longest first.
    pub thresholds: Vec<Duration>,
}

/// Section `events`.
#[derive(Debug)]
pub struct Events {
    /// How long events are kept. An hour to ten years.
    pub retention: Duration,
}

/// Section `log`.
#[derive(Debug)]
pub struct Log {
    /// In which form.
    pub format: LogFormat,
    /// A level, or directives such as `info,token_vault::vault=debug`.
    pub level: String,
}

/// What the command line says; wins over file and environment.
#[derive(Debug, Default)]
pub struct Flags {
    /// `--config`.
    pub file: Option<PathBuf>,
    /// `--listen`.
    pub listen: Option<String>,
    /// `--database-url`.
    pub database_url: Option<String>,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
}

/// Every mistake in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", reader::list(.0))]
pub struct ConfigError(pub Vec<String>);

impl Config {
    /// Reads file, environment and flags.
    pub fn load(flags: Flags) -> Result<Self, ConfigError> {
        let mut figment = Figment::new();
        let mut exposed = None;
        // What is refused is not repeated.
        if flags.database_url.as_deref().is_some_and(holds_password) {
            return Err(ConfigError(vec![
                "--database-url must not hold a password, since every user of the machine can read arguments; \
                 give the URL as TOKEN_VAULT__STORAGE__URL or as storage.url in the file"
                    .to_owned(),
            ]));
        }
        if let Some(file) = &flags.file {
            exposed = check_file(file)?;
            figment = figment.merge(Toml::file_exact(file));
        }
        let master_key =
            std::env::var(MASTER_KEY_ENV).ok().filter(|text| !text.trim().is_empty()).map(Secret::new);
        let mut config =
            Self::from_sources(figment.merge(Env::prefixed(ENV_PREFIX).split("__")), flags, master_key)?;
        config.warnings.extend(exposed);
        Ok(config)
    }

    fn from_sources(
        mut figment: Figment,
        flags: Flags,
        master_key: Option<Secret>,
    ) -> Result<Self, ConfigError> {
        if let Some(listen) = flags.listen {
            figment = figment.merge(Serialized::default("server.listen", listen));
        }
        if let Some(url) = flags.database_url {
            figment = figment.merge(Serialized::default("storage.url", url));
        }
        if let Some(dir) = flags.data_dir {
            figment = figment.merge(Serialized::default("data_dir", dir));
        }
        let mut reader = Reader::new(figment)?;
        let data_dir = reader.path("data_dir").unwrap_or_else(|| PathBuf::from(DEFAULT_DATA_DIR));
        let server = server::read(&mut reader);
        let client_auth = server.tls.as_ref().map_or(ClientAuth::None, |tls| tls.client_auth);
        let config = Self {
            server,
            watches: server::watches(&mut reader),
            storage: storage(&mut reader, &data_dir),
            keys: keys::read(&mut reader, master_key),
            auth: Auth {
                bootstrap_key_file: reader.path("auth.bootstrap_key_file"),
                certificates: certificates::read(&mut reader, client_auth),
                oidc: oidc::read(&mut reader),
            },
            meta: meta::read(&mut reader),
            expiry: expiry(&mut reader),
            events: Events {
                retention: reader.parsed("events.retention", 90 * DAY, |text| {
                    duration_between(text, HOUR, 3650 * DAY, "1h", "3650d")
                }),
            },
            rotation: rotation(&mut reader),
            jobs: jobs(&mut reader),
            audit: audit::read(&mut reader, &data_dir),
            log: log(&mut reader),
            data_dir,
            warnings: Vec::new(),
        };
        let warnings = reader.finish()?;
        Ok(Self { warnings, ..config })
    }

    /// What the vault itself needs of all this. Takes the secrets out.
    pub fn into_vault_config(self) -> (VaultConfig, Option<MetaApp>) {
        let scopes = self
            .meta
            .as_ref()
            .map(|meta| (meta.config.required_scopes.clone(), meta.config.optional_scopes.clone()));
        let (required_scopes, optional_scopes) = scopes.unwrap_or_default();
        let vault = VaultConfig {
            database_url: self.storage.url,
            data_dir: self.data_dir,
            master_key: self.keys.master_key,
            master_key_file: self.keys.master_key_file,
            transit: self.keys.transit,
            break_glass: self.keys.break_glass,
            bootstrap_key_file: self.auth.bootstrap_key_file,
            migrate_on_start: self.storage.migrate_on_start,
            policy: Policy {
                warning_window: self.expiry.warning_window,
                thresholds: self.expiry.thresholds,
                renewal: self.rotation,
                event_retention: self.events.retention,
                required_scopes,
                optional_scopes,
            },
            timetable: self.jobs,
            callers: CallerPolicy {
                certificates: self.auth.certificates,
                oidc: self.auth.oidc,
                watches: self.watches,
            },
            audit: self.audit,
        };
        (vault, self.meta)
    }
}

/// Whether `file` is there and is TOML. The parser quotes the line that it stumbles over, which may hold a
/// password: of what it says, only where and why is told. Gives a warning for a password that others may read.
fn check_file(file: &Path) -> Result<Option<String>, ConfigError> {
    let wrong = |why: String| ConfigError(vec![format!("{} {why}", file.display())]);
    let text = fs::read_to_string(file).map_err(|error| wrong(format!("can't be read: {error}")))?;
    let read = Toml::from_str::<Dict>(&text).map(|read| {
        let storage = read.get("storage").and_then(|storage| storage.find_ref("url"));
        storage.and_then(|url| url.as_str()).is_some_and(holds_password)
    });
    read.map(|secret| if secret { exposure_of(file) } else { None }).map_err(|error| {
        let told = error.to_string();
        let lines: Vec<_> = told.lines().filter(|line| !line.contains('|')).map(str::trim).collect();
        wrong(format!("is not TOML: {}", lines.join("; ")))
    })
}

/// Whether a database's URL has a password, at either of the two places.
fn holds_password(url: &str) -> bool {
    let Ok(url) = url::Url::parse(url) else { return false };
    url.password().is_some() || url.query_pairs().any(|(name, _)| name == "password" || name == "sslpassword")
}

fn storage(reader: &mut Reader, data_dir: &Path) -> Storage {
    let default = format!("sqlite:{}", data_dir.join("token-vault.db").display());
    let url = reader.parsed("storage.url", default, |text| {
        let known = ["sqlite:", "postgres://", "postgresql://"];
        if known.iter().any(|scheme| text.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty())) {
            Ok(text.to_owned())
        } else {
            Err("must be sqlite:PATH or postgres://USER:PASSWORD@HOST/DATABASE".to_owned())
        }
    });
    Storage { url: Secret::new(url), migrate_on_start: reader.flag("storage.migrate_on_start", true) }
}

fn expiry(reader: &mut Reader) -> Expiry {
    const THRESHOLDS: &str = "expiry.thresholds";
    let warning_window = reader
        .parsed("expiry.warning_window", 7 * DAY, |text| duration_between(text, HOUR, 60 * DAY, "1h", "60d"));
    let mut thresholds = reader
        .list(THRESHOLDS, &["7d", "3d", "1d"], |text| duration_between(text, MINUTE, 60 * DAY, "1m", "60d"));
    let told = thresholds.len();
    thresholds.sort_unstable_by(|a, b| b.cmp(a));
    thresholds.dedup();
    if thresholds.len() < told {
        reader.mistake(THRESHOLDS, "must differ from each other");
    }
    if !(1..=10).contains(&told) && !reader.is_mistaken(THRESHOLDS) {
        reader.mistake(THRESHOLDS, "must be one to ten lengths of time");
    }
    Expiry { warning_window, thresholds }
}

fn rotation(reader: &mut Reader) -> RenewalPolicy {
    let default = RenewalPolicy::default();
    RenewalPolicy {
        enabled: reader.flag("rotation.enabled", default.enabled),
        min_age: reader.parsed("rotation.min_age", default.min_age, |text| {
            duration_between(text, MINUTE, 60 * DAY, "1m", "60d")
        }),
        window: reader.parsed("rotation.window", default.window, |text| {
            duration_between(text, HOUR, 60 * DAY, "1h", "60d")
        }),
    }
}

fn jobs(reader: &mut Reader) -> Timetable {
    Timetable {
        meta_token_expiry: cron(reader, "jobs.meta_token_expiry", "0 0 6 * * *"),
        rotation: cron(reader, "jobs.rotation", "0 * * * * *"),
        event_retention: cron(reader, "jobs.event_retention", "0 30 3 * * *"),
        housekeeping: cron(reader, "jobs.housekeeping", "0 15 * * * *"),
        overdue_after: reader.parsed("jobs.overdue_after", 15 * MINUTE, |text| {
            duration_between(text, Duration::from_secs(1), DAY, "1s", "24h")
        }),
        sweep_concurrency: reader.parsed("jobs.sweep_concurrency", 8, |text| {
            let number = text.parse().ok().filter(|number| (1..=64).contains(number));
            number.ok_or_else(|| "must be a number from 1 to 64".to_owned())
        }),
    }
}

fn log(reader: &mut Reader) -> Log {
    let format = reader.parsed("log.format", LogFormat::Auto, |text| match text {
        "auto" => Ok(LogFormat::Auto),
        "json" => Ok(LogFormat::Json),
        "text" => Ok(LogFormat::Text),
        _ => Err("must be auto, json or text".to_owned()),
    });
    let level = reader.parsed("log.level", "info".to_owned(), |text| {
        telemetry::check_level(text)?;
        Ok(text.to_owned())
    });
    Log { format, level }
}

#[expect(clippy::expect_used, reason = "the defaults are constants of ours, and a test reads them all")]
fn cron(reader: &mut Reader, key: &str, default: &'static str) -> Cron {
    let default = Cron::parse(default).expect("a default that is a cron expression");
    let cron = reader.parsed(key, default, |text| Cron::parse(text).map_err(|error| error.to_string()));
    // A way to switch a job off, or a slip.
    if cron.next_after(Timestamp::EPOCH).is_none() {
        reader.warn(format!("{key} is never due: this job will not run"));
    }
    cron
}

/// A length of time within bounds, which are also given in words.
fn duration_between(
    text: &str,
    least: Duration,
    most: Duration,
    low: &str,
    high: &str,
) -> Result<Duration, String> {
    let rule = || format!("must be a length of time from {low} to {high}, such as \"36h\" or \"7d\"");
    let duration = humantime::parse_duration(text).map_err(|_| rule())?;
    if (least..=most).contains(&duration) { Ok(duration) } else { Err(rule()) }
}
