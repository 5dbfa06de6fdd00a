//! Every key of the configuration, in one table: name, kind of value with its bounds, default, flag and meaning.
//! Reading and checking (`reader.rs`), the reference `docs/configuration.md` and the example file are made from it.
//! A doc comment here is what the reference says. To add a key: add a row, read it in the file of its section, and
//! renew the two documents by the commands that the test `the_documents_are_up_to_date` names.

use std::net::SocketAddr;

use super::declare::{Section, Setting, setting, settings};
use super::values::{
    Checked, Choice, Cron, FilePath, Length, List, LogLevel, Number, SecureUrl, Switch, Tables, Verbatim,
};
use crate::api::ClientAuth;
use crate::audit::SyncMode;
use crate::oidc::Signing;
use crate::telemetry::LogFormat;

/// Where gRPC listens unless another address is configured.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:7443";

settings! {
    [""] {
        /// The folder for the database, the key file, the bootstrap key and the audit log, unless other keys name
        /// other places.
        DATA_DIR: FilePath = setting("data_dir", FilePath("the path of a folder")).default("./data").flag("--data-dir");
    }

    ["server"] {
        /// Where gRPC listens. An address that other machines can reach needs TLS. Port 0 takes a free port.
        LISTEN: Checked<SocketAddr> = setting("server.listen", ADDRESS).default(DEFAULT_LISTEN).flag("--listen");
        /// Where the HTTP probes `/healthz` and `/readyz` listen. They disclose nothing secret.
        ADMIN_LISTEN: Checked<SocketAddr> = setting("server.admin_listen", ADDRESS).default("127.0.0.1:7444");
        /// Serve other machines without TLS, because something else encrypts the connection.
        ALLOW_PLAINTEXT: Switch = setting("server.allow_plaintext", Switch).default("false");
        /// Serve the HTTP probes to other machines; they need no key.
        ALLOW_REMOTE_ADMIN: Switch = setting("server.allow_remote_admin", Switch).default("false");
    }

    /// The vault reads these files again every few seconds and on SIGHUP; renewing a certificate needs no restart.
    ["server.tls"] {
        /// PEM file with the vault's certificate, then those between it and the root.
        CERT_FILE: FilePath = setting("server.tls.cert_file", FILE).unset("no TLS", "\"vault.crt\"");
        /// PEM file with the certificate's key; other users must not be able to read it.
        KEY_FILE: FilePath = setting("server.tls.key_file", FILE).unset("no TLS", "\"vault.key\"");
        /// Whether clients are asked for a certificate.
        CLIENT_AUTH: Choice<ClientAuth> = setting("server.tls.client_auth", CLIENT_AUTHS).default("none");
        /// PEM file with the roots of clients' certificates; needed when clients are asked for one.
        CLIENT_CA_FILE: FilePath = setting("server.tls.client_ca_file", FILE).unset("none", "\"ca.crt\"");
        /// How often the vault looks whether the files have changed.
        RELOAD_INTERVAL: Length = setting("server.tls.reload_interval", Length("100ms", "1h")).default("5s");
    }

    /// How much callers may take. A call past a limit is answered `RESOURCE_EXHAUSTED` with the reason
    /// `RATE_LIMITED`, the name of the limit and a `RetryInfo`, while other callers are served.
    ["server.limits"] {
        /// Calls per second of one principal, with all its keys and certificates; 0 means no limit.
        PER_PRINCIPAL_RPS: Number<u32> = setting("server.limits.per_principal_rps", Number(0, 1_000_000)).default("5000");
        /// Calls that a principal may make at once after a pause.
        PER_PRINCIPAL_BURST: Number<u32> = setting("server.limits.per_principal_burst", Number(1, 1_000_000)).default("10000");
        /// Watches of one principal.
        PER_PRINCIPAL_WATCHES: Number<usize> = setting("server.limits.per_principal_watches", Number(1, 1_000_000)).default("10000");
        /// Watches of all principals together.
        MAX_WATCHES: Number<usize> = setting("server.limits.max_watches", Number(1, 1_000_000)).default("20000");
        /// Failed authentications per minute from one address; 0 means no limit.
        FAILED_AUTHENTICATIONS_PER_MINUTE: Number<u32> = setting("server.limits.failed_authentications_per_minute", Number(0, 1_000_000)).default("120");
        /// Calls in flight over all connections; a sixteenth of them is reserved for admins.
        MAX_CALLS: Number<usize> = setting("server.limits.max_calls", Number(1, 100_000)).default("1024");
        /// Calls in flight of one principal, with all its keys and certificates.
        MAX_CALLS_PER_PRINCIPAL: Number<usize> = setting("server.limits.max_calls_per_principal", Number(1, 100_000)).default("256");
        /// Bytes of one request message.
        MAX_REQUEST_BYTES: Number<usize> = setting("server.limits.max_request_bytes", Number(65_536, 67_108_864)).default("4194304");
        /// Bytes of the headers of one request.
        MAX_HEADER_BYTES: Number<u32> = setting("server.limits.max_header_bytes", Number(4_096, 1_048_576)).default("16384");
        /// Connections at once. When they are all taken, the one that has been idle longest is closed. The vault
        /// lowers this to what the limit of open files allows.
        MAX_CONNECTIONS: Number<usize> = setting("server.limits.max_connections", Number(1, 1_000_000)).default("16384");
        /// Calls in flight on one connection, watches included.
        MAX_STREAMS_PER_CONNECTION: Number<u32> = setting("server.limits.max_streams_per_connection", Number(1, 100_000)).default("1024");
        /// Streams of the health and reflection services, which need no key.
        MAX_OPEN_STREAMS: Number<usize> = setting("server.limits.max_open_streams", Number(1, 100_000)).default("256");
        /// Time for the TLS handshake, and the same again for the first bytes of HTTP/2.
        HANDSHAKE_TIMEOUT: Length = setting("server.limits.handshake_timeout", QUICK).default("10s");
        /// A connection without calls is closed after this time.
        IDLE_TIMEOUT: Length = setting("server.limits.idle_timeout", SLOW).default("15m");
        /// How often the vault pings a silent connection.
        KEEPALIVE_INTERVAL: Length = setting("server.limits.keepalive_interval", QUICK).default("30s");
        /// How long the client may take to answer a ping.
        KEEPALIVE_TIMEOUT: Length = setting("server.limits.keepalive_timeout", QUICK).default("10s");
        /// A connection is closed at this age, give or take a tenth; watches end with `UNAVAILABLE` and resume.
        MAX_CONNECTION_AGE: Length = setting("server.limits.max_connection_age", SLOW).default("1h");
        /// How long calls in flight may then take to end.
        MAX_CONNECTION_AGE_GRACE: Length = setting("server.limits.max_connection_age_grace", QUICK).default("5m");
    }

    /// **PostgreSQL**: `fsync` and `synchronous_commit` must be on, and the URL must not lead to a pooler in
    /// transaction mode. Any number of replicas share one database: give each the same master key and the same
    /// configuration. A replica that starts with another policy puts that in force for all replicas, and logs it.
    /// Keep clocks in step by NTP: a replica whose clock is more than 2 s off the database's announces no expiries.
    ["storage"] {
        /// The database: `sqlite:PATH` or `postgres://USER:PASSWORD@HOST/DATABASE`. A URL with a password is refused
        /// as a flag, since other users of the machine can see arguments; a file that holds one should be its
        /// owner's alone (mode 600).
        STORAGE_URL: Checked<String> = setting("storage.url", DATABASE)
            .unset("`sqlite:` + data folder + `/token-vault.db`", "\"sqlite:./data/token-vault.db\"")
            .flag("--database-url");
        /// Apply database migrations at start. Where this is off, run `token-vault migrate` with a database role
        /// that may change the schema.
        MIGRATE_ON_START: Switch = setting("storage.migrate_on_start", Switch).default("true");
    }

    /// A master key is one line `tvk1:<id>:<base64 of 32 random bytes>`, in a file or in the environment variable
    /// `TOKEN_VAULT_MASTER_KEY` (which is not a key of the configuration file; set one of the two). Several lines
    /// are several keys. With SQLite the first start makes the file; with PostgreSQL every replica needs the same
    /// key, so it must be given: `token-vault keys generate` makes one.
    ["keys"] {
        /// The file with the master keys.
        MASTER_KEY_FILE: FilePath = setting("keys.master_key_file", FILE)
            .unset("data folder + `/master.key`", "\"./data/master.key\"");
        /// The file with the break-glass sealing key; every key is then encrypted with it too, so that the offline
        /// opening key can recover them.
        BREAK_GLASS_SEALING_KEY_FILE: FilePath = setting("keys.break_glass_sealing_key_file", FILE)
            .unset("no break-glass key", "\"break-glass.sealing\"");
    }

    /// A key service (OpenBao or HashiCorp Vault, transit engine) as the master key. The vault's token or AppRole needs `read` on
    /// `transit/keys/token-vault` and `update` on its `encrypt` and `decrypt`.
    ["keys.transit"] {
        /// The key service.
        TRANSIT_ADDRESS: SecureUrl = setting("keys.transit.address", SecureUrl { query: false, example: "https://bao.example:8200" })
            .unset("no key service", "\"https://bao.example:8200\"");
        /// Where the transit engine is mounted.
        TRANSIT_MOUNT: Checked<String> = setting("keys.transit.mount", TRANSIT_NAME).default("transit");
        /// The name of the key.
        TRANSIT_KEY: Checked<String> = setting("keys.transit.key", TRANSIT_NAME).default("token-vault");
        /// The namespace.
        TRANSIT_NAMESPACE: Checked<String> = setting("keys.transit.namespace", TRANSIT_NAME).unset("none", "\"ads\"");
        /// The file with the vault's token for the key service. It is read again when it changes. Set this, or both
        /// `role_id` and `secret_id_file`.
        TRANSIT_TOKEN_FILE: FilePath = setting("keys.transit.token_file", FILE).unset("none", "\"transit.token\"");
        /// The AppRole's id.
        TRANSIT_ROLE_ID: Checked<String> = setting("keys.transit.role_id", TEXT).unset("none", "\"token-vault\"");
        /// The file with the AppRole's secret id.
        TRANSIT_SECRET_ID_FILE: FilePath = setting("keys.transit.secret_id_file", FILE).unset("none", "\"transit.secret-id\"");
        /// PEM file with the certificates to trust instead of the system's.
        TRANSIT_CA_FILE: FilePath = setting("keys.transit.ca_file", FILE).unset("the system's", "\"transit-ca.crt\"");
    }

    ["auth"] {
        /// A file with an admin key (`tva_…`) that the first start adopts instead of making one.
        BOOTSTRAP_KEY_FILE: FilePath = setting("auth.bootstrap_key_file", FILE)
            .unset("the first start makes one", "\"bootstrap-admin.key\"");
        /// Which client certificate is which principal: `san` is a URI or DNS name among the certificate's subject
        /// alternative names, compared as a whole; `role` is connector, ingestion, alerting, viewer or admin;
        /// `workspaces` is a list, or `"all"`. Needs `server.tls.client_auth`.
        CERTIFICATES: Tables = setting("auth.certificates", Tables(&["san", "principal", "role", "workspaces"])).unset(
            "none",
            "[{ san = \"spiffe://acme/ingestion\", principal = \"ingestion\", role = \"ingestion\", workspaces = [\"acme\"] }]",
        );
    }

    /// Callers may come with a token (JWT) of your own OpenID Connect issuer instead of an API key.
    ["auth.oidc"] {
        /// The issuer, exactly as in the token's `iss`.
        OIDC_ISSUER: Verbatim<SecureUrl> = setting("auth.oidc.issuer", Verbatim(ISSUER)).unset("no tokens are accepted", "\"https://login.acme.example/realms/prod\"");
        /// What the token's `aud` must contain. Needed with an issuer.
        OIDC_AUDIENCE: Checked<String> = setting("auth.oidc.audience", TEXT).unset("none", "\"token-vault\"");
        /// Where the issuer's keys are.
        OIDC_JWKS_URI: SecureUrl = setting("auth.oidc.jwks_uri", ISSUER)
            .unset("found by discovery", "\"https://login.acme.example/realms/prod/certs\"");
        /// PEM file with the certificates to trust instead of the system's.
        OIDC_CA_FILE: FilePath = setting("auth.oidc.ca_file", FILE).unset("the system's", "\"issuer-ca.crt\"");
        /// How tokens may be signed.
        OIDC_ALGORITHMS: List<Choice<Signing>> = setting("auth.oidc.algorithms", List { each: SIGNINGS, plural: "RS256, ES256 and EdDSA", most: None })
            .entries(&["RS256", "ES256", "EdDSA"]);
        /// How far the issuer's clock may be off.
        OIDC_LEEWAY: Length = setting("auth.oidc.leeway", Length("0s", "5m")).default("30s");
        /// The claim with the principal's name.
        OIDC_PRINCIPAL_CLAIM: Checked<String> = setting("auth.oidc.principal_claim", CLAIM).default("sub");
        /// The claim with the role; a dot leads into an object.
        OIDC_ROLE_CLAIM: Checked<String> = setting("auth.oidc.role_claim", CLAIM).default("roles");
        /// Which value of the role claim is which role: connector, ingestion, alerting, viewer or admin. A token must
        /// mean exactly one role.
        OIDC_ROLES: Tables = setting("auth.oidc.roles", Tables(&["value", "role"]))
            .unset("none; needed with an issuer", "[{ value = \"vault-ingestion\", role = \"ingestion\" }]");
        /// The claim with the workspaces. Set this or `all_workspaces`.
        OIDC_WORKSPACES_CLAIM: Checked<String> = setting("auth.oidc.workspaces_claim", CLAIM).unset("none", "\"groups\"");
        /// Which value of the workspaces claim is which workspaces.
        OIDC_WORKSPACES: Tables = setting("auth.oidc.workspaces", Tables(&["value", "workspaces"]))
            .unset("the claim's values are the workspaces' ids", "[{ value = \"eu\", workspaces = [\"acme\", \"globex\"] }]");
        /// Every token may act in all workspaces; set instead of `workspaces_claim` and `workspaces`.
        OIDC_ALL_WORKSPACES: Switch = setting("auth.oidc.all_workspaces", Switch).default("false");
        /// How often the issuer's keys are read.
        OIDC_REFRESH: Length = setting("auth.oidc.refresh", Length("1s", "24h")).default("5m");
        /// The shortest time between two reads, even when a token names a key that is not known.
        OIDC_REFRESH_AT_MOST_EVERY: Length = setting("auth.oidc.refresh_at_most_every", Length("100ms", "1h")).default("10s");
        /// How long known keys are used while the issuer does not reply. At least `refresh`.
        OIDC_STALE_FOR: Length = setting("auth.oidc.stale_for", Length("1s", "7d")).default("1h");
    }

    /// The app at Meta. Without `app_id` and `app_secret_files` the vault knows no provider.
    ["providers.meta"] {
        /// The app's id.
        META_APP_ID: Checked<String> = setting("providers.meta.app_id", Checked {
            allowed: "the app's number, 1 to 32 digits, as the app dashboard shows it",
            such_as: "",
            parse: app_id,
        }).unset("no app", "\"123456789012345\"");
        /// Files with the app's secrets, newest first; several while the secret is being changed.
        META_APP_SECRET_FILES: List<FilePath> = setting("providers.meta.app_secret_files", List { each: FILE, plural: "paths of files", most: None })
            .unset("none", "[\"/etc/token-vault/app.secret\"]");
        /// The Graph API.
        META_GRAPH_URL: SecureUrl = setting("providers.meta.graph_url", PROVIDER_URL).default("https://graph.facebook.com");
        /// Where people give consent.
        META_DIALOG_URL: SecureUrl = setting("providers.meta.dialog_url", PROVIDER_URL).default("https://www.facebook.com");
        /// The version of the Graph API.
        META_API_VERSION: Checked<String> = setting("providers.meta.api_version", Checked {
            allowed: "a version of the Graph API",
            such_as: "v26.0",
            parse: api_version,
        }).default("v26.0");
        /// Time for one request to Meta.
        META_REQUEST_TIMEOUT: Length = setting("providers.meta.request_timeout", Length("100ms", "20s")).default("10s");
        /// Scopes that a token must have.
        META_REQUIRED_SCOPES: List<Checked<String>> = setting("providers.meta.required_scopes", SCOPES).entries(&["ads_read", "ads_management"]);
        /// Scopes without which some features are missing; their absence is reported and refuses nothing.
        META_OPTIONAL_SCOPES: List<Checked<String>> = setting("providers.meta.optional_scopes", SCOPES).entries(&["business_management"]);
        /// For demos and tests: the vault's time is the sandbox's. Only with a `graph_url` on this machine.
        META_FOLLOW_SANDBOX_CLOCK: Switch = setting("providers.meta.follow_sandbox_clock", Switch).default("false");
    }

    ["expiry"] {
        /// How long before its end a token counts as expiring.
        WARNING_WINDOW: Length = setting("expiry.warning_window", Length("1h", "60d")).default("7d");
        /// How long before a token's end each warning is announced.
        THRESHOLDS: List<Length> = setting("expiry.thresholds", List {
            each: Length("1m", "60d"),
            plural: "different lengths of time, each from 1m to 60d",
            most: Some(10),
        }).entries(&["7d", "3d", "1d"]);
    }

    ["events"] {
        /// How long events are kept.
        EVENT_RETENTION: Length = setting("events.retention", Length("1h", "3650d")).default("90d");
    }

    ["rotation"] {
        /// Whether the vault renews tokens.
        ROTATION_ENABLED: Switch = setting("rotation.enabled", Switch).default("true");
        /// Younger tokens are not renewed.
        ROTATION_MIN_AGE: Length = setting("rotation.min_age", Length("1m", "60d")).default("24h");
        /// How long before a token's end the vault begins to renew it.
        ROTATION_WINDOW: Length = setting("rotation.window", Length("1h", "60d")).default("30d");
    }

    /// Cron expressions have six fields, in UTC: second, minute, hour, day of month, month, day of week. Where both
    /// kinds of days are limited, either is enough. An expression that is never due switches its job off.
    ["jobs"] {
        /// When every connection is validated with its provider.
        META_TOKEN_EXPIRY_JOB: Cron = setting("jobs.meta_token_expiry", Cron).default("0 0 6 * * *");
        /// When the vault looks for tokens to renew.
        ROTATION_JOB: Cron = setting("jobs.rotation", Cron).default("0 * * * * *");
        /// When old events are deleted.
        EVENT_RETENTION_JOB: Cron = setting("jobs.event_retention", Cron).default("0 30 3 * * *");
        /// When data that is no longer needed is deleted.
        HOUSEKEEPING_JOB: Cron = setting("jobs.housekeeping", Cron).default("0 15 * * * *");
        /// How late work may be before an `OVERDUE` event is announced.
        OVERDUE_AFTER: Length = setting("jobs.overdue_after", Length("1s", "24h")).default("15m");
        /// Connections that are validated at once by `jobs.meta_token_expiry`.
        SWEEP_CONCURRENCY: Number<usize> = setting("jobs.sweep_concurrency", Number(1, 64)).default("8");
    }

    ["audit"] {
        /// Where the audit log goes.
        AUDIT_SINK: Choice<AuditSink> = setting("audit.sink", AUDIT_SINKS).default("file");
        /// The file, with the sink `file`.
        AUDIT_FILE: FilePath = setting("audit.file", FILE)
            .unset("data folder + `/audit.jsonl`; a second replica there takes `audit-2.jsonl`", "\"/var/log/token-vault/audit.jsonl\"");
        /// When a record is on the disk: `soon` is within 100 ms, `always` is before the caller's response.
        AUDIT_SYNC: Choice<SyncMode> = setting("audit.sync", SYNC_MODES).default("soon");
        /// A file that would grow past this many bytes is renamed, and a new one begun.
        AUDIT_MAX_BYTES: Number<u64> = setting("audit.max_bytes", Number(4_096, 1_099_511_627_776)).default("67108864");
        /// How many renamed files are kept.
        AUDIT_KEEP: Checked<Option<usize>> = setting("audit.keep", Checked {
            allowed: "all, or a number of files from 1 to 1000000",
            such_as: "",
            parse: files_to_keep,
        }).default("all");
    }

    /// Log lines go to stderr. Libraries log at `info` at most, since their finer lines may hold secrets.
    ["log"] {
        /// How much is logged.
        LOG_LEVEL: LogLevel = setting("log.level", LogLevel).default("info");
        /// The form of log lines; `auto` is text in a terminal and JSON elsewhere.
        LOG_FORMAT: Choice<LogFormat> = setting("log.format", LOG_FORMATS).default("auto");
    }
}

/// The sinks by name; `audit.rs` adds the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AuditSink {
    File,
    Stdout,
    Off,
}

const FILE: FilePath = FilePath("the path of a file");
const QUICK: Length = Length("100ms", "10m");
const SLOW: Length = Length("1s", "7d");
const CLIENT_AUTHS: Choice<ClientAuth> = Choice(&[
    ("none", ClientAuth::None),
    ("optional", ClientAuth::Optional),
    ("required", ClientAuth::Required),
]);
const SIGNINGS: Choice<Signing> =
    Choice(&[("RS256", Signing::Rs256), ("ES256", Signing::Es256), ("EdDSA", Signing::EdDsa)]);
const AUDIT_SINKS: Choice<AuditSink> =
    Choice(&[("file", AuditSink::File), ("stdout", AuditSink::Stdout), ("off", AuditSink::Off)]);
const SYNC_MODES: Choice<SyncMode> = Choice(&[("soon", SyncMode::Soon), ("always", SyncMode::Always)]);
const LOG_FORMATS: Choice<LogFormat> =
    Choice(&[("auto", LogFormat::Auto), ("json", LogFormat::Json), ("text", LogFormat::Text)]);
const ISSUER: SecureUrl = SecureUrl { query: true, example: "https://login.example" };
const PROVIDER_URL: SecureUrl = SecureUrl { query: false, example: "https://graph.facebook.com" };
const ADDRESS: Checked<SocketAddr> = Checked {
    allowed: "an IP address and a port",
    such_as: "127.0.0.1:7443",
    parse: |text| text.parse().ok(),
};
const TEXT: Checked<String> = Checked { allowed: "a text", such_as: "", parse: |text| Some(text.to_owned()) };
const DATABASE: Checked<String> = Checked {
    allowed: "sqlite:PATH or postgres://USER:PASSWORD@HOST/DATABASE",
    such_as: "",
    parse: database,
};
const TRANSIT_NAME: Checked<String> =
    Checked { allowed: "1 to 128 characters of A-Z a-z 0-9 . _ - /", such_as: "", parse: transit_name };
const CLAIM: Checked<String> = Checked { allowed: "the name of a claim", such_as: "", parse: claim };
const SCOPES: List<Checked<String>> = List {
    each: Checked { allowed: "the name of a permission", such_as: "ads_read", parse: scope },
    plural: "names of permissions",
    most: None,
};

fn database(text: &str) -> Option<String> {
    let known = ["sqlite:", "postgres://", "postgresql://"];
    let good = known.iter().any(|scheme| text.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()));
    good.then(|| text.to_owned())
}

fn transit_name(text: &str) -> Option<String> {
    let good = (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b))
        && !text.split('/').any(|part| part.is_empty() || part == "." || part == "..");
    good.then(|| text.to_owned())
}

fn claim(text: &str) -> Option<String> {
    (text.len() <= 128 && text.bytes().all(|b| b.is_ascii_graphic())).then(|| text.to_owned())
}

fn app_id(text: &str) -> Option<String> {
    let good = (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    good.then(|| text.to_owned())
}

fn api_version(text: &str) -> Option<String> {
    let digits = |part: &str| (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    let (major, minor) = text.strip_prefix('v')?.split_once('.')?;
    (digits(major) && digits(minor)).then(|| text.to_owned())
}

fn scope(text: &str) -> Option<String> {
    let good = (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:-/".contains(&b));
    good.then(|| text.to_owned())
}

fn files_to_keep(text: &str) -> Option<Option<usize>> {
    match text {
        "all" => Some(None),
        _ => text.parse().ok().filter(|files| (1..=1_000_000).contains(files)).map(Some),
    }
}
