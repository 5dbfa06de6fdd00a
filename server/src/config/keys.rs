//! Section `keys`: where master keys come from, and the way back in when they are lost.

use url::Url;

use super::reader::Reader;
use super::{Keys, MASTER_KEY_ENV};
use crate::model::Secret;
use crate::vault::{BreakGlassSealingKey, TransitConfig, TransitLogin};

const SEALING_KEY_FILE: &str = "keys.break_glass_sealing_key_file";

pub(super) fn read(reader: &mut Reader, master_key: Option<Secret>) -> Keys {
    let master_key_file = reader.path("keys.master_key_file");
    if master_key.is_some() && master_key_file.is_some() {
        reader.mistake(
            "keys.master_key_file",
            format!("is set, and so is {MASTER_KEY_ENV}; keep one of the two"),
        );
    }
    let break_glass = reader.path(SEALING_KEY_FILE).and_then(|file| {
        let key = BreakGlassSealingKey::parse(&reader.secret(SEALING_KEY_FILE, &file)?);
        key.map_err(|error| reader.mistake(SEALING_KEY_FILE, format!("{} {error}", file.display()))).ok()
    });
    Keys { master_key_file, master_key, transit: transit(reader), break_glass }
}

fn transit(reader: &mut Reader) -> Option<TransitConfig> {
    const ADDRESS: &str = "keys.transit.address";
    let address = reader.parsed(ADDRESS, None, |text| address(text).map(Some));
    let name = |text: &str| {
        let good = (1..=128).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b))
            && !text.split('/').any(|part| part.is_empty() || part == "." || part == "..");
        if good { Ok(text.to_owned()) } else { Err("must be 1 to 128 of A-Z a-z 0-9 . _ - /".to_owned()) }
    };
    let mount = reader.parsed("keys.transit.mount", "transit".to_owned(), name);
    let key = reader.parsed("keys.transit.key", "token-vault".to_owned(), name);
    let namespace = reader.parsed("keys.transit.namespace", String::new(), name);
    let token_file = reader.path("keys.transit.token_file");
    let role_id = reader.text("keys.transit.role_id");
    let secret_id_file = reader.path("keys.transit.secret_id_file");
    let ca_file = reader.path("keys.transit.ca_file");
    let said = token_file.is_some() || role_id.is_some() || secret_id_file.is_some() || ca_file.is_some();
    let Some(address) = address else {
        if said && !reader.is_mistaken(ADDRESS) {
            reader.mistake(ADDRESS, "must be set where another key of keys.transit is");
        }
        return None;
    };
    let login = match (token_file, role_id, secret_id_file) {
        (Some(file), None, None) => TransitLogin::TokenFile(file),
        (None, Some(role_id), Some(secret_id_file)) => TransitLogin::AppRole { role_id, secret_id_file },
        _ => {
            reader.mistake(
                "keys.transit.token_file",
                "must be set, or in its place both keys.transit.role_id and keys.transit.secret_id_file",
            );
            return None;
        }
    };
    Some(TransitConfig { address, mount, key, namespace, login, ca_file })
}

/// Keys go there: in the clear only within this machine.
fn address(text: &str) -> Result<Url, String> {
    let rule = || "must be a URL such as https://bao.example:8200; http:// only to loopback".to_owned();
    let url = Url::parse(text).map_err(|_| rule())?;
    let loopback = match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => return Err(rule()),
    };
    let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    if plain && (url.scheme() == "https" || url.scheme() == "http" && loopback) {
        Ok(url)
    } else {
        Err(rule())
    }
}
