//! The documents about the configuration, written from the table of settings: the reference in Markdown, and an
//! example file with every key.

use std::fmt::Write;

use super::MASTER_KEY_ENV;
use super::declare::{Default, Documented, environment_name, joined};
use super::defaults::sections;

/// Longest line of a comment in the example file.
const WIDTH: usize = 100;

const INTRODUCTION: &str = "\
# Configuration

<!-- Written by `token-vault config --markdown` from the tables in server/src/config/defaults/. Do not edit. -->

Values come from four places, and the later wins: the defaults, one TOML file (`--config FILE`), the environment, and
flags. The key `server.listen` is `TOKEN_VAULT__SERVER__LISTEN` in the environment, and so on for every key: upper case,
with two underscores for each dot. A list is written there as in TOML (`[\"1d\", \"2d\"]`) or with commas (`1d,2d`); the
file takes only the first form. An empty variable is as good as none; the file may leave no key empty.

The vault reads the configuration once, at start. It refuses unknown keys, and lists all mistakes at once, each with its
key and the place where it was set. Secrets are read from files that the configuration names; a secret in the place of
such a file is refused and not repeated. Relative paths start at the working directory of the process. Lengths of time are written as `10s`, `15m`, `36h`, `7d` or `1h 30m`.

[`token-vault.example.toml`](token-vault.example.toml) has every key with its default; `token-vault config --example`
prints it.
";

/// The reference, as in `docs/configuration.md`.
pub fn markdown() -> String {
    let mut page = INTRODUCTION.to_owned();
    for section in sections() {
        if !section.name.is_empty() {
            let _ = write!(page, "\n## `{}`\n", section.name);
        }
        if !section.about.is_empty() {
            let _ = write!(page, "\n{}\n", joined(section.about));
        }
        page.push_str(
            "\n| key and environment variable | value | default | meaning |\n| --- | --- | --- | --- |\n",
        );
        for setting in section.settings {
            let flag = setting.flag().map_or(String::new(), |flag| format!("<br>`{flag}`"));
            let _ = writeln!(
                page,
                "| `{}`<br>`{}`{flag} | {} | {} | {} |",
                setting.name(),
                environment_name(setting.name()),
                setting.allowed(),
                default_in_words(*setting),
                setting.doc(),
            );
        }
    }
    page
}

/// The example file, as it stands in `docs/token-vault.example.toml`: every key, with its default where it has one
/// and commented out where it has none.
pub fn example() -> String {
    let mut file = String::new();
    comment(
        &mut file,
        "Every key of Token Vault's configuration with its default. A key without a default is commented out, with \
         an example. See docs/configuration.md for the values that each key takes. Written by \
         `token-vault config --example`.",
    );
    comment(
        &mut file,
        &format!("The master key may also be given in the environment variable {MASTER_KEY_ENV}."),
    );
    for section in sections() {
        file.push('\n');
        if !section.name.is_empty() {
            let _ = writeln!(file, "[{}]", section.name);
        }
        for (at, setting) in section.settings.iter().enumerate() {
            if at > 0 {
                file.push('\n');
            }
            comment(&mut file, &setting.doc());
            let name = setting.name().rsplit('.').next().unwrap_or_default();
            let _ = match default_in_toml(*setting) {
                Ok(value) => writeln!(file, "{name} = {value}"),
                Err(example) => writeln!(file, "#{name} = {example}"),
            };
        }
    }
    file
}

/// The default in TOML, or an example if there is none.
fn default_in_toml(setting: &dyn Documented) -> Result<String, &'static str> {
    match setting.default() {
        Default::Value(text) if setting.is_bare() => Ok(text.to_owned()),
        Default::Value(text) => Ok(format!("\"{text}\"")),
        Default::Entries(entries) => Ok(format!("{entries:?}")),
        Default::Unset { example, .. } => Err(example),
    }
}

fn default_in_words(setting: &dyn Documented) -> String {
    match (setting.default(), default_in_toml(setting)) {
        (Default::Unset { meaning, .. }, _) => meaning.to_owned(),
        (Default::Value(text), _) => format!("`{text}`"),
        (_, Ok(value)) => format!("`{value}`"),
        (_, Err(_)) => String::new(),
    }
}

/// Adds a comment, broken at words.
fn comment(file: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH {
            file.push_str(&line);
            file.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    file.push_str(&line);
    file.push('\n');
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use figment::Figment;
    use figment::providers::{Format, Toml};

    use super::*;
    use crate::config::{Config, ConfigError, Flags};

    fn read(toml: &str) -> Result<Config, ConfigError> {
        Config::from_sources(Figment::from(Toml::string(toml)), Flags::default(), None)
    }

    #[test]
    fn the_documents_are_up_to_date() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        for (file, written, argument) in [
            ("configuration.md", markdown(), "--markdown"),
            ("token-vault.example.toml", example(), "--example"),
        ] {
            let stored = fs::read_to_string(docs.join(file)).unwrap_or_default();
            assert!(
                stored == written,
                "docs/{file} is stale; run: cargo run -- config {argument} > docs/{file}"
            );
        }
    }

    #[test]
    fn the_example_file_sets_every_key_to_its_default() {
        let file = example();
        let (set, unset) = (read(&file).unwrap(), read("").unwrap());
        assert_eq!(format!("{set:#?}"), format!("{unset:#?}"));
        assert_eq!(set.storage.url.expose(), unset.storage.url.expose());
        // The keys without a default are keys all the same: with their examples, the file has no unknown key.
        let uncommented: String = file
            .lines()
            .map(|line| {
                line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line).to_owned() + "\n"
            })
            .collect();
        let mistakes = read(&uncommented).map_or_else(|error| error.0, |_| Vec::new());
        assert!(!mistakes.iter().any(|mistake| mistake.contains("is not a key")), "{mistakes:?}");
        for section in sections() {
            for setting in section.settings {
                let name = setting.name().rsplit('.').next().unwrap();
                assert!(uncommented.lines().any(|line| line.starts_with(&format!("{name} = "))), "{name}");
            }
        }
    }

    #[test]
    fn every_setting_has_a_sentence_for_the_reference() {
        for setting in sections().flat_map(|section| section.settings) {
            let (name, doc) = (setting.name(), setting.doc());
            assert!(doc.ends_with('.') && !doc.contains('|'), "{name}: {doc}");
            assert!(!setting.allowed().is_empty(), "{name}");
        }
    }
}
