//! Which module may use which. The test reads this out of the source, because the compiler lets every module of a crate
//! use every other.

mod source;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use source::{Source, Target};

/// Each module of the server, and the modules of ours that it may use. `main.rs` and `lib.rs` are left out, because
/// they hold everything.
const MODULES: [(&str, &[&str]); 16] = [
    ("backoff", &[]),
    ("http_client", &[]),
    ("model", &[]),
    ("crypto", &["http_client", "model"]),
    ("audit", &["crypto", "model"]),
    ("provider", &["backoff", "http_client", "model"]),
    ("store", &["model"]),
    ("oidc", &["http_client", "model"]),
    ("telemetry", &[]),
    ("vault", &["audit", "crypto", "model", "oidc", "provider", "store"]),
    // It uses only the types of `provider`: what a caller reports, and what belongs to a request.
    ("api", &["backoff", "model", "provider", "vault"]),
    ("jobs", &["model", "vault"]),
    // `api` and the others define the types of their own configuration.
    ("config", &["api", "audit", "model", "oidc", "provider", "telemetry", "vault"]),
    ("serve", &["api", "config", "jobs", "model", "provider", "vault"]),
    ("cli", &["audit", "config", "crypto", "model", "serve", "telemetry", "vault"]),
    // Compiled by `fuzz/run` only.
    ("fuzzing", &["api", "config", "crypto", "model", "oidc", "provider", "vault"]),
];

/// External crates, and crates of ours, that only some modules may use, with those modules.
const CRATES: [(&str, &[&str]); 29] = [
    ("sqlx", &["store"]),
    ("reqwest", &["crypto", "http_client", "oidc", "provider"]),
    ("jsonwebtoken", &["oidc"]),
    ("ring", &["oidc"]),
    ("aes_gcm", &["crypto"]),
    ("hmac", &["crypto", "provider"]),
    ("hpke", &["crypto"]),
    ("axum", &["api"]),
    ("tonic", &["api", "cli"]),
    ("tonic_health", &["api", "cli"]),
    ("tonic_reflection", &["api"]),
    ("tonic_types", &["api", "cli"]),
    ("hyper", &["api"]),
    ("hyper_util", &["api"]),
    ("tokio_rustls", &["api"]),
    ("x509_parser", &["api", "cli"]),
    ("governor", &["api"]),
    ("tower", &["api"]),
    ("tokio_cron_scheduler", &["jobs"]),
    ("croner", &["model"]),
    ("chrono", &["model"]),
    ("clap", &["cli"]),
    ("comfy_table", &["cli"]),
    ("terminal_size", &["cli"]),
    ("textwrap", &["cli"]),
    ("figment", &["config"]),
    ("token_vault_proto", &["api", "cli"]),
    ("token_vault_client", &["cli"]),
    ("token_vault_sandbox", &["cli", "provider"]),
];

/// Each crate of the workspace by its folder, and the crates of ours that it may depend on.
const MANIFESTS: [(&str, &[&str]); 7] = [
    ("proto", &[]),
    ("sandbox", &[]),
    ("client", &["token-vault-proto"]),
    // Whoever attacks the portal finds neither a database nor a key of the vault.
    ("portal", &["token-vault-client"]),
    ("server", &["token-vault-client", "token-vault-portal", "token-vault-proto", "token-vault-sandbox"]),
    // The tests use the server itself only for histories, which need its clock and direct access to two replicas. The portal
    // runs in their process too.
    (
        "tests",
        &[
            "token-vault",
            "token-vault-client",
            "token-vault-portal",
            "token-vault-proto",
            "token-vault-sandbox",
        ],
    ),
    ("fuzz", &["token-vault"]),
];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate stands in the workspace").to_path_buf()
}

/// The modules that a source uses although it may not.
fn violations(source: &Source) -> Vec<String> {
    let mut wrong = Vec::new();
    for path in source.modules.keys() {
        let Some(module) = path.first() else { continue };
        let (_, allowed) = MODULES.iter().find(|(name, _)| name == module).unwrap_or_else(|| {
            panic!("the module {module} is new: say in tests/it/house/architecture what it may use")
        });
        for target in source.uses(path) {
            let (name, forbidden) = match &target {
                Target::Inside(used) => {
                    let Some(used) = used.first() else { continue };
                    let known = MODULES.iter().any(|(name, _)| name == used);
                    (used, known && used != module && !allowed.contains(&used.as_str()))
                }
                Target::Outside(used) => {
                    let closed = CRATES.iter().find(|(name, _)| name == used);
                    (used, closed.is_some_and(|(_, doors)| !doors.contains(&module.as_str())))
                }
            };
            if forbidden {
                wrong.push(format!("{} uses {name}", path.join("::")));
            }
        }
    }
    wrong.dedup();
    wrong
}

/// Finds where a wing of the folder `floor` uses a wing above it. `wings` names them from top to bottom. The contents
/// of the folder's own `mod.rs` belong to all of them.
fn arrows_upwards(source: &Source, floor: &str, wings: &[&str]) -> Vec<String> {
    let height = |path: &[String]| match path {
        [first, wing, ..] if first == floor => {
            let place = wings.iter().position(|name| name == wing);
            Some(place.unwrap_or_else(|| panic!("the wing {floor}::{wing} is new: say which stand below it")))
        }
        _ => None,
    };
    let mut wrong = Vec::new();
    for path in source.modules.keys().filter(|path| !source.modules[*path].in_tests) {
        let Some(own) = height(path) else { continue };
        for used in source.modules_used(path) {
            if height(&used).is_some_and(|used| used < own) {
                wrong.push(format!("{} uses {}", path.join("::"), used.join("::")));
            }
        }
    }
    wrong
}

/// The ad platforms, by the names of their modules in `provider`.
const PLATFORMS: [&str; 1] = ["meta"];
/// The name of the daily job is part of the contract, though the job asks every provider.
const JOB_NAMES: [&str; 3] = ["meta_token_expiry", "MetaTokenExpiry", "meta-token-expiry"];
/// The modules that may name a platform: its own, its configuration, and the demo, which uses its sandbox.
const PLATFORM_DOORS: [&[&str]; 3] = [&["provider"], &["config"], &["cli", "demo"]];

/// The modules that name a platform in an identifier or in a text, although they may not.
fn platform_names(source: &Source) -> Vec<String> {
    let mut wrong = Vec::new();
    for (path, module) in source.modules.iter().filter(|(_, module)| !module.in_tests) {
        if PLATFORM_DOORS.iter().any(|door| path.iter().take(door.len()).eq(door.iter())) {
            continue;
        }
        for text in &module.words {
            let text = JOB_NAMES.iter().fold(text.clone(), |text, name| text.replace(name, ""));
            if words_of(&text).any(|word| PLATFORMS.contains(&word.as_str())) {
                wrong.push(format!("{} names a platform: {text}", path.join("::")));
            }
        }
    }
    wrong
}

/// Splits a text or identifier into its words, in lower case: `MetaConfig` into `meta` and `config`.
fn words_of(text: &str) -> impl Iterator<Item = String> {
    let mut spaced = String::new();
    for character in text.chars() {
        if character.is_uppercase() && spaced.ends_with(char::is_lowercase) {
            spaced.push(' ');
        }
        spaced.push(if character.is_alphanumeric() { character } else { ' ' });
    }
    spaced.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>().into_iter()
}

/// The server's source, read once.
fn server() -> &'static Source {
    static SERVER: OnceLock<Source> = OnceLock::new();
    let source = SERVER.get_or_init(|| Source::read(&workspace().join("server/src")));
    assert!(source.modules.len() > 100, "the source is not where it was: {} modules", source.modules.len());
    source
}

/// The wings of the vault, and the modules that they share, from top to bottom: each uses only those below it.
const WINGS: [&str; 20] = [
    "fuzzing",
    "opening",
    "status",
    "jobs",
    "feed",
    "workspace",
    "callbacks",
    "authorization",
    "token",
    "access",
    "keys",
    "audit",
    "once",
    "pass",
    "position",
    "paging",
    "provider_health",
    "state",
    "timetable",
    "error",
];

/// The names of our crates among a manifest's dependencies of every kind.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let mut section = String::new();
    let mut found = BTreeSet::new();
    for line in manifest.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_end_matches(']').to_owned();
            let named = section.split('.').filter(|part| part.starts_with("token-vault"));
            found.extend(named.map(str::to_owned));
        } else if section.contains("dependencies") && line.contains("token-vault") {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default().trim_matches('"');
            // A manifest may rename a crate: `vault = { package = "token-vault" }`.
            let package = line.split('"').find(|part| part.starts_with("token-vault"));
            found.insert(package.filter(|_| line.contains("package")).unwrap_or(name).to_owned());
        }
    }
    found
}

#[test]
fn every_module_uses_only_what_stands_below_it() {
    let wrong = violations(server());
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Adding a platform touches its module, its configuration and its sandbox, and nothing else.
#[test]
fn only_its_module_and_its_configuration_know_a_platform() {
    let wrong = platform_names(server());
    assert!(wrong.is_empty(), "{wrong:#?}");
    for (file, text, caught) in [
        ("vault/sweep.rs", "fn f() { ProviderId::parse(\"meta\"); }", true),
        ("model/remedy.rs", "const A: &str = \"Set providers.meta.app_id and restart.\";", true),
        ("serve.rs", "use crate::provider::MetaConfig;", true),
        (
            "vault/schedule.rs",
            "fn f() { JobKind::MetaTokenExpiry; let metadata = \"meta-token-expiry\"; }",
            false,
        ),
        ("provider/meta/mod.rs", "struct Meta;", false),
        ("cli/demo/mod.rs", "const PROVIDER: &str = \"meta\";", false),
    ] {
        let found = platform_names(&Source::parse([(file, text)]));
        assert_eq!(!found.is_empty(), caught, "{file}: {text}: {found:?}");
    }
}

/// This does not see calls of methods on `Vault`, because no path names the file that defines a method.
#[test]
fn every_wing_of_the_vault_uses_only_what_stands_below_it() {
    let upwards = arrows_upwards(server(), "vault", &WINGS);
    assert!(upwards.is_empty(), "{upwards:#?}");
}

#[test]
fn every_wing_of_the_store_uses_only_what_stands_below_it() {
    let wings = ["engine", "audit", "feed", "access", "connections", "keys", "work", "sql", "origin"];
    assert_eq!(arrows_upwards(server(), "store", &wings), Vec::<String>::new());
}

#[test]
fn every_crate_depends_only_on_those_below_it() {
    for (folder, allowed) in MANIFESTS {
        let manifest = fs::read_to_string(workspace().join(folder).join("Cargo.toml")).expect("a manifest");
        let allowed: BTreeSet<_> = allowed.iter().map(|&name| name.to_owned()).collect();
        let used = dependencies(&manifest);
        assert!(used.is_subset(&allowed), "{folder} depends on {:?}", used.difference(&allowed));
    }
}

#[test]
fn the_sandbox_is_used_by_the_provider_in_its_tests_only() {
    let source = server();
    let sandbox = Target::Outside("token_vault_sandbox".into());
    for (path, module) in &source.modules {
        let is_product = path.first().is_some_and(|name| name == "provider") && !module.in_tests;
        assert!(!(is_product && source.uses(path).contains(&sandbox)), "{}", path.join("::"));
    }
}

#[test]
fn the_checker_finds_planted_violations_and_nothing_else() {
    let caught = [
        ("model.rs", "use crate::store::Session;"),
        ("store/rows.rs", "use crate::{\n    model::{A, B},\n    vault::Vault,\n};"),
        ("vault/keys.rs", "fn f() { crate::api::serve(); }"),
        ("vault/mod.rs", "use super::cli;"),
        ("vault/keys.rs", "use super::super::config::Config;"),
        ("vault/keys.rs", "mod inner { use super::super::super::config::Config; }"),
        ("crypto/mod.rs", "fn f() -> sqlx::Error { todo!() }"),
        ("vault/mod.rs", "use sqlx;"),
        ("store/mod.rs", "mod audit; use crate::audit::Sink;"),
        ("store/mod.rs", "pub use ::reqwest::Url;"),
        ("provider/meta/mod.rs", "type Key = aes_gcm::Aes256Gcm;"),
        ("config/mod.rs", "use tonic::Status;"),
        ("cli/mod.rs", "use axum::Router;"),
        ("jobs/mod.rs", "fn f() { if let crate::api::Kind::One(_) = g() {} }"),
        ("vault/mod.rs", "use chrono::Utc;"),
        ("serve.rs", "fn f() { let a = \"//\"; use tower::Layer; }"),
        ("vault/mod.rs", "fn f() { assert_eq!(a, crate::cli::main(), \"{b}\"); }"),
        ("vault/mod.rs", "macro_rules! m { () => { use $crate::{model::A, cli::{B, C}}; } }"),
        ("vault/mod.rs", "#[clap::command] fn f() {}"),
        ("vault/mod.rs", "type A = <u8 as tower::Layer<()>>::Service;"),
    ];
    for (file, text) in caught {
        let wrong = violations(&Source::parse([(file, text)]));
        assert_eq!(wrong.len(), 1, "{file}: {text}: {wrong:?}");
    }
    let fine = [
        ("vault/keys.rs", "use crate::store::{Session, reqwest}; use super::config; use self::cli::Options;"),
        (
            "vault/mod.rs",
            "// use sqlx::Row;\nconst A: &str = \"sqlx::Row \\\" tonic::Code\"; const B: &str = r#\"crate::api::\"#;",
        ),
        ("store/mod.rs", "use sqlx::Row; use crate::model::Clock;"),
        ("store/mod.rs", "mod audit; pub use audit::Origin; fn f() { audit::g(); }"),
        (
            "model/id.rs",
            "fn f() { let x = super::store::open(); let y = other::vault::f(); let z = <A>::sqlx::f(); }",
        ),
        ("vault/mod.rs", "fn f() { assert!(a, \"tonic::Code\", b.sqlx, <C>::sqlx::d()); }"),
    ];
    for (file, text) in fine {
        let wrong = violations(&Source::parse([(file, text)]));
        assert!(wrong.is_empty(), "{file}: {wrong:?}");
    }
}

#[test]
fn the_checker_finds_planted_arrows_upwards_through_re_exports() {
    let arrows = |below: &str| {
        let files = [
            ("lib.rs", "mod vault;"),
            (
                "vault/mod.rs",
                "mod above; mod below; pub use above::*; pub(crate) use below::Base as Ground; struct Vault;",
            ),
            (
                "vault/above.rs",
                "mod inner; pub use inner::Deep; pub struct High; use super::{Ground, Vault};",
            ),
            ("vault/above/inner.rs", "pub struct Deep; fn f() -> crate::vault::below::Base {}"),
            ("vault/below.rs", below),
        ];
        arrows_upwards(&Source::parse(files), "vault", &["above", "below"])
    };
    let fine = [
        "pub struct Base;",
        "use super::Vault; use super::Ground;",
        "use std::above::High;",
        "mod above {} use self::above;",
    ];
    for below in fine {
        assert_eq!(arrows(below), Vec::<String>::new(), "{below}");
    }
    let upwards =
        ["use super::High;", "use crate::vault::Deep;", "fn f() { super::above::g(); }", "use super::above;"];
    for below in upwards {
        assert_eq!(arrows(below).len(), 1, "{below}");
    }
    let tests = "#[cfg(test)] mod tests { use super::super::High; }";
    assert_eq!(arrows(tests), Vec::<String>::new());
}

#[test]
fn the_checker_reads_the_dependencies_of_a_manifest() {
    let manifest = "[dependencies]\ntokio = \"1\"\ntoken-vault-client.workspace = true\nv = { package = \"token-vault\" }\n[dev-dependencies.token-vault-proto]\npath = \"../proto\"";
    let found: Vec<_> = dependencies(manifest).into_iter().collect();
    assert_eq!(found, ["token-vault", "token-vault-client", "token-vault-proto"]);
}
