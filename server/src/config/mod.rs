//! Configuration: defaults, then one TOML file, then the environment, then flags; the later wins.
//!
//! `defaults/` is the table of all keys, `reading/` reads those with rules of their own. Everything is read and checked
//! once, at start. All mistakes are listed together, each with its key and where it was set; a value that may be a
//! secret is never part of a message. Nothing else in this program reads the environment.

mod declare;
mod defaults;
mod environment;
#[cfg(fuzzing)]
pub mod fuzzing;
mod reach;
mod reader;
mod reading;
pub mod reference;
#[cfg(test)]
mod tests;
mod values;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use figment::value::Dict;

use crate::api::{ClientAuth, Limits, TlsFiles};
use crate::audit::AuditConfig;
use crate::model::{CertificateRule, Cron, Policy, RenewalPolicy, Secret, exposure_of};
use crate::oidc::OidcConfig;
use crate::provider::{GUIDE, ProviderConfigs};
use crate::telemetry::LogFormat;
use crate::vault::{BreakGlassSealingKey, CallerPolicy, Timetable, TransitConfig, VaultConfig, WatchLimits};
use declare::Setting;
#[cfg(feature = "demo")]
pub use defaults::DEFAULT_LISTEN;
use defaults::*;
pub use reach::Reach;
use reader::Reader;
pub use reading::portal::Portal;

/// Environment variables of this prefix name keys: `TOKEN_VAULT__SERVER__LISTEN` is `server.listen`.
pub const ENV_PREFIX: &str = "TOKEN_VAULT__";

/// The environment variable with the master keys themselves.
pub const MASTER_KEY_ENV: &str = "TOKEN_VAULT_MASTER_KEY";

/// Everything that an operator decides.
#[derive(Debug)]
pub struct Config {
    pub data_dir: PathBuf,
    pub server: Server,
    /// Keys `server.limits.max_watches` and `server.limits.per_principal_watches`.
    pub watches: WatchLimits,
    pub storage: Storage,
    pub keys: Keys,
    pub auth: Auth,
    pub providers: ProviderConfigs,
    pub expiry: Expiry,
    pub events: Events,
    pub rotation: RenewalPolicy,
    pub jobs: Timetable,
    pub audit: AuditConfig,
    pub portal: Portal,
    pub log: Log,
    /// Settings that work but that the operator should look at. They are logged at the start.
    pub warnings: Vec<String>,
}

/// Section `server`.
#[derive(Debug)]
pub struct Server {
    pub listen: SocketAddr,
    pub admin_listen: SocketAddr,
    /// `None`: without TLS.
    pub tls: Option<TlsFiles>,
    pub limits: Limits,
}

/// Section `storage`.
#[derive(Debug)]
pub struct Storage {
    /// `sqlite:PATH` or `postgres://…`; may hold a password.
    pub url: Secret,
    pub migrate_on_start: bool,
}

/// Section `keys`.
#[derive(Debug)]
pub struct Keys {
    /// `None`: the one in the data folder.
    pub master_key_file: Option<PathBuf>,
    /// The master keys themselves, from `TOKEN_VAULT_MASTER_KEY`.
    pub master_key: Option<Secret>,
    pub transit: Option<TransitConfig>,
    pub break_glass: Option<BreakGlassSealingKey>,
}

/// Section `auth`.
#[derive(Debug)]
pub struct Auth {
    pub bootstrap_key_file: Option<PathBuf>,
    pub certificates: Vec<CertificateRule>,
    /// `None` while no issuer is named.
    pub oidc: Option<OidcConfig>,
}

/// Section `expiry`.
#[derive(Debug)]
pub struct Expiry {
    pub warning_window: Duration,
    /// Longest first, each once, at least one.
    pub thresholds: Vec<Duration>,
}

/// Section `events`.
#[derive(Debug)]
pub struct Events {
    pub retention: Duration,
}

/// Section `log`.
#[derive(Debug)]
pub struct Log {
    pub format: LogFormat,
    pub level: String,
}

/// What a portal starts with.
#[derive(Debug)]
pub struct PortalStart {
    pub portal: Portal,
    pub api_key: Secret,
    pub log: Log,
    pub warnings: Vec<String>,
}

/// The flags of the command line; they win over file and environment.
#[derive(Debug, Default)]
pub struct Flags {
    pub file: Option<PathBuf>,
    pub listen: Option<String>,
    pub database_url: Option<String>,
    pub data_dir: Option<PathBuf>,
}

/// Every mistake in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", reader::list(.0))]
pub struct ConfigError(pub Vec<String>);

impl Config {
    pub fn load(flags: Flags) -> Result<Self, ConfigError> {
        let (figment, exposed) = Self::file_and_environment(&flags)?;
        let master_key =
            std::env::var(MASTER_KEY_ENV).ok().filter(|text| !text.trim().is_empty()).map(Secret::new);
        let read = Self::from_sources(figment, flags, master_key);
        let Some(exposed) = exposed else { return read };
        let mut mistakes = read.err().map(|ConfigError(mistakes)| mistakes).unwrap_or_default();
        mistakes.push(exposed);
        Err(ConfigError(mistakes))
    }

    /// What the portal needs, from the same sources as [`Config::load`]. Nothing of the vault's own is read.
    pub fn portal(flags: Flags) -> Result<PortalStart, ConfigError> {
        let (figment, _) = Self::file_and_environment(&flags)?;
        let mut reader = Reader::new(with_flags(figment, flags))?;
        environment::check(&mut reader, environment_names());
        let portal = reading::portal::read(&mut reader);
        let api_key = reading::portal::key_of(&mut reader, &portal);
        let log = log(&mut reader);
        let warnings = reader.finish_section("portal")?;
        let api_key = api_key.unwrap_or_else(|| Secret::new(String::new()));
        Ok(PortalStart { portal, api_key, log, warnings })
    }

    /// File and environment, merged; and why the file is refused if others may read a password in it.
    fn file_and_environment(flags: &Flags) -> Result<(Figment, Option<String>), ConfigError> {
        let mut figment = Figment::new();
        let mut exposed = None;
        // The message must not repeat the password.
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
        Ok((figment.merge(Env::prefixed(ENV_PREFIX).split("__")), exposed))
    }

    fn from_sources(figment: Figment, flags: Flags, master_key: Option<Secret>) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(with_flags(figment, flags))?;
        environment::check(&mut reader, environment_names());
        let data_dir = reader.get(&DATA_DIR);
        let server = reading::server::read(&mut reader);
        let client_auth = server.tls.as_ref().map_or(ClientAuth::None, |tls| tls.client_auth);
        let config = Self {
            server,
            watches: reading::server::watches(&mut reader),
            storage: storage(&mut reader, &data_dir),
            keys: reading::master_keys::read(&mut reader, master_key),
            auth: Auth {
                bootstrap_key_file: reader.find(&BOOTSTRAP_KEY_FILE),
                certificates: reading::certificates(&mut reader, client_auth),
                oidc: reading::oidc::read(&mut reader),
            },
            providers: ProviderConfigs { meta: reading::meta::read(&mut reader) },
            expiry: expiry(&mut reader),
            events: Events { retention: reader.get(&EVENT_RETENTION) },
            rotation: rotation(&mut reader),
            jobs: jobs(&mut reader),
            audit: reading::audit::read(&mut reader, &data_dir),
            portal: reading::portal::read(&mut reader),
            log: log(&mut reader),
            data_dir,
            warnings: Vec::new(),
        };
        let warnings = reader.finish()?;
        Ok(Self { warnings, ..config }.with_deletion_page())
    }

    /// People see in the portal what became of their request to delete their data, unless somebody else shows it.
    fn with_deletion_page(mut self) -> Self {
        if let (Some(app), Some(portal)) = (&mut self.providers.meta, &self.portal.links.portal)
            && app.config.deletion_page.is_none()
        {
            app.config.deletion_page = reading::meta::deletion_page(portal);
        }
        self
    }

    /// Splits off what the vault itself needs, secrets included.
    pub fn into_vault_config(self) -> (VaultConfig, ProviderConfigs) {
        let (required_scopes, optional_scopes) = self.providers.scopes();
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
                guide: GUIDE,
            },
            timetable: self.jobs,
            callers: CallerPolicy {
                certificates: self.auth.certificates,
                oidc: self.auth.oidc,
                watches: self.watches,
            },
            audit: self.audit,
            links: self.portal.links,
        };
        (vault, self.providers)
    }
}

fn environment_names() -> impl Iterator<Item = String> {
    std::env::vars_os().filter_map(|(name, _)| name.into_string().ok())
}

/// Flags win over file and environment.
fn with_flags(mut figment: Figment, flags: Flags) -> Figment {
    if let Some(listen) = flags.listen {
        figment = figment.merge(Serialized::default("server.listen", listen));
    }
    if let Some(url) = flags.database_url {
        figment = figment.merge(Serialized::default("storage.url", url));
    }
    if let Some(dir) = flags.data_dir {
        figment = figment.merge(Serialized::default("data_dir", dir));
    }
    figment
}

/// Checks that `file` is there and is TOML. The parser quotes the line that it cannot read, which may hold a
/// password, so only the place and the reason are repeated. Returns a mistake if others may read a password in it.
fn check_file(file: &Path) -> Result<Option<String>, ConfigError> {
    let wrong = |why: String| ConfigError(vec![format!("{} {why}", file.display())]);
    let text = fs::read_to_string(file).map_err(|error| wrong(format!("can't be read: {error}")))?;
    let read = Toml::from_str::<Dict>(&text).map(|read| {
        let storage = read.get("storage").and_then(|storage| storage.find_ref("url"));
        storage.and_then(|url| url.as_str()).is_some_and(holds_password)
    });
    let holds_secret = read.map_err(|error| {
        let message = error.to_string();
        let lines: Vec<_> = message.lines().filter(|line| !line.contains('|')).map(str::trim).collect();
        wrong(format!("is not TOML: {}", lines.join("; ")))
    })?;
    let exposed = exposure_of(file).filter(|_| holds_secret);
    Ok(exposed.map(|why| format!("storage.url holds a password: {why}")))
}

/// Whether a database URL has a password, in its authority or in its query.
fn holds_password(url: &str) -> bool {
    let Ok(url) = url::Url::parse(url) else { return false };
    url.password().is_some() || url.query_pairs().any(|(name, _)| name == "password" || name == "sslpassword")
}

fn storage(reader: &mut Reader, data_dir: &Path) -> Storage {
    let in_data_dir = || format!("sqlite:{}", data_dir.join("token-vault.db").display());
    Storage {
        url: Secret::new(reader.find(&STORAGE_URL).unwrap_or_else(in_data_dir)),
        migrate_on_start: reader.flag(&MIGRATE_ON_START),
    }
}

fn expiry(reader: &mut Reader) -> Expiry {
    let warning_window = reader.get(&WARNING_WINDOW);
    let mut thresholds = reader.list(&THRESHOLDS);
    let count = thresholds.len();
    thresholds.sort_unstable_by(|a, b| b.cmp(a));
    thresholds.dedup();
    if thresholds.len() < count {
        reader.mistake(THRESHOLDS.name, "must differ from each other");
    }
    Expiry { warning_window, thresholds }
}

fn rotation(reader: &mut Reader) -> RenewalPolicy {
    RenewalPolicy {
        enabled: reader.flag(&ROTATION_ENABLED),
        min_age: reader.get(&ROTATION_MIN_AGE),
        window: reader.get(&ROTATION_WINDOW),
    }
}

fn jobs(reader: &mut Reader) -> Timetable {
    Timetable {
        meta_token_expiry: cron(reader, &META_TOKEN_EXPIRY_JOB),
        rotation: cron(reader, &ROTATION_JOB),
        event_retention: cron(reader, &EVENT_RETENTION_JOB),
        housekeeping: cron(reader, &HOUSEKEEPING_JOB),
        overdue_after: reader.get(&OVERDUE_AFTER),
        sweep_concurrency: reader.get(&SWEEP_CONCURRENCY),
    }
}

fn log(reader: &mut Reader) -> Log {
    Log { format: reader.get(&LOG_FORMAT), level: reader.get(&LOG_LEVEL) }
}

fn cron(reader: &mut Reader, setting: &Setting<values::Cron>) -> Option<Cron> {
    let cron = reader.get(setting);
    if cron.is_none() {
        reader.warn(format!("{} is off: this job runs only when somebody asks for a run", setting.name));
    }
    cron
}
