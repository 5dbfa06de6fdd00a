//! Walks through every list and every stream, from the first page to the last.

use prost::Message;
use token_vault_proto::v1::watch_expiry_events_request::{From as StartFrom, Start};
use token_vault_proto::v1::watch_expiry_events_response::Item;
use token_vault_tests::prelude::*;

/// One of the ad accounts of which a connection has very many.
pub(super) const PLANTED: &str = "act_planted_00000";

/// What a walk met.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// The elements, in the order in which they came.
    pub(super) ids: Vec<String>,
    /// Of each page: how many elements, and how many bytes.
    pub(super) pages: Vec<(usize, usize)>,
}

impl Walk {
    fn page(&mut self, bytes: usize, ids: impl Iterator<Item = String>) {
        let before = self.ids.len();
        self.ids.extend(ids);
        self.pages.push((self.ids.len() - before, bytes));
        assert!(self.pages.len() <= 2_000, "it never ends");
    }

    pub(super) fn bytes(&self) -> usize {
        self.pages.iter().map(|(_, bytes)| bytes).sum()
    }
}

macro_rules! pages {
    ($caller:expr, $verb:ident, $request:expr, $list:ident, $id:expr) => {{
        let (mut walk, mut request) = (Walk::default(), $request);
        loop {
            let page = $caller.$verb(request.clone()).await.expect("no size is an error");
            walk.page(page.encoded_len(), page.$list.iter().map($id));
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                break walk;
            }
        }
    }};
}

pub(super) async fn tokens(caller: &Caller, request: pb::ListTokensRequest) -> Walk {
    pages!(caller, list_tokens, request, tokens, |token| token.connection_id.clone())
}

/// Walks through the list or stream of an RPC by pages of a size.
pub(super) async fn walk(caller: &Caller, rpc: &str, page_size: i32) -> Walk {
    match rpc {
        "ListAdAccounts" => {
            let owner = pb::ListTokensRequest { ad_account_id: Some(PLANTED.into()), ..Default::default() };
            let tokens = caller.list_tokens(owner).await.expect("a list").tokens;
            let connection_id = tokens[0].connection_id.clone();
            let request = pb::ListAdAccountsRequest { connection_id, page_size, ..Default::default() };
            pages!(caller, list_ad_accounts, request, ad_accounts, |one| one.id.clone())
        }
        "ListApiKeys" => {
            let request = pb::ListApiKeysRequest { page_size, ..Default::default() };
            pages!(caller, list_api_keys, request, api_keys, |key| key.key_id.clone())
        }
        "ListConnectLinks" => {
            let request = pb::ListConnectLinksRequest { page_size, ..Default::default() };
            pages!(caller, list_connect_links, request, links, |link| link.link_id.clone())
        }
        "ListExpiryEvents" => {
            let request = pb::ListExpiryEventsRequest { page_size, ..Default::default() };
            pages!(caller, list_expiry_events, request, events, |event| event.sequence.to_string())
        }
        "ListJobRuns" => {
            // A run of another job may begin meanwhile.
            let job = Some("policy-change".to_owned());
            let request = pb::ListJobRunsRequest { page_size, job, ..Default::default() };
            pages!(caller, list_job_runs, request, runs, |run| run.run_id.clone())
        }
        "ListSubscriptions" => {
            let request = pb::ListSubscriptionsRequest { page_size, ..Default::default() };
            pages!(caller, list_subscriptions, request, subscriptions, |one| one.name.clone())
        }
        "ListTokens" => tokens(caller, pb::ListTokensRequest { page_size, ..Default::default() }).await,
        "ListWorkspaces" => {
            let request = pb::ListWorkspacesRequest { page_size, ..Default::default() };
            pages!(caller, list_workspaces, request, workspaces, |one| one.workspace_id.clone())
        }
        "WatchExpiryEvents" => watched(caller).await,
        other => panic!("{other} has no walk yet"),
    }
}

/// The events of a watch from the oldest one to the head.
pub(super) async fn watched(caller: &Caller) -> Walk {
    messages(caller, StartFrom::Earliest).await
}

/// The tokens of a snapshot.
pub(super) async fn snapshot(caller: &Caller) -> Walk {
    messages(caller, StartFrom::Snapshot).await
}

async fn messages(caller: &Caller, from: StartFrom) -> Walk {
    let start = Some(Start::From(from.into()));
    let mut stream =
        caller.stream(pb::WatchExpiryEventsRequest { start, ..Default::default() }).await.unwrap();
    let mut walk = Walk::default();
    let mut first = true;
    loop {
        let message = stream.message().await.expect("no size is an error").expect("the watch goes on");
        let bytes = message.encoded_len();
        match message.item.expect("an item") {
            Item::Events(batch) => {
                walk.page(bytes, batch.events.iter().map(|event| event.sequence.to_string()));
            }
            Item::Snapshot(page) => {
                walk.page(bytes, page.tokens.iter().map(|token| token.connection_id.clone()));
            }
            Item::SnapshotComplete(complete) => {
                assert_eq!(usize::try_from(complete.token_count).unwrap(), walk.ids.len());
                return walk;
            }
            Item::Heartbeat(beat) if from == StartFrom::Earliest && beat.behind == 0 && !first => {
                return walk;
            }
            Item::Heartbeat(_) => {}
        }
        first = false;
    }
}
