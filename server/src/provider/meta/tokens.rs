//! Calls about the token itself: inspect, exchange, end.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use zeroize::Zeroizing;

use super::http::Call;
use super::refusal::{self, Asked, Seen};
use super::wire::{self, DebugToken, TokenReply};
use super::{Meta, proof};
use crate::model::{
    Expiry, ExpirySource, GranularScope, Misconfiguration, Refusal, RefusalKind, RefusalReason, Secret,
    Subject, SubjectType, Timestamp, TokenFacts, TokenKind,
};
use crate::provider::{Exchanged, Inspected, Revocation};

/// A user token that lives no longer than this is a short-lived one.
const SHORT_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

impl Meta {
    /// `/debug_token`, asked with the app's own token.
    pub(super) async fn debug_token(&self, token: &Secret) -> Result<Inspected, Refusal> {
        let make = |app_secret: &Secret| {
            let app_token = Secret::new(format!("{}|{}", self.app_id, app_secret.expose()));
            Call::new(Method::GET, &["debug_token"], Asked::Inspection)
                .query("input_token", token.expose())
                .query("appsecret_proof", proof(app_secret, app_token.expose()).expose())
                .bearer(app_token.expose())
        };
        let data = self.ask(make, debug_data, self.http.deadline()).await?;
        self.judge(data, token)
    }

    /// `/debug_token` on the app's own token, which lives as long as the app and its secret.
    pub(super) async fn debug_own_token(&self) -> Result<(), Refusal> {
        let make = |app_secret: &Secret| {
            let app_token = Secret::new(format!("{}|{}", self.app_id, app_secret.expose()));
            Call::new(Method::GET, &["debug_token"], Asked::Inspection)
                .query("input_token", app_token.expose())
                .query("appsecret_proof", proof(app_secret, app_token.expose()).expose())
                .bearer(app_token.expose())
        };
        self.ask(make, debug_data, self.http.deadline()).await.map(|_| ())
    }

    /// A token is valid only if the reply says so.
    fn judge(&self, data: DebugToken, token: &Secret) -> Result<Inspected, Refusal> {
        if !data.app_id.is_empty() && data.app_id != self.app_id {
            return Err(Refusal::new(RefusalKind::OtherApp, "the token was made for another app"));
        }
        if data.is_valid != Some(true) {
            return Err(self.invalid(&data, token));
        }
        if data.app_id.is_empty() {
            let detail = "the inspection of the token does not say for which app it was made";
            return Err(Refusal::new(RefusalKind::Transient { retry_after: None }, detail));
        }
        let (id, subject, kind) = match data.kind.as_str() {
            "APP" => {
                let detail = "this is an app token; paste the access token of a person or a system user";
                return Err(Refusal::new(RefusalKind::Dead { reason: RefusalReason::Malformed }, detail));
            }
            "PAGE" => (&data.profile_id, SubjectType::Page, TokenKind::Page),
            "SYSTEM_USER" => (&data.user_id, SubjectType::SystemUser, TokenKind::SystemUser),
            "USER" => (&data.user_id, SubjectType::User, self.user_kind(&data)),
            _ => (&data.user_id, SubjectType::Unknown, TokenKind::LongLivedUser),
        };
        let subject = Subject { id: id.clone(), name: String::new(), kind: subject };
        let data_access = match (expiry(data.data_access_expires_at), kind) {
            (Expiry::Unknown, TokenKind::SystemUser) => Expiry::Never,
            (data_access, _) => data_access,
        };
        let facts = TokenFacts {
            kind,
            expiry: expiry(data.expires_at),
            data_access,
            issued_at: issued_at(&data),
            scopes: data.scopes,
            granular_scopes: data
                .granular_scopes
                .into_iter()
                .map(|limit| GranularScope { scope: limit.scope, target_ids: limit.target_ids })
                .collect(),
        };
        Ok(Inspected { app_id: data.app_id, subject, facts })
    }

    /// The lifetime decides. If the reply has no day of issue, the time that is left decides.
    fn user_kind(&self, data: &DebugToken) -> TokenKind {
        let from = issued_at(data).unwrap_or_else(|| self.clock.now());
        match expiry(data.expires_at) {
            Expiry::At(end, _) if end.since(from) < SHORT_LIFE => TokenKind::ShortLivedUser,
            _ => TokenKind::LongLivedUser,
        }
    }

    /// An error in this reply is about the inspected token, so the token is not valid, unless the error is one of
    /// Meta's own.
    fn invalid(&self, data: &DebugToken, token: &Secret) -> Refusal {
        let unknown = RefusalKind::Dead { reason: RefusalReason::Unknown };
        let Some(error) = &data.error else {
            return Refusal::new(unknown, "Meta says that the token is not valid and gives no reason");
        };
        let seen = Seen {
            asked: Asked::Data,
            ad_account: None,
            status: 200,
            headers: &[],
            body: &[],
            token: Some(token),
        };
        let refusal = refusal::classify_error(&seen, error, &self.http.redactor);
        match refusal.kind {
            RefusalKind::Ours(Misconfiguration::AppBlocked) => refusal,
            RefusalKind::Ours(_) | RefusalKind::Permission { .. } => Refusal { kind: unknown, ..refusal },
            _ => refusal,
        }
    }

    /// `fb_exchange_token`. Sent again only if Meta certainly has not processed it.
    pub(super) async fn exchange_token(&self, token: &Secret, kind: TokenKind) -> Result<Exchanged, Refusal> {
        if kind == TokenKind::Page {
            let detail = "page tokens are not exchanged; they follow the user token they come from";
            return Err(Refusal::new(RefusalKind::Ours(Misconfiguration::Request), detail));
        }
        let make = |app_secret: &Secret| {
            let call = Call::new(Method::POST, &["oauth", "access_token"], Asked::TokenEndpoint)
                .once()
                .form("grant_type", "fb_exchange_token")
                .form("client_id", &self.app_id)
                .form("client_secret", app_secret.expose())
                .form("fb_exchange_token", token.expose());
            match kind {
                TokenKind::SystemUser => call.form("set_token_expires_in_60_days", "true"),
                _ => call,
            }
        };
        self.ask(make, exchanged, self.http.deadline()).await
    }

    /// Ends the token. For a person this removes the app's permissions, which ends all of the person's tokens for the
    /// app.
    pub(super) async fn end_token(
        &self,
        token: &Secret,
        subject: &Subject,
        kind: TokenKind,
    ) -> Result<Revocation, Refusal> {
        let deadline = self.http.deadline();
        let asked = match kind {
            TokenKind::Page => return Ok(Revocation::NotSupported),
            TokenKind::SystemUser => {
                let make = |app_secret: &Secret| {
                    Self::call_with_token(Method::GET, &["oauth", "revoke"], token, app_secret)
                        .query("client_id", &self.app_id)
                        .query("client_secret", app_secret.expose())
                        .query("revoke_token", token.expose())
                };
                self.ask(make, success, deadline).await
            }
            TokenKind::ShortLivedUser | TokenKind::LongLivedUser => {
                let id = if subject.id.is_empty() { "me" } else { &subject.id };
                let make = |app_secret: &Secret| {
                    Self::call_with_token(Method::DELETE, &[id, "permissions"], token, app_secret)
                };
                self.ask(make, success, deadline).await
            }
        };
        match asked {
            Ok(()) => Ok(Revocation::Revoked),
            Err(Refusal {
                kind:
                    RefusalKind::Dead { reason: RefusalReason::AppRemoved | RefusalReason::RevokedAtProvider },
                ..
            }) => Ok(Revocation::AlreadyGone),
            Err(refusal) => Err(refusal),
        }
    }
}

/// 0 means never. It must not be read as the year 1970.
fn expiry(unix_seconds: Option<i64>) -> Expiry {
    match unix_seconds {
        Some(0) => Expiry::Never,
        Some(seconds) if seconds > 0 => {
            Expiry::At(Timestamp::from_unix_seconds(seconds), ExpirySource::Provider)
        }
        _ => Expiry::Unknown,
    }
}

fn issued_at(data: &DebugToken) -> Option<Timestamp> {
    data.issued_at.filter(|seconds| *seconds > 0).map(Timestamp::from_unix_seconds)
}

/// The expected reply says whether the token is valid.
fn debug_data(body: &[u8]) -> Option<DebugToken> {
    let mut body: Value = serde_json::from_slice(body).ok()?;
    let data: DebugToken = wire::read(body.get_mut("data")?.take())?;
    (data.is_valid.is_some() || data.error.is_some()).then_some(data)
}

/// JSON, or a query string as in older versions. The expected reply contains a token.
fn exchanged(body: &[u8]) -> Option<Exchanged> {
    let reply = match serde_json::from_slice::<Value>(body) {
        Ok(value) => wire::read(value)?,
        Err(_) => from_query_string(body),
    };
    let seconds = reply.expires_in.or(reply.expires).filter(|seconds| *seconds > 0);
    let expires_in = seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
    let plausible =
        !reply.access_token.is_empty() && reply.access_token.bytes().all(|b| b.is_ascii_graphic());
    plausible.then(|| Exchanged { secret: Secret::from(reply.access_token), expires_in })
}

fn from_query_string(body: &[u8]) -> TokenReply {
    let mut reply = TokenReply::default();
    for (name, value) in url::form_urlencoded::parse(body) {
        match name.as_ref() {
            "access_token" => reply.access_token = Zeroizing::new(value.into_owned()),
            "expires_in" => reply.expires_in = value.trim().parse().ok(),
            "expires" => reply.expires = value.trim().parse().ok(),
            _ => {}
        }
    }
    reply
}

/// `{"success":true}`, the same as text, or a bare `true`.
fn success(body: &[u8]) -> Option<()> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let said = wire::as_truth(body.get("success").unwrap_or(&body))?;
    said.then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_of_the_token_endpoint_are_read_in_every_known_form() {
        /// The token, and the lifetime in the reply.
        type Row<'a> = (&'a str, Option<(&'a str, Option<u64>)>);
        let table: [Row<'_>; 13] = [
            (
                r#"{"access_token":"EAAB","token_type":"bearer","expires_in":5183944}"#,
                Some(("EAAB", Some(5_183_944))),
            ),
            (r#"{"access_token":"EAAB","token_type":"bearer"}"#, Some(("EAAB", None))),
            (r#"{"access_token":"EAAB","expires_in":"5183944"}"#, Some(("EAAB", Some(5_183_944)))),
            (r#"{"access_token":"EAAB","expires_in":0}"#, Some(("EAAB", None))),
            (r#"{"access_token":"EAAB","expires_in":-5}"#, Some(("EAAB", None))),
            (r#"{"access_token":"EAAB","expires_in":null,"expires":60}"#, Some(("EAAB", Some(60)))),
            ("access_token=EAAB&expires=5183944", Some(("EAAB", Some(5_183_944)))),
            ("access_token=EAAB", Some(("EAAB", None))),
            (r#"{"access_token":""}"#, None),
            (r#"{"access_token":"a b"}"#, None),
            ("<html>access_token</html>", None),
            ("false", None),
            ("", None),
        ];
        for (body, expected) in table {
            let got = exchanged(body.as_bytes());
            let got = got.as_ref().map(|e| (e.secret.expose(), e.expires_in.map(|life| life.as_secs())));
            assert_eq!(got, expected, "{body}");
        }
    }

    #[test]
    fn success_has_several_spellings() {
        for (body, expected) in [
            (r#"{"success":true}"#, true),
            (r#"{"success":"true"}"#, true),
            ("true", true),
            (r#"{"success":false}"#, false),
            ("false", false),
            ("{}", false),
            ("<html>", false),
        ] {
            assert_eq!(success(body.as_bytes()).is_some(), expected, "{body}");
        }
    }

    #[test]
    fn no_end_is_neither_now_nor_never() {
        assert_eq!(expiry(None), Expiry::Unknown);
        assert_eq!(expiry(Some(-1)), Expiry::Unknown);
        assert_eq!(expiry(Some(0)), Expiry::Never);
        assert_eq!(expiry(Some(5)), Expiry::At(Timestamp::from_unix_seconds(5), ExpirySource::Provider));
    }
}

/// Every reading of a body that this module has.
#[cfg(fuzzing)]
pub(super) fn fuzz(body: &[u8]) {
    if let Some(data) = debug_data(body) {
        let _ = (issued_at(&data), expiry(data.expires_at), expiry(data.data_access_expires_at));
    }
    if let Some(exchanged) = exchanged(body) {
        assert!(!exchanged.secret.expose().is_empty());
    }
    let _ = success(body);
}
