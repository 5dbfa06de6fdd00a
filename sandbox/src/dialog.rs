//! The login dialog: what a person can decide and what follows. The page is in `routes::dialog`.

use serde::{Deserialize, Serialize};
use url::{Url, form_urlencoded};

use crate::clock::DAY;
use crate::people::PermissionStatus;
use crate::random::random_text;
use crate::state::{Code, Shared, State};

/// Life of a code, in seconds.
const CODE_LIFE: i64 = 600;

/// What a person decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Grants everything that is asked for.
    Allow,
    /// Grants everything except these.
    AllowExcept(Vec<String>),
    /// Grants everything, for these ad accounts only. This holds for every token of the person and the app, earlier
    /// ones too.
    AllowAdAccounts(Vec<String>),
    /// Cancels.
    Deny,
    /// No decision is possible, since the dialog is configured wrong (the redirect has no `error`).
    Misconfigured,
    /// A redirect with neither code nor error, as has been observed.
    Nothing,
}

/// The parameters of `/dialog/oauth`.
#[derive(Clone, Debug)]
pub(crate) struct DialogRequest {
    pub(crate) app_id: String,
    pub(crate) app_name: String,
    redirect_uri: String,
    state: Option<String>,
    pub(crate) scopes: Vec<String>,
    rerequest: bool,
    return_scopes: bool,
    challenge: Option<String>,
}

impl DialogRequest {
    /// Checks what Meta checks before it shows the dialog. The error is the text of the error page.
    pub(crate) fn read(state: &State, param: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let app_id = param("client_id").ok_or("The parameter client_id is required.")?;
        let app = state
            .app(&app_id)
            .ok_or("Invalid App ID: The provided app ID does not look like a valid app ID.")?;
        let redirect_uri = param("redirect_uri").ok_or("The parameter redirect_uri is required.")?;
        let url =
            Url::parse(&redirect_uri).map_err(|_| "URL blocked: redirect_uri is not an absolute URL.")?;
        let local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        if url.scheme() != "https" && !local {
            return Err("Insecure login blocked: the redirect URI must use HTTPS.".to_owned());
        }
        let known = &state.switches.redirect_uris;
        if !known.is_empty() && !known.iter().any(|one| same_but_state(one, &redirect_uri)) {
            return Err(
                "URL Blocked: This redirect failed because the redirect URI is not whitelisted in the \
                        app's Client OAuth Settings."
                    .to_owned(),
            );
        }
        let scopes = param("scope").unwrap_or_default();
        let scopes = scopes.split([',', ' ']).filter(|scope| !scope.is_empty()).map(str::to_owned).collect();
        let auth_type = param("auth_type").unwrap_or_default();
        Ok(Self {
            app_id,
            app_name: app.name.clone(),
            redirect_uri,
            state: param("state"),
            scopes,
            rerequest: auth_type.split(',').any(|kind| kind == "rerequest"),
            return_scopes: param("return_scopes").as_deref() == Some("true"),
            challenge: param("code_challenge"),
        })
    }

    /// Whether the dialog asks for a scope with this status. It does not ask again for a declined one.
    pub(crate) fn asks(&self, status: Option<PermissionStatus>) -> bool {
        self.rerequest || status != Some(PermissionStatus::Declined)
    }

    /// Applies the decision and returns the URL that the browser is sent to.
    pub(crate) fn decide(&self, state: &mut State, user: &str, decision: &Decision) -> String {
        let except = match decision {
            Decision::Allow | Decision::AllowAdAccounts(_) => Vec::new(),
            Decision::AllowExcept(names) => names.clone(),
            Decision::Deny => {
                return self.back(&[
                    ("error", "access_denied"),
                    ("error_code", "200"),
                    ("error_description", "Permissions error"),
                    ("error_reason", "user_denied"),
                ]);
            }
            Decision::Misconfigured => {
                let text = "Can't load URL: The domain of this URL isn't included in the app's domains.";
                return self.back(&[("error_code", "1349048"), ("error_message", text)]);
            }
            Decision::Nothing => return self.back(&[]),
        };
        let key = state.enter(user, false);
        let renewed = state.now().saturating_add(90 * DAY);
        let (mut granted, mut denied) = (Vec::new(), Vec::new());
        if let Some(person) = state.people.get_mut(&key) {
            person.data_access_expires_at = renewed;
            if let Decision::AllowAdAccounts(ids) = decision {
                person.tick(&self.app_id, ids);
            }
            for scope in &self.scopes {
                if self.asks(person.status_of(scope)) {
                    let declined = except.contains(scope);
                    let status =
                        if declined { PermissionStatus::Declined } else { PermissionStatus::Granted };
                    person.set_permission(scope, status);
                }
                let has = person.status_of(scope) == Some(PermissionStatus::Granted);
                if has { granted.push(scope.as_str()) } else { denied.push(scope.as_str()) }
            }
        }
        let code = issue_code(state, &self.app_id, &key, &self.redirect_uri, self.challenge.clone());
        let (granted, denied) = (granted.join(","), denied.join(","));
        let mut pairs = vec![("code", code.as_str())];
        if self.return_scopes {
            pairs.extend([("granted_scopes", granted.as_str()), ("denied_scopes", denied.as_str())]);
        }
        self.back(&pairs)
    }

    fn back(&self, pairs: &[(&str, &str)]) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(pairs);
        if let Some(state) = &self.state {
            query.append_pair("state", state);
        }
        let glue = if self.redirect_uri.contains('?') { '&' } else { '?' };
        format!("{}{glue}{}#_=_", self.redirect_uri, query.finish())
    }
}

/// Whether the URIs are the same except for the value of `state`, as strict mode requires.
fn same_but_state(one: &str, other: &str) -> bool {
    let plain = |text: &str| {
        let mut url = Url::parse(text).ok()?;
        let pairs: Vec<(String, String)> = url
            .query_pairs()
            .into_owned()
            .map(|(name, value)| if name == "state" { (name, String::new()) } else { (name, value) })
            .collect();
        url.query_pairs_mut().clear().extend_pairs(pairs);
        Some(url)
    };
    plain(one).is_some() && plain(one) == plain(other)
}

/// A code for one use, bound to app, person and redirect URI.
pub(crate) fn issue_code(
    state: &mut State,
    app_id: &str,
    owner: &str,
    redirect_uri: &str,
    challenge: Option<String>,
) -> String {
    let text = format!("AQD{}", random_text(447));
    let code = Code {
        app_id: app_id.to_owned(),
        owner: owner.to_owned(),
        redirect_uri: redirect_uri.to_owned(),
        challenge,
        expires_at: state.now().saturating_add(CODE_LIFE),
        used: false,
    };
    state.codes.insert(text.clone(), code);
    text
}

/// What the dialog does, without a browser.
pub(crate) fn consent(
    shared: &Shared,
    dialog_url: &str,
    user: &str,
    decision: Decision,
) -> Result<String, String> {
    let url = Url::parse(dialog_url).map_err(|error| error.to_string())?;
    let param =
        |name: &str| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    let mut state = shared.lock();
    let request = DialogRequest::read(&state, param)?;
    Ok(request.decide(&mut state, user, &decision))
}
