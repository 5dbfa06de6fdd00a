//! `/dialog/oauth`: the consent page, for people, for browsers that a test drives, and for scripts.
//!
//! The first page asks who you are, instead of a login. Each person that the sandbox knows is a button
//! (`sandbox_person`, ids `person-1`, `person-2` and so on, by name), and another name can be typed (field
//! `sandbox_person`, id `person-name`; button `person-go`). An unknown person is created.
//!
//! The second page (`sandbox_person=ana` in the URL skips the first) asks what to grant:
//!
//! | id | name and value |
//! | --- | --- |
//! | `scope-ads_read` | checkbox `sandbox_grant`, the scope; not with `config_id`, since then it is all or nothing |
//! | `account-1020304050` | checkbox `sandbox_account`, the ad account's id |
//! | `continue` | button `sandbox_decision=allow` |
//! | `cancel` | button `sandbox_decision=deny` |
//! | `fail-ways` | opens the list of the buttons below |
//! | `fail-expired_code` | button `sandbox_decision=expired_code`; so for each of [`page::FAILURES`] |
//! | `another-person` | link back to the first page |
//!
//! A script decides at once with `sandbox_user`, and optionally `sandbox_decision` (`allow` or what a button has),
//! `sandbox_decline` (scopes) and `sandbox_ad_accounts` (ids, or `none`), both separated by commas, added to the URL.

mod page;

use crate::dialog::{Decision, DialogRequest, Pick, split};
use crate::state::State;
use crate::wire::reply::{Content, Outcome};
use crate::wire::request::GraphRequest;

/// Shows a page, or applies the decision.
pub(crate) fn oauth(state: &mut State, request: &GraphRequest) -> Outcome {
    let html = |status, text| Ok(Content::Html { status, text });
    let dialog = match DialogRequest::read(state, |name| request.param(name).map(str::to_owned)) {
        Ok(dialog) => dialog,
        Err(text) => return html(400, page::error(&text)),
    };
    if let Some(location) = dialog.fault() {
        return Ok(Content::Redirect(location));
    }
    if let Some(user) = request.param("sandbox_user") {
        let word = request.param("sandbox_decision").unwrap_or("allow");
        let Some(decision) = Decision::named(word) else {
            return html(400, page::error(&format!("There is no sandbox_decision {word}.")));
        };
        return Ok(Content::Redirect(match decision.agreement(&dialog.scopes) {
            Some((_, flaw)) => dialog.agree(state, user, &picked(request, &dialog), flaw),
            None => dialog.decide(state, user, &decision),
        }));
    }
    match request.param("sandbox_person").map(str::trim).filter(|name| !name.is_empty()) {
        Some(name) => {
            // The person is created now, so that the ad accounts on the page are those that the form then names.
            let key = state.enter(name, false);
            html(200, page::what(&state.person(&key), name, request, &dialog))
        }
        None => html(200, page::who(state, request, &dialog)),
    }
}

/// What the form, or else the URL, says about scopes and ad accounts.
fn picked(request: &GraphRequest, dialog: &DialogRequest) -> Pick {
    let ticked = |wanted: &str| {
        let ticks = request.form.iter().filter(|(name, _)| name == wanted);
        Some(ticks.map(|(_, value)| value.clone()).collect())
    };
    match request.param("sandbox_form") {
        Some(_) if dialog.all_or_nothing() => Pick { scopes: None, ad_accounts: ticked("sandbox_account") },
        // A form that offers no ad accounts.
        Some("1") => Pick { scopes: ticked("sandbox_grant"), ad_accounts: None },
        Some(_) => Pick { scopes: ticked("sandbox_grant"), ad_accounts: ticked("sandbox_account") },
        None => {
            let declined = split(request.param("sandbox_decline").unwrap_or_default());
            let ids = request.param("sandbox_ad_accounts").map(|ids| if ids == "none" { "" } else { ids });
            Pick { ad_accounts: ids.map(split), ..Pick::except(&dialog.scopes, &declined) }
        }
    }
}
