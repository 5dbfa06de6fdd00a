//! The binary under test, built by the test run itself so that it is never stale.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The folder of the profile with which this test was built: `target/debug`.
fn profile_dir() -> PathBuf {
    let test = env::current_exe().expect("a running program knows where it is");
    let profile = test.parent().and_then(Path::parent).expect("tests stand in target/<profile>/deps");
    profile.to_path_buf()
}

/// The target folder: `target`.
pub fn target_dir() -> PathBuf {
    profile_dir().parent().expect("a profile's folder has a parent").to_path_buf()
}

/// The `token-vault` binary, of the same profile as this test; or the one that `TOKEN_VAULT_BINARY` names.
pub fn token_vault() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(binary) = env::var_os("TOKEN_VAULT_BINARY") {
            return binary.into();
        }
        let profile = profile_dir();
        let name = match profile.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => "dev",
            Some(name) => name,
        };
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        // Remove what cargo told this test about its package, because build scripts that look at it would run again.
        for (name, _) in env::vars_os() {
            let prefixes = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];
            if name.to_str().is_some_and(|name| prefixes.iter().any(|start| name.starts_with(start))) {
                build.env_remove(name);
            }
        }
        // Build all binaries of the workspace, so that features unify as they did for this test.
        let built = build
            .args(["build", "--quiet", "--workspace", "--bins", "--profile", name, "--target-dir"])
            .arg(target_dir())
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        let binary = profile.join("token-vault");
        let well = built.as_ref().is_ok_and(std::process::ExitStatus::success) && binary.is_file();
        assert!(well, "{} can't be built ({built:?}): run `cargo build --workspace`", binary.display());
        binary
    })
}
