//! The two judges of a token: the provider's inspector, and a data call of the vault's own. [`Connection::weigh`] says
//! what follows from their words.
//!
//! [`Connection::weigh`]: crate::model::Connection::weigh

use crate::model::{AdAccountList, DataWord, Listing, Refusal, RefusalKind, Secret, TokenFacts};
use crate::provider::{Inspected, Provider};

/// Asks both judges about a token of which `held` is known. A token that the inspector does not call valid is not tried.
pub(in crate::vault) async fn hear(
    provider: &dyn Provider,
    secret: &Secret,
    held: &TokenFacts,
) -> (Result<Inspected, Refusal>, DataWord) {
    let inspection = provider.inspect(secret).await;
    let data = match &inspection {
        Ok(inspected) => DataWord::of(&provider.try_data(secret, &inspected.facts.onto(held)).await),
        Err(_) => DataWord::NotAsked,
    };
    (inspection, data)
}

/// Lists the ad accounts of a token that the inspector calls valid, which is a data call as well. Only if they can't be
/// listed, the cheapest read decides, since not every token may list them. `known` is what the last list taught.
pub(in crate::vault) async fn list_or_try(
    provider: &dyn Provider,
    secret: &Secret,
    facts: &TokenFacts,
    known: Listing,
) -> (Result<AdAccountList, Refusal>, DataWord) {
    let listed = provider.ad_accounts(secret, &facts.scopes, known).await;
    let data = match &listed {
        Ok(_) => DataWord::Works,
        Err(refusal)
            if matches!(
                refusal.kind,
                RefusalKind::Dead { .. } | RefusalKind::Throttled { .. } | RefusalKind::OutOfTime
            ) =>
        {
            DataWord::of(&listed)
        }
        Err(_) => DataWord::of(&provider.try_data(secret, facts).await),
    };
    (listed, data)
}
