//! Ad accounts: the list with its cursors, and one by id.

use http::Method;
use serde_json::{Value, json};

use crate::auth::{self, Caller};
use crate::config::OwnerFields;
use crate::people::AdAccount;
use crate::state::State;
use crate::tokens::Token;
use crate::wire::error::{self, GraphError};
use crate::wire::fields::{self, select};
use crate::wire::paging::{self, List};
use crate::wire::reply::Outcome;
use crate::wire::request::GraphRequest;

/// Fields that need `business_management`.
const OWNER_FIELDS: [&str; 3] = ["business", "owner", "funding_source_details"];
const NOT_GRANTED: &str = "(#200) Ad account owner has NOT grant ads_management or ads_read permission";

/// `/me/adaccounts`.
pub(crate) fn list(
    state: &State,
    caller: &Caller,
    request: &GraphRequest,
    base_url: &str,
    id: &str,
) -> Outcome {
    super::only(request, id, &[Method::GET])?;
    let (_, person) = super::subject(state, caller, request, id)?;
    require_ads(state, caller)?;
    let token = caller.token()?;
    let accounts: Vec<&AdAccount> =
        person.ad_accounts.iter().filter(|account| person.ticked(&token.app_id, &account.id)).collect();
    let name = format!("adaccounts:{}", person.id);
    show(state, token, request, base_url, &name, &accounts, person.empty_page)
}

/// One page of a list of ad accounts.
pub(crate) fn show(
    state: &State,
    token: &Token,
    request: &GraphRequest,
    base_url: &str,
    name: &str,
    accounts: &[&AdAccount],
    empty_page: Option<usize>,
) -> Outcome {
    let (fields, owner) = (request.param("fields"), state.person(&token.owner).id);
    let items: Result<Vec<Value>, GraphError> = accounts
        .iter()
        .map(|account| select(&account_json(account, &owner), fields, "id,account_id", "AdAccount"))
        .collect();
    let most_rows = state.switches.most_rows;
    let list = List { name: name.to_owned(), items: &items?, empty_page, most_rows };
    let mut page = paging::page(request, base_url, &list)?;
    let on_page = |account: &&&AdAccount| {
        let shown = page.get("data").and_then(Value::as_array);
        let id = format!("act_{}", account.id);
        shown.is_some_and(|rows| rows.iter().any(|row| row.get("id").is_some_and(|known| *known == id)))
    };
    check_owner_fields(state, token, fields, accounts.iter().filter(on_page).copied())?;
    if let (Some(_), Value::Object(page)) = (request.param("summary"), &mut page) {
        page.insert("summary".into(), json!({ "total_count": accounts.len() }));
    }
    Ok(page.into())
}

/// Refuses the whole request if it asks for a field that shows who owns an account, and the token may not see it.
fn check_owner_fields<'a>(
    state: &State,
    token: &Token,
    fields: Option<&str>,
    mut accounts: impl Iterator<Item = &'a AdAccount>,
) -> Result<(), GraphError> {
    if fields::asked(fields, &OWNER_FIELDS).is_none() {
        return Ok(());
    }
    let guarded = state.switches.owner_fields != OwnerFields::Shown;
    let scopes = token.usable_scopes(&state.person(&token.owner));
    let beyond_scopes = guarded && !scopes.iter().any(|scope| scope == "business_management");
    if !beyond_scopes && !accounts.any(|account| account.spec.owner_hidden) {
        return Ok(());
    }
    let (http, code) = match state.switches.owner_fields {
        OwnerFields::Refused200 => (403, 200),
        OwnerFields::Shown | OwnerFields::Refused100 => (400, 100),
    };
    let text = format!("(#{code}) Requires business_management permission to access the field.");
    Err(GraphError::new(http, code, text))
}

/// `/act_{id}`.
pub(crate) fn one(state: &State, caller: &Caller, request: &GraphRequest, id: &str) -> Outcome {
    super::only(request, id, &[Method::GET])?;
    let account = find(state, caller, request, id)?;
    let token = caller.token()?;
    let fields = request.param("fields");
    let shown = select(
        &account_json(&account, &state.person(&token.owner).id),
        fields,
        "id,account_id",
        "AdAccount",
    )?;
    check_owner_fields(state, token, fields, std::iter::once(&account))?;
    Ok(shown.into())
}

/// The account, if the token's owner has it and granted access.
pub(crate) fn find(
    state: &State,
    caller: &Caller,
    request: &GraphRequest,
    id: &str,
) -> Result<AdAccount, GraphError> {
    let token = caller.token()?;
    let person = state.person(&token.owner);
    let digits = id.trim_start_matches("act_");
    let account = person
        .all_ad_accounts()
        .find(|account| account.id == digits && person.ticked(&token.app_id, &account.id));
    let account = account.ok_or_else(|| error::no_object(id, request.method.as_str()))?;
    require_ads(state, caller)?;
    Ok(account.clone())
}

fn require_ads(state: &State, caller: &Caller) -> Result<(), GraphError> {
    auth::require_any(state, caller.token()?, &["ads_read", "ads_management"], NOT_GRANTED)
}

fn account_json(account: &AdAccount, owner: &str) -> Value {
    let spec = &account.spec;
    let business = spec.business.as_ref().map(|(id, name)| json!({ "id": id, "name": name }));
    json!({
        "id": format!("act_{}", account.id),
        "account_id": account.id,
        "name": spec.name,
        "account_status": spec.status,
        "currency": spec.currency,
        "timezone_name": spec.timezone_name,
        "timezone_id": 459,
        "timezone_offset_hours_utc": 2,
        "business": business,
        "business_name": spec.business.as_ref().map(|(_, name)| name),
        "owner": owner,
        "funding_source_details": { "id": format!("3{}", account.id), "display_string": "VISA *1111", "type": 1 },
        "amount_spent": "533950",
        "balance": "0",
        "spend_cap": "0",
        "disable_reason": 0,
        "age": 730.5,
        "created_time": "2024-11-22T10:00:00+0200",
        "is_personal": i64::from(spec.business.is_none()),
        "min_daily_budget": 100,
        "user_tasks": ["DRAFT", "ANALYZE", "ADVERTISE", "MANAGE"],
    })
}
