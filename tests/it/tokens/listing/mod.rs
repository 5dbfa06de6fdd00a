//! ListTokens over a hundred thousand connections: complete, exact, and the last page costs as little as the first.

mod cost;
mod planted;

use token_vault_proto::v1::list_tokens_request::Order;
use token_vault_proto::v1::token::Status;
use token_vault_tests::days;
use token_vault_tests::prelude::*;

use planted::{ACCOUNT, COUNT, DAY, Planted, plant};

async fn planted(world: &World) -> Caller {
    plant(&world.database, world.sandbox.clock().now()).await;
    world.viewer().await
}

/// Every page, one after the other.
async fn pages(caller: &Caller, query: &pb::ListTokensRequest) -> Vec<pb::ListTokensResponse> {
    let mut all = Vec::new();
    let mut query = query.clone();
    loop {
        let page = caller.list_tokens(query.clone()).await.expect("a page");
        query.page_token.clone_from(&page.next_page_token);
        all.push(page);
        if query.page_token.is_empty() {
            return all;
        }
        assert!(all.len() <= 1_000, "it never ends");
    }
}

fn numbers(pages: &[pb::ListTokensResponse]) -> Vec<i64> {
    pages.iter().flat_map(|page| &page.tokens).map(|token| Planted::of(&token.connection_id)).collect()
}

fn query(page_size: i32) -> pb::ListTokensRequest {
    pb::ListTokensRequest { page_size, ..Default::default() }
}

fn end(token: &pb::Token) -> Option<i64> {
    Some(token.expiry.as_ref()?.at.as_ref()?.seconds)
}

fn all_that(wanted: impl Fn(&Planted) -> bool) -> Vec<i64> {
    (0..COUNT).filter(|&n| wanted(&Planted(n))).collect()
}

on_both_databases! {
    async fn pages_find_every_connection_exactly_once_in_order(world: World) {
        let viewer = planted(&world).await;
        let not_revoked = all_that(|row| row.status() != Status::Revoked);
        let walked = pages(&viewer, &query(1_000)).await;
        assert!(walked.iter().rev().skip(1).all(|page| page.tokens.len() == 1_000), "pages are full");
        assert!(walked.windows(2).all(|two| (&two[0].as_of, &two[0].cursor) == (&two[1].as_of, &two[1].cursor)));
        let ends: Vec<_> = walked.iter().flat_map(|page| &page.tokens).filter_map(end).collect();
        assert!(ends.is_sorted(), "the next to end comes first");
        let mut found = numbers(&walked);
        found.sort_unstable();
        assert_eq!(found, not_revoked);
        let here = all_that(|row| row.status() != Status::Revoked && row.workspace() == "ws-3");
        for order in [Order::CreatedFirst, Order::CreatedLast] {
            let query = pb::ListTokensRequest { order: order.into(), workspace_ids: vec!["ws-3".into()], ..query(100) };
            let mut found = numbers(&pages(&viewer, &query).await);
            if order == Order::CreatedLast {
                found.reverse();
            }
            assert_eq!(found, here, "{order:?}");
        }
    }

    async fn connections_that_change_between_pages_neither_hide_nor_repeat_others(world: World) {
        let viewer = planted(&world).await;
        let now = world.sandbox.clock().now();
        let touched = |n: i64| n % 97 == 3 && !Planted(n).reaches_account();
        let mut query = query(1_000);
        let (mut found, mut page) = (Vec::new(), 0_i64);
        loop {
            let listed = viewer.list_tokens(query.clone()).await.unwrap();
            found.extend(numbers(std::slice::from_ref(&listed)));
            query.page_token = listed.next_page_token;
            if query.page_token.is_empty() {
                break;
            }
            // Changes before and after the current page: some connections expire, some move, some are deleted.
            let ids = |part: i64| {
                let some = (0..COUNT).filter(|&n| touched(n) && n / 97 % 100 == page && n % 3 == part);
                some.map(|n| world.database.uuid(&Planted(n).id())).collect::<Vec<_>>().join(", ")
            };
            let moved = (now + page * DAY) * 1_000_000;
            world.database.execute(format!(
                "UPDATE ad_platform_connections SET standing = 'REVOKED', standing_since = 1 WHERE connection_id IN ({});
                 UPDATE ad_platform_connections SET expiry_source = 'PROVIDER', expires_at = {moved}, expires_sort = {moved}
                  WHERE connection_id IN ({});
                 DELETE FROM ad_platform_connections WHERE connection_id IN ({})", ids(0), ids(1), ids(2))).await;
            page += 1;
        }
        assert!(page > 80, "{page} pages");
        found.retain(|&n| !touched(n));
        found.sort_unstable();
        assert_eq!(found, all_that(|row| !touched(row.0) && row.status() != Status::Revoked));
    }

    async fn filters_give_exactly_what_they_say(world: World) {
        type Wanted = fn(&Planted) -> bool;
        let viewer = planted(&world).await;
        let of = |statuses: &[Status]| pb::ListTokensRequest {
            statuses: statuses.iter().map(|&status| status.into()).collect(),
            ..query(1_000)
        };
        let places = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let cases: [(pb::ListTokensRequest, Wanted); 14] = [
            (of(&[Status::Active]), |row| row.status() == Status::Active),
            (of(&[Status::Expiring]), |row| row.status() == Status::Expiring),
            (of(&[Status::Expired]), |row| row.status() == Status::Expired),
            (of(&[Status::Invalid]), |row| row.status() == Status::Invalid),
            (of(&[Status::Revoked, Status::Expired]), |row| [Status::Revoked, Status::Expired].contains(&row.status())),
            (pb::ListTokensRequest { workspace_ids: places(&["ws-7"]), ..query(999) }, |row| row.workspace() == "ws-7" && row.status() != Status::Revoked),
            (pb::ListTokensRequest { workspace_ids: places(&["ws-7", "ws-19"]), ..of(&[Status::Expiring]) }, |row| ["ws-7", "ws-19"].contains(&row.workspace().as_str()) && row.status() == Status::Expiring),
            (pb::ListTokensRequest { expiring_within: days(3), ..query(1_000) }, |row| row.life_left().is_some_and(|left| left <= 3 * DAY) && row.status() != Status::Revoked),
            (pb::ListTokensRequest { expiring_within: days(3), workspace_ids: places(&["ws-0"]), ..of(&[Status::Expiring]) }, |row| row.life_left().is_some_and(|left| left <= 3 * DAY) && row.workspace() == "ws-0" && row.status() == Status::Expiring),
            (pb::ListTokensRequest { subject_id: Some("3".into()), ..query(1_000) }, |row| row.subject() == "3" && row.status() != Status::Revoked),
            (pb::ListTokensRequest { subject_id: Some("3".into()), workspace_ids: places(&["ws-0"]), ..query(1_000) }, |row| row.subject() == "3" && row.workspace() == "ws-0" && row.status() != Status::Revoked),
            (pb::ListTokensRequest { ad_account_id: Some(ACCOUNT.into()), ..query(7) }, Planted::reaches_account),
            (pb::ListTokensRequest { ad_account_id: Some(ACCOUNT.into()), workspace_ids: places(&["ws-0"]), ..query(7) }, |row| row.reaches_account() && row.workspace() == "ws-0"),
            (pb::ListTokensRequest { providers: places(&["meta"]), workspace_ids: places(&["ws-4"]), ..query(1_000) }, |row| row.workspace() == "ws-4" && row.status() != Status::Revoked),
        ];
        for (query, wanted) in cases {
            let walked = pages(&viewer, &query).await;
            for token in walked.iter().flat_map(|page| &page.tokens) {
                let row = Planted(Planted::of(&token.connection_id));
                assert_eq!((token.status(), &token.workspace_id), (row.status(), &row.workspace()), "{token:#?}");
            }
            let mut found = numbers(&walked);
            found.sort_unstable();
            let wanted = all_that(wanted);
            assert!(!wanted.is_empty() && found == wanted, "{query:?}: {} instead of {}", found.len(), wanted.len());
        }

        // A position of this many rows is bound to its query as well.
        let token = viewer.list_tokens(query(10)).await.unwrap().next_page_token;
        let flipped: String = token.chars().enumerate().map(|(at, c)| if at == 30 { if c == 'x' { 'y' } else { 'x' } } else { c }).collect();
        let asked = |page_token: &str| pb::ListTokensRequest { page_token: page_token.into(), ..query(10) };
        viewer.list_tokens(asked(&flipped)).await.unwrap_err().is(Code::InvalidArgument, Reason::PageTokenInvalid);
        let other = pb::ListTokensRequest { workspace_ids: places(&["ws-1"]), ..asked(&token) };
        viewer.list_tokens(other).await.unwrap_err().is(Code::InvalidArgument, Reason::PageTokenMismatch);
    }
}
