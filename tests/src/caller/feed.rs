//! A watcher of the feed, which collects in the background and checks what every watch promises.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::panicking;
use std::time::Duration;

use token_vault_proto::v1::expiry_event::Kind;
use token_vault_proto::v1::token_vault_client::TokenVaultClient;
use token_vault_proto::v1::watch_expiry_events_request::{From as StartFrom, Start};
use token_vault_proto::v1::watch_expiry_events_response::{Heartbeat, Item};
use token_vault_proto::v1::{
    ExpiryEvent, Token, WatchExpiryEventsRequest as Watch, WatchExpiryEventsResponse as Response,
};
use tokio::task::JoinHandle;
use tonic::Streaming;

use crate::caller::denial::Denial;
use crate::caller::{Caller, seconds};
use crate::wait::eventually_async;

/// How long a test waits for what must come.
const LIMIT: Duration = Duration::from_secs(60);

/// A running watch. Each method, and the drop, panics first if the watch received something that it must not receive.
#[derive(Debug)]
pub struct Feed {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Seen {
    answers: usize,
    events: Vec<ExpiryEvent>,
    tokens: Vec<Token>,
    snapshot_is_whole: bool,
    cursor: String,
    heartbeats: usize,
    heartbeat: Heartbeat,
    ended: Option<Option<Denial>>,
    wrong: Vec<String>,
}

impl Seen {
    fn take(&mut self, answer: Response) {
        let mut wrong = |why: String| self.wrong.push(format!("answer {}: {why}", self.answers));
        let is_heartbeat = matches!(answer.item, Some(Item::Heartbeat(_)));
        if self.answers == 0 && !is_heartbeat {
            wrong("the first is no heartbeat".into());
        }
        if answer.server_time.is_none() {
            wrong("it tells no time".into());
        }
        match answer.item {
            Some(Item::Events(batch)) => {
                if !(1..=1_000).contains(&batch.events.len()) || answer.cursor.is_empty() {
                    wrong(format!("{} events, cursor {:?}", batch.events.len(), answer.cursor));
                }
                for event in batch.events {
                    let before = self.events.last().map_or(0, |last| last.sequence);
                    if event.sequence <= before || event.cursor.is_empty() {
                        wrong(format!("{} after {before}, cursor {:?}", event.sequence, event.cursor));
                    }
                    self.events.push(event);
                }
            }
            Some(Item::Snapshot(page)) => {
                let in_time = !self.snapshot_is_whole && self.events.is_empty();
                if !in_time || !(1..=1_000).contains(&page.tokens.len()) || !answer.cursor.is_empty() {
                    wrong(format!("a page of {} tokens, cursor {:?}", page.tokens.len(), answer.cursor));
                }
                self.tokens.extend(page.tokens);
            }
            Some(Item::SnapshotComplete(complete)) => {
                let counted = usize::try_from(complete.token_count).ok();
                if self.snapshot_is_whole || counted != Some(self.tokens.len()) || answer.cursor.is_empty() {
                    wrong(format!("{} tokens came, and {complete:?}", self.tokens.len()));
                }
                self.snapshot_is_whole = true;
            }
            Some(Item::Heartbeat(heartbeat)) => {
                self.heartbeats += 1;
                self.heartbeat = heartbeat;
            }
            None => wrong("it brings nothing that these protos know".into()),
        }
        self.answers += 1;
        if !answer.cursor.is_empty() {
            self.cursor = answer.cursor;
        }
    }
}

impl Caller {
    /// The bare stream of a watch. Heartbeats come every second unless the request sets another interval.
    pub async fn stream(&self, mut watch: Watch) -> Result<Streaming<Response>, Denial> {
        watch.heartbeat_interval = watch.heartbeat_interval.or_else(|| seconds(1));
        let mut request = self.request(watch);
        // A watch lasts as long as its test.
        request.metadata_mut().remove("grpc-timeout");
        let mut client = TokenVaultClient::new(self.channel.clone()).max_decoding_message_size(64 << 20);
        self.note(client.watch_expiry_events(request).await)
    }

    pub async fn watch(&self, watch: Watch) -> Result<Feed, Denial> {
        let stream = self.stream(watch).await?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let task = tokio::spawn(collect(self.clone(), stream, Arc::clone(&seen)));
        Ok(Feed { seen, task })
    }

    /// Watches the whole feed, from its oldest event on.
    pub async fn watch_all(&self) -> Feed {
        let start = Some(Start::From(StartFrom::Earliest.into()));
        self.watch(Watch { start, ..Watch::default() }).await.expect("all roles may watch")
    }

    /// Watches the events after a position.
    pub async fn watch_after(&self, cursor: &str) -> Result<Feed, Denial> {
        self.watch(Watch { start: Some(Start::Cursor(cursor.into())), ..Watch::default() }).await
    }

    /// Watches from a snapshot on: first its tokens, then the events that follow.
    pub async fn watch_snapshot(&self) -> Feed {
        let start = Some(Start::From(StartFrom::Snapshot.into()));
        self.watch(Watch { start, ..Watch::default() }).await.expect("all roles may watch")
    }
}

async fn collect(caller: Caller, mut stream: Streaming<Response>, seen: Arc<Mutex<Seen>>) {
    loop {
        let next = stream.message().await;
        let mut seen = lock(&seen);
        match next {
            Ok(Some(answer)) => {
                if let Some(found) =
                    caller.secrets_in("an answer of the feed", format!("{answer:?}").as_bytes())
                {
                    seen.wrong.push(found);
                }
                seen.take(answer);
            }
            Ok(None) => seen.ended = Some(None),
            Err(status) => {
                let denial = Denial::from(status);
                if let Some(found) = caller.secrets_in("the feed's end", &denial.everything()) {
                    seen.wrong.push(found);
                }
                seen.ended = Some(Some(denial));
            }
        }
        if seen.ended.is_some() {
            return;
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Feed {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        let seen = lock(&self.seen);
        assert!(seen.wrong.is_empty(), "what no watch may show: {:#?}", seen.wrong);
        seen
    }

    /// All events so far, in the order of their sequence.
    pub fn events(&self) -> Vec<ExpiryEvent> {
        self.seen().events.clone()
    }

    pub fn of(&self, connection: &str) -> Vec<ExpiryEvent> {
        self.events().into_iter().filter(|event| event.connection_id == connection).collect()
    }

    /// The kinds of one connection's events, in order.
    pub fn kinds_of(&self, connection: &str) -> Vec<Kind> {
        self.of(connection).iter().map(ExpiryEvent::kind).collect()
    }

    /// The cursor after everything that was received.
    pub fn cursor(&self) -> String {
        self.seen().cursor.clone()
    }

    /// How many heartbeats have come so far.
    pub fn heartbeats(&self) -> usize {
        self.seen().heartbeats
    }

    /// The latest heartbeat.
    pub fn heartbeat(&self) -> Heartbeat {
        self.seen().heartbeat
    }

    /// Waits until `find` returns a value for the events so far.
    pub async fn until<T>(&self, what: &str, mut find: impl FnMut(&[ExpiryEvent]) -> Option<T>) -> T {
        let found = eventually_async(what, LIMIT, || {
            let seen = self.seen();
            let found = find(&seen.events);
            if found.is_none() && seen.ended.is_some() {
                panic!("the watch ended before {what}: {:?} after {:#?}", seen.ended, seen.events);
            }
            std::future::ready(found)
        });
        found.await
    }

    /// Waits for the first event of this kind about this connection.
    pub async fn first(&self, connection: &str, kind: Kind) -> ExpiryEvent {
        let wanted = |event: &&ExpiryEvent| event.connection_id == connection && event.kind() == kind;
        self.until(&format!("{kind:?} of {connection}"), |events| events.iter().find(wanted).cloned()).await
    }

    /// Waits for the end of the snapshot, and returns its tokens.
    pub async fn snapshot(&self) -> Vec<Token> {
        eventually_async("the whole snapshot", LIMIT, async || {
            let seen = self.seen();
            seen.snapshot_is_whole.then(|| seen.tokens.clone())
        })
        .await
    }

    /// Waits until the watch has seen everything that was in the feed at the time of the call, and returns it. Use it
    /// to prove that something did *not* come.
    pub async fn caught_up(&self) -> Vec<ExpiryEvent> {
        // The next heartbeat may have been sent before this call. The one after it was not.
        let second = self.heartbeats() + 2;
        eventually_async("two heartbeats at the head", LIMIT, async || {
            let seen = self.seen();
            assert!(seen.ended.is_none(), "the watch ended: {:?}", seen.ended);
            (seen.heartbeats >= second && seen.heartbeat.behind == 0).then(|| seen.events.clone())
        })
        .await
    }

    /// Waits for the end of the stream; `None` if it ended without a denial.
    pub async fn ended(&self) -> Option<Denial> {
        eventually_async("the end of the watch", LIMIT, async || self.seen().ended.clone()).await
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
        if !panicking() {
            drop(self.seen());
        }
    }
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;
    use token_vault_proto::v1::watch_expiry_events_response::{EventBatch, SnapshotComplete, SnapshotPage};

    use super::*;

    fn event(sequence: i64) -> ExpiryEvent {
        ExpiryEvent { sequence, cursor: "c".into(), ..ExpiryEvent::default() }
    }

    fn events(sequences: &[i64]) -> Item {
        Item::Events(EventBatch { events: sequences.iter().map(|&sequence| event(sequence)).collect() })
    }

    /// The number of mistakes that a watcher finds in these responses, in this order.
    fn wrong(items: Vec<(&str, Item)>) -> usize {
        let mut seen = Seen::default();
        for (cursor, item) in items {
            let server_time = Some(Timestamp::default());
            seen.take(Response { cursor: cursor.into(), server_time, item: Some(item) });
        }
        seen.wrong.len()
    }

    #[test]
    fn a_watch_that_breaks_its_promises_is_found_out() {
        let beat = || ("c", Item::Heartbeat(Heartbeat::default()));
        let page = |tokens| Item::Snapshot(SnapshotPage { tokens: vec![Token::default(); tokens] });
        let whole = |token_count| Item::SnapshotComplete(SnapshotComplete { token_count });
        let fine = [
            vec![beat(), ("c", events(&[1, 2])), beat(), ("c", events(&[7]))],
            vec![beat(), ("", page(2)), ("", page(1)), ("c", whole(3)), ("c", events(&[4]))],
            vec![beat(), ("c", whole(0))],
        ];
        for items in fine {
            assert_eq!(wrong(items.clone()), 0, "{items:?}");
        }
        let bad = [
            vec![("c", events(&[1]))],
            vec![beat(), ("c", events(&[]))],
            vec![beat(), ("", events(&[1]))],
            vec![beat(), ("c", events(&[2, 2]))],
            vec![beat(), ("c", events(&[2])), ("c", events(&[1]))],
            vec![beat(), ("", page(2)), ("c", whole(3))],
            vec![beat(), ("c", whole(0)), ("", page(1))],
            vec![beat(), ("c", page(1))],
        ];
        for items in bad {
            assert_eq!(wrong(items.clone()), 1, "{items:?}");
        }
    }
}
