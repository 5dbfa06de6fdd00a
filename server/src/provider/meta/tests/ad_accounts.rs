//! Lists of ad accounts that ask for too much: fields, rows, and what only businesses list.

use token_vault_sandbox::{AdAccountSpec, BusinessSpec, OwnerFields, RecordedRequest};

use super::*;
use crate::model::{AdAccount, Unread, UnreadPart};
use crate::provider::Pace;

const MANAGES: &[&str] = &["ads_read", "business_management"];

fn unread(parts: &[UnreadPart]) -> Unread {
    parts.iter().copied().collect()
}

fn owner_of(account: &AdAccount) -> Option<&str> {
    account.owner.as_ref()?.name.as_deref()
}

async fn list_again(meta: &Meta, token: &Secret, scopes: &[&str], known: Listing) -> AdAccountList {
    let scopes: Vec<String> = scopes.iter().map(|scope| (*scope).to_owned()).collect();
    meta.ad_accounts(token, &scopes, known).await.unwrap()
}

/// The page sizes of the requests for a list, in order.
fn sizes(sandbox: &Sandbox) -> Vec<u32> {
    let asked = |request: &RecordedRequest| {
        let listed = request.endpoint == Endpoint::AdAccounts;
        listed.then(|| request.param("limit").unwrap().parse().unwrap())
    };
    sandbox.requests().iter().filter_map(asked).collect()
}

/// Every optional field × how it is refused × whether the scope is granted × whether the owner may be seen.
#[tokio::test]
async fn a_refused_owner_is_left_out_said_and_not_asked_for_again() {
    for switch in [OwnerFields::Shown, OwnerFields::Refused100, OwnerFields::Refused200] {
        for granted in [true, false] {
            for owner_hidden in [true, false] {
                let world = World::new().await;
                world.sandbox.switch(|switches| switches.owner_fields = switch);
                let ana = world.ana.with_ad_accounts(2);
                ana.ad_account(AdAccountSpec { owner_hidden, ..AdAccountSpec::default() });
                if granted {
                    ana.grants(["business_management"]);
                }
                let case = format!("{switch:?}, granted: {granted}, hidden: {owner_hidden}");
                let scopes = if granted { MANAGES } else { &["ads_read"] };
                let token = secret(ana.long_lived_token());
                let first = list(&world.meta, &token, scopes).await.unwrap();
                let refused = owner_hidden || !granted && switch != OwnerFields::Shown;
                let part = if granted { UnreadPart::OwnersHidden } else { UnreadPart::OwnersNotGranted };
                let expected = if refused { unread(&[part]) } else { Unread::default() };
                assert_eq!((first.accounts.len(), first.listing.unread), (3, expected), "{case}");
                assert!(first.is_complete(), "{case}: only the owners are unknown");
                // The business that lists an account owns it, whatever the account may say.
                let owned = first.accounts.iter().all(|account| owner_of(account) == Some("Shop"));
                assert_eq!(owned, granted || !refused, "{case}");
                assert_eq!(world.sandbox.count(Endpoint::AdAccounts), 1 + usize::from(refused), "{case}");

                world.sandbox.clear_requests();
                let second = list_again(&world.meta, &token, scopes, first.listing).await;
                assert_eq!(second.listing, first.listing, "{case}");
                assert_eq!(world.sandbox.count(Endpoint::AdAccounts), 1, "{case}: no more calls than before");
                world.assert_tidy();
            }
        }
    }
}

#[tokio::test]
async fn an_owner_is_asked_for_as_soon_as_the_scope_is_granted() {
    let world = World::new().await;
    world.sandbox.switch(|switches| switches.owner_fields = OwnerFields::Refused100);
    let token = secret(world.ana.long_lived_token());
    let before = list(&world.meta, &token, &["ads_read"]).await.unwrap();
    assert_eq!(before.listing.unread, unread(&[UnreadPart::OwnersNotGranted]));
    world.ana.grants(["business_management"]);
    let after = list_again(&world.meta, &token, MANAGES, before.listing).await;
    assert!(after.listing.unread.is_empty());
    assert_eq!(owner_of(&after.accounts[0]), Some("Shop"));
}

#[tokio::test]
async fn an_owner_that_is_hidden_on_a_later_page_does_not_cost_the_pages_before() {
    let world = World::new().await;
    let ana = world.ana.with_ad_accounts(450);
    ana.ad_account(AdAccountSpec { owner_hidden: true, ..AdAccountSpec::default() });
    let token = secret(ana.long_lived_token());
    let list = list(&world.meta, &token, &["ads_read"]).await.unwrap();
    assert_eq!(list.accounts.len(), 451);
    assert_eq!(list.accounts.iter().filter(|account| account.owner.is_some()).count(), 400);
    assert_eq!(world.sandbox.count(Endpoint::AdAccounts), 4, "three pages, one of them twice");
}

/// Rows that Meta sends at most × number of accounts: what is read, with how many calls, now and the next time.
#[tokio::test]
async fn pages_are_halved_until_they_work_and_the_size_is_kept() {
    for most in [None, Some(200), Some(199), Some(150), Some(60), Some(25), Some(12), Some(10), Some(9)] {
        for accounts in [0, 1, 9, 10, 11, 60, 201] {
            let world = World::new().await;
            world.sandbox.switch(|switches| switches.most_rows = most);
            let token = secret(world.ana.with_ad_accounts(accounts).long_lived_token());
            let case = format!("at most {most:?} rows, {accounts} accounts");
            let first = list(&world.meta, &token, &["ads_read"]).await.unwrap();
            let asked = sizes(&world.sandbox);

            // What Meta sends decides the size: the largest of these whose page is not refused.
            let sizes_tried = [200_usize, 100, 50, 25, 12, 10];
            let fits = |rows: &usize| most.is_none_or(|most| accounts.min(*rows) <= most);
            let works = sizes_tried.into_iter().find(fits);
            let refused = sizes_tried.iter().filter(|rows| !fits(rows)).count();
            let pages = works.map_or(0, |rows| accounts.div_ceil(rows).max(1));
            let rows = u32::try_from(works.unwrap_or(10)).unwrap();
            assert_eq!(asked.len(), refused + pages, "{case}: {asked:?}");
            let identical = asked.windows(2).filter(|pair| pair[0] == pair[1]).count();
            assert!(identical < pages.max(1), "{case}: the same request was repeated: {asked:?}");
            assert_eq!(first.listing.rows, (rows != 200).then_some(rows), "{case}");
            let expected = if works.is_some() { unread(&[]) } else { unread(&[UnreadPart::Rest]) };
            assert_eq!(first.listing.unread, expected, "{case}");
            assert_eq!(first.accounts.len(), if works.is_some() { accounts } else { 0 }, "{case}");

            world.sandbox.clear_requests();
            let second = list_again(&world.meta, &token, &["ads_read"], first.listing).await;
            assert_eq!(
                second,
                AdAccountList { accounts: second.accounts.clone(), ..first.clone() },
                "{case}"
            );
            assert_eq!(second.accounts.len(), first.accounts.len(), "{case}");
            let again = sizes(&world.sandbox);
            assert_eq!(again.len(), pages.max(1), "{case}: it begins with what worked: {again:?}");
            world.assert_tidy();
        }
    }
}

#[tokio::test]
async fn pages_of_a_person_are_halved_too() {
    let world = World::new().await;
    for page in 0..30 {
        world.ana.page(&format!("Shop {page}"));
    }
    world.sandbox.switch(|switches| switches.most_rows = Some(13));
    let token = secret(world.ana.long_lived_token());
    assert_eq!(world.meta.pages(&token).await.unwrap().len(), 30);
}

fn account(id: &str) -> AdAccountSpec {
    AdAccountSpec { id: Some(id.to_owned()), ..AdAccountSpec::default() }
}

fn business(id: &str, owned: &[&str], clients: &[&str]) -> BusinessSpec {
    let accounts = |ids: &[&str]| ids.iter().copied().map(account).collect();
    BusinessSpec {
        id: id.to_owned(),
        name: format!("B{id}"),
        owned: accounts(owned),
        clients: accounts(clients),
    }
}

#[tokio::test]
async fn accounts_that_only_a_business_lists_are_found_once_each() {
    let world = World::new().await;
    let ana = world.ana.grants(["business_management"]).with_ad_accounts(0).ad_account(account("11"));
    ana.in_business(business("888", &["21", "22"], &["31"])).in_business(business(
        "999",
        &["23"],
        &["31", "21"],
    ));
    let token = secret(ana.long_lived_token());
    let found = list(&world.meta, &token, MANAGES).await.unwrap();
    let ids: Vec<&str> = found.accounts.iter().map(|account| account.id.as_str()).collect();
    assert_eq!(ids, ["act_11", "act_21", "act_22", "act_31", "act_23"]);
    assert_eq!(owner_of(&found.accounts[1]), Some("B888"));
    assert_eq!(found.listing, Listing::default());
    // The person's own list, the businesses, and both edges of three of them.
    assert_eq!(world.sandbox.requests().len(), 2 + 2 * 3);

    world.sandbox.clear_requests();
    let own = list(&world.meta, &token, &["ads_read"]).await.unwrap();
    assert_eq!((own.accounts.len(), world.sandbox.requests().len()), (1, 1), "not without the scope");
    world.assert_tidy();
}

/// What a business may not show × where: the person's own accounts are kept, and what is missing is said.
#[tokio::test]
async fn what_businesses_do_not_show_is_said_and_costs_nothing_else() {
    for (endpoint, part) in [
        (Endpoint::Businesses, UnreadPart::Businesses),
        (Endpoint::BusinessAdAccounts, UnreadPart::BusinessAccounts),
    ] {
        // A refusal that is about the object says nothing about the owners, so it is not asked again without them.
        for (fault, of_each) in [
            (FaultKind::error(403, 200), 2),
            (FaultKind::error(400, 100), 3),
            (FaultKind::error_with_subcode(400, 100, 33), 2),
        ] {
            let world = World::new().await;
            let ana = world.ana.grants(["business_management"]).with_ad_accounts(0).ad_account(account("11"));
            ana.in_business(business("888", &["21"], &[])).in_business(business("999", &["23"], &[]));
            let case = format!("{endpoint:?} {fault:?}");
            world.sandbox.fault(Fault::on(endpoint).always().with(fault));
            let found = list(&world.meta, &secret(ana.long_lived_token()), MANAGES).await.unwrap();
            assert_eq!((found.accounts.len(), found.listing.unread), (1, unread(&[part])), "{case}");
            assert!(!found.is_complete(), "{case}");
            let expected = if endpoint == Endpoint::Businesses { 1 } else { 3 * of_each };
            assert_eq!(world.sandbox.count(endpoint), expected, "{case}");
        }
    }
}

#[tokio::test]
async fn a_business_without_an_id_is_said_to_be_missing() {
    let world = World::new().await;
    let ana = world.ana.grants(["business_management"]).with_ad_accounts(0).ad_account(account("11"));
    ana.in_business(business("888", &["21"], &[])).in_business(business("x/../me", &["23"], &[]));
    let found = list(&world.meta, &secret(ana.long_lived_token()), MANAGES).await.unwrap();
    assert_eq!((found.accounts.len(), found.listing.unread), (2, unread(&[UnreadPart::Businesses])));
    assert!(!found.is_complete());
}

/// Refusals that the list goes on from, met at the pace of a job.
#[tokio::test]
async fn what_a_list_goes_on_from_uses_up_no_pace() {
    let world = World::new().await;
    world.sandbox.switch(|switches| switches.most_rows = Some(10));
    let token = secret(world.ana.with_ad_accounts(25).long_lived_token());
    let pace = Pace::new(8);
    let found = pace.keep(list(&world.meta, &token, &["ads_read"])).await.unwrap();
    assert_eq!((found.accounts.len(), found.listing.unread), (25, unread(&[])));

    let world = World::new().await;
    let ana = world.ana.grants(["business_management"]).with_ad_accounts(0).ad_account(account("11"));
    for id in ["666", "777", "888", "999"] {
        ana.in_business(business(id, &[], &[]));
    }
    let fault = Fault::on(Endpoint::BusinessAdAccounts).always().with(FaultKind::error(400, 100));
    world.sandbox.fault(fault);
    let found = pace.keep(list(&world.meta, &secret(ana.long_lived_token()), MANAGES)).await.unwrap();
    assert_eq!((found.accounts.len(), found.listing.unread), (1, unread(&[UnreadPart::BusinessAccounts])));
    assert!(pace.keep(world.meta.probe()).await.is_ok(), "others may go on");
}

/// Where no reply comes × whether one comes at all: what was read before is kept, and the rest is said to be missing.
#[tokio::test]
async fn what_businesses_do_not_show_in_time_is_said_and_costs_nothing_else() {
    for (endpoint, part, found_before) in [
        (Endpoint::Businesses, UnreadPart::Businesses, 1),
        (Endpoint::BusinessAdAccounts, UnreadPart::BusinessAccounts, 2),
    ] {
        for fault in [FaultKind::StallFirstByte(Duration::from_secs(60)), FaultKind::error(503, 2)] {
            let mut world = World::new().await;
            world.meta = meta_with(&world.sandbox, &[DEFAULT_APP_SECRET], |config| {
                config.operation_timeout = Duration::from_secs(1);
            });
            let ana = world.ana.grants(["business_management"]).with_ad_accounts(0).ad_account(account("11"));
            ana.in_business(business("888", &["21"], &["31"])).in_business(business("999", &["23"], &[]));
            let case = format!("{endpoint:?} {fault:?}");
            // The one behind the own accounts comes first.
            let first = if endpoint == Endpoint::BusinessAdAccounts { 3 } else { 0 };
            world.sandbox.fault(Fault::on(endpoint).after(first).always().with(fault));
            let found = list(&world.meta, &secret(ana.long_lived_token()), MANAGES).await.unwrap();
            assert_eq!(
                (found.accounts.len(), found.listing.unread),
                (found_before, unread(&[part])),
                "{case}"
            );
            assert!(!found.is_complete(), "{case}");
        }
    }
}

/// What is about the token or the app ends the list at once, wherever it comes, and a provider that does not reply to
/// the first list.
#[tokio::test]
async fn a_list_that_could_not_be_finished_is_none() {
    for endpoint in [Endpoint::AdAccounts, Endpoint::Businesses, Endpoint::BusinessAdAccounts] {
        for (fault, kind, tries) in [
            (FaultKind::error_with_subcode(400, 190, 460), Kind::Dead { reason: Reason::PasswordChanged }, 1),
            (FaultKind::error(400, 2_635), Kind::Ours(Ours::ApiVersion), 1),
            (FaultKind::error(503, 2), Kind::Transient { retry_after: None }, 3),
        ] {
            if matches!(kind, Kind::Transient { .. }) && endpoint != Endpoint::AdAccounts {
                continue;
            }
            let world = World::new().await;
            let ana = world.ana.grants(["business_management"]);
            let case = format!("{endpoint:?} {fault:?}");
            world.sandbox.fault(Fault::on(endpoint).always().with(fault));
            let refusal = list(&world.meta, &secret(ana.long_lived_token()), MANAGES).await.unwrap_err();
            assert_eq!(refusal.kind, kind, "{case}");
            assert_eq!(world.sandbox.count(endpoint), tries, "{case}");
        }
    }
}

#[tokio::test]
async fn businesses_cost_a_bounded_number_of_calls() {
    let world = World::new().await;
    let ana = world.ana.grants(["business_management"]);
    for n in 0..60 {
        ana.in_business(business(&format!("{}", 1_000 + n), &[], &[]));
    }
    let found = list(&world.meta, &secret(ana.long_lived_token()), MANAGES).await.unwrap();
    assert_eq!(found.listing.unread, unread(&[UnreadPart::Businesses]));
    assert!(world.sandbox.requests().len() <= 61, "{}", world.sandbox.requests().len());
}
