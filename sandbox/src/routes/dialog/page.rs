//! The HTML of the consent page. It works without JavaScript, and with the keyboard alone.

use std::fmt::Write;

use crate::dialog::DialogRequest;
use crate::people::{AdAccount, PermissionStatus, Person};
use crate::state::State;
use crate::wire::request::GraphRequest;

/// The ways to fail that are documented or were observed: the JSON name of the decision, and what it does.
pub(super) const FAILURES: [(&str, &str); 9] = [
    ("deny", "Decline: access_denied, the same as Cancel"),
    ("deny_older", "Decline, in Meta's older words"),
    ("role_missing", "Agree, and come back as declined: no role in an app in development mode"),
    ("misconfigured", "The dialog is configured wrong: an error_code without error"),
    ("nothing", "Come back with neither code nor error"),
    ("expired_code", "Agree, with a code that has expired"),
    ("used_code", "Agree, with a code that was used before"),
    ("malformed_code", "Agree, with a code that nobody issued"),
    ("foreign_code", "Agree, with a code of another redirect URI"),
];

const STYLE: &str = "body{font:16px/1.5 sans-serif;max-width:36em;margin:2em auto;padding:0 1em;color:#1c1e21}\
    h1{font-size:1.4em}fieldset{margin:1em 0;border:1px solid #8d949e;border-radius:6px}label{display:block}\
    button,input{font:inherit;padding:.3em .8em}li{margin:.4em 0}details{margin-top:2em}\
    details ul,form>ul{list-style:none;padding:0}\
    :focus-visible{outline:3px solid #1877f2;outline-offset:2px}";

/// The page that asks which person you are.
pub(super) fn who(state: &State, request: &GraphRequest, dialog: &DialogRequest) -> String {
    let mut people = String::new();
    let known = state.people.iter().filter_map(|(key, person)| Some((key.strip_prefix("user:")?, person)));
    for (number, (name, person)) in known.enumerate() {
        _ = write!(
            people,
            "<li><button name=\"sandbox_person\" value=\"{}\" id=\"person-{}\">{}</button></li>",
            escape(name),
            number.saturating_add(1),
            escape(&person.name)
        );
    }
    let (action, hidden) = (escape(&request.path), carried(request));
    let known = if people.is_empty() {
        String::new()
    } else {
        format!(
            "<form method=\"get\" action=\"{action}\" id=\"known-people\">{hidden}<ul>{people}</ul></form>"
        )
    };
    let app = escape(&dialog.app_name);
    page(
        "Who are you?",
        &format!(
            "<h1>Who are you?</h1><p>{app} wants to access your account. There is no login here.</p>{known}\
             <form method=\"get\" action=\"{action}\" id=\"somebody-else\">{hidden}\
             <label for=\"person-name\">Somebody else, known or new</label>\
             <input name=\"sandbox_person\" id=\"person-name\" autocomplete=\"off\" required> \
             <button id=\"person-go\">Next</button></form>"
        ),
    )
}

/// The page that asks this person what to grant.
pub(super) fn what(person: &Person, name: &str, request: &GraphRequest, dialog: &DialogRequest) -> String {
    let mut form = carried(request);
    for (field, value) in [("sandbox_form", "2"), ("sandbox_user", &escape(name))] {
        _ = write!(form, "<input type=\"hidden\" name=\"{field}\" value=\"{value}\">");
    }
    form += &scopes(person, dialog);
    form += &ad_accounts(person, &dialog.app_id);
    form += &(button("allow", "continue", "Continue") + " " + &button("deny", "cancel", "Cancel"));
    form += "<details><summary id=\"fail-ways\">Fail in a documented way</summary><ul>";
    for (decision, text) in FAILURES {
        form += &format!("<li>{}</li>", button(decision, &format!("fail-{decision}"), text));
    }
    form += "</ul></details>";
    let (app, action) = (escape(&dialog.app_name), escape(&request.path));
    page(
        "What do you grant?",
        &format!(
            "<h1>{app} wants to access your account</h1><p>You are <strong id=\"you\">{}</strong>. \
             <a id=\"another-person\" href=\"{}\">Somebody else?</a></p>\
             <form method=\"post\" action=\"{action}\" id=\"consent\">{form}</form>",
            escape(&person.name),
            escape(&first_page(request)),
        ),
    )
}

/// A page that says why the dialog cannot be shown. Nobody is sent back from it.
pub(super) fn error(text: &str) -> String {
    page("Error", &format!("<h1>Error</h1><p role=\"alert\" id=\"error\">{}</p>", escape(text)))
}

fn scopes(person: &Person, dialog: &DialogRequest) -> String {
    let mut rows = String::new();
    for scope in &dialog.scopes {
        let asks = dialog.asks(person.status_of(scope));
        let scope = escape(scope);
        _ = if dialog.all_or_nothing() {
            write!(rows, "<li id=\"scope-{scope}\">{scope}</li>")
        } else {
            let (state, note) =
                if asks { ("checked", "") } else { ("disabled", " (declined before, not asked again)") };
            write!(
                rows,
                "<label for=\"scope-{scope}\"><input type=\"checkbox\" name=\"sandbox_grant\" value=\"{scope}\" \
                 id=\"scope-{scope}\" {state}> {scope}{note}</label>"
            )
        };
    }
    let declined = |scope: &String| person.status_of(scope) == Some(PermissionStatus::Declined);
    if dialog.all_or_nothing() {
        rows = format!("<ul>{rows}</ul><p><small>With a configuration, all of it or nothing.</small></p>");
    } else if dialog.scopes.iter().any(|scope| declined(scope) && !dialog.asks(person.status_of(scope))) {
        rows += "<p><small>The app asks again with auth_type=rerequest.</small></p>";
    }
    format!("<fieldset id=\"scopes\"><legend>It asks for</legend>{rows}</fieldset>")
}

/// Each ad account of the person once, also those that only a business lists.
fn ad_accounts(person: &Person, app_id: &str) -> String {
    let mut shown: Vec<&AdAccount> = Vec::new();
    for account in person.all_ad_accounts() {
        if !shown.iter().any(|known| known.id == account.id) {
            shown.push(account);
        }
    }
    let mut rows = String::new();
    for account in shown {
        let (id, name) = (escape(&account.id), escape(&account.spec.name));
        let state = if person.ticked(app_id, &account.id) { " checked" } else { "" };
        _ = write!(
            rows,
            "<label for=\"account-{id}\"><input type=\"checkbox\" name=\"sandbox_account\" value=\"{id}\" \
             id=\"account-{id}\"{state}> {name} (act_{id})</label>"
        );
    }
    let note = if rows.is_empty() { "You have none." } else { "All of them means those of later too." };
    format!(
        "<fieldset id=\"accounts\"><legend>For these ad accounts</legend>{rows}<p><small>{note}</small></p>\
         </fieldset>"
    )
}

fn button(decision: &str, id: &str, text: &str) -> String {
    format!("<button name=\"sandbox_decision\" value=\"{decision}\" id=\"{id}\">{text}</button>")
}

/// The parameters that belong to the app, which every form keeps.
fn carried(request: &GraphRequest) -> String {
    let mut hidden = String::new();
    for (name, value) in apps_own(request) {
        let (name, value) = (escape(name), escape(value));
        _ = write!(hidden, "<input type=\"hidden\" name=\"{name}\" value=\"{value}\">");
    }
    hidden
}

fn first_page(request: &GraphRequest) -> String {
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(apps_own(request)).finish();
    format!("{}?{query}", request.path)
}

fn apps_own(request: &GraphRequest) -> impl Iterator<Item = (&str, &str)> {
    let pairs = request.query.iter().chain(&request.form);
    pairs
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .filter(|(name, _)| !name.starts_with("sandbox_"))
}

fn page(title: &str, content: &str) -> String {
    format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{title} (Graph API sandbox)</title><style>{STYLE}</style></head><body><main>{content}</main>\
         <footer><p><small>Graph API sandbox. This is not Meta.</small></p></footer></body></html>"
    )
}

/// Text as it stands in HTML, also within quotes. Every value that came from outside passes it.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            other => escaped.push(other),
        }
    }
    escaped
}
