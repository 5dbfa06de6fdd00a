//! The feed read page by page.

use std::collections::BTreeSet;

use token_vault_proto::v1::{ExpiryEvent, ListExpiryEventsRequest as History};
use token_vault_tests::prelude::*;

use super::common::{GLOBEX, micros, one_lives_and_one_is_dead, pages};

on_both_databases! {
    async fn history_is_paged_both_ways_and_stays_stable(world: World) {
        one_lives_and_one_is_dead(&world, ACME).await;
        one_lives_and_one_is_dead(&world, GLOBEX).await;
        let viewer = world.viewer().await;
        let all = viewer.watch_all().await.caught_up().await;
        let newest_first: Vec<_> = all.iter().rev().cloned().collect();
        for (oldest_first, expected) in [(true, &all), (false, &newest_first)] {
            for page_size in [1, 2, 4, 1_000] {
                let (listed, cursor) = pages(&viewer, History { page_size, oldest_first, ..Default::default() }).await;
                assert_eq!(&listed, expected, "oldest first {oldest_first}, by {page_size}");
                assert_eq!(cursor, all[5].cursor);
            }
        }
        // An event that is written between two pages is on neither of them, and follows the position.
        for oldest_first in [true, false] {
            let ask = |page_token| History { page_size: 4, oldest_first, page_token, ..Default::default() };
            let first = viewer.list_expiry_events(ask(String::new())).await.unwrap();
            let name = if oldest_first { "late" } else { "later" };
            let id = world.connector().await.connect(ACME, &world.person(name).long_lived_token()).await;
            let mut listed = first.events.clone();
            let mut page_token = first.next_page_token.clone();
            while !page_token.is_empty() {
                let next = viewer.list_expiry_events(ask(page_token)).await.unwrap();
                assert_eq!(next.cursor, first.cursor);
                listed.extend(next.events);
                page_token = next.next_page_token;
            }
            assert!(listed.len() >= 6 && listed.iter().all(|event| event.connection_id != id), "{listed:#?}");
            let follows = viewer.watch_after(&first.cursor).await.unwrap().caught_up().await;
            assert_eq!(follows.iter().map(|event| event.connection_id.as_str()).collect::<Vec<_>>(), [id.as_str()]);
        }
        let mut page = viewer.list_expiry_events(History { page_size: 1, ..Default::default() }).await.unwrap();
        let other = History { page_token: page.next_page_token.clone(), oldest_first: true, ..Default::default() };
        viewer.list_expiry_events(other).await.unwrap_err().is(Code::InvalidArgument, Reason::PageTokenMismatch);
        page.next_page_token.push('x');
        let broken = History { page_token: page.next_page_token, page_size: 1, ..Default::default() };
        viewer.list_expiry_events(broken).await.unwrap_err().is(Code::InvalidArgument, Reason::PageTokenInvalid);
    }

    async fn history_can_be_cut_by_time(world: World) {
        one_lives_and_one_is_dead(&world, ACME).await;
        one_lives_and_one_is_dead(&world, GLOBEX).await;
        let viewer = world.viewer().await;
        let all = viewer.watch_all().await.caught_up().await;
        let at = |index: usize| all[index].recorded_at;
        let cases = [(at(2), None), (None, at(4)), (at(1), at(3)), (at(3), at(3)), (at(4), at(1))];
        for (since, until) in cases {
            let within = |event: &&ExpiryEvent| {
                let recorded = micros(event.recorded_at.as_ref());
                since.is_none_or(|since| recorded >= micros(Some(&since)))
                    && until.is_none_or(|until| recorded < micros(Some(&until)))
            };
            let mut expected: Vec<_> = all.iter().filter(within).cloned().collect();
            for oldest_first in [true, false] {
                let asked = History { since, until, oldest_first, page_size: 2, ..Default::default() };
                let (listed, _) = pages(&viewer, asked).await;
                assert_eq!(listed, expected, "{since:?} to {until:?}");
                expected.reverse();
            }
        }
        let past = History { since: Some(prost_types::Timestamp { seconds: 253_402_300_799, nanos: 0 }), ..Default::default() };
        assert_eq!(pages(&viewer, past).await.0, []);
    }

    async fn watching_from_where_a_list_was_made_misses_nothing(world: World) {
        let connector = world.connector().await;
        let people: Vec<_> = (0..12).map(|at| world.person(&format!("p{at}")).long_lived_token()).collect();
        let storing = tokio::spawn(async move {
            let mut ids = BTreeSet::new();
            for token in people {
                ids.insert(connector.connect(ACME, &token).await);
            }
            ids
        });
        let viewer = world.viewer().await;
        let listed = loop {
            let listed = viewer.list().await.unwrap();
            if listed.tokens.len() >= 3 {
                break listed;
            }
        };
        assert!(!storing.is_finished(), "the list came too late to prove anything");
        let feed = viewer.watch_after(&listed.cursor).await.unwrap();
        let all = storing.await.unwrap();
        let events = feed.caught_up().await;
        let mut known: BTreeSet<_> = listed.tokens.into_iter().map(|token| token.connection_id).collect();
        assert!(known.len() < all.len());
        known.extend(events.into_iter().map(|event| event.connection_id));
        assert_eq!(known, all);
    }
}
