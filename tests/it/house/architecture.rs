//! Who may use whom: read out of the source itself, since the compiler allows every module of a crate to use
//! every other.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each module of the server, and those of ours that it may use. `main.rs` and `lib.rs` are left out: they
/// hold everything.
const MODULES: [(&str, &[&str]); 14] = [
    ("model", &[]),
    ("crypto", &["model"]),
    ("audit", &["crypto", "model"]),
    ("provider", &["model"]),
    ("store", &["model"]),
    ("oidc", &["model"]),
    ("telemetry", &[]),
    ("vault", &["audit", "crypto", "model", "oidc", "provider", "store"]),
    // Of `provider`, its words only: what a caller reports, and what belongs to a request.
    ("api", &["model", "provider", "vault"]),
    ("jobs", &["model", "vault"]),
    // What `api` and the others are configured with is theirs to say.
    ("config", &["api", "audit", "model", "oidc", "provider", "telemetry", "vault"]),
    ("serve", &["api", "config", "jobs", "model", "provider", "vault"]),
    ("cli", &["audit", "config", "crypto", "model", "serve", "telemetry", "vault"]),
    // Compiled by `fuzz/run` only.
    ("fuzzing", &["api", "config", "crypto", "model", "oidc", "provider", "vault"]),
];

/// Crates of others and of ours that stay behind one door, and which doors those are.
const CRATES: [(&str, &[&str]); 26] = [
    ("sqlx", &["store"]),
    ("reqwest", &["crypto", "oidc", "provider"]),
    ("jsonwebtoken", &["oidc"]),
    ("ring", &["oidc"]),
    ("aes_gcm", &["crypto"]),
    ("hmac", &["crypto", "provider"]),
    ("hpke", &["crypto"]),
    ("axum", &["api"]),
    ("tonic", &["api", "cli"]),
    ("tonic_health", &["api", "cli"]),
    ("tonic_reflection", &["api"]),
    ("tonic_types", &["api"]),
    ("hyper", &["api"]),
    ("hyper_util", &["api"]),
    ("tokio_rustls", &["api"]),
    ("x509_parser", &["api"]),
    ("governor", &["api"]),
    ("tower", &["api"]),
    ("tokio_cron_scheduler", &["jobs"]),
    ("croner", &["model"]),
    ("chrono", &["model"]),
    ("clap", &["cli"]),
    ("figment", &["config"]),
    ("token_vault_proto", &["api", "cli"]),
    ("token_vault_client", &["cli"]),
    ("token_vault_sandbox", &["cli", "provider"]),
];

/// Each crate of the workspace by its folder, and those of ours that it may depend on.
const MANIFESTS: [(&str, &[&str]); 6] = [
    ("proto", &[]),
    ("server/sandbox", &[]),
    ("client", &["token-vault-proto"]),
    ("server", &["token-vault-client", "token-vault-proto", "token-vault-sandbox"]),
    // The server itself only for histories, which need its clock and its hands on two replicas at once.
    ("tests", &["token-vault", "token-vault-proto", "token-vault-sandbox"]),
    ("fuzz", &["token-vault"]),
];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate stands in the workspace").to_path_buf()
}

/// The source without comments and without the insides of texts.
fn code_of(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("r#\"") {
            rest.find("\"#").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("'\"'") {
            3
        } else if first == '"' {
            text_end(rest)
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        // Lines stay lines.
        code.extend(rest[..skipped].matches('\n').map(|_| '\n'));
        rest = &rest[skipped..];
    }
    code
}

/// Length of the text that starts here, both quotes included.
fn text_end(source: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in source.bytes().enumerate().skip(1) {
        match byte {
            b'\\' if !escaped => escaped = true,
            b'"' if !escaped => return at + 1,
            _ => escaped = false,
        }
    }
    source.len()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn leading_word(code: &str) -> &str {
    let code = code.trim_start();
    &code[..code.bytes().position(|byte| !is_word(byte)).unwrap_or(code.len())]
}

/// The first names of a path's rest: one, or those of a `{…}` group.
fn heads(rest: &str) -> Vec<String> {
    let Some(group) = rest.trim_start().strip_prefix('{') else { return vec![leading_word(rest).to_owned()] };
    let mut depth = 0;
    let mut names = vec![leading_word(group).to_owned()];
    for (at, byte) in group.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 0 => break,
            b'}' => depth -= 1,
            b',' if depth == 0 => names.push(leading_word(&group[at + 1..]).to_owned()),
            _ => {}
        }
    }
    names
}

/// Every name that stands directly below the crate's root or is a crate, as a file of `depth` modules says it.
fn names(code: &str, depth: usize) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let bytes = code.as_bytes();
    // A module below this file may have the name of one below the root.
    let own: BTreeSet<_> = code.match_indices("mod ").map(|(at, _)| leading_word(&code[at + 4..])).collect();
    for (at, _) in code.match_indices("::") {
        let start = bytes[..at].iter().rposition(|&byte| !is_word(byte)).map_or(0, |before| before + 1);
        let (word, rest) = (&code[start..at], &code[at + 2..]);
        // `::name` begins a path too, unless a name or `>` stands before it.
        let before = code[..start].strip_suffix("::");
        let begins = before.is_none_or(|before| {
            !before.ends_with(|end: char| end == '>' || end == '_' || end.is_alphanumeric())
        });
        match word {
            "crate" | "token_vault" => found.extend(heads(rest)),
            // So many steps up that they end at the root.
            "super" => {
                let before = code[..start].trim_end_matches("super::");
                let steps = 1 + (start - before.len()) / "super::".len();
                if steps >= depth {
                    found.extend(heads(rest));
                }
            }
            _ if begins && !own.contains(word) => {
                found.insert(word.to_owned());
            }
            _ => {}
        }
    }
    // `use name;` and `use name as other;` have no `::`.
    for (at, _) in code.match_indices("use ") {
        let word = leading_word(&code[at + 4..]);
        if !own.contains(word) {
            found.insert(word.to_owned());
        }
    }
    found
}

/// What a file of the module `module`, so many modules deep, uses and may not.
fn violations(module: &str, depth: usize, source: &str) -> Vec<String> {
    let (_, allowed) = MODULES.iter().find(|(name, _)| *name == module).unwrap_or_else(|| {
        panic!("the module {module} is new: say in tests/it/house/architecture.rs what it may use")
    });
    let used = names(&code_of(source), depth);
    let modules = MODULES.iter().map(|(name, _)| *name);
    let foreign = modules.filter(|name| *name != module && !allowed.contains(name) && used.contains(*name));
    let closed = CRATES.iter().filter(|(name, doors)| !doors.contains(&module) && used.contains(*name));
    foreign.chain(closed.map(|(name, _)| *name)).map(|name| format!("{module} uses {name}")).collect()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let files = token_vault_tests::files_below(folder);
    files.into_iter().filter(|file| file.extension().is_some_and(|end| end == "rs")).collect()
}

/// A file's module path within the crate: `vault/keys.rs` is `["vault", "keys"]`.
fn module_path(root: &Path, file: &Path) -> Vec<String> {
    let inside = file.strip_prefix(root).expect("a file below the root").with_extension("");
    let mut path: Vec<_> = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if path.last().is_some_and(|last| last == "mod") {
        path.pop();
    }
    path
}

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
            // A crate may hide behind another name: `vault = { package = "token-vault" }`.
            let package = line.split('"').find(|part| part.starts_with("token-vault"));
            found.insert(package.filter(|_| line.contains("package")).unwrap_or(name).to_owned());
        }
    }
    found
}

#[test]
fn every_module_uses_only_what_stands_below_it() {
    let root = workspace().join("server/src");
    let files = sources(&root);
    assert!(files.len() > 50, "the source is not where it was: {} files", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let path = module_path(&root, &file);
        let Some(module) = path.first().filter(|name| !["main", "lib"].contains(&name.as_str())) else {
            continue;
        };
        let source = fs::read_to_string(&file).expect("source is text");
        wrong.extend(violations(module, path.len(), &source).into_iter().map(|why| (file.clone(), why)));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
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
    let root = workspace().join("server/src/provider");
    for file in sources(&root) {
        let in_tests = file.components().any(|part| part.as_os_str().to_string_lossy().starts_with("tests"));
        let code = code_of(&fs::read_to_string(&file).expect("source is text"));
        assert!(in_tests || !names(&code, 9).contains("token_vault_sandbox"), "{}", file.display());
    }
}

#[test]
fn the_checker_finds_planted_violations_and_nothing_else() {
    let caught = [
        ("model", 1, "use crate::store::Session;"),
        ("store", 2, "use crate::{\n    model::{A, B},\n    vault::Vault,\n};"),
        ("vault", 2, "fn f() { crate::api::serve(); }"),
        ("vault", 1, "use super::cli;"),
        ("vault", 2, "use super::super::config::Config;"),
        ("crypto", 1, "fn f() -> sqlx::Error { todo!() }"),
        ("vault", 1, "use sqlx;"),
        ("store", 1, "mod audit; use crate::audit::Sink;"),
        ("store", 1, "pub use ::reqwest::Url;"),
        ("provider", 3, "type Key = aes_gcm::Aes256Gcm;"),
        ("config", 1, "use tonic::Status;"),
        ("cli", 1, "use axum::Router;"),
        ("jobs", 2, "use crate::api::serve;"),
        ("vault", 1, "use chrono::Utc;"),
        ("serve", 1, "let a = \"//\"; use tower::Layer;"),
    ];
    for (module, depth, source) in caught {
        assert_eq!(violations(module, depth, source).len(), 1, "{module}: {source}");
    }
    let fine = [
        ("vault", 2, "use crate::store::{Session, reqwest}; use super::config; use self::cli::Options;"),
        (
            "vault",
            1,
            "// use sqlx::Row;\nlet a = \"sqlx::Row \\\" tonic::Code\"; let b = r#\"crate::api::\"#;",
        ),
        ("store", 1, "use sqlx::Row; use crate::model::Clock;"),
        ("store", 1, "mod audit; pub use audit::Origin; fn f() { audit::g(); }"),
        ("model", 2, "let x = super::store::open(); let y = other::vault::f(); let z = <A>::sqlx::f();"),
    ];
    for (module, depth, source) in fine {
        let wrong = violations(module, depth, source);
        assert!(wrong.is_empty(), "{module}: {wrong:?}");
    }
    let manifest = "[dependencies]\ntokio = \"1\"\ntoken-vault-client.workspace = true\nv = { package = \"token-vault\" }\n[dev-dependencies.token-vault-proto]\npath = \"../proto\"";
    let found: Vec<_> = dependencies(manifest).into_iter().collect();
    assert_eq!(found, ["token-vault", "token-vault-client", "token-vault-proto"]);
}
