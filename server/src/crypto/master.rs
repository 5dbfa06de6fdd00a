//! Master keys: they come from outside the database and only wrap other keys.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use aes_gcm::Aes256Gcm;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::transit::Transit;
use super::{RawKey, WrapError, encode_parts, open_bytes, seal_bytes};
use crate::model::Secret;

/// A key text that can't be used. Never repeats the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MasterKeyError {
    #[error("line {0} is not of the form tvk1:<id>:<base64 of 32 bytes>")]
    Line(usize),
    #[error("the key id {0} is there twice")]
    Twice(String),
    #[error("it holds no key")]
    Empty,
}

/// What a wrapped key belongs to.
#[derive(Debug, Clone, Copy)]
pub struct KeyBinding<'a> {
    pub vault: Uuid,
    /// What the key is for: `data`, `index`, `authorization`, …
    pub purpose: &'a str,
    /// Empty for the vault's own keys.
    pub workspace: &'a str,
    pub key_id: Uuid,
    pub version: i32,
}

impl KeyBinding<'_> {
    pub(super) fn encode(&self) -> Vec<u8> {
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

/// The master keys that this process holds: those of the key file in its order, then those of the key service.
#[derive(Clone, Default)]
pub struct MasterKeys {
    local: Vec<(String, Arc<Aes256Gcm>)>,
    transit: Option<Arc<Transit>>,
}

impl MasterKeys {
    /// Parses lines of the form `tvk1:<id>:<base64 of 32 bytes>`. Empty lines and comments (`#`) are skipped.
    pub fn parse(text: &Secret) -> Result<Self, MasterKeyError> {
        let mut keys: Vec<(String, Arc<Aes256Gcm>)> = Vec::new();
        for (number, line) in text.expose().lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (id, key) = parse_line(line).ok_or(MasterKeyError::Line(number + 1))?;
            if keys.iter().any(|(known, _)| known == id) {
                return Err(MasterKeyError::Twice(id.to_owned()));
            }
            keys.push((id.to_owned(), Arc::new(key.cipher())));
        }
        if keys.is_empty() { Err(MasterKeyError::Empty) } else { Ok(Self { local: keys, transit: None }) }
    }

    /// Adds the keys of a key service.
    pub fn with_transit(self, transit: Option<Arc<Transit>>) -> Self {
        Self { transit, ..self }
    }

    pub fn has_transit(&self) -> bool {
        self.transit.is_some()
    }

    /// Asks the key service, if there is one, which versions of its key exist. With `now`, it asks even if it did so a
    /// moment ago. Returns whether they have changed.
    ///
    /// # Errors
    /// The key service can't be asked.
    pub async fn look(&self, now: bool) -> Result<bool, WrapError> {
        match &self.transit {
            Some(transit) => transit.look(now).await,
            None => Ok(false),
        }
    }

    /// Renews the token for the key service if it is time.
    pub async fn keep_alive(&self) {
        if let Some(transit) = &self.transit {
            transit.keep_alive().await;
        }
    }

    /// The ids of all master keys, the newest last.
    pub fn ids(&self) -> Vec<String> {
        let local = self.local.iter().map(|(id, _)| id.clone());
        local.chain(self.transit.iter().flat_map(|transit| transit.ids())).collect()
    }

    /// The key that a rotation makes active: the key service's latest, or else the last line of the file.
    pub fn newest(&self) -> Option<String> {
        self.ids().pop()
    }

    pub fn holds(&self, id: &str) -> bool {
        self.local(id).is_some() || self.transit.as_ref().is_some_and(|transit| transit.holds(id))
    }

    fn local(&self, id: &str) -> Option<&Aes256Gcm> {
        self.local.iter().find(|(known, _)| known == id).map(|(_, key)| &**key)
    }

    fn service(&self, id: &str) -> Result<&Transit, WrapError> {
        self.transit
            .as_deref()
            .filter(|transit| transit.holds(id))
            .ok_or_else(|| WrapError::NotHeld(id.to_owned()))
    }

    pub async fn wrap(&self, id: &str, binding: &KeyBinding<'_>, key: &RawKey) -> Result<Vec<u8>, WrapError> {
        match self.local(id) {
            Some(master) => Ok(seal_bytes(master, &binding.encode(), key.as_bytes())?),
            None => self.service(id)?.wrap(id, &binding.encode(), key).await,
        }
    }

    /// Inverse of [`wrap`](Self::wrap).
    pub async fn unwrap(
        &self,
        id: &str,
        binding: &KeyBinding<'_>,
        wrapped: &[u8],
    ) -> Result<RawKey, WrapError> {
        let Some(master) = self.local(id) else {
            return self.service(id)?.unwrap(id, &binding.encode(), wrapped).await;
        };
        let bytes = open_bytes(master, &binding.encode(), wrapped)?;
        let bytes: [u8; 32] = bytes.as_slice().try_into().map_err(|_| WrapError::Corrupt)?;
        Ok(RawKey::from_bytes(bytes))
    }

    /// Seals a known text: a key that opens it is the same key.
    pub async fn check_value(&self, id: &str, vault: Uuid) -> Result<Vec<u8>, WrapError> {
        match self.local(id) {
            Some(master) => Ok(seal_bytes(master, &check_aad(id, vault), CHECK)?),
            None => self.service(id)?.encrypt(id, &check_aad(id, vault), &STANDARD.encode(CHECK)).await,
        }
    }

    /// Whether the key held under `id` is the one that made the check value.
    ///
    /// # Errors
    /// The key service can't be asked.
    pub async fn passes_check(&self, id: &str, vault: Uuid, value: &[u8]) -> Result<bool, WrapError> {
        if let Some(master) = self.local(id) {
            return Ok(open_bytes(master, &check_aad(id, vault), value).is_ok());
        }
        match self.service(id)?.decrypt(id, &check_aad(id, vault), value).await {
            Ok(plain) => Ok(plain.as_slice() == CHECK),
            Err(WrapError::Corrupt) => Ok(false),
            Err(error) => Err(error),
        }
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
        f.debug_list().entries(self.ids()).finish()
    }
}

/// A fresh master key as a line of the key file, with its line end.
fn fresh_line(id: &str) -> Secret {
    let key = RawKey::generate();
    let encoded = Zeroizing::new(STANDARD.encode(key.as_bytes()));
    Secret::new(format!("tvk1:{id}:{}\n", encoded.as_str()))
}

pub fn fresh_key_id() -> String {
    let mut id = Uuid::new_v4().simple().to_string();
    id.truncate(8);
    id
}

/// Writes a fresh master key to a new file that only its owner may read, and makes it durable. Fails if the file
/// exists: a key is never overwritten.
pub fn create_key_file(path: &Path, id: &str) -> io::Result<Secret> {
    let line = fresh_line(id);
    create_secret_file(path, &line)?;
    Ok(line)
}

/// Adds a fresh master key to a key file as its last line, which is the newest. The file is replaced atomically, and
/// created if it does not exist.
///
/// # Errors
/// The file can't be read or written, holds no keys, or holds that id.
pub fn add_to_key_file(path: &Path, id: &str) -> io::Result<()> {
    let invalid = |error: MasterKeyError| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
    let text = match fs::read_to_string(path) {
        Ok(text) => Zeroizing::new(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return create_key_file(path, id).map(drop);
        }
        Err(error) => return Err(error),
    };
    let whole = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    let line = fresh_line(id);
    let next = Secret::new(format!("{}{whole}{}", text.as_str(), line.expose()));
    MasterKeys::parse(&next).map_err(invalid)?;
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{}", Uuid::new_v4().simple()));
    let aside = Path::new(&aside);
    create_secret_file(aside, &next)?;
    fs::rename(aside, path)?;
    sync_folder(path)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    File::open(folder)?.sync_all()
}

/// Writes a secret to a new file that only its owner may read, and makes file and folder durable.
pub fn create_secret_file(path: &Path, content: &Secret) -> io::Result<()> {
    // Write to a temporary file and link it into place: no reader ever sees half of it, and an existing file stays as
    // it is.
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
    sync_folder(path)
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

    #[tokio::test]
    async fn a_wrapped_key_opens_only_where_it_belongs() {
        let keys = MasterKeys::parse(&Secret::new(format!("{}\n{}", line("a"), line("bb")))).unwrap();
        let binding = KeyBinding {
            vault: Uuid::nil(),
            purpose: "data",
            workspace: "acme",
            key_id: Uuid::nil(),
            version: 1,
        };
        let key = RawKey::generate();
        let wrapped = keys.wrap("a", &binding, &key).await.unwrap();
        assert_eq!(keys.unwrap("a", &binding, &wrapped).await.unwrap().as_bytes(), key.as_bytes());
        assert!(keys.unwrap("bb", &binding, &wrapped).await.is_err());
        assert!(keys.unwrap("a", &KeyBinding { workspace: "other", ..binding }, &wrapped).await.is_err());
        assert!(keys.unwrap("a", &KeyBinding { purpose: "index", ..binding }, &wrapped).await.is_err());
        let missing = keys.wrap("c", &binding, &key).await;
        assert_eq!(missing.unwrap_err(), WrapError::NotHeld("c".into()));
        let check = keys.check_value("a", Uuid::nil()).await.unwrap();
        assert!(keys.passes_check("a", Uuid::nil(), &check).await.unwrap());
        assert!(!keys.passes_check("bb", Uuid::nil(), &check).await.unwrap());
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
        add_to_key_file(&path, "k2").unwrap();
        assert_eq!(add_to_key_file(&path, "k1").unwrap_err().kind(), io::ErrorKind::InvalidData);
        let both = MasterKeys::parse(&Secret::new(fs::read_to_string(&path).unwrap())).unwrap();
        assert_eq!((both.ids(), both.newest()), (vec!["k1".into(), "k2".into()], Some("k2".into())));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }
}
