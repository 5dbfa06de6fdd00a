//! Kinds of configuration values: how each is read, and which values it allows. The mistakes that people see and
//! the reference in `docs/configuration.md` are written from the same words.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use url::Url;

use crate::model::{self, Timestamp};
use crate::provider::is_loopback;
use crate::telemetry;

/// What a kind of value allows, in words.
pub(super) trait Describe {
    /// What follows "must be": `a number from 1 to 64`.
    fn allowed(&self) -> String;

    /// Examples, where the words alone are not enough.
    fn such_as(&self) -> &'static str {
        ""
    }

    /// Whether TOML writes it without quotation marks.
    fn is_bare(&self) -> bool {
        false
    }

    /// The whole rule, as it follows the key in a mistake.
    fn rule(&self) -> String {
        match self.such_as() {
            "" => format!("must be {}", self.allowed()),
            example => format!("must be {}, such as {example}", self.allowed()),
        }
    }
}

/// A kind of single value.
pub(super) trait Parse: Describe {
    type Value;

    /// Reads a value. The error is the sentence that follows the key.
    fn parse(&self, text: &str) -> Result<Self::Value, String>;
}

/// A length of time within bounds. Both bounds are allowed values, and both are written as people write them.
#[derive(Clone, Copy)]
pub(super) struct Length(pub(super) &'static str, pub(super) &'static str);

impl Describe for Length {
    fn allowed(&self) -> String {
        format!("a length of time from {} to {}", self.0, self.1)
    }

    fn such_as(&self) -> &'static str {
        "\"36h\" or \"7d\""
    }
}

impl Parse for Length {
    type Value = Duration;

    fn parse(&self, text: &str) -> Result<Duration, String> {
        let read = |text| humantime::parse_duration(text).map_err(|_| self.rule());
        let length = read(text)?;
        if (read(self.0)?..=read(self.1)?).contains(&length) { Ok(length) } else { Err(self.rule()) }
    }
}

/// A whole number within bounds, both included.
#[derive(Clone, Copy)]
pub(super) struct Number<T>(pub(super) T, pub(super) T);

impl<T: Display> Describe for Number<T> {
    fn allowed(&self) -> String {
        format!("a number from {} to {}", self.0, self.1)
    }

    fn is_bare(&self) -> bool {
        true
    }
}

impl<T: Display + FromStr + PartialOrd + Copy> Parse for Number<T> {
    type Value = T;

    fn parse(&self, text: &str) -> Result<T, String> {
        text.parse().ok().filter(|number| (self.0..=self.1).contains(number)).ok_or_else(|| self.rule())
    }
}

/// Yes or no.
#[derive(Clone, Copy)]
pub(super) struct Switch;

impl Describe for Switch {
    fn allowed(&self) -> String {
        "true or false".to_owned()
    }

    fn is_bare(&self) -> bool {
        true
    }
}

impl Parse for Switch {
    type Value = bool;

    fn parse(&self, text: &str) -> Result<bool, String> {
        text.parse().map_err(|_| self.rule())
    }
}

/// A file or folder, described by these words. A relative path starts at the working directory.
#[derive(Clone, Copy)]
pub(super) struct FilePath(pub(super) &'static str);

impl Describe for FilePath {
    fn allowed(&self) -> String {
        self.0.to_owned()
    }
}

impl Parse for FilePath {
    type Value = PathBuf;

    fn parse(&self, text: &str) -> Result<PathBuf, String> {
        if is_path(text) {
            Ok(PathBuf::from(text))
        } else {
            Err(format!(
                "{}; what stands there looks like a secret itself, which belongs into a file (a file of such a name in \
                 the working directory is ./NAME)",
                self.rule()
            ))
        }
    }
}

/// The longest path that the system opens.
const LONGEST_PATH: usize = 4_096;
/// From this length on, a word of letters and digits alone is more likely a secret than the name of a file.
const SHORTEST_SECRET: usize = 20;

/// Whether `text` can be a path. Secrets that stand where their file's path belongs would otherwise become names of
/// files, which are in logs and messages.
fn is_path(text: &str) -> bool {
    const SECRETS: [&str; 8] =
        ["tvk1:", "tva_", "tvbg1-sealing:", "tvbg1-opening:", "-----BEGIN", "hvs.", "hvb.", "hvr."];
    let is_word = text.len() >= SHORTEST_SECRET
        && text.bytes().any(|byte| byte.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+=_".contains(&byte));
    (1..LONGEST_PATH).contains(&text.len())
        && !text.chars().any(char::is_control)
        && !SECRETS.iter().any(|secret| text.starts_with(secret))
        && !is_word
        && uuid::Uuid::parse_str(text).is_err()
}

/// One of several names.
#[derive(Clone, Copy)]
pub(super) struct Choice<T: 'static>(pub(super) &'static [(&'static str, T)]);

impl<T> Describe for Choice<T> {
    fn allowed(&self) -> String {
        let names: Vec<_> = self.0.iter().map(|(name, _)| *name).collect();
        match names.split_last() {
            Some((last, [])) => (*last).to_owned(),
            Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
            None => String::new(),
        }
    }
}

impl<T: Copy> Parse for Choice<T> {
    type Value = T;

    fn parse(&self, text: &str) -> Result<T, String> {
        let found = self.0.iter().find(|(name, _)| *name == text);
        found.map(|(_, value)| *value).ok_or_else(|| self.rule())
    }
}

/// The times of a job, as a cron expression. `None`: the job is switched off.
#[derive(Clone, Copy)]
pub(super) struct Cron;

/// The word that switches a job off.
const NO_TIMES: &str = "off";

impl Describe for Cron {
    fn allowed(&self) -> String {
        format!("a cron expression, or {NO_TIMES}")
    }
}

impl Parse for Cron {
    type Value = Option<model::Cron>;

    fn parse(&self, text: &str) -> Result<Option<model::Cron>, String> {
        if text == NO_TIMES {
            return Ok(None);
        }
        let cron =
            model::Cron::parse(text).map_err(|error| format!("{error}; {NO_TIMES} switches the job off"))?;
        match cron.next_after(Timestamp::EPOCH) {
            Some(_) => Ok(Some(cron)),
            None => Err(format!(
                "is never due, since there is no such day: give another one, or write {NO_TIMES} to switch the job off"
            )),
        }
    }
}

/// A level, or levels of parts of the program.
#[derive(Clone, Copy)]
pub(super) struct LogLevel;

impl Describe for LogLevel {
    fn allowed(&self) -> String {
        "a level (error, warn, info, debug, trace), or a list of levels of parts".to_owned()
    }

    fn such_as(&self) -> &'static str {
        "info,token_vault::vault=debug"
    }
}

impl Parse for LogLevel {
    type Value = String;

    fn parse(&self, text: &str) -> Result<String, String> {
        if telemetry::is_level(text) { Ok(text.to_owned()) } else { Err(self.rule()) }
    }
}

/// A URL to which secrets may be sent, or from which keys may come: over TLS, or to this machine.
#[derive(Clone, Copy)]
pub(super) struct SecureUrl {
    /// Whether it may have a query.
    pub(super) query: bool,
    pub(super) example: &'static str,
}

impl Describe for SecureUrl {
    fn allowed(&self) -> String {
        let parts = if self.query { "user name or fragment" } else { "user name, query or fragment" };
        format!("an https:// URL without {parts} (http:// only for a loopback host)")
    }

    fn such_as(&self) -> &'static str {
        self.example
    }
}

impl Parse for SecureUrl {
    type Value = Url;

    fn parse(&self, text: &str) -> Result<Url, String> {
        let url = Url::parse(text).map_err(|_| self.rule())?;
        let safe = url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url));
        let plain = url.username().is_empty()
            && url.password().is_none()
            && url.fragment().is_none()
            && (self.query || url.query().is_none())
            && url.has_host();
        if safe && plain { Ok(url) } else { Err(self.rule()) }
    }
}

/// A text that `K` can parse. It is kept as it was written.
#[derive(Clone, Copy)]
pub(super) struct Verbatim<K>(pub(super) K);

impl<K: Describe> Describe for Verbatim<K> {
    fn allowed(&self) -> String {
        self.0.allowed()
    }

    fn such_as(&self) -> &'static str {
        self.0.such_as()
    }
}

impl<K: Parse> Parse for Verbatim<K> {
    type Value = String;

    fn parse(&self, text: &str) -> Result<String, String> {
        self.0.parse(text).map(|_| text.to_owned())
    }
}

/// A text that passes its own check.
pub(super) struct Checked<T: 'static> {
    pub(super) allowed: &'static str,
    pub(super) such_as: &'static str,
    pub(super) parse: fn(&str) -> Option<T>,
}

// Written by hand, because derived ones would require `Clone` and `Copy` of `T`.
impl<T> Clone for Checked<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Checked<T> {}

impl<T> Describe for Checked<T> {
    fn allowed(&self) -> String {
        self.allowed.to_owned()
    }

    fn such_as(&self) -> &'static str {
        self.such_as
    }
}

impl<T> Parse for Checked<T> {
    type Value = T;

    fn parse(&self, text: &str) -> Result<T, String> {
        (self.parse)(text).ok_or_else(|| self.rule())
    }
}

/// Several values of one kind. A single text, as the environment gives it, is split at commas.
#[derive(Clone, Copy)]
pub(super) struct List<K> {
    pub(super) each: K,
    /// What the entries are, in the plural: `lengths of time from 1m to 60d`.
    pub(super) plural: &'static str,
    /// How many there may be at most; at least one is then needed.
    pub(super) most: Option<usize>,
}

impl<K: Describe> Describe for List<K> {
    fn allowed(&self) -> String {
        let plural = self.plural;
        self.most.map_or_else(|| format!("a list of {plural}"), |most| format!("1 to {most} {plural}"))
    }
}

/// A list of tables, such as `[{ value = "…", role = "…" }]`; the names are those of their columns.
#[derive(Clone, Copy)]
pub(super) struct Tables(pub(super) &'static [&'static str]);

impl Describe for Tables {
    fn allowed(&self) -> String {
        format!("a list of tables with {}", self.0.join(", "))
    }

    fn is_bare(&self) -> bool {
        true
    }
}
