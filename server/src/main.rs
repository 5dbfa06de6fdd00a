//! The `token-vault` binary. What it does stands in `cli`; here is what must hold before anything else.

use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, setrlimit};

/// A tenth more calls per second than the system's, for some ten megabytes.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // No secret in a core file, and no other process of this user may read our memory or environment. Both are
    // further lines of defence: where the system refuses, the vault still runs, and `serve` says so.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    // What this process writes (database, keys) is its user's alone.
    let _ = rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    // The one TLS provider of this process. It fails only when there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    token_vault::cli::main()
}
