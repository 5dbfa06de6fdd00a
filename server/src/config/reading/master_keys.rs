//! Section `keys`: where master keys come from, and the break-glass key.

use crate::config::defaults::{
    BREAK_GLASS_SEALING_KEY_FILE as SEALING_KEY_FILE, MASTER_KEY_FILE, TRANSIT_ADDRESS, TRANSIT_CA_FILE,
    TRANSIT_KEY, TRANSIT_MOUNT, TRANSIT_NAMESPACE, TRANSIT_ROLE_ID, TRANSIT_SECRET_ID_FILE,
    TRANSIT_TOKEN_FILE,
};
use crate::config::reader::Reader;
use crate::config::{Keys, MASTER_KEY_ENV};
use crate::model::{Secret, shown_path};
use crate::vault::{BreakGlassSealingKey, TransitConfig, TransitLogin};

pub(in crate::config) fn read(reader: &mut Reader, master_key: Option<Secret>) -> Keys {
    let master_key_file = reader.find(&MASTER_KEY_FILE);
    if let Some(file) = &master_key_file {
        reader.is_private(MASTER_KEY_FILE.name, file);
    }
    if master_key.is_some() && master_key_file.is_some() {
        reader.mistake(
            MASTER_KEY_FILE.name,
            format!("is set, and so is {MASTER_KEY_ENV}; keep one of the two"),
        );
    }
    let break_glass = reader.find(&SEALING_KEY_FILE).and_then(|file| {
        let key = BreakGlassSealingKey::parse(&reader.secret(SEALING_KEY_FILE.name, None, &file)?);
        let name = SEALING_KEY_FILE.name;
        key.map_err(|error| reader.mistake(name, format!("names {}, which {error}", shown_path(&file)))).ok()
    });
    Keys { master_key_file, master_key, transit: transit(reader), break_glass }
}

fn transit(reader: &mut Reader) -> Option<TransitConfig> {
    let address = reader.find(&TRANSIT_ADDRESS);
    let mount = reader.get(&TRANSIT_MOUNT);
    let key = reader.get(&TRANSIT_KEY);
    let namespace = reader.find(&TRANSIT_NAMESPACE);
    let token_file = reader.find(&TRANSIT_TOKEN_FILE);
    let role_id = reader.find(&TRANSIT_ROLE_ID);
    let secret_id_file = reader.find(&TRANSIT_SECRET_ID_FILE);
    let ca_file = reader.find(&TRANSIT_CA_FILE);
    for (key, file) in
        [(TRANSIT_TOKEN_FILE.name, &token_file), (TRANSIT_SECRET_ID_FILE.name, &secret_id_file)]
    {
        if let Some(file) = file {
            reader.is_private(key, file);
        }
    }
    let any = [&token_file, &secret_id_file, &ca_file].into_iter().any(Option::is_some)
        || role_id.is_some()
        || namespace.is_some();
    let Some(address) = address else {
        if any && !reader.is_mistaken(TRANSIT_ADDRESS.name) {
            reader.mistake(TRANSIT_ADDRESS.name, "must be set where another key of keys.transit is");
        }
        return None;
    };
    let login = match (token_file, role_id, secret_id_file) {
        (Some(file), None, None) => TransitLogin::TokenFile(file),
        (None, Some(role_id), Some(secret_id_file)) => TransitLogin::AppRole { role_id, secret_id_file },
        _ => {
            reader.mistake(
                TRANSIT_TOKEN_FILE.name,
                "must be set, or both keys.transit.role_id and keys.transit.secret_id_file instead",
            );
            return None;
        }
    };
    Some(TransitConfig { address, mount, key, namespace: namespace.unwrap_or_default(), login, ca_file })
}
