//! Which callback is sent, to whom, and how it is signed.

use std::fmt::Write;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::Url;

use super::send::Outgoing;
use super::{hub_signature, sign_payload};
use crate::state::{State, person_key};

/// The most that one order sends.
const MOST: u32 = 100;
/// The longest delay, in seconds.
const LATEST: f64 = 300.0;

/// A callback to the app, sent by [`Sandbox::call_back`](crate::Sandbox::call_back) or `POST /_sandbox/callbacks`. It
/// changes nothing in the sandbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Callback {
    pub kind: CallbackKind,
    /// Where to send it, plain http. Unset takes the URL of the switches.
    #[serde(default)]
    pub url: Option<String>,
    /// Name of the person that it is about.
    #[serde(default)]
    pub user: Option<String>,
    /// The app-scoped id, in place of `user`.
    #[serde(default)]
    pub user_id: Option<String>,
    /// The app that it is for; unset is the first.
    #[serde(default)]
    pub app_id: Option<String>,
    #[serde(default)]
    pub sign: Sign,
    /// How often the same is sent, one after the other; unset is once.
    #[serde(default)]
    pub times: Option<u32>,
    /// How long to wait before it is sent, in seconds of real time.
    #[serde(default)]
    pub delay_seconds: f64,
    /// How old its date is, in seconds, as in a replay.
    #[serde(default)]
    pub age_seconds: i64,
    /// `algorithm` of a `signed_request`; unset is `HMAC-SHA256`, with which it is signed in any case.
    #[serde(default)]
    pub algorithm: Option<String>,
    /// `expires` of a `signed_request`, in unix seconds; unset leaves it out.
    #[serde(default)]
    pub expires: Option<i64>,
    /// `changes` of a webhook; unset sends `changed_fields: ["connected"]`.
    #[serde(default)]
    pub changes: Option<Value>,
    /// The whole body of a webhook, to the byte.
    #[serde(default)]
    pub body: Option<String>,
    /// `hub.verify_token` of a subscription.
    #[serde(default)]
    pub verify_token: Option<String>,
    /// `hub.challenge` of a subscription.
    #[serde(default)]
    pub challenge: Option<String>,
    /// `hub.mode` of a subscription; unset is `subscribe`.
    #[serde(default)]
    pub mode: Option<String>,
}

/// The kind of a [`Callback`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallbackKind {
    /// A person removed the app: a POST with a `signed_request`.
    Deauthorize,
    /// A person asks for the deletion of their data: a POST with a `signed_request`.
    DataDeletion,
    /// The webhook for object `permissions`, signed over its raw bytes.
    Webhook,
    /// The check before a webhook is subscribed: a GET with a challenge, which the app sends back.
    Subscription,
    /// A GET of the deauthorize callback without anything, as Meta sends now and then.
    Probe,
}

/// With what a [`Callback`] is signed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sign {
    /// The app's first secret.
    #[default]
    Right,
    /// A secret that no app has.
    Wrong,
    /// The first secret of another app, by its id.
    App(String),
    /// Nothing: no header, or an empty signature in a `signed_request`.
    Missing,
}

impl Callback {
    /// A callback with its defaults.
    pub fn new(kind: CallbackKind) -> Self {
        Self {
            kind,
            url: None,
            user: None,
            user_id: None,
            app_id: None,
            sign: Sign::Right,
            times: None,
            delay_seconds: 0.0,
            age_seconds: 0,
            algorithm: None,
            expires: None,
            changes: None,
            body: None,
            verify_token: None,
            challenge: None,
            mode: None,
        }
    }

    /// Makes it about a person, by name.
    pub fn about(self, user: &str) -> Self {
        Self { user: Some(user.to_owned()), ..self }
    }

    /// Sends it to this URL.
    pub fn to(self, url: &str) -> Self {
        Self { url: Some(url.to_owned()), ..self }
    }

    /// The request, and how often it is sent. The error says what is missing.
    pub(crate) fn prepare(&self, state: &State) -> Result<(Outgoing, u32), String> {
        if !(0.0..=LATEST).contains(&self.delay_seconds) {
            return Err(format!("delay_seconds must be from 0 to {LATEST}"));
        }
        let times = self.times.unwrap_or(1);
        if !(1..=MOST).contains(&times) {
            return Err(format!("times must be from 1 to {MOST}"));
        }
        let (url, delay) = (self.target(state)?, Duration::from_secs_f64(self.delay_seconds));
        let outgoing = match self.kind {
            CallbackKind::Deauthorize | CallbackKind::DataDeletion => {
                Outgoing::signed_request(url, &self.signed_request(state)?, delay)
            }
            CallbackKind::Webhook => {
                let body = self.webhook(state)?;
                let signature = self.secret(state)?.map(|secret| hub_signature(&secret, &body));
                Outgoing::webhook(url, body, signature, delay)
            }
            CallbackKind::Subscription => Outgoing::get(self.subscription(&url)?, delay),
            CallbackKind::Probe => Outgoing::get(url, delay),
        };
        Ok((outgoing, times))
    }

    fn target(&self, state: &State) -> Result<String, String> {
        let (switch, name) = match self.kind {
            CallbackKind::Deauthorize | CallbackKind::Probe => {
                (&state.switches.deauthorize_url, "deauthorize_url")
            }
            CallbackKind::DataDeletion => (&state.switches.data_deletion_url, "data_deletion_url"),
            CallbackKind::Webhook | CallbackKind::Subscription => {
                (&state.switches.webhook_url, "webhook_url")
            }
        };
        let url = self.url.as_ref().or(switch.as_ref());
        url.cloned().ok_or_else(|| format!("give a url, or set the switch {name}"))
    }

    fn person_id(&self, state: &State) -> Result<String, String> {
        match (&self.user_id, &self.user) {
            (Some(id), _) => Ok(id.clone()),
            (None, Some(name)) => {
                let person = state.people.get(&person_key(name, false));
                let person = person.ok_or_else(|| format!("there is no user {name}"))?;
                Ok(person.id.clone())
            }
            (None, None) => Err("give a user or a user_id".to_owned()),
        }
    }

    /// `None` signs nothing.
    fn secret(&self, state: &State) -> Result<Option<String>, String> {
        let first = |id: &str| {
            let app = state.app(id).ok_or_else(|| format!("there is no app {id}"))?;
            app.secrets.first().cloned().ok_or_else(|| format!("the app {id} has no secret"))
        };
        match &self.sign {
            Sign::Right => match &self.app_id {
                Some(id) => first(id).map(Some),
                None => first(&state.default_app().id).map(Some),
            },
            Sign::Wrong => Ok(Some("not the secret".to_owned())),
            Sign::App(id) => first(id).map(Some),
            Sign::Missing => Ok(None),
        }
    }

    fn date(&self, state: &State) -> i64 {
        state.now().saturating_sub(self.age_seconds)
    }

    fn signed_request(&self, state: &State) -> Result<String, String> {
        let algorithm = self.algorithm.as_deref().unwrap_or("HMAC-SHA256");
        let mut payload = json!({ "user_id": self.person_id(state)?, "algorithm": algorithm,
            "issued_at": self.date(state) });
        if let (Some(at), Value::Object(payload)) = (self.expires, &mut payload) {
            payload.insert("expires".into(), json!(at));
        }
        let signed = |secret: &str| sign_payload(secret, &payload.to_string());
        Ok(match self.secret(state)? {
            Some(secret) => signed(&secret),
            None => signed("").split_once('.').map_or_else(String::new, |(_, payload)| format!(".{payload}")),
        })
    }

    fn webhook(&self, state: &State) -> Result<String, String> {
        if let Some(body) = &self.body {
            return Ok(body.clone());
        }
        let mut entry = json!({ "id": self.person_id(state)?, "time": self.date(state) });
        if let Value::Object(entry) = &mut entry {
            match &self.changes {
                Some(changes) => entry.insert("changes".into(), changes.clone()),
                None => entry.insert("changed_fields".into(), json!(["connected"])),
            };
        }
        Ok(ascii(&json!({ "object": "permissions", "entry": [entry] }).to_string()))
    }

    fn subscription(&self, url: &str) -> Result<String, String> {
        let mut url = Url::parse(url).map_err(|error| format!("the url: {error}"))?;
        url.query_pairs_mut()
            .append_pair("hub.mode", self.mode.as_deref().unwrap_or("subscribe"))
            .append_pair("hub.challenge", self.challenge.as_deref().unwrap_or("1158201444"))
            .append_pair("hub.verify_token", self.verify_token.as_deref().unwrap_or_default());
        Ok(url.into())
    }
}

/// JSON as Meta writes it, with `\u` in place of what is not ASCII.
fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for letter in json.chars() {
        if letter.is_ascii() {
            text.push(letter);
        } else {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                _ = write!(text, "\\u{unit:04x}");
            }
        }
    }
    text
}
