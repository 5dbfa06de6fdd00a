//! Meta's consent dialog: its address, and what it sends back.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use url::Url;

use crate::model::BadValue;
use crate::provider::{AskAgain, Callback, ConsentRequest};

/// Longest code of an error that is shown to people, in characters.
const LONGEST_WORD: usize = 64;

/// The dialog, without what differs between two people.
#[derive(Debug)]
pub(super) struct Dialog {
    url: Url,
    config_id: Option<String>,
}

impl Dialog {
    /// # Errors
    /// A URL that can't have a path.
    pub(super) fn new(base: &Url, version: &str, config_id: Option<String>) -> Result<Self, BadValue> {
        let mut url = base.clone();
        url.path_segments_mut()
            .map_err(|()| BadValue::new("must have a dialog_url that can have a path"))?
            .pop_if_empty()
            .extend([version, "dialog", "oauth"]);
        Ok(Self { url, config_id })
    }

    pub(super) fn url(&self, app_id: &str, request: &ConsentRequest<'_>) -> Url {
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(request.verifier.expose()));
        let mut url = self.url.clone();
        let mut query = url.query_pairs_mut();
        query
            .append_pair("client_id", app_id)
            .append_pair("redirect_uri", request.redirect_uri)
            .append_pair("state", request.state.expose())
            .append_pair("response_type", "code")
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        match &self.config_id {
            // The configuration names the scopes, and a person takes or leaves all of them.
            Some(id) => {
                query.append_pair("config_id", id).append_pair("override_default_response_type", "true")
            }
            None => {
                query.append_pair("scope", &request.scopes.join(",")).append_pair("return_scopes", "true")
            }
        };
        query.append_pair(
            "auth_type",
            match request.again {
                AskAgain::Declined => "rerequest",
                AskAgain::DataAccess => "reauthorize",
            },
        );
        drop(query);
        url
    }
}

/// Reads the dialog's answer. It has a code, an `error`, an `error_code` without an `error`, or nothing of these.
pub(super) fn read_callback(pairs: &[(String, String)]) -> Callback {
    let value = |wanted: &str| {
        pairs
            .iter()
            .find(|(name, value)| name == wanted && !value.is_empty())
            .map(|(_, value)| value.as_str())
    };
    let provider_code = [value("error"), value("error_code")]
        .into_iter()
        .flatten()
        .map(word)
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join("/");
    match (value("error"), value("error_code")) {
        (Some("access_denied" | "server_error" | "temporarily_unavailable"), _) => {
            Callback::Declined { provider_code }
        }
        // Also the form without `error`, by which Meta tells that it can't show the dialog.
        (Some(_), _) | (None, Some(_)) => Callback::Misconfigured { provider_code },
        (None, None) => match value("code") {
            Some(code) => Callback::Code(crate::model::Secret::new(code.to_owned())),
            None => Callback::Declined { provider_code },
        },
    }
}

/// An error's code as it may be shown: it came through a browser.
fn word(text: &str) -> String {
    let plain = |char: &char| char.is_ascii_alphanumeric() || *char == '_';
    text.chars().filter(plain).take(LONGEST_WORD).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Secret;

    fn dialog(config_id: Option<&str>) -> Dialog {
        let base = Url::parse("https://www.facebook.com").unwrap();
        Dialog::new(&base, "v26.0", config_id.map(str::to_owned)).unwrap()
    }

    fn query(dialog: &Dialog, again: AskAgain) -> (String, Vec<(String, String)>) {
        let request = ConsentRequest {
            redirect_uri: "https://app.example/cb?x=1&y=ä",
            state: &Secret::new("the-state".into()),
            scopes: &["ads_read".into(), "ads_management".into()],
            verifier: &Secret::new("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".into()),
            again,
        };
        let url = dialog.url("123", &request);
        let pairs = url.query_pairs().into_owned().collect();
        (url.as_str().split('?').next().unwrap().to_owned(), pairs)
    }

    #[test]
    fn the_dialog_asks_for_scopes_with_the_hash_of_the_verifier() {
        let (address, pairs) = query(&dialog(None), AskAgain::Declined);
        assert_eq!(address, "https://www.facebook.com/v26.0/dialog/oauth");
        let expected = [
            ("client_id", "123"),
            ("redirect_uri", "https://app.example/cb?x=1&y=ä"),
            ("state", "the-state"),
            ("response_type", "code"),
            // The example of RFC 7636, appendix B.
            ("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"),
            ("code_challenge_method", "S256"),
            ("scope", "ads_read,ads_management"),
            ("return_scopes", "true"),
            ("auth_type", "rerequest"),
        ];
        assert_eq!(pairs, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn login_for_business_takes_a_configuration_in_place_of_scopes() {
        let (_, pairs) = query(&dialog(Some("77")), AskAgain::DataAccess);
        let value = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        assert_eq!(value("config_id"), Some("77"));
        assert_eq!(value("override_default_response_type"), Some("true"));
        assert_eq!((value("scope"), value("auth_type")), (None, Some("reauthorize")));
    }

    #[test]
    fn every_known_form_of_a_callback_is_read() {
        for (query, expected) in [
            ("code=AQDx&state=s", "Code"),
            ("code=AQDx&state=s&granted_scopes=ads_read&denied_scopes=", "Code"),
            (
                "error=access_denied&error_code=200&error_description=Permissions+error&error_reason=user_denied",
                "Declined access_denied/200",
            ),
            ("error_code=1349048&error_message=Can%27t+load+URL", "Misconfigured 1349048"),
            ("error=invalid_scope", "Misconfigured invalid_scope"),
            ("error=server_error", "Declined server_error"),
            ("error=temporarily_unavailable&error_code=2", "Declined temporarily_unavailable/2"),
            ("state=s", "Declined "),
            ("code=&state=s", "Declined "),
            // An error is an error, whatever stands beside it.
            ("code=AQDx&error=access_denied", "Declined access_denied"),
            ("error=%3Cscript%3E", "Misconfigured script"),
            ("error=%0a%0a", "Misconfigured "),
        ] {
            let pairs: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
            let read = match read_callback(&pairs) {
                Callback::Code(code) => {
                    assert_eq!(code.expose(), "AQDx");
                    "Code".to_owned()
                }
                Callback::Declined { provider_code } => format!("Declined {provider_code}"),
                Callback::Misconfigured { provider_code } => format!("Misconfigured {provider_code}"),
            };
            assert_eq!(read, expected, "{query}");
        }
    }
}
