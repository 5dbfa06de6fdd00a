//! How a setting is declared: the form of the table in `defaults/`.

use super::ENV_PREFIX;
use super::values::Describe;

/// One key of the configuration: everything that is known about it.
pub(super) struct Setting<K> {
    pub(super) name: &'static str,
    /// What kind of value it takes, bounds included.
    pub(super) kind: K,
    pub(super) default: Default,
    /// The flag that sets it on the command line.
    flag: Option<&'static str>,
    /// The lines of its doc comment.
    doc: &'static [&'static str],
}

/// What applies while a key is not set.
#[derive(Clone, Copy)]
pub(super) enum Default {
    /// A value, written as in the environment.
    Value(&'static str),
    /// The entries of a list.
    Entries(&'static [&'static str]),
    /// The key has no default value.
    Unset {
        /// What that means, in words.
        meaning: &'static str,
        /// A value as TOML writes it, for the example file.
        example: &'static str,
    },
}

/// A setting of this name and kind; one of the methods below says what holds while it is not set.
pub(super) const fn setting<K: Copy>(name: &'static str, kind: K) -> Setting<K> {
    Setting { name, kind, default: Default::Unset { meaning: "", example: "" }, flag: None, doc: &[] }
}

impl<K: Copy> Setting<K> {
    pub(super) const fn default(mut self, value: &'static str) -> Self {
        self.default = Default::Value(value);
        self
    }

    pub(super) const fn entries(mut self, entries: &'static [&'static str]) -> Self {
        self.default = Default::Entries(entries);
        self
    }

    /// Unset means `meaning`. `example` is a value as TOML writes it.
    pub(super) const fn unset(mut self, meaning: &'static str, example: &'static str) -> Self {
        self.default = Default::Unset { meaning, example };
        self
    }

    pub(super) const fn flag(mut self, flag: &'static str) -> Self {
        self.flag = Some(flag);
        self
    }

    pub(super) const fn documented(mut self, doc: &'static [&'static str]) -> Self {
        self.doc = doc;
        self
    }
}

/// A table of the configuration file.
pub(super) struct Section {
    /// Its name; empty for the keys above all tables.
    pub(super) name: &'static str,
    /// What an operator should know about all of it, in lines.
    pub(super) about: &'static [&'static str],
    pub(super) settings: &'static [&'static dyn Documented],
}

/// The facts in the reference about a setting of any kind.
pub(super) trait Documented: Sync {
    fn name(&self) -> &'static str;
    fn default(&self) -> Default;
    fn flag(&self) -> Option<&'static str>;
    fn doc(&self) -> String;
    /// Which values it takes, in words.
    fn allowed(&self) -> String;
    /// Whether TOML writes its value without quotation marks.
    fn is_bare(&self) -> bool;
}

impl<K: Describe + Sync> Documented for Setting<K> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn default(&self) -> Default {
        self.default
    }

    fn flag(&self) -> Option<&'static str> {
        self.flag
    }

    fn doc(&self) -> String {
        joined(self.doc)
    }

    fn allowed(&self) -> String {
        self.kind.allowed()
    }

    fn is_bare(&self) -> bool {
        self.kind.is_bare()
    }
}

/// The environment variable that sets `key`.
pub(super) fn environment_name(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
}

/// One paragraph from the lines of a doc comment.
pub(super) fn joined(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

/// Declares settings, section by section, in the order of the reference. The doc comment of a setting is its
/// sentence in the reference, and none can be declared without one.
macro_rules! settings {
    ($(
        $(#[doc = $about:literal])*
        [$section:literal] {
            $( $(#[doc = $doc:literal])+ $name:ident: $kind:ty = $setting:expr; )*
        }
    )*) => {
        $($( pub(in crate::config) static $name: $crate::config::declare::Setting<$kind> = $setting.documented(&[$($doc),+]); )*)*

        /// Every setting.
        pub(in crate::config) static SECTIONS: &[$crate::config::declare::Section] = &[$(
            $crate::config::declare::Section { name: $section, about: &[$($about),*], settings: &[$(&$name),*] },
        )*];
    };
}
pub(super) use settings;
