//! Takes settings out of the merged sources one by one, and collects every mistake.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use figment::value::{Dict, Num, Value};
use figment::{Figment, Profile, Provider, Source};

use super::ConfigError;
use super::declare::{Default, Setting, environment_name};
use super::values::{Describe, List, Parse, Switch, Tables};
use crate::model::{BadValue, Secret, exposure_of, shown_path};

/// The merged sources. Reading a key removes it, so a key that is left at the end is unknown.
pub(super) struct Reader {
    figment: Figment,
    left: Dict,
    mistakes: Vec<String>,
    warnings: Vec<String>,
}

impl Reader {
    /// Fails only when a source can't be read at all.
    pub(super) fn new(figment: Figment) -> Result<Self, ConfigError> {
        let mut data = figment
            .data()
            .map_err(|error| ConfigError(error.into_iter().map(|e| e.to_string()).collect()))?;
        let left = data.remove(&Profile::Default).unwrap_or_default();
        Ok(Self { figment, left, mistakes: Vec::new(), warnings: Vec::new() })
    }

    /// Whether somebody has set `key`.
    pub(super) fn is_set(&self, key: &str) -> bool {
        self.figment.contains(key)
    }

    /// Notes that `key` breaks `rule`, a sentence that follows the key.
    pub(super) fn mistake(&mut self, key: &str, rule: impl AsRef<str>) {
        let source = self.source(key);
        self.mistakes.push(format!("{key}{source} {}", rule.as_ref()));
    }

    /// Whether a mistake was noted for `key`.
    pub(super) fn is_mistaken(&self, key: &str) -> bool {
        self.mistakes.iter().any(|mistake| mistake.split(' ').next() == Some(key))
    }

    /// Notes something that works but that the operator should look at.
    pub(super) fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    /// The value of a setting that has a default. The default also replaces an invalid value.
    #[expect(clippy::expect_used, reason = "the defaults are constants of ours, and a test reads them all")]
    pub(super) fn get<K: Parse>(&mut self, setting: &Setting<K>) -> K::Value {
        self.find(setting).unwrap_or_else(|| {
            let default = if let Default::Value(default) = setting.default { default } else { "" };
            setting.kind.parse(default).expect("a default that its own rule allows")
        })
    }

    /// A yes or no. Unlike other settings, an empty one is a mistake.
    pub(super) fn flag(&mut self, setting: &Setting<Switch>) -> bool {
        let default = matches!(setting.default, Default::Value("true"));
        let Some(value) = take(&mut self.left, setting.name) else { return default };
        let word = match &value {
            Value::Bool(_, flag) => Some(flag.to_string()),
            _ => scalar(&value),
        };
        let flag = setting.kind.parse(&word.unwrap_or_default());
        flag.unwrap_or_else(|rule| {
            self.mistake(setting.name, rule);
            default
        })
    }

    /// The value of a setting; nothing when it is unset, empty or mistaken.
    pub(super) fn find<K: Parse>(&mut self, setting: &Setting<K>) -> Option<K::Value> {
        let value = take(&mut self.left, setting.name)?;
        let parsed = match scalar(&value).as_deref() {
            Some("") if self.is_from_environment(setting.name) => return None,
            Some("") => Err("is empty: give it a value, or remove the key".to_owned()),
            Some(text) => setting.kind.parse(text),
            None => Err(setting.kind.rule()),
        };
        parsed.map_err(|rule| self.mistake(setting.name, rule)).ok()
    }

    /// The values of a list, or its default. Mistaken entries are left out. Only the environment may write a list as one
    /// text with commas.
    pub(super) fn list<K: Parse>(&mut self, setting: &Setting<List<K>>) -> Vec<K::Value> {
        let key = setting.name;
        let default = || match setting.default {
            Default::Entries(entries) => entries.iter().map(|&text| text.to_owned()).collect(),
            Default::Value(_) | Default::Unset { .. } => Vec::new(),
        };
        let value = take(&mut self.left, key);
        let is_text = value.as_ref().is_some_and(|value| !matches!(value, Value::Array(..)));
        let texts = match value {
            None => Some(default()),
            Some(Value::Array(_, values)) => values.iter().map(scalar).collect::<Option<Vec<_>>>(),
            Some(value) if self.is_from_environment(key) => scalar(&value).map(|text| match text.as_str() {
                "" => default(),
                text => text
                    .split(',')
                    .map(|part| part.trim().to_owned())
                    .filter(|part| !part.is_empty())
                    .collect(),
            }),
            Some(_) => None,
        };
        let Some(texts) = texts else {
            let form = if is_text { "must be a list in brackets" } else { "must be a list of texts" };
            self.mistake(key, format!("{form}: {}", setting.kind.allowed()));
            return Vec::new();
        };
        let mut parsed = Vec::new();
        for (at, text) in texts.iter().enumerate() {
            match setting.kind.each.parse(text) {
                Ok(value) => parsed.push(value),
                Err(rule) => self.mistake(key, format!("[{at}] {rule}")),
            }
        }
        let different: HashSet<_> = texts.iter().collect();
        if different.len() < texts.len() && !self.is_mistaken(key) {
            self.mistake(key, "must name nothing twice");
        }
        let few = setting.kind.most.is_none_or(|most| (1..=most).contains(&texts.len()));
        if !few && !self.is_mistaken(key) {
            self.mistake(key, setting.kind.rule());
        }
        parsed
    }

    /// A list of tables.
    pub(super) fn tables(&mut self, setting: &Setting<Tables>) -> Vec<Table> {
        let Some(value) = take(&mut self.left, setting.name) else { return Vec::new() };
        let dicts: Option<Vec<_>> = match value {
            Value::Array(_, values) => values.into_iter().map(Value::into_dict).collect(),
            _ => None,
        };
        let Some(dicts) = dicts else {
            self.mistake(setting.name, setting.kind.rule());
            return Vec::new();
        };
        let table = |(at, left)| Table { at, left, mistakes: Vec::new() };
        dicts.into_iter().enumerate().map(table).collect()
    }

    /// Whether a file that holds a secret is one that others can't read; a missing one is. Notes the mistake.
    pub(super) fn is_private(&mut self, key: &str, file: &Path) -> bool {
        let exposed = exposure_of(file);
        if let Some(why) = &exposed {
            self.mistake(key, format!("is refused: {why}"));
        }
        exposed.is_none()
    }

    /// The one secret in a file, without the white space around it. `at` is the file's place among several.
    pub(super) fn secret(&mut self, key: &str, at: Option<usize>, file: &Path) -> Option<Secret> {
        if !self.is_private(key, file) {
            return None;
        }
        let at = at.map_or(String::new(), |at| format!("[{at}] "));
        let shown = shown_path(file);
        let text = match fs::read_to_string(file) {
            Ok(text) => Secret::new(text),
            Err(error) => {
                self.mistake(key, format!("{at}names {shown}, which can't be read: {error}"));
                return None;
            }
        };
        let trimmed = text.expose().trim();
        if trimmed.is_empty() || trimmed.len() > 256 || !trimmed.bytes().all(|b| b.is_ascii_graphic()) {
            self.mistake(key, format!("{at}names {shown}, which must hold one secret and nothing else"));
            return None;
        }
        Some(Secret::new(trimmed.to_owned()))
    }

    /// The warnings if all is well; otherwise every mistake, unknown keys among them.
    pub(super) fn finish(mut self) -> Result<Vec<String>, ConfigError> {
        let mut unknown = Vec::new();
        leaves(&self.left, "", &mut unknown);
        for key in unknown {
            self.mistake(&key, "is not a key of this version");
        }
        if self.mistakes.is_empty() { Ok(self.warnings) } else { Err(ConfigError(self.mistakes)) }
    }

    /// As [`finish`](Self::finish), for a command that needs one section: keys of others are ignored.
    pub(super) fn finish_section(mut self, section: &str) -> Result<Vec<String>, ConfigError> {
        let mut unknown = Vec::new();
        leaves(&self.left, "", &mut unknown);
        for key in
            unknown.iter().filter(|key| key.strip_prefix(section).is_some_and(|key| key.starts_with('.')))
        {
            self.mistake(key, "is not a key of this version");
        }
        if self.mistakes.is_empty() { Ok(self.warnings) } else { Err(ConfigError(self.mistakes)) }
    }

    /// The mistakes in the keys that were read. All other keys are ignored.
    pub(super) fn finish_what_was_read(self) -> Result<(), ConfigError> {
        if self.mistakes.is_empty() { Ok(()) } else { Err(ConfigError(self.mistakes)) }
    }

    fn is_from_environment(&self, key: &str) -> bool {
        self.figment.find_metadata(key).is_some_and(|metadata| metadata.name.contains("environment"))
    }

    /// Describes for people where `key` was set.
    fn source(&self, key: &str) -> String {
        let Some(metadata) = self.figment.find_metadata(key) else { return String::new() };
        match &metadata.source {
            Some(Source::File(path)) => format!(" (in {})", path.display()),
            _ if self.is_from_environment(key) => format!(" (from {})", environment_name(key)),
            _ => " (from the command line)".to_owned(),
        }
    }
}

/// One table of a list. A key that is left at the end is an unknown one.
pub(super) struct Table {
    at: usize,
    left: Dict,
    mistakes: Vec<String>,
}

impl Table {
    /// Notes that `key` of this table breaks `rule`.
    pub(super) fn mistake(&mut self, key: &str, rule: &str) {
        self.mistakes.push(format!("[{}].{key} {rule}", self.at));
    }

    /// A text that must be there. Notes what `parse` finds wrong with it.
    pub(super) fn parsed<T>(
        &mut self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, BadValue>,
    ) -> Result<T, BadValue> {
        let text = self.left.remove(key).as_ref().and_then(scalar).unwrap_or_default();
        parse(&text).inspect_err(|bad| self.mistake(key, &bad.rule))
    }

    /// A list of texts, or the one word that stands for a list.
    pub(super) fn texts(&mut self, key: &str, word: &str) -> Option<Vec<String>> {
        match self.left.remove(key) {
            None => Some(Vec::new()),
            Some(Value::Array(_, values)) => values.iter().map(scalar).collect(),
            Some(value) => scalar(&value).filter(|text| text == word).map(|text| vec![text]),
        }
    }

    /// Passes the mistakes, unknown keys included, on to `reader` as mistakes of `list`.
    pub(super) fn finish(mut self, reader: &mut Reader, list: &str) {
        let unknown: Vec<_> = self.left.keys().cloned().collect();
        for key in unknown {
            self.mistake(&key, "is not a key of this version");
        }
        for mistake in self.mistakes {
            reader.mistake(list, mistake);
        }
    }
}

/// Removes the value at a dotted key, and sections that it leaves empty.
fn take(dict: &mut Dict, key: &str) -> Option<Value> {
    let Some((section, rest)) = key.split_once('.') else { return dict.remove(key) };
    let Some(Value::Dict(_, inner)) = dict.get_mut(section) else { return None };
    let value = take(inner, rest);
    if inner.is_empty() {
        dict.remove(section);
    }
    value
}

/// Text as it is; whole numbers as they are written, since the environment's `TOKEN_VAULT__…=1020` is one. No key takes
/// anything else, except a switch.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(_, text) => Some(text.trim().to_owned()),
        Value::Char(_, character) => Some(character.to_string()),
        Value::Num(_, number) => whole(*number),
        Value::Empty(..) => Some(String::new()),
        Value::Bool(..) | Value::Dict(..) | Value::Array(..) => None,
    }
}

fn whole(number: Num) -> Option<String> {
    number.to_u128().map(|n| n.to_string()).or_else(|| number.to_i128().map(|n| n.to_string()))
}

/// The dotted keys of everything in `dict`; an empty section counts as a key.
fn leaves(dict: &Dict, prefix: &str, into: &mut Vec<String>) {
    for (name, value) in dict {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            Value::Dict(_, inner) if !inner.is_empty() => leaves(inner, &key, into),
            Value::Dict(..) => {}
            _ => into.push(key),
        }
    }
}

/// One mistake, or a list of several.
pub(super) fn list(mistakes: &[String]) -> String {
    match mistakes {
        [one] => format!("configuration: {one}"),
        many => format!("configuration: {} mistakes:\n  - {}", many.len(), many.join("\n  - ")),
    }
}
