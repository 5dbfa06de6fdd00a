//! People and what they granted: `/me`, `/{id}`, permissions, pages.

use http::Method;
use serde_json::{Value, json};

use crate::auth::Caller;
use crate::people::{PermissionStatus, Person};
use crate::state::State;
use crate::tokens::TokenKind;
use crate::wire::error;
use crate::wire::fields::select;
use crate::wire::paging::{self, List};
use crate::wire::reply::Outcome;
use crate::wire::request::GraphRequest;

/// `/me`, a person, a page or the app by id.
pub(crate) fn object(state: &mut State, caller: &Caller, request: &GraphRequest, id: &str) -> Outcome {
    super::only(request, id, &[Method::GET])?;
    let fields = request.param("fields");
    if id == caller.app_id() {
        let name = state.app(id).map(|app| app.name.clone()).unwrap_or_default();
        return Ok(select(&json!({ "id": id, "name": name }), fields, "id,name", "Application")?.into());
    }
    if let Caller::Token(token) = caller {
        let owner = state.person(&token.owner);
        let page_id = match (&token.kind, id) {
            (TokenKind::Page(page), "me") => page.as_str(),
            _ => id,
        };
        if let Some(page) = owner.pages.iter().find(|page| page.id == page_id) {
            let own = state.page_token(token, &page.id).text;
            let page = json!({ "id": page.id, "name": page.name, "access_token": own });
            return Ok(select(&page, fields, "id,name", "Page")?.into());
        }
    }
    let (_, person) = super::subject(state, caller, request, id)?;
    Ok(select(&person_json(&person), fields, "id,name", "User")?.into())
}

fn person_json(person: &Person) -> Value {
    let (first, last) = person.name.split_once(' ').unwrap_or((&person.name, ""));
    let behind = person.ad_accounts.iter().find_map(|account| account.spec.business.as_ref());
    let client = match behind {
        _ if !person.system => Value::Null,
        Some((id, _)) => json!(id),
        None => json!("777000111"),
    };
    json!({ "id": person.id, "name": person.name, "first_name": first, "last_name": last,
            "email": Value::Null, "client_business_id": client })
}

/// `/me/permissions`: lists them; DELETE revokes one or all.
pub(crate) fn permissions(
    state: &mut State,
    caller: &Caller,
    request: &GraphRequest,
    id: &str,
    name: Option<&str>,
) -> Outcome {
    super::only(request, id, &[Method::GET, Method::DELETE])?;
    let (key, person) = super::subject(state, caller, request, id)?;
    let name = name.or_else(|| request.param("permission"));
    if request.method == Method::GET {
        let status = request.param("status");
        let data: Vec<Value> = person
            .permissions
            .iter()
            .filter(|_| !person.system || state.switches.system_users_list_permissions)
            .filter(|(known, _)| name.is_none_or(|name| name == known))
            .filter(|(_, given)| status.is_none_or(|status| status == given.word()))
            .map(|(known, given)| json!({ "permission": known, "status": given.word() }))
            .collect();
        return Ok(json!({ "data": data }).into());
    }
    if person.system {
        return Err(error::permission("(#200) System users are managed by their business"));
    }
    match name {
        None => state.deauthorize(&key, caller.app_id()),
        Some(name) => {
            if let Some(person) = state.people.get_mut(&key) {
                person.set_permission(name, PermissionStatus::Declined);
            }
        }
    }
    Ok(json!({ "success": true }).into())
}

/// `/me/accounts`: the pages, with their tokens.
pub(crate) fn pages(
    state: &mut State,
    caller: &Caller,
    request: &GraphRequest,
    base_url: &str,
    id: &str,
) -> Outcome {
    super::only(request, id, &[Method::GET])?;
    let (_, person) = super::subject(state, caller, request, id)?;
    let parent = caller.token()?.clone();
    let mut shown = Vec::new();
    for page in &person.pages {
        let token = state.page_token(&parent, &page.id).text;
        let page = json!({ "access_token": token, "category": "Shopping & retail", "name": page.name, "id": page.id,
            "tasks": ["ANALYZE", "ADVERTISE", "MODERATE", "CREATE_CONTENT", "MANAGE"] });
        shown.push(select(&page, request.param("fields"), "access_token,category,name,id,tasks", "Page")?);
    }
    let most_rows = state.switches.most_rows;
    let list = List { name: format!("pages:{}", person.id), items: &shown, empty_page: None, most_rows };
    Ok(paging::page(request, base_url, &list)?.into())
}
