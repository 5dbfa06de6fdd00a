//! Ad accounts: the list with its cursors, and one by id.

use http::Method;
use serde_json::{Value, json};

use crate::auth::{self, Caller};
use crate::people::AdAccount;
use crate::state::State;
use crate::wire::error::{self, GraphError};
use crate::wire::fields::select;
use crate::wire::paging;
use crate::wire::reply::Outcome;
use crate::wire::request::GraphRequest;

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
    let fields = request.param("fields");
    let accounts: Result<Vec<Value>, GraphError> = person
        .ad_accounts
        .iter()
        .map(|account| select(&account_json(account, &person.id), fields, "id,account_id", "AdAccount"))
        .collect();
    let list = format!("adaccounts:{}", person.id);
    let mut page = paging::page(request, base_url, &list, &accounts?, person.empty_page)?;
    if let (Some(_), Value::Object(page)) = (request.param("summary"), &mut page) {
        page.insert("summary".into(), json!({ "total_count": person.ad_accounts.len() }));
    }
    Ok(page.into())
}

/// `/act_{id}`.
pub(crate) fn one(state: &State, caller: &Caller, request: &GraphRequest, id: &str) -> Outcome {
    super::only(request, id, &[Method::GET])?;
    let account = find(state, caller, request, id)?;
    let owner = state.person(&caller.token()?.owner).id;
    let account = account_json(&account, &owner);
    Ok(select(&account, request.param("fields"), "id,account_id", "AdAccount")?.into())
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
    let account = person.ad_accounts.iter().find(|account| account.id == digits);
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
