//! `/dialog/oauth`: the consent page. Instead of a login it asks which person of the sandbox the user is.
//!
//! A script decides at once with `sandbox_user`, and optionally `sandbox_decision` (`allow`, `deny`,
//! `misconfigured`, `nothing`) and `sandbox_decline` (names separated by commas), added to the URL.

use std::fmt::Write;

use crate::dialog::{Decision, DialogRequest};
use crate::state::State;
use crate::wire::reply::{Content, Outcome};
use crate::wire::request::GraphRequest;

/// Shows the page, or applies the decision.
pub(crate) fn oauth(state: &mut State, request: &GraphRequest) -> Outcome {
    let read = DialogRequest::read(state, |name| request.param(name).map(str::to_owned));
    let dialog = match read {
        Ok(dialog) => dialog,
        Err(text) => {
            return Ok(Content::Html { status: 400, text: page(&format!("<p>{}</p>", escape(&text))) });
        }
    };
    let Some(user) = request.param("sandbox_user") else {
        return Ok(Content::Html { status: 200, text: page(&form(state, request, &dialog)) });
    };
    Ok(Content::Redirect(dialog.decide(state, user, &decision(request, &dialog))))
}

fn decision(request: &GraphRequest, dialog: &DialogRequest) -> Decision {
    match request.param("sandbox_decision") {
        Some("deny") => return Decision::Deny,
        Some("misconfigured") => return Decision::Misconfigured,
        Some("nothing") => return Decision::Nothing,
        _ => {}
    }
    if request.param("sandbox_form").is_some() {
        let ticked = |scope: &String| {
            request.form.iter().any(|(name, value)| name == "sandbox_grant" && value == scope)
        };
        return Decision::AllowExcept(dialog.scopes.iter().filter(|scope| !ticked(scope)).cloned().collect());
    }
    let declined = request.param("sandbox_decline").unwrap_or_default();
    Decision::AllowExcept(declined.split(',').map(str::to_owned).collect())
}

fn form(state: &State, request: &GraphRequest, dialog: &DialogRequest) -> String {
    let mut hidden = String::from("<input type=\"hidden\" name=\"sandbox_form\" value=\"1\">");
    for (name, value) in &request.query {
        let (name, value) = (escape(name), escape(value));
        _ = write!(hidden, "<input type=\"hidden\" name=\"{name}\" value=\"{value}\">");
    }
    let mut people = String::new();
    for person in state.people.values().filter(|person| !person.system) {
        _ = write!(people, "<option value=\"{}\">", escape(&person.name));
    }
    let mut scopes = String::new();
    for scope in &dialog.scopes {
        let scope = escape(scope);
        _ = write!(
            scopes,
            "<label><input type=\"checkbox\" name=\"sandbox_grant\" value=\"{scope}\" checked> {scope}</label><br>"
        );
    }
    format!(
        "<h1>{} wants to access your account</h1><form method=\"post\" action=\"{}\">{hidden}\
         <p><label>You are <input name=\"sandbox_user\" value=\"ana\" list=\"people\" required></label>\
         <datalist id=\"people\">{people}</datalist></p><fieldset><legend>It asks for</legend>{scopes}</fieldset>\
         <p><small>What you declined before stays declined unless the app asks again (auth_type=rerequest).</small></p>\
         <button name=\"sandbox_decision\" value=\"allow\">Continue</button> \
         <button name=\"sandbox_decision\" value=\"deny\">Cancel</button></form>",
        escape(&dialog.app_name),
        escape(&request.path)
    )
}

fn page(content: &str) -> String {
    format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Graph API sandbox</title><style>\
         body{{font:16px sans-serif;max-width:34em;margin:3em auto;padding:0 1em}}h1{{font-size:1.3em}}\
         button{{font:inherit;padding:.4em 1em}}</style></head><body>{content}\
         <p><small>Graph API sandbox. This is not Meta.</small></p></body></html>"
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
