//! Environment variables that look like configuration keys but are not. Without these checks, a mistake such as a
//! single underscore would go unnoticed.

use super::declare::environment_name;
use super::defaults::sections;
use super::reader::Reader;
use super::{ENV_PREFIX, MASTER_KEY_ENV};

/// The prefix of all environment variables of this program.
const PREFIX: &str = "TOKEN_VAULT_";

/// The variables that are not keys of the configuration: the command line, the client's examples and the tests read
/// them.
const OTHERS: [&str; 10] = [
    MASTER_KEY_ENV,
    "TOKEN_VAULT_CONFIG",
    "TOKEN_VAULT_ENDPOINT",
    "TOKEN_VAULT_API_KEY",
    "TOKEN_VAULT_API_KEY_FILE",
    "TOKEN_VAULT_CA_FILE",
    "TOKEN_VAULT_CLIENT_CERT",
    "TOKEN_VAULT_CLIENT_KEY",
    "TOKEN_VAULT_DOMAIN_NAME",
    "TOKEN_VAULT_HISTORIES",
];
const TESTS: &str = "TOKEN_VAULT_TEST_";

/// Refuses a variable that looks like a misspelt key, and warns about one that has no meaning.
pub(super) fn check(reader: &mut Reader, names: impl Iterator<Item = String>) {
    for name in names.filter(|name| is_unknown(name)) {
        match meant(&name) {
            Some(key) => reader.mistake(
                &name,
                format!(
                    "is not read: the variable of {key} is {}, with two underscores for each dot",
                    environment_name(key)
                ),
            ),
            None => reader.warn(format!("the environment variable {name} means nothing to this program")),
        }
    }
}

fn is_unknown(name: &str) -> bool {
    name.starts_with(PREFIX)
        && !name.starts_with(ENV_PREFIX)
        && !name.starts_with(TESTS)
        && !OTHERS.contains(&name)
        && !is_service_link(name)
}

/// Whether Kubernetes set the variable: it describes a service called `token-vault…` to every container in this way.
fn is_service_link(name: &str) -> bool {
    name.contains("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || name.contains("_PORT_")
}

/// The key whose variable differs from `name` in its underscores only.
fn meant(name: &str) -> Option<&'static str> {
    let bare = |text: &str| text.replace('_', "").to_ascii_uppercase();
    let keys = sections().flat_map(|section| section.settings).map(|setting| setting.name());
    keys.into_iter().find(|key| bare(&environment_name(key)) == bare(name))
}

#[cfg(test)]
mod tests {
    use figment::Figment;

    use super::*;

    fn checked(name: &str) -> Result<Vec<String>, String> {
        let mut reader = Reader::new(Figment::new()).unwrap();
        check(&mut reader, std::iter::once(name.to_owned()));
        reader.finish().map_err(|error| error.to_string())
    }

    #[test]
    fn a_variable_that_is_meant_for_a_key_is_refused_with_the_right_name() {
        for name in ["TOKEN_VAULT_SERVER_LISTEN", "TOKEN_VAULT_SERVER__LISTEN"] {
            let refused = checked(name).unwrap_err();
            assert!(refused.contains(name) && refused.contains("TOKEN_VAULT__SERVER__LISTEN"), "{refused}");
        }
        assert!(checked("TOKEN_VAULT_DATA_DIR").unwrap_err().contains("TOKEN_VAULT__DATA_DIR"));
    }

    #[test]
    fn what_others_read_is_allowed_and_what_nobody_reads_is_warned_about() {
        for name in [
            "TOKEN_VAULT_MASTER_KEY",
            "TOKEN_VAULT_ENDPOINT",
            "TOKEN_VAULT_TEST_DATABASE",
            "TOKEN_VAULT_SERVICE_HOST",
            "TOKEN_VAULT_SERVER_PORT_7443_TCP_ADDR",
            "TOKEN_VAULT__SERVER__LISTEN",
            "PATH",
        ] {
            assert_eq!(checked(name), Ok(vec![]), "{name}");
        }
        assert!(checked("TOKEN_VAULT_MASTERKEY").unwrap()[0].contains("TOKEN_VAULT_MASTERKEY"));
    }
}
