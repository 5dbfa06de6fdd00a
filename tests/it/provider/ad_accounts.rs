//! Which ad accounts a token reaches, and how each of them is.

use pb::ad_account::State;
use token_vault_sandbox::AdAccountSpec;
use token_vault_tests::prelude::*;

fn of(id: &str) -> pb::ListAdAccountsRequest {
    pb::ListAdAccountsRequest { connection_id: id.into(), ..Default::default() }
}

async fn listed(caller: &Caller, request: pb::ListAdAccountsRequest) -> Vec<pb::AdAccount> {
    caller.list_ad_accounts(request).await.expect("they are listed").ad_accounts
}

on_both_databases! {
    async fn each_ad_account_is_listed_with_its_state_and_what_is_wrong(world: World) {
        let (connector, viewer) = (world.connector().await, world.viewer().await);
        let ana = world.sandbox.user("ana").grants(SCOPES).with_ad_accounts(0);
        for (number, status) in [("1", 1), ("2", 2), ("3", 9), ("4", 101), ("5", 12_345)] {
            let spec = AdAccountSpec { id: Some(number.into()), name: format!("Shop {number}"), status, ..Default::default() };
            ana.ad_account(spec);
        }
        let before = world.sandbox.clock().now();
        let id = connector.connect(ACME, &ana.long_lived_token()).await;
        let page = viewer.list_ad_accounts(of(&id)).await.expect("they are listed");
        assert!(page.next_page_token.is_empty() && page.checked_at.is_some_and(|at| at.seconds >= before), "{page:?}");
        let seen: Vec<_> = page
            .ad_accounts
            .iter()
            .map(|one| (one.id.as_str(), one.name.as_str(), one.state(), one.provider_state.as_str()))
            .collect();
        assert_eq!(
            seen,
            [
                ("act_1", "Shop 1", State::Active, "1"),
                ("act_2", "Shop 2", State::Disabled, "2"),
                ("act_3", "Shop 3", State::Limited, "9"),
                ("act_4", "Shop 4", State::Closed, "101"),
                ("act_5", "Shop 5", State::Unknown, "12345"),
            ]
        );
        for one in &page.ad_accounts {
            assert_eq!((one.currency.as_str(), one.time_zone.as_str()), ("EUR", "Europe/Vilnius"), "{one:?}");
            assert!(one.reachable && one.problem.is_none() && one.last_reachable_at == one.checked_at, "{one:?}");
        }

        ana.ticks(["1", "3"]);
        connector.validate(&id).await.expect("it is examined");
        for one in listed(&viewer, of(&id)).await {
            let kept = ["act_1", "act_3"].contains(&one.id.as_str());
            assert_eq!(one.reachable, kept, "{one:?}");
            assert!(one.last_reachable_at.is_some(), "{one:?}");
            let Some(problem) = one.problem else {
                assert!(kept, "{}: what is wrong?", one.id);
                continue;
            };
            assert!(!kept && problem.since.is_some(), "{problem:?}");
            assert_eq!(problem.reason(), Reason::AdAccountsUnreachable);
            assert_eq!(problem.remedy.expect("what to do").fixer(), pb::Fixer::AdAccountAdmin);
        }
        for (reachable, expected) in [(true, vec!["act_1", "act_3"]), (false, vec!["act_2", "act_4", "act_5"])] {
            let accounts = listed(&viewer, pb::ListAdAccountsRequest { reachable: Some(reachable), ..of(&id) }).await;
            assert_eq!(accounts.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), expected);
        }
    }

    async fn pages_of_ad_accounts_go_on_where_the_last_one_ended(world: World) {
        let (connector, viewer) = (world.connector().await, world.viewer().await);
        let id = connector.connect(ACME, &world.person("ana").with_ad_accounts(5).long_lived_token()).await;
        let all: Vec<_> = listed(&viewer, of(&id)).await.into_iter().map(|one| one.id).collect();
        assert_eq!(all.len(), 5);
        let (mut request, mut seen) = (pb::ListAdAccountsRequest { page_size: 2, ..of(&id) }, Vec::new());
        loop {
            let page = viewer.list_ad_accounts(request.clone()).await.expect("a page");
            assert!(page.ad_accounts.len() <= 2 && page.checked_at.is_some());
            seen.extend(page.ad_accounts.into_iter().map(|one| one.id));
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        assert_eq!(seen, all);
        let changed = pb::ListAdAccountsRequest { reachable: Some(true), ..request };
        let no = viewer.list_ad_accounts(changed).await.expect_err("another query");
        no.is(Code::InvalidArgument, Reason::PageTokenMismatch);
        let elsewhere = pb::ListAdAccountsRequest { workspace_id: Some("beta".into()), ..of(&id) };
        viewer.list_ad_accounts(elsewhere).await.expect_err("elsewhere").is(Code::NotFound, Reason::ConnectionNotFound);

        let none = connector.connect(ACME, &world.person("bob").with_ad_accounts(0).long_lived_token()).await;
        let page = viewer.list_ad_accounts(of(&none)).await.expect("an empty page");
        assert!(page.ad_accounts.is_empty() && page.next_page_token.is_empty() && page.checked_at.is_none());
        connector.revoke(&id).await.expect("it ends");
        assert_eq!(listed(&viewer, of(&id)).await.len(), 5, "what it reached stays known");
    }
}
