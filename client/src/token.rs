//! A fetched secret, with the facts that its user needs.

use std::fmt;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::error::Error;
use crate::v1::request_part::Place;
use crate::v1::token::Status;
use crate::v1::{Budget, Expiry, FetchAccessTokenResponse, fetch_access_token_response::Credential};

/// An access token for use now. It is wiped from memory on drop, and `Debug` does not print it.
pub struct AccessToken {
    secret: Zeroizing<String>,
    send_with: Vec<(Place, String, Zeroizing<String>)>,
    /// The version of the connection's secret.
    pub version: i32,
    /// Identifies this exact secret: send it along when you report that the provider refuses the token.
    pub secret_id: String,
    /// Status of the connection's token: active, or expiring soon.
    pub status: Status,
    /// When the token ends.
    pub expiry: Option<Expiry>,
    /// How near the tightest known call limit is.
    pub budget: Option<Budget>,
    /// How long the token may be kept; fetch it again after that.
    pub cache_for: Duration,
}

impl AccessToken {
    /// The token itself. Keep it out of logs and URLs.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// What the provider wants on every call next to the token: place, name and value. The values are secret too.
    pub fn send_with(&self) -> impl Iterator<Item = (Place, &str, &str)> {
        self.send_with.iter().map(|(place, name, value)| (*place, name.as_str(), value.as_str()))
    }

    /// The parts for the query of the URL, such as Meta's `appsecret_proof`: name and value.
    pub fn query_parts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parts(Place::Query)
    }

    /// The parts for headers: name and value.
    pub fn header_parts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parts(Place::Header)
    }

    /// The parts for the form or JSON body: name and value.
    pub fn body_parts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parts(Place::Body)
    }

    fn parts(&self, place: Place) -> impl Iterator<Item = (&str, &str)> {
        self.send_with()
            .filter(move |(its_place, ..)| *its_place == place)
            .map(|(_, name, value)| (name, value))
    }

    pub(crate) fn read(response: FetchAccessTokenResponse) -> Result<Self, Error> {
        let status = response.status();
        let Some(Credential::Bearer(bearer)) = response.credential else {
            return Err(Error::unexpected(
                "the vault answered with a credential that this client does not know",
            ));
        };
        let send_with = response
            .send_with
            .into_iter()
            .map(|part| (part.place(), part.name.clone(), Zeroizing::new(part.value)))
            .collect();
        let cache_for = response.cache_for.and_then(|time| Duration::try_from(time).ok()).unwrap_or_default();
        Ok(Self {
            secret: Zeroizing::new(bearer.access_token),
            send_with,
            version: response.token_version,
            secret_id: response.secret_id,
            status,
            expiry: response.access_expiry,
            budget: response.budget,
            cache_for,
        })
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken")
            .field("version", &self.version)
            .field("secret_id", &self.secret_id)
            .field("expiry", &self.expiry)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{BearerCredential, RequestPart};

    #[test]
    fn nothing_secret_is_printed() {
        let token = AccessToken::read(FetchAccessTokenResponse {
            credential: Some(Credential::Bearer(BearerCredential { access_token: "EAABsecret".into() })),
            send_with: vec![RequestPart {
                place: Place::Query.into(),
                name: "appsecret_proof".into(),
                value: "ab8e".into(),
            }],
            ..FetchAccessTokenResponse::default()
        })
        .unwrap();
        let printed = format!("{token:?}");
        assert!(!printed.contains("EAABsecret") && !printed.contains("ab8e"), "{printed}");
        assert_eq!(token.secret(), "EAABsecret");
        assert_eq!(token.send_with().next(), Some((Place::Query, "appsecret_proof", "ab8e")));
        assert_eq!(token.query_parts().collect::<Vec<_>>(), [("appsecret_proof", "ab8e")]);
        assert_eq!((token.header_parts().count(), token.body_parts().count()), (0, 0));
    }
}
