//! Businesses of a person, and the ad accounts that each of them owns or works on.

use http::Method;
use serde_json::{Value, json};

use super::ad_accounts;
use crate::auth::{self, Caller};
use crate::people::{AdAccount, Person};
use crate::state::State;
use crate::wire::error::{self, GraphError};
use crate::wire::fields::select;
use crate::wire::paging::{self, List};
use crate::wire::reply::Outcome;
use crate::wire::request::GraphRequest;

/// `/me/businesses`: those that the person is in, and those behind their ad accounts.
pub(crate) fn list(
    state: &State,
    caller: &Caller,
    request: &GraphRequest,
    base_url: &str,
    id: &str,
) -> Outcome {
    super::only(request, id, &[Method::GET])?;
    let (_, person) = super::subject(state, caller, request, id)?;
    require_management(state, caller)?;
    let all: Result<Vec<Value>, GraphError> = known(&person)
        .into_iter()
        .map(|(id, name)| {
            let business = json!({ "id": id, "name": name, "verification_status": "verified" });
            select(&business, request.param("fields"), "id,name", "Business")
        })
        .collect();
    let list = List {
        name: format!("businesses:{}", person.id),
        items: &all?,
        empty_page: None,
        most_rows: state.switches.most_rows,
    };
    Ok(paging::page(request, base_url, &list)?.into())
}

/// `/{business}/owned_ad_accounts` and `/{business}/client_ad_accounts`.
pub(crate) fn ad_accounts(
    state: &State,
    caller: &Caller,
    request: &GraphRequest,
    base_url: &str,
    id: &str,
    edge: &str,
) -> Outcome {
    super::only(request, id, &[Method::GET])?;
    let token = caller.token()?;
    let person = state.person(&token.owner);
    if !known(&person).iter().any(|(known, _)| known == id) {
        return Err(error::no_object(id, request.method.as_str()));
    }
    require_management(state, caller)?;
    let business = person.businesses.iter().find(|business| business.id == id);
    let mut accounts: Vec<&AdAccount> = Vec::new();
    if edge == "owned_ad_accounts" {
        let of_person =
            |account: &&AdAccount| account.spec.business.as_ref().is_some_and(|(own, _)| own == id);
        accounts.extend(business.iter().flat_map(|business| &business.owned));
        accounts.extend(person.ad_accounts.iter().filter(of_person));
    } else {
        accounts.extend(business.iter().flat_map(|business| &business.clients));
    }
    accounts.retain(|account| person.ticked(&token.app_id, &account.id));
    ad_accounts::show(state, token, request, base_url, &format!("{edge}:{id}"), &accounts, None)
}

fn require_management(state: &State, caller: &Caller) -> Result<(), GraphError> {
    let text = "(#200) Requires business_management permission to manage the object";
    auth::require_any(state, caller.token()?, &["business_management"], text)
}

/// Id and name of each business, sorted.
fn known(person: &Person) -> Vec<(String, String)> {
    let behind = person.ad_accounts.iter().filter_map(|account| account.spec.business.clone());
    let own = person.businesses.iter().map(|business| (business.id.clone(), business.name.clone()));
    let mut known: Vec<(String, String)> = own.chain(behind).collect();
    known.sort();
    known.dedup_by(|one, other| one.0 == other.0);
    known
}
