//! Searches everything that was written for secrets: in plain text, in hexadecimal and in base64.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// The shortest secret to search for, because shorter ones occur by chance.
const SHORTEST: usize = 12;
/// The number of leading bytes by which needles are indexed.
const HEAD: usize = 8;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The name that the test gave the secret.
    pub name: String,
    pub form: &'static str,
    pub place: String,
}

#[derive(Debug, Clone, Default)]
pub struct Hunter {
    secrets: BTreeSet<(String, Vec<u8>)>,
    /// Built by the first search after a secret was added, because every response is searched.
    needles: OnceLock<Arc<Needles>>,
}

/// Every form of every secret, indexed by its first bytes.
#[derive(Debug)]
struct Needles {
    all: Vec<Needle>,
    pairs: Vec<bool>,
    heads: HashMap<[u8; HEAD], Vec<usize>>,
}

#[derive(Debug)]
struct Needle {
    name: String,
    form: &'static str,
    bytes: Vec<u8>,
}

impl Hunter {
    pub fn add(&mut self, name: &str, secret: impl AsRef<[u8]>) {
        let secret = secret.as_ref();
        if secret.len() >= SHORTEST && self.secrets.insert((name.to_owned(), secret.to_vec())) {
            self.needles = OnceLock::new();
        }
    }

    pub fn len(&self) -> usize {
        self.secrets.len()
    }

    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty()
    }

    /// The names of the secrets to search for.
    pub fn names(&self) -> BTreeSet<&str> {
        self.secrets.iter().map(|(name, _)| name.as_str()).collect()
    }

    pub fn search(&self, place: &str, haystack: &[u8]) -> Vec<Finding> {
        self.needles().search(place, haystack)
    }

    pub fn search_files(&self, files: impl IntoIterator<Item = PathBuf>) -> Vec<Finding> {
        let mut found = Vec::new();
        for file in files {
            // A file that has been deleted no longer holds a secret.
            let Ok(bytes) = fs::read(&file) else { continue };
            found.extend(self.needles().search(&file.display().to_string(), &bytes));
        }
        found
    }

    fn needles(&self) -> &Needles {
        self.needles.get_or_init(|| Arc::new(Needles::of(&self.secrets)))
    }
}

/// The base64 form of a secret that starts `offset` bytes into a group of three, without the characters at both ends
/// that also hold bits of its neighbours.
fn base64_inside(engine: &impl Engine, secret: &[u8], offset: usize) -> Vec<u8> {
    let mut padded = vec![0; offset];
    padded.extend_from_slice(secret);
    let mut text = engine.encode(&padded).into_bytes();
    if !padded.len().is_multiple_of(3) {
        text.pop();
    }
    text.drain(..(offset * 8).div_ceil(6));
    text
}

impl Needles {
    fn of(secrets: &BTreeSet<(String, Vec<u8>)>) -> Self {
        let mut all = Vec::new();
        for (name, secret) in secrets {
            let mut add = |form, bytes: Vec<u8>| all.push(Needle { name: name.clone(), form, bytes });
            add("clear", secret.clone());
            add("hex", hex::encode(secret).into_bytes());
            add("HEX", hex::encode_upper(secret).into_bytes());
            for offset in 0..3 {
                add("base64", base64_inside(&STANDARD_NO_PAD, secret, offset));
                add("base64url", base64_inside(&URL_SAFE_NO_PAD, secret, offset));
            }
        }
        let mut pairs = vec![false; 1 << 16];
        let mut heads: HashMap<[u8; HEAD], Vec<usize>> = HashMap::new();
        for (at, needle) in all.iter().enumerate() {
            let head = needle.bytes.first_chunk::<HEAD>().expect("needles are longer than their head");
            pairs[usize::from(u16::from_be_bytes([head[0], head[1]]))] = true;
            heads.entry(*head).or_default().push(at);
        }
        Self { all, pairs, heads }
    }

    fn search(&self, place: &str, haystack: &[u8]) -> Vec<Finding> {
        let mut found = BTreeSet::new();
        for (at, window) in haystack.windows(HEAD).enumerate() {
            if !self.pairs[usize::from(u16::from_be_bytes([window[0], window[1]]))] {
                continue;
            }
            for needle in self.heads.get::<[u8]>(window).into_iter().flatten().map(|&n| &self.all[n]) {
                if haystack[at..].starts_with(&needle.bytes) {
                    found.insert(Finding {
                        name: needle.name.clone(),
                        form: needle.form,
                        place: place.to_owned(),
                    });
                }
            }
        }
        found.into_iter().collect()
    }
}

/// Lists every file below a folder.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries
        .flatten()
        .flat_map(|entry| {
            let path = entry.path();
            if path.is_dir() { files_below(&path) } else { vec![path] }
        })
        .collect()
}
