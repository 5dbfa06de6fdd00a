//! The `token-vault` binary. Its commands are in `cli`; here is what must be set before anything else.

use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, setrlimit};

/// Handles a tenth more calls per second than the system's allocator, for about ten megabytes.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // No secret in a core file, and no other process of this user may read our memory or environment. Where the system
    // refuses that, the vault runs nevertheless, and `serve` warns.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    // Only this user may read what the process writes (database, keys).
    let _ = rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    // The TLS provider of this process. Installing it fails only if there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    token_vault::cli::main()
}
