//! The name or path by which this program was called, so that the commands that it prints work as pasted.

use std::path::Path;

use clap::Command;

/// The name that documentation and help texts write.
const WRITTEN: &str = "token-vault";

/// How to call this program again: `token-vault`, a path, or `cargo run --` where cargo started it.
pub(in crate::cli) fn program() -> String {
    let called = std::env::args_os().next().unwrap_or_default();
    name(&called.to_string_lossy(), std::env::var_os("CARGO").is_some())
}

fn name(called: &str, by_cargo: bool) -> String {
    let path = Path::new(called);
    if by_cargo && path.components().any(|part| part.as_os_str() == "target") {
        return "cargo run --quiet --".to_owned();
    }
    match called {
        "" => WRITTEN.to_owned(),
        _ if called.contains([' ', '\'', '"', '$']) => format!("'{}'", called.replace('\'', r"'\''")),
        _ => called.to_owned(),
    }
}

/// The text with this program's name in the commands that it quotes in backticks.
pub(in crate::cli) fn with_name(text: &str) -> String {
    text.replace(&format!("`{WRITTEN} "), &format!("`{} ", program()))
}

/// The command with this program's name in the examples of its help, and of its subcommands'.
pub(in crate::cli) fn with_name_in_help(mut command: Command) -> Command {
    let rename = |text: String| text.replace(&format!("  {WRITTEN}"), &format!("  {}", program()));
    if let Some(examples) = command.get_after_help().map(ToString::to_string) {
        command = command.after_help(rename(examples));
    }
    command.mut_subcommands(with_name_in_help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_works_as_pasted() {
        assert_eq!(name("token-vault", false), "token-vault");
        assert_eq!(name("/usr/bin/token-vault", false), "/usr/bin/token-vault");
        assert_eq!(name("target/debug/token-vault", true), "cargo run --quiet --");
        assert_eq!(name("target/debug/token-vault", false), "target/debug/token-vault");
        assert_eq!(
            name("/usr/bin/token-vault", true),
            "/usr/bin/token-vault",
            "cargo's variable may be inherited"
        );
        assert_eq!(name("/my tools/token-vault", false), "'/my tools/token-vault'");
        assert_eq!(name("", false), "token-vault");
    }
}
