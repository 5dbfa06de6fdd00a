//! The login dialog: what it asks for and what follows from a decision. The page is in `routes::dialog`.

mod business;
mod decision;

use url::{Host, Url, form_urlencoded};

use crate::clock::DAY;
use crate::people::PermissionStatus;
use crate::random::random_text;
use crate::state::{Code, Shared, State};

pub use business::{LoginConfig, LoginToken};
pub(crate) use decision::Flaw;
pub use decision::{Decision, Pick};

/// Life of a code, in seconds.
const CODE_LIFE: i64 = 600;
/// Where the codes of the JavaScript SDK belong.
const SDK_REDIRECT_URI: &str = "https://staticxx.facebook.com/x/connect/xd_arbiter/";

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
    /// The configuration of Facebook Login for Business.
    config: Option<LoginConfig>,
    /// Why the dialog cannot be shown. The browser is sent back with it.
    fault: Option<&'static str>,
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
        let local = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
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
        let (config, fault) = match business_login(state, &app_id, &param) {
            Ok(config) => (config, None),
            Err(text) => (None, Some(text)),
        };
        let scopes = match &config {
            Some(config) => config.scopes.clone(),
            None => split(&param("scope").unwrap_or_default()),
        };
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
            config,
            fault,
        })
    }

    /// Whether a configuration says what is asked for, so that a person takes or leaves all of it.
    pub(crate) fn all_or_nothing(&self) -> bool {
        self.config.is_some()
    }

    /// The redirect of a dialog that cannot be shown.
    pub(crate) fn fault(&self) -> Option<String> {
        let text = self.fault?;
        Some(self.back(&[("error_code", "1349048"), ("error_message", text)]))
    }

    /// Whether the dialog asks for a scope with this status. It does not ask again for a declined one.
    pub(crate) fn asks(&self, status: Option<PermissionStatus>) -> bool {
        self.rerequest || self.all_or_nothing() || status != Some(PermissionStatus::Declined)
    }

    /// Applies the decision and returns the URL that the browser is sent to.
    pub(crate) fn decide(&self, state: &mut State, user: &str, decision: &Decision) -> String {
        if let Some(location) = self.fault() {
            return location;
        }
        match decision.agreement(&self.scopes) {
            Some((pick, flaw)) => self.agree(state, user, &pick, flaw),
            None => self.back(decision.refusal()),
        }
    }

    /// Grants what is picked and returns the URL with the code.
    pub(crate) fn agree(&self, state: &mut State, user: &str, pick: &Pick, flaw: Flaw) -> String {
        if self.all_or_nothing() && !self.scopes.iter().all(|scope| pick.has(scope)) {
            return self.back(Decision::Deny.refusal());
        }
        let key = state.enter(user, false);
        let order = self.config.as_ref().and_then(LoginConfig::order);
        let (granted, denied) = match order {
            Some(_) => (self.scopes.clone(), Vec::new()),
            None => self.grant(state, &key, pick),
        };
        let owner = if order.is_some() {
            let person = state.person(&key);
            business::install(state, user, &person, &self.app_id, &self.scopes, pick)
        } else {
            key
        };
        let mut code = Code {
            order,
            challenge: self.challenge.clone(),
            ..Code::new(&self.app_id, &owner, &self.redirect_uri, state.now().saturating_add(CODE_LIFE))
        };
        match flaw {
            Flaw::Expired => code.expires_at = state.now(),
            Flaw::Used => code.used = true,
            Flaw::Foreign => SDK_REDIRECT_URI.clone_into(&mut code.redirect_uri),
            Flaw::None | Flaw::Malformed => {}
        }
        let text = code_text();
        if flaw != Flaw::Malformed {
            state.codes.insert(text.clone(), code);
        }
        let (granted, denied) = (granted.join(","), denied.join(","));
        let mut pairs = vec![("code", text.as_str())];
        if self.return_scopes {
            pairs.extend([("granted_scopes", granted.as_str()), ("denied_scopes", denied.as_str())]);
        }
        self.back(&pairs)
    }

    /// Notes what the person granted, and returns which scopes the app then has and has not.
    fn grant(&self, state: &mut State, key: &str, pick: &Pick) -> (Vec<String>, Vec<String>) {
        let renewed = state.now().saturating_add(90 * DAY);
        let Some(person) = state.people.get_mut(key) else { return (Vec::new(), self.scopes.clone()) };
        person.data_access_expires_at = renewed;
        if let Some(ids) = &pick.ad_accounts {
            person.give(&self.app_id, ids);
        }
        for scope in &self.scopes {
            if self.asks(person.status_of(scope)) {
                let granted = pick.has(scope);
                let status = if granted { PermissionStatus::Granted } else { PermissionStatus::Declined };
                person.set_permission(scope, status);
            }
        }
        let has = |scope: &String| person.status_of(scope) == Some(PermissionStatus::Granted);
        self.scopes.iter().cloned().partition(has)
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

/// The configuration that `config_id` names, or why the dialog cannot be shown with it.
fn business_login(
    state: &State,
    app_id: &str,
    param: impl Fn(&str) -> Option<String>,
) -> Result<Option<LoginConfig>, &'static str> {
    let Some(id) = param("config_id") else { return Ok(None) };
    let own =
        |config: &&LoginConfig| config.id == id && config.app_id.as_ref().is_none_or(|owner| owner == app_id);
    let config = state.switches.login_configs.iter().find(own);
    let config = config.ok_or("Can't load URL: The config_id is not a configuration of this app.")?;
    let code = param("response_type").is_none_or(|kind| kind == "code");
    let overridden = param("override_default_response_type").as_deref() == Some("true");
    if !code && (overridden || config.token != LoginToken::User) {
        return Err("Can't load URL: This configuration needs response_type=code.");
    }
    Ok(Some(config.clone()))
}

/// The names in a list with commas, or with spaces as some clients send it.
pub(crate) fn split(list: &str) -> Vec<String> {
    list.split([',', ' ']).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn code_text() -> String {
    format!("AQD{}", random_text(447))
}

/// A code for one use, bound to app, person and redirect URI.
pub(crate) fn issue_code(state: &mut State, app_id: &str, owner: &str, redirect_uri: &str) -> String {
    let text = code_text();
    let code = Code::new(app_id, owner, redirect_uri, state.now().saturating_add(CODE_LIFE));
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
