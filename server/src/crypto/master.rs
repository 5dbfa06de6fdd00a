//! Master keys: they come from outside the database and do nothing but wrap other keys.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use aes_gcm::Aes256Gcm;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{CorruptCiphertext, RawKey, encode_parts, open_bytes, seal_bytes};
use crate::model::Secret;

/// A key text that can't be used. Never repeats the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MasterKeyError {
    /// A line is not `tvk1:<id>:<base64 of 32 bytes>`.
    #[error("line {0} is not of the form tvk1:<id>:<base64 of 32 bytes>")]
    Line(usize),
    /// Two lines have one id.
    #[error("the key id {0} stands there twice")]
    Twice(String),
    /// There is no key at all.
    #[error("there is no key in it")]
    Empty,
}

/// What a wrapped key belongs to.
#[derive(Debug, Clone, Copy)]
pub struct KeyBinding<'a> {
    /// The vault.
    pub vault: Uuid,
    /// What the key is for: `data`, `index`, `authorization`, …
    pub purpose: &'a str,
    /// Whose; empty for the vault's own.
    pub workspace: &'a str,
    /// The key's id.
    pub key_id: Uuid,
    /// The key's version.
    pub version: i32,
}

impl KeyBinding<'_> {
    fn encode(&self) -> Vec<u8> {
        encode_parts(&[
            b"tokenvault:wrapped-key:1",
            self.vault.as_bytes(),
            self.purpose.as_bytes(),
            self.workspace.as_bytes(),
            self.key_id.as_bytes(),
            &self.version.to_be_bytes(),
        ])
    }
}

/// The master keys that this process holds, by id.
pub struct MasterKeys(BTreeMap<String, Aes256Gcm>);

impl MasterKeys {
    /// Reads lines of the form `tvk1:<id>:<base64 of 32 bytes>`. Empty lines and those with `#` are passed over.
    pub fn parse(text: &Secret) -> Result<Self, MasterKeyError> {
        let mut keys = BTreeMap::new();
        for (number, line) in text.expose().lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (id, key) = parse_line(line).ok_or(MasterKeyError::Line(number + 1))?;
            if keys.insert(id.to_owned(), key.cipher()).is_some() {
                return Err(MasterKeyError::Twice(id.to_owned()));
            }
        }
        if keys.is_empty() { Err(MasterKeyError::Empty) } else { Ok(Self(keys)) }
    }

    /// The ids, in order.
    pub fn ids(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// Whether a key is held.
    pub fn holds(&self, id: &str) -> bool {
        self.0.contains_key(id)
    }

    /// Wraps a key under the master key `id`.
    pub fn wrap(
        &self,
        id: &str,
        binding: &KeyBinding<'_>,
        key: &RawKey,
    ) -> Result<Vec<u8>, CorruptCiphertext> {
        seal_bytes(self.0.get(id).ok_or(CorruptCiphertext)?, &binding.encode(), key.as_bytes())
    }

    /// Inverse of [`wrap`](Self::wrap).
    pub fn unwrap(
        &self,
        id: &str,
        binding: &KeyBinding<'_>,
        wrapped: &[u8],
    ) -> Result<RawKey, CorruptCiphertext> {
        let bytes = open_bytes(self.0.get(id).ok_or(CorruptCiphertext)?, &binding.encode(), wrapped)?;
        let bytes: [u8; 32] = bytes.as_slice().try_into().map_err(|_| CorruptCiphertext)?;
        Ok(RawKey::from_bytes(bytes))
    }

    /// A known text, sealed: who can open it later has the same key.
    pub fn check_value(&self, id: &str, vault: Uuid) -> Result<Vec<u8>, CorruptCiphertext> {
        seal_bytes(self.0.get(id).ok_or(CorruptCiphertext)?, &check_aad(id, vault), CHECK)
    }

    /// Whether the key held under `id` is the one that made the check value.
    pub fn passes_check(&self, id: &str, vault: Uuid, value: &[u8]) -> bool {
        self.0.get(id).is_some_and(|key| open_bytes(key, &check_aad(id, vault), value).is_ok())
    }
}

const CHECK: &[u8] = b"token-vault";

fn check_aad(id: &str, vault: Uuid) -> Vec<u8> {
    encode_parts(&[b"tokenvault:master-key-check:1", vault.as_bytes(), id.as_bytes()])
}

fn parse_line(line: &str) -> Option<(&str, RawKey)> {
    let (id, key) = line.strip_prefix("tvk1:")?.split_once(':')?;
    let id_ok = (1..=64).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    let bytes = Zeroizing::new(STANDARD.decode(key).ok()?);
    let bytes: [u8; 32] = bytes.as_slice().try_into().ok()?;
    id_ok.then(|| (id, RawKey::from_bytes(bytes)))
}

impl fmt::Debug for MasterKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

/// Writes a fresh master key to a new file that only its owner may read, and makes it durable.
/// An existing file is an error: a key is never written over.
pub fn create_key_file(path: &Path, id: &str) -> io::Result<Secret> {
    let key = RawKey::generate();
    let encoded = Zeroizing::new(STANDARD.encode(key.as_bytes()));
    let line = Secret::new(format!("tvk1:{id}:{}\n", encoded.as_str()));
    create_secret_file(path, &line)?;
    Ok(line)
}

/// Writes a secret to a new file that only its owner may read, and makes file and folder durable.
pub fn create_secret_file(path: &Path, content: &Secret) -> io::Result<()> {
    // Written aside and linked into place: nobody ever reads half of it, and an existing file is never touched.
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{}", Uuid::new_v4().simple()));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
        file.write_all(content.expose().as_bytes())?;
        file.sync_all()?;
        std::fs::hard_link(&aside, path)
    })();
    let removed = std::fs::remove_file(&aside);
    written.and(removed)?;
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(id: &str) -> String {
        format!("tvk1:{id}:{}", STANDARD.encode(id.repeat(32).as_bytes().first_chunk::<32>().unwrap()))
    }

    #[test]
    fn several_keys_comments_and_blank_lines_are_read() {
        let text = Secret::new(format!("# keys\n{}\n\n  {}  \n", line("a"), line("bb")));
        assert_eq!(MasterKeys::parse(&text).unwrap().ids(), ["a", "bb"]);
    }

    #[test]
    fn a_bad_line_is_named_by_its_number_only() {
        for (text, error) in [
            ("".to_owned(), MasterKeyError::Empty),
            ("# none\n".to_owned(), MasterKeyError::Empty),
            ("tvk1:a:AAAA".to_owned(), MasterKeyError::Line(1)),
            (format!("{}\nsecret", line("a")), MasterKeyError::Line(2)),
            (format!("{}\n{}", line("a"), line("a")), MasterKeyError::Twice("a".into())),
        ] {
            assert_eq!(MasterKeys::parse(&Secret::new(text)).unwrap_err(), error);
        }
    }

    #[test]
    fn a_wrapped_key_opens_only_where_it_belongs() {
        let keys = MasterKeys::parse(&Secret::new(format!("{}\n{}", line("a"), line("bb")))).unwrap();
        let binding = KeyBinding {
            vault: Uuid::nil(),
            purpose: "data",
            workspace: "acme",
            key_id: Uuid::nil(),
            version: 1,
        };
        let key = RawKey::generate();
        let wrapped = keys.wrap("a", &binding, &key).unwrap();
        assert_eq!(keys.unwrap("a", &binding, &wrapped).unwrap().as_bytes(), key.as_bytes());
        assert!(keys.unwrap("bb", &binding, &wrapped).is_err());
        assert!(keys.unwrap("a", &KeyBinding { workspace: "other", ..binding }, &wrapped).is_err());
        assert!(keys.unwrap("a", &KeyBinding { purpose: "index", ..binding }, &wrapped).is_err());
        let check = keys.check_value("a", Uuid::nil()).unwrap();
        assert!(keys.passes_check("a", Uuid::nil(), &check));
        assert!(!keys.passes_check("bb", Uuid::nil(), &check));
    }

    #[test]
    fn a_key_file_is_private_and_never_written_over() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        let line = create_key_file(&path, "k1").unwrap();
        assert_eq!(MasterKeys::parse(&line).unwrap().ids(), ["k1"]);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(create_key_file(&path, "k2").is_err());
    }
}
