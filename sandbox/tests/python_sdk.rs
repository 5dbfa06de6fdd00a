//! Meta's official Python SDK works with the sandbox as it does with Meta.
//!
//! This needs `python3` with `venv`, and a package index on the first run. It fails where they are missing, because
//! a skipped test looks like a passed one.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of a test; clippy sees only test functions as tests"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use token_vault_sandbox::{Sandbox, SandboxConfig};

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python_sdk")
}

fn run(what: &str, command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| {
        panic!(
            "{what}: {:?} could not be started ({error}). The SDK witness needs python3.",
            command.get_program()
        )
    });
    assert!(
        output.status.success(),
        "{what} failed ({}).\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// A virtual environment with the pinned SDK, created once and kept between runs.
fn python_with_sdk() -> PathBuf {
    let requirements = scripts().join("requirements.txt");
    let pinned = std::fs::read_to_string(&requirements).unwrap();
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python_sdk");
    let (python, marker) = (home.join("bin/python"), home.join("installed.txt"));
    if python.exists() && std::fs::read_to_string(&marker).is_ok_and(|installed| installed == pinned) {
        return python;
    }
    run("making a virtual environment", Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home));
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]).arg(&requirements);
    run("installing the official SDK with pip", &mut install);
    std::fs::write(&marker, pinned).unwrap();
    python
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_official_python_sdk_is_content() {
    let sandbox = Sandbox::start(SandboxConfig::default()).await.unwrap();
    let url = sandbox.url();
    let output = tokio::task::spawn_blocking(move || {
        let python = python_with_sdk();
        let mut witness = Command::new(python);
        witness.arg(scripts().join("witness.py")).arg(url).env("NO_PROXY", "127.0.0.1");
        run("the SDK's witness", &mut witness)
    });
    let output = output.await.unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("the SDK is content"));
    assert!(sandbox.requests().iter().any(|request| {
        request.header("user-agent").is_some_and(|agent| agent.starts_with("fbbizsdk-python-"))
    }));
}
