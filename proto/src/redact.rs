//! `Debug` for the messages that hold a secret. It shows whether a secret is set, never the secret.

use std::fmt::{Debug, Formatter, Result};

use crate::v1::exchange_token_request::NewToken;
use crate::v1::store_token_request::Credential;
use crate::v1::{
    BearerCredential, BeginAuthorizationRequest, BeginAuthorizationResponse, CompleteAuthorizationRequest,
    CreateApiKeyResponse, CreateConnectLinkResponse, Header, OAuth1Credential, ReportProviderCallbackRequest,
    ReportTokenErrorRequest, RequestPart, RotateApiKeyResponse, StoreTokenRequest,
};

/// Prints in place of a secret.
struct Redacted<'a>(&'a str);

impl Debug for Redacted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(if self.0.is_empty() { "\"\"" } else { "[redacted]" })
    }
}

impl Debug for BearerCredential {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self { access_token } = self;
        f.debug_struct("BearerCredential").field("access_token", &Redacted(access_token)).finish()
    }
}

impl Debug for OAuth1Credential {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self { consumer_key, consumer_secret, token, token_secret } = self;
        f.debug_struct("OAuth1Credential")
            .field("consumer_key", consumer_key)
            .field("consumer_secret", &Redacted(consumer_secret))
            .field("token", &Redacted(token))
            .field("token_secret", &Redacted(token_secret))
            .finish()
    }
}

impl Debug for RequestPart {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self { place: _, name, value } = self;
        f.debug_struct("RequestPart")
            .field("place", &self.place())
            .field("name", name)
            .field("value", &Redacted(value))
            .finish()
    }
}

impl Debug for Header {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self { name, value } = self;
        f.debug_struct("Header").field("name", name).field("value", &Redacted(value)).finish()
    }
}

impl Debug for Credential {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::AccessToken(secret) => f.debug_tuple("AccessToken").field(&Redacted(secret)).finish(),
            Self::RefreshToken(secret) => f.debug_tuple("RefreshToken").field(&Redacted(secret)).finish(),
            Self::Oauth1(pair) => f.debug_tuple("Oauth1").field(pair).finish(),
        }
    }
}

impl Debug for StoreTokenRequest {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self {
            workspace_id,
            provider,
            connection_id,
            options,
            validate_only,
            request_id,
            if_token_version,
            credential,
        } = self;
        f.debug_struct("StoreTokenRequest")
            .field("workspace_id", workspace_id)
            .field("provider", provider)
            .field("connection_id", connection_id)
            .field("credential", credential)
            .field("options", options)
            .field("validate_only", validate_only)
            .field("request_id", request_id)
            .field("if_token_version", if_token_version)
            .finish()
    }
}

impl Debug for BeginAuthorizationRequest {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self {
            workspace_id,
            provider,
            redirect_uri,
            connection_id,
            extra_scopes,
            options,
            session_binding,
            request_id,
        } = self;
        f.debug_struct("BeginAuthorizationRequest")
            .field("workspace_id", workspace_id)
            .field("provider", provider)
            .field("redirect_uri", redirect_uri)
            .field("connection_id", connection_id)
            .field("extra_scopes", extra_scopes)
            .field("options", options)
            .field("session_binding", &Redacted(session_binding))
            .field("request_id", request_id)
            .finish()
    }
}

impl Debug for BeginAuthorizationResponse {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self { authorization_url, state, expires_at } = self;
        f.debug_struct("BeginAuthorizationResponse")
            .field("authorization_url", &Redacted(authorization_url))
            .field("state", &Redacted(state))
            .field("expires_at", expires_at)
            .finish()
    }
}

impl Debug for CompleteAuthorizationRequest {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self { workspace_id, callback_query, session_binding } = self;
        f.debug_struct("CompleteAuthorizationRequest")
            .field("workspace_id", workspace_id)
            .field("callback_query", &Redacted(callback_query))
            .field("session_binding", &Redacted(session_binding))
            .finish()
    }
}

impl Debug for NewToken {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self { workspace_id, provider, access_token } = self;
        f.debug_struct("NewToken")
            .field("workspace_id", workspace_id)
            .field("provider", provider)
            .field("access_token", &Redacted(access_token))
            .finish()
    }
}

impl Debug for ReportTokenErrorRequest {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self {
            connection_id,
            workspace_id,
            secret_id,
            token_version,
            http_status,
            body,
            code,
            subcode,
            headers,
            ad_account_id,
            observed_at,
            last_success_at,
        } = self;
        f.debug_struct("ReportTokenErrorRequest")
            .field("connection_id", connection_id)
            .field("workspace_id", workspace_id)
            .field("secret_id", secret_id)
            .field("token_version", token_version)
            .field("http_status", http_status)
            .field("body", &Redacted(body))
            .field("code", code)
            .field("subcode", subcode)
            .field("headers", headers)
            .field("ad_account_id", ad_account_id)
            .field("observed_at", observed_at)
            .field("last_success_at", last_success_at)
            .finish()
    }
}

impl Debug for ReportProviderCallbackRequest {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self { provider, kind: _, method, query, headers, body } = self;
        let body = if body.is_empty() { "" } else { "set" };
        f.debug_struct("ReportProviderCallbackRequest")
            .field("provider", provider)
            .field("kind", &self.kind())
            .field("method", method)
            .field("query", &Redacted(query))
            .field("headers", headers)
            .field("body", &Redacted(body))
            .finish()
    }
}

impl Debug for CreateApiKeyResponse {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self { api_key, key } = self;
        f.debug_struct("CreateApiKeyResponse").field("api_key", api_key).field("key", &Redacted(key)).finish()
    }
}

impl Debug for CreateConnectLinkResponse {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self { link, url } = self;
        f.debug_struct("CreateConnectLinkResponse").field("link", link).field("url", &Redacted(url)).finish()
    }
}

impl Debug for RotateApiKeyResponse {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self { api_key, key, replaced } = self;
        f.debug_struct("RotateApiKeyResponse")
            .field("api_key", api_key)
            .field("key", &Redacted(key))
            .field("replaced", replaced)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{
        ExchangeTokenRequest, FetchAccessTokenResponse, exchange_token_request, fetch_access_token_response,
    };

    const SECRET: &str = "EAAB-hush";

    fn secret() -> String {
        SECRET.to_owned()
    }

    fn oauth1() -> OAuth1Credential {
        OAuth1Credential {
            consumer_key: "app".into(),
            consumer_secret: secret(),
            token: secret(),
            token_secret: secret(),
        }
    }

    fn bearer() -> BearerCredential {
        BearerCredential { access_token: secret() }
    }

    fn part() -> RequestPart {
        RequestPart { name: "appsecret_proof".into(), value: secret(), ..Default::default() }
    }

    fn header() -> Header {
        Header { name: "authorization".into(), value: secret() }
    }

    fn new_token() -> NewToken {
        NewToken { access_token: secret(), ..Default::default() }
    }

    fn store(credential: Credential) -> StoreTokenRequest {
        StoreTokenRequest { credential: Some(credential), ..Default::default() }
    }

    fn fetched(credential: fetch_access_token_response::Credential) -> FetchAccessTokenResponse {
        FetchAccessTokenResponse {
            credential: Some(credential),
            send_with: vec![part()],
            ..Default::default()
        }
    }

    #[test]
    fn no_secret_is_printed() {
        let messages: Vec<Box<dyn Debug>> = vec![
            Box::new(bearer()),
            Box::new(oauth1()),
            Box::new(part()),
            Box::new(header()),
            Box::new(Credential::AccessToken(secret())),
            Box::new(store(Credential::AccessToken(secret()))),
            Box::new(store(Credential::RefreshToken(secret()))),
            Box::new(store(Credential::Oauth1(oauth1()))),
            Box::new(new_token()),
            Box::new(ExchangeTokenRequest {
                subject_of_exchange: Some(exchange_token_request::SubjectOfExchange::NewToken(new_token())),
                ..Default::default()
            }),
            Box::new(fetched(fetch_access_token_response::Credential::Bearer(bearer()))),
            Box::new(fetched(fetch_access_token_response::Credential::Oauth1(oauth1()))),
            Box::new(ReportTokenErrorRequest {
                body: secret(),
                headers: vec![header()],
                ..Default::default()
            }),
            Box::new(ReportProviderCallbackRequest {
                query: secret(),
                headers: vec![header()],
                body: secret().into_bytes(),
                ..Default::default()
            }),
            Box::new(CreateApiKeyResponse { key: secret(), ..Default::default() }),
            Box::new(RotateApiKeyResponse { key: secret(), ..Default::default() }),
            Box::new(CreateConnectLinkResponse { url: secret(), ..Default::default() }),
        ];
        for message in messages {
            for printed in [format!("{message:?}"), format!("{message:#?}")] {
                assert!(!printed.contains(SECRET), "{printed}");
                assert!(printed.contains("[redacted]"), "{printed}");
            }
        }
    }

    #[test]
    fn an_empty_secret_shows_as_empty() {
        assert_eq!(format!("{:?}", BearerCredential::default()), r#"BearerCredential { access_token: "" }"#);
    }
}
