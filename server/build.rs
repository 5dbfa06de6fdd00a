//! The embedded migrations go stale unless the build watches their folder.

fn main() {
    println!("cargo:rerun-if-changed=../migrations");
}
