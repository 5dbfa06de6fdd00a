//! One line of the log: its position in the chain, a record, and a MAC over both.
//!
//! `{"chain":"…","n":7,"prev":"…","id":"…",…,"mac":"…"}`. The MAC is over the bytes before `,"mac"`, so that a verifier
//! need not order or space JSON as this writer does; `prev` is the MAC of the line before.

use serde::Deserialize;
use uuid::Uuid;

use crate::crypto::MacKey;
use crate::model::AuditRecord;

/// Separates these MACs from others by the same key.
const DOMAIN: &str = "audit-line";
const TORN: &str = "audit-torn-line";
/// Separates the record from its MAC.
const SEAM: &str = ",\"mac\":\"";
/// `,"mac":"` + 64 digits + `"}`.
const TAIL: usize = SEAM.len() + 64 + 2;

/// The MAC of a line.
pub type Link = [u8; 32];

/// How far a chain has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub chain: Uuid,
    /// Number of its last record; 0 before the first.
    pub number: u64,
    /// That record's MAC; zeros before the first.
    pub mac: Link,
}

impl Head {
    pub fn new() -> Self {
        Self { chain: Uuid::new_v4(), number: 0, mac: [0; 32] }
    }

    /// Appends the line of `body` (a record as a JSON object) to `out`, and advances.
    pub fn append(&mut self, key: &MacKey, body: &str, out: &mut Vec<u8>) {
        let start = out.len();
        let number = self.number + 1;
        let begin =
            format!("{{\"chain\":\"{}\",\"n\":{number},\"prev\":\"{}\",", self.chain, hex::encode(self.mac));
        out.extend_from_slice(begin.as_bytes());
        let inside = body.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(body);
        out.extend_from_slice(inside.as_bytes());
        self.mac = key.mac(DOMAIN, &[out.get(start..).unwrap_or_default()]);
        self.number = number;
        out.extend_from_slice(SEAM.as_bytes());
        out.extend_from_slice(hex::encode(self.mac).as_bytes());
        out.extend_from_slice(b"\"}\n");
    }
}

impl Default for Head {
    fn default() -> Self {
        Self::new()
    }
}

/// The MAC by which a record names a line that a crash tore.
pub(super) fn torn_mac(key: &MacKey, bytes: &[u8]) -> String {
    hex::encode(key.mac(TORN, &[bytes]))
}

#[derive(Deserialize)]
struct Written {
    chain: Uuid,
    n: u64,
    prev: String,
    #[serde(flatten)]
    record: AuditRecord,
}

/// A line as this vault wrote it.
#[derive(Debug, Clone)]
pub struct Line {
    pub chain: Uuid,
    /// Its number in the chain.
    pub number: u64,
    /// The MAC of the line before.
    pub prev: Link,
    pub mac: Link,
    pub record: AuditRecord,
}

impl Line {
    /// Parses a line without its line end; `None` if no vault with this key wrote it.
    pub fn read(key: &MacKey, bytes: &[u8]) -> Option<Self> {
        let (signed, mac) = Self::split(bytes)?;
        if !key.verify(DOMAIN, &[signed], &mac) {
            return None;
        }
        Self::parse(signed, mac)
    }

    /// [`Self::read`] without checking the MAC.
    pub fn read_unchecked(bytes: &[u8]) -> Option<Self> {
        let (signed, mac) = Self::split(bytes)?;
        Self::parse(signed, mac)
    }

    fn split(bytes: &[u8]) -> Option<(&[u8], Link)> {
        let (signed, tail) = bytes.split_at_checked(bytes.len().checked_sub(TAIL)?)?;
        let digits = tail.strip_prefix(SEAM.as_bytes())?.strip_suffix(b"\"}")?;
        // Lower case only: another spelling of the same MAC is a changed line.
        if digits.iter().any(u8::is_ascii_uppercase) {
            return None;
        }
        let mut mac = [0; 32];
        hex::decode_to_slice(digits, &mut mac).ok()?;
        Some((signed, mac))
    }

    fn parse(signed: &[u8], mac: Link) -> Option<Self> {
        let mut whole = signed.to_vec();
        whole.push(b'}');
        let written: Written = serde_json::from_slice(&whole).ok()?;
        let mut prev = [0; 32];
        hex::decode_to_slice(&written.prev, &mut prev).ok()?;
        Some(Self { chain: written.chain, number: written.n, prev, mac, record: written.record })
    }
}
