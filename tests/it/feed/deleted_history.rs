//! Pages of a history whose older events are deleted while a caller reads them.

use std::time::Duration;

use token_vault_proto::v1::{EventFilter, ExpiryEvent, ListExpiryEventsRequest as History};
use token_vault_tests::prelude::*;

use super::common::pages;

/// Stores and revokes the tokens of two people: four events.
async fn four_events(world: &World, people: [&str; 2]) -> Vec<String> {
    let (connector, mut ids) = (world.connector().await, Vec::new());
    for name in people {
        let id = connector.connect(ACME, &world.person(name).token_never()).await;
        connector.revoke(&id).await.unwrap();
        ids.push(id);
    }
    ids
}

/// A list of which the first page has been read.
struct Begun {
    case: &'static str,
    request: History,
    first: pb::ListExpiryEventsResponse,
}

impl Begun {
    /// Reads the other pages. Returns all sequences, and the refusal that ended the list.
    async fn rest(&self, viewer: &Caller) -> (Vec<i64>, Option<Denial>) {
        let mut events: Vec<ExpiryEvent> = self.first.events.clone();
        let mut page_token = self.first.next_page_token.clone();
        let refusal = loop {
            if page_token.is_empty() {
                break None;
            }
            match viewer.list_expiry_events(History { page_token, ..self.request.clone() }).await {
                Ok(page) => {
                    events.extend(page.events);
                    page_token = page.next_page_token;
                }
                Err(refusal) => break Some(refusal),
            }
        };
        (events.iter().map(|event| event.sequence).collect(), refusal)
    }
}

on_both_databases! {
    with |builder| builder.moving_time().config("jobs.event_retention", "off");

    async fn a_page_whose_events_are_gone_says_so_and_is_not_the_last(world: World) {
        let old = four_events(&world, ["ana", "ben"]).await;
        world.advance(Duration::from_secs(91 * 86_400)).await;
        let new = four_events(&world, ["cleo", "dan"]).await;
        let viewer = world.viewer().await;
        let all = viewer.watch_all().await.caught_up().await;
        assert_eq!(all.len(), 8, "{all:#?}");
        let of = |id: &String| Some(EventFilter { connection_ids: vec![id.clone()], ..Default::default() });
        let by = |page_size: i32, oldest_first: bool| History { page_size, oldest_first, ..Default::default() };
        // Of each list: what is read of it before the refusal. `None`: nothing of it is deleted, and it ends as it should.
        let cases: [(&str, History, &[i64], bool); 11] = [
            ("newest first, to the edge", by(4, false), &[8, 7, 6, 5], true),
            ("newest first, one by one", by(1, false), &[8, 7, 6, 5], true),
            ("newest first, across the edge", by(3, false), &[8, 7, 6, 5], true),
            ("oldest first", by(2, true), &[1, 2], true),
            ("oldest first, at the edge", by(4, true), &[1, 2, 3, 4, 5, 6, 7, 8], false),
            ("oldest first, within what is kept", by(5, true), &[1, 2, 3, 4, 5, 6, 7, 8], false),
            ("of an old connection", History { filter: of(&old[0]), ..by(1, false) }, &[2], true),
            ("of an old connection, oldest first", History { filter: of(&old[1]), ..by(1, true) }, &[3], true),
            ("of a new connection, newest first", History { filter: of(&new[0]), ..by(1, false) }, &[6, 5], true),
            ("since a kept event", History { since: all[4].recorded_at, ..by(1, false) }, &[8, 7, 6, 5], false),
            ("read before", by(8, false), &[8, 7, 6, 5, 4, 3, 2, 1], false),
        ];
        let mut begun = Vec::new();
        for (case, request, _, _) in &cases {
            let first = viewer.list_expiry_events(request.clone()).await.unwrap();
            begun.push(Begun { case, request: request.clone(), first });
        }
        world.admin().run("event-retention").await;
        for (list, (_, _, expected, ends_early)) in begun.iter().zip(&cases) {
            let (sequences, refusal) = list.rest(&viewer).await;
            assert_eq!(sequences, *expected, "{}", list.case);
            match refusal {
                Some(refusal) if *ends_early => {
                    refusal.is(Code::OutOfRange, Reason::EventsCompacted).says("oldest_sequence", "5");
                }
                refusal => assert!(refusal.is_none() && !ends_early, "{}: {refusal:?}", list.case),
            }
        }
        for oldest_first in [true, false] {
            let (listed, _) = pages(&viewer, by(1, oldest_first)).await;
            assert_eq!(listed.len(), 4, "a list that begins now is whole");
        }
    }
}
