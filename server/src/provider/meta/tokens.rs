//! Calls about the token itself: inspect, exchange, end.

use std::time::Duration;

use reqwest::Method;
use zeroize::Zeroizing;

use super::http::{Body, Call};
use super::refusal::{self, Asked, ErrorObject, Seen};
use super::wire::{self, Json, Object, Told};
use super::{Meta, proof};
use crate::model::{
    Expiry, GranularScope, Misconfiguration, Refusal, RefusalKind, RefusalReason, Secret, Subject,
    SubjectType, Timestamp, TokenKind, ToldFacts, ToldScopes,
};
use crate::provider::{Exchanged, Inspected, Revocation};

/// A user token that lives no longer than this is a short-lived one.
const SHORT_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// No token lives longer than this. What looks like it, is milliseconds.
const LONGEST_LIFE: u64 = 10 * 366 * 24 * 60 * 60;

/// `data` of `debug_token`. What is `None` was not told.
struct DebugToken {
    app_id: Option<String>,
    kind: Option<String>,
    is_valid: Option<bool>,
    expires_at: Option<Expiry>,
    data_access_expires_at: Option<Expiry>,
    issued_at: Option<Timestamp>,
    scopes: Option<Vec<String>>,
    granular_scopes: Option<Vec<GranularScope>>,
    user_id: Option<String>,
    profile_id: Option<String>,
    error: Option<ErrorObject>,
}

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

    /// What Meta says about a token: `/debug_token`, and for a person's token `/me/permissions`, since `/debug_token`
    /// lists scopes that the person has declined.
    pub(super) async fn inspect_token(&self, token: &Secret) -> Result<Inspected, Refusal> {
        let mut inspected = self.debug_token(token).await?;
        inspected.facts.scopes.grants = match inspected.subject.kind {
            SubjectType::User => self
                .permissions(token)
                .await
                .inspect_err(
                    |refusal| tracing::debug!(detail = %refusal.detail, "permissions could not be read"),
                )
                .ok(),
            SubjectType::Page | SubjectType::SystemUser | SubjectType::App => Some(Vec::new()),
            SubjectType::Unknown => None,
        };
        Ok(inspected)
    }

    /// A token is valid only if the reply says so.
    fn judge(&self, data: DebugToken, token: &Secret) -> Result<Inspected, Refusal> {
        if data.app_id.as_ref().is_some_and(|app_id| *app_id != self.app_id) {
            return Err(Refusal::new(RefusalKind::OtherApp, "the token was made for another app"));
        }
        if data.is_valid != Some(true) {
            return Err(self.invalid(&data, token));
        }
        let Some(app_id) = data.app_id else {
            let detail = "the inspection of the token does not say for which app it was made";
            return Err(Refusal::new(RefusalKind::Transient { retry_after: None }, detail));
        };
        let expiry = data.expires_at.unwrap_or(Expiry::Unknown);
        let (id, subject, kind) = match data.kind.as_deref() {
            Some("APP") => {
                let detail = "this is an app token; paste the access token of a person or a system user";
                return Err(Refusal::new(RefusalKind::Dead { reason: RefusalReason::Malformed }, detail));
            }
            Some("PAGE") => (data.profile_id, SubjectType::Page, Some(TokenKind::Page)),
            Some("SYSTEM_USER") => (data.user_id, SubjectType::SystemUser, Some(TokenKind::SystemUser)),
            Some("USER") => (data.user_id, SubjectType::User, Some(self.user_kind(expiry, data.issued_at))),
            _ => (data.user_id, SubjectType::Unknown, None),
        };
        let data_access = match (data.data_access_expires_at, kind) {
            (None, Some(TokenKind::SystemUser)) => Expiry::Never,
            (data_access, _) => data_access.unwrap_or(Expiry::Unknown),
        };
        let facts = ToldFacts {
            kind,
            expiry,
            data_access,
            issued_at: data.issued_at,
            scopes: ToldScopes { listed: data.scopes, grants: None },
            granular_scopes: data.granular_scopes,
        };
        let subject = Subject { id: id.unwrap_or_default(), name: String::new(), kind: subject };
        Ok(Inspected { app_id, subject, facts })
    }

    /// The lifetime decides. If the reply has no day of issue, the time that is left decides.
    fn user_kind(&self, expiry: Expiry, issued_at: Option<Timestamp>) -> TokenKind {
        let from = issued_at.unwrap_or_else(|| self.clock.now());
        match expiry {
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

    /// Sent once: nobody knows whether a lost reply, or an error of Meta's own, used up the code.
    pub(super) async fn token_for_code(
        &self,
        code: &Secret,
        redirect_uri: &str,
        verifier: &Secret,
    ) -> Result<Exchanged, Refusal> {
        let make = |app_secret: &Secret| {
            Call::new(Method::POST, &["oauth", "access_token"], Asked::Code)
                .once()
                .form("client_id", &self.app_id)
                .form("client_secret", app_secret.expose())
                .form("redirect_uri", redirect_uri)
                .form("code", code.expose())
                .form("code_verifier", verifier.expose())
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

/// The expected reply says whether the token is valid.
fn debug_data(body: &mut Body<'_>) -> Option<DebugToken> {
    let data = body.object("debug_token")?.object("data").known()?;
    let told = DebugToken {
        app_id: data.id("app_id").known(),
        kind: data.word("type").known(),
        is_valid: data.truth("is_valid").known(),
        expires_at: data.end("expires_at").known(),
        data_access_expires_at: data.end("data_access_expires_at").known(),
        issued_at: data.instant("issued_at").known(),
        scopes: data.words("scopes").known(),
        granular_scopes: granular_scopes(&data),
        user_id: data.id("user_id").known(),
        profile_id: data.id("profile_id").known(),
        error: data.object("error").known().map(|error| ErrorObject::read(&error)),
    };
    (told.is_valid.is_some() || told.error.is_some()).then_some(told)
}

/// Scopes and the objects that they are limited to. A limit that can't be read would look like none, so it makes the
/// whole list unknown.
fn granular_scopes(data: &Object<'_>) -> Option<Vec<GranularScope>> {
    let limit = |entry: Object<'_>| {
        let target_ids = match entry.ids("target_ids") {
            Told::Known(ids) => ids,
            Told::Absent => Vec::new(),
            Told::Implausible => return None,
        };
        Some(GranularScope { scope: entry.word("scope").known()?, target_ids })
    };
    data.objects("granular_scopes").known()?.into_iter().map(limit).collect()
}

/// JSON, or a query string as in older versions. The expected reply contains a token.
fn exchanged(body: &mut Body<'_>) -> Option<Exchanged> {
    let life = |seconds: Option<i64>| {
        let seconds = u64::try_from(seconds?).ok()?;
        (1..=LONGEST_LIFE).contains(&seconds).then(|| Duration::from_secs(seconds))
    };
    if body.json.is_some() {
        let reply = body.object("oauth/access_token")?;
        let seconds = reply.integer("expires_in").known().or_else(|| reply.integer("expires").known());
        return Some(Exchanged { secret: reply.token("access_token").known()?, expires_in: life(seconds) });
    }
    let (mut secret, mut seconds) = (None, None);
    for (name, value) in url::form_urlencoded::parse(body.bytes) {
        match name.as_ref() {
            "access_token" => secret = wire::as_token(&Zeroizing::new(value.into_owned())),
            "expires_in" | "expires" => seconds = value.trim().parse().ok(),
            _ => {}
        }
    }
    Some(Exchanged { secret: secret?, expires_in: life(seconds) })
}

/// `{"success":true}`, the same as text, or a bare `true`.
fn success(body: &mut Body<'_>) -> Option<()> {
    let said = match body.json.as_ref()? {
        Json::Object(_) => body.object("revoke")?.truth("success").known()?,
        bare => wire::as_truth(bare)?,
    };
    said.then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::meta::wire::Doubts;

    #[test]
    fn replies_of_the_token_endpoint_are_read_in_every_known_form() {
        /// The token, and the lifetime in the reply.
        type Row<'a> = (&'a str, Option<(&'a str, Option<u64>)>);
        let table: [Row<'_>; 25] = [
            (
                r#"{"access_token":"EAABsbCS1iHgBAKZCtoken","token_type":"bearer","expires_in":5183944}"#,
                Some(("EAABsbCS1iHgBAKZCtoken", Some(5_183_944))),
            ),
            (
                r#"{"access_token":"EAABsbCS1iHgBAKZCtoken","token_type":"bearer"}"#,
                Some(("EAABsbCS1iHgBAKZCtoken", None)),
            ),
            (
                r#"{"access_token":"EAABsbCS1iHgBAKZCtoken","expires_in":"5183944"}"#,
                Some(("EAABsbCS1iHgBAKZCtoken", Some(5_183_944))),
            ),
            (
                r#"{"access_token":"EAABsbCS1iHgBAKZCtoken","expires_in":0}"#,
                Some(("EAABsbCS1iHgBAKZCtoken", None)),
            ),
            (
                r#"{"access_token":"EAABsbCS1iHgBAKZCtoken","expires_in":-5}"#,
                Some(("EAABsbCS1iHgBAKZCtoken", None)),
            ),
            (
                r#"{"access_token":"EAABsbCS1iHgBAKZCtoken","expires_in":null,"expires":60}"#,
                Some(("EAABsbCS1iHgBAKZCtoken", Some(60))),
            ),
            (
                "access_token=EAABsbCS1iHgBAKZCtoken&expires=5183944",
                Some(("EAABsbCS1iHgBAKZCtoken", Some(5_183_944))),
            ),
            ("access_token=EAABsbCS1iHgBAKZCtoken", Some(("EAABsbCS1iHgBAKZCtoken", None))),
            // What can't be a token is no token, whoever sent what it was exchanged for.
            (r#"{"access_token":""}"#, None),
            (r#"{"access_token":"a b"}"#, None),
            (r#"{"access_token":"EAAx"}"#, None),
            (r#"{"access_token":17}"#, None),
            (r#"{"access_token":null}"#, None),
            (r#"{"access_token":["EAABsbCS1iHgBAKZCtoken"]}"#, None),
            (r#"{"access_token":"EAABsbCS1iHgBAKZC\u0000token"}"#, None),
            (r#"{"access_token":"EAABsbCS1iHgBAKZC\ud800token"}"#, None),
            (r#"{"access_token":"EAABsbCS1iHgBAKZCtoken","access_token":"EAABsbCS1iHgBAKZCother"}"#, None),
            ("access_token=EAAx", None),
            // A life in milliseconds, and others that nobody means.
            (
                r#"{"access_token":"EAABsbCS1iHgBAKZCtoken","expires_in":5183944000}"#,
                Some(("EAABsbCS1iHgBAKZCtoken", None)),
            ),
            (
                r#"{"access_token":"EAABsbCS1iHgBAKZCtoken","expires_in":1e30}"#,
                Some(("EAABsbCS1iHgBAKZCtoken", None)),
            ),
            (
                r#"{"access_token":"EAABsbCS1iHgBAKZCtoken","expires_in":true}"#,
                Some(("EAABsbCS1iHgBAKZCtoken", None)),
            ),
            (
                "access_token=EAABsbCS1iHgBAKZCtoken&expires=5183944000",
                Some(("EAABsbCS1iHgBAKZCtoken", None)),
            ),
            ("<html>access_token</html>", None),
            ("false", None),
            ("", None),
        ];
        for (body, expected) in table {
            let got = exchanged(&mut Body::read(body.as_bytes(), &Doubts::default()));
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
            let said = success(&mut Body::read(body.as_bytes(), &Doubts::default()));
            assert_eq!(said.is_some(), expected, "{body}");
        }
    }

    #[test]
    fn a_limit_that_cannot_be_read_is_not_read_as_no_limit() {
        let granular = |entry: &str| {
            let body =
                format!(r#"{{"data":{{"is_valid":true,"granular_scopes":[{{"scope":"b"}},{entry}]}}}}"#);
            let data = debug_data(&mut Body::read(body.as_bytes(), &Doubts::default())).unwrap();
            data.granular_scopes
                .map(|all| all.into_iter().map(|limit| limit.target_ids.len()).collect::<Vec<_>>())
        };
        assert_eq!(granular(r#"{"scope":"a","target_ids":["1",2]}"#), Some(vec![0, 2]));
        assert_eq!(granular(r#"{"scope":"a","target_ids":null}"#), Some(vec![0, 0]));
        for broken in [
            r#"{"scope":"a","target_ids":"1"}"#,
            r#"{"scope":"a","target_ids":["1",1e21]}"#,
            r#"{"scope":5e5,"target_ids":["1"],"scope":6}"#,
            r#"{"target_ids":["1"]}"#,
            "null",
        ] {
            assert_eq!(granular(broken), None, "{broken}");
        }
    }
}

/// Every reading of a body that this module has.
#[cfg(fuzzing)]
pub(super) fn fuzz(body: &mut Body<'_>) {
    let _ = debug_data(body);
    if let Some(exchanged) = exchanged(body) {
        assert!(exchanged.secret.expose().bytes().all(|byte| byte.is_ascii_graphic()));
    }
    let _ = success(body);
}
