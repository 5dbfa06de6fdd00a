//! No size reaches a caller as an error: every page and every message has at most a mebibyte, and an element that is
//! larger by itself says what it leaves out.

mod crowd;
mod walk;

use std::collections::BTreeSet;

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FileDescriptorSet};
use token_vault_proto::v1::expiry_event::{Changed, Detail};
use token_vault_proto::v1::list_tokens_request::Order;
use token_vault_tests::fleet::Dice;
use token_vault_tests::prelude::*;

use crowd::{
    agency, ids, plant_ad_accounts, plant_events, plant_keys, plant_links, plant_rows, plant_tokens,
};
use walk::{Walk, snapshot, tokens, walk, watched};

const MIB: usize = 1024 * 1024;
/// gRPC's default limit for what a client receives.
const RECEIVED: usize = 4 * MIB;

/// Every list and every stream. The tests below read each of them while it holds more than fits into one response.
const LISTS: [&str; 9] = [
    "ListAdAccounts",
    "ListApiKeys",
    "ListConnectLinks",
    "ListExpiryEvents",
    "ListJobRuns",
    "ListSubscriptions",
    "ListTokens",
    "ListWorkspaces",
    "WatchExpiryEvents",
];
/// Every other RPC whose response holds a token.
const WITH_A_TOKEN: [&str; 8] = [
    "CompleteAuthorization",
    "ExchangeToken",
    "GetToken",
    "OpenConnectLink",
    "ReportTokenError",
    "RevokeToken",
    "StoreToken",
    "ValidateToken",
];
/// Every other RPC whose response repeats something, and why that is short.
const SHORT: [(&str, &str); 8] = [
    ("CreateApiKey", "one key names at most a thousand workspaces"),
    ("FetchAccessToken", "the parts that a provider's module names"),
    ("GetVaultStatus", "the replicas that run, and what is configured"),
    ("GetWorkspace", "at most twenty addresses"),
    ("ListJobs", "the jobs of this version"),
    ("RevokeApiKey", "one key"),
    ("RotateApiKey", "two keys"),
    ("ShredWorkspace", "at most twenty addresses"),
];

fn names(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|&name| name.to_owned()).collect()
}

/// The messages of the package by name, nested ones included.
fn messages(set: &FileDescriptorSet) -> Vec<(String, DescriptorProto)> {
    fn add(all: &mut Vec<(String, DescriptorProto)>, scope: &str, message: &DescriptorProto) {
        let name = format!("{scope}.{}", message.name());
        message.nested_type.iter().for_each(|nested| add(all, &name, nested));
        all.push((name, message.clone()));
    }
    let mut all = Vec::new();
    for file in &set.file {
        file.message_type.iter().for_each(|message| add(&mut all, &format!(".{}", file.package()), message));
    }
    all
}

/// Whether `wanted` holds for the message or for one that it contains.
fn holds(
    all: &[(String, DescriptorProto)],
    name: &str,
    wanted: &dyn Fn(&str, &DescriptorProto) -> bool,
) -> bool {
    let Some((name, message)) = all.iter().find(|(known, _)| known == name) else {
        panic!("no message {name}")
    };
    let mut inside = message.field.iter().filter(|field| field.r#type() == Type::Message);
    wanted(name, message) || inside.any(|field| holds(all, field.type_name(), wanted))
}

#[test]
fn every_rpc_that_repeats_something_is_known_here() {
    let set = FileDescriptorSet::decode(pb::FILE_DESCRIPTOR_SET).expect("descriptors decode");
    let all = messages(&set);
    let services =
        set.file.iter().filter(|file| file.package() == "tokenvault.v1").flat_map(|file| &file.service);
    let (mut lists, mut with_a_token, mut short) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for method in services.flat_map(|service| &service.method) {
        let response = method.output_type();
        let is_paged = |_: &str, message: &DescriptorProto| {
            message.field.iter().any(|field| field.name() == "next_page_token")
        };
        let has_a_token = |name: &str, _: &DescriptorProto| name == ".tokenvault.v1.Token";
        let repeats = |_: &str, message: &DescriptorProto| {
            message.field.iter().any(|field| field.label() == Label::Repeated)
        };
        let name = method.name().to_owned();
        if method.server_streaming() || holds(&all, response, &is_paged) {
            lists.insert(name);
        } else if holds(&all, response, &has_a_token) {
            with_a_token.insert(name);
        } else if holds(&all, response, &repeats) {
            short.insert(name);
        }
    }
    assert_eq!(lists, names(&LISTS), "a new list needs a case in the tests of this file");
    assert_eq!(with_a_token, names(&WITH_A_TOKEN), "a token in a response must be cut to fit");
    assert_eq!(short, names(&SHORT.map(|(name, _)| name)), "say here why it is short, or page it");
}

/// A number of any magnitude up to so many bits.
fn any_size(dice: &mut Dice, bits: usize) -> usize {
    let bits = dice.below(bits + 1);
    1 + dice.below(1 << bits)
}

/// Asserts that two walks met the same elements, each once.
fn same(what: &str, walk: &Walk, all: &BTreeSet<String>) {
    assert_eq!(walk.ids.len(), all.len(), "{what}: something is missing or comes twice");
    assert_eq!(&walk.ids.iter().cloned().collect::<BTreeSet<_>>(), all, "{what}");
}

on_both_databases! {
    async fn every_list_is_cut_by_bytes_and_goes_on(world: World) {
        let admin = world.admin();
        let connections = agency(&world, 45, 3_100).await;
        plant_events(&world, &connections[0], &[20_000; 12]).await;
        plant_keys(&world, 30).await;
        plant_ad_accounts(&world, &connections[0], 2_500).await;
        plant_rows(&world).await;
        plant_links(&world, 600).await;
        // The first connections of the workspace, each with all the targets of its person.
        let link = admin.link(ACME).await.url;
        let card = admin.for_link(&link).open_connect_link(pb::OpenConnectLinkRequest {}).await.expect("a card");
        assert!(card.encoded_len() <= MIB && card.connections.len() == 20, "{} bytes", card.encoded_len());
        assert_eq!(card.left_out_connections, 25);
        // The ad accounts of one connection, with all that is known of each.
        let only = pb::CreateConnectLinkRequest {
            workspace_id: ACME.into(),
            connection_id: Some(connections[0].clone()),
            ..Default::default()
        };
        let link = admin.link_with(only).await.expect("a link is made").url;
        let card = admin.for_link(&link).open_connect_link(pb::OpenConnectLinkRequest {}).await.expect("a card");
        assert!(card.encoded_len() <= MIB, "{} bytes", card.encoded_len());
        let of_many = &card.connections[0];
        let shown = i32::try_from(of_many.ad_accounts.len()).unwrap();
        assert!(shown > 5 && of_many.left_out_ad_accounts + shown >= 200, "{shown}, {}", of_many.left_out_ad_accounts);
        for rpc in LISTS {
            let mut all = BTreeSet::new();
            // First, because it is the default page that asks for nothing.
            for size in [0, 1_000, 7] {
                let walk = walk(&admin, rpc, size).await;
                if all.is_empty() {
                    all.extend(walk.ids.iter().cloned());
                }
                same(&format!("{rpc} by {size}"), &walk, &all);
                let rows = if rpc == "WatchExpiryEvents" || size == 1_000 { 1_000 } else if size == 0 { 50 } else { 7 };
                for &(elements, bytes) in &walk.pages {
                    assert!(elements <= rows && bytes <= MIB, "{rpc} by {size}: {elements} elements, {bytes} bytes");
                }
                if size == 1_000 && rpc != "ListSubscriptions" {
                    assert!(walk.bytes() > MIB && walk.pages.len() > 1, "{rpc} is not crowded: {:?}", walk.pages);
                }
            }
        }
        // The default page of the example: 45 connections of an agency, more than 5 MiB.
        let listed = tokens(&admin, pb::ListTokensRequest::default()).await;
        assert!(listed.bytes() > 5 * MIB && listed.ids.len() == 45, "{:?}", listed.pages);
        let shown = snapshot(&world.viewer().await).await;
        same("the snapshot", &shown, &connections.iter().cloned().collect());
        assert!(shown.pages.len() >= 5 && shown.pages.iter().all(|&(_, bytes)| bytes <= MIB), "{:?}", shown.pages);
    }

    async fn an_event_that_lists_too_much_says_how_much_it_leaves_out(world: World) {
        let viewer = world.viewer().await;
        let id = world.connector().await.connect(ACME, &world.person("ana").long_lived_token()).await;
        plant_events(&world, &id, &[20_000, 60_000, 3]).await;
        let request = pb::ListExpiryEventsRequest { oldest_first: true, ..Default::default() };
        let mut listed = viewer.list_expiry_events(request.clone()).await.unwrap();
        let mut events = std::mem::take(&mut listed.events);
        while !listed.next_page_token.is_empty() {
            let request = pb::ListExpiryEventsRequest { page_token: listed.next_page_token, ..request.clone() };
            listed = viewer.list_expiry_events(request).await.unwrap();
            assert!(listed.encoded_len() <= MIB);
            events.append(&mut listed.events);
        }
        let watched = viewer.watch_all().await.caught_up().await;
        assert_eq!(watched, events, "a watch shows the same");
        let changed: Vec<Changed> = events.into_iter().filter_map(|event| match event.detail {
            Some(Detail::Changed(changed)) => Some(changed),
            _ => None,
        }).collect();
        let [long, longest, short] = changed.as_slice() else { panic!("{} changes", changed.len()) };
        assert_eq!((long.added.len(), long.left_out_added), (20_000, 0));
        assert_eq!((short.added.len(), short.left_out_added), (3, 0));
        let (shown, left) = (longest.added.len(), usize::try_from(longest.left_out_added).unwrap());
        assert!(shown > 40_000 && shown + left == 60_000, "{shown} shown, {left} left out");
        assert_eq!(longest.added, ids("act_", shown), "the first ones are shown");
    }

    async fn a_token_with_too_many_targets_is_whole_in_get_token_and_cut_elsewhere(world: World) {
        const TARGETS: usize = 40_000;
        let (connector, ingestion, viewer) = (world.connector().await, world.ingestion().await, world.viewer().await);
        let ana = world.person("ana");
        let targets = ids("10", TARGETS);
        let targets: Vec<_> = targets.iter().map(String::as_str).collect();
        ana.limits("ads_read", &targets).limits("ads_management", &targets);
        let left_out = |token: &pb::Token| {
            let cut = token.granular_scopes.iter().filter(|scope| scope.left_out_target_ids > 0);
            let cut: Vec<_> = cut.map(|scope| scope.target_ids.len() + usize::try_from(scope.left_out_target_ids).unwrap()).collect();
            assert!(token.encoded_len() <= MIB && cut == [TARGETS, TARGETS], "{cut:?}");
            assert_eq!((token.left_out_scopes, token.left_out_granular_scopes), (0, 0));
            assert!(token.scopes.len() >= SCOPES.len());
        };
        let stored = connector.store(ACME, &ana.long_lived_token()).await.unwrap().token.unwrap();
        left_out(&stored);
        let id = stored.connection_id;
        let whole = viewer.get_token(pb::GetTokenRequest { connection_id: id.clone(), workspace_id: None }).await.unwrap();
        assert!(whole.encoded_len() > MIB && whole.encoded_len() < RECEIVED, "{}", whole.encoded_len());
        let shown: Vec<_> = whole.token.unwrap().granular_scopes.into_iter().filter(|scope| !scope.target_ids.is_empty()).collect();
        assert!(shown.iter().all(|scope| scope.left_out_target_ids == 0 && scope.target_ids == targets), "GetToken leaves nothing out");
        left_out(&viewer.list().await.unwrap().tokens[0]);
        left_out(&viewer.watch_snapshot().await.snapshot().await[0]);
        left_out(&connector.validate(&id).await.unwrap().token.unwrap());
        left_out(&connector.exchange(&id).await.unwrap().token.unwrap());
        let token = viewer.get(&id).await.unwrap();
        let report = ingestion.report(&id, token.token_version, 500, "").await.unwrap();
        left_out(&report.token.unwrap());
        left_out(&connector.revoke(&id).await.unwrap().token.unwrap());
    }

    async fn lists_of_any_sizes_by_pages_of_any_size_hold_everything_once(world: World) {
        let viewer = world.viewer().await;
        let mut dice = Dice::new(37);
        // Sizes of any magnitude: most are small, some take half a page, two are more than one.
        let small: Vec<_> = (0..60).map(|_| any_size(&mut dice, 14)).collect();
        let targets = [&small[..30], &[60_000], &small[30..], &[70_000]].concat();
        let all: BTreeSet<_> = plant_tokens(&world, &targets).await.into_iter().collect();
        let mut order_of = Vec::new();
        for order in [Order::ExpiresFirst, Order::CreatedFirst, Order::CreatedLast] {
            for page_size in [1, 7, 50, 1_000] {
                let request = pb::ListTokensRequest { page_size, order: order.into(), ..Default::default() };
                let walk = tokens(&viewer, request).await;
                same(&format!("{order:?} by {page_size}"), &walk, &all);
                let most = usize::try_from(page_size).unwrap();
                assert!(walk.pages.iter().all(|&(elements, bytes)| elements <= most && bytes <= MIB), "{:?}", walk.pages);
                if page_size == 1 {
                    order_of = walk.ids;
                } else {
                    assert_eq!(walk.ids, order_of, "{order:?}: the size of pages changes no order");
                }
            }
        }
        let shown = snapshot(&viewer).await;
        same("the snapshot", &shown, &all);
        assert!(shown.pages.iter().all(|&(_, bytes)| bytes <= MIB), "{:?}", shown.pages);
        let sizes: Vec<_> = (0..60).map(|_| any_size(&mut dice, 15)).collect();
        plant_events(&world, all.first().unwrap(), &sizes).await;
        let all: BTreeSet<_> = watched(&viewer).await.ids.into_iter().collect();
        assert_eq!(all.len(), 60);
        for size in [1, 7, 50, 1_000] {
            let walk = walk(&viewer, "ListExpiryEvents", size).await;
            same(&format!("events by {size}"), &walk, &all);
            assert!(walk.pages.iter().all(|&(_, bytes)| bytes <= MIB), "{:?}", walk.pages);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_about_very_much_still_arrives() {
    let world = World::start(Backend::Sqlite).await;
    let bad = pb::ListTokensRequest {
        workspace_ids: (0..1_000).map(|at| format!("no good id {at}")).collect(),
        ..Default::default()
    };
    let denial = world.viewer().await.list_tokens(bad).await.unwrap_err();
    denial
        .is(Code::InvalidArgument, Reason::FieldInvalid)
        .field("workspace_ids[0]")
        .field("workspace_ids[15]");
    assert!(denial.size() < 8 * 1024, "{} bytes of trailers", denial.size());
    // Scopes of a length that no provider has, all of them lost.
    let ana = world.person("ana");
    let id = world.connector().await.connect(ACME, &ana.long_lived_token()).await;
    let scopes: Vec<_> = (0..3_000).map(|at| format!("scope_with_a_long_name_{at}")).collect();
    world
        .database
        .execute(format!("UPDATE ad_platform_connections SET scopes = '{}'", serde_json::json!(scopes)))
        .await;
    world.restart();
    let denial = world.connector().await.store(ACME, &ana.long_lived_token()).await.unwrap_err();
    denial.is(Code::FailedPrecondition, Reason::ScopesShrunk).says("connection_id", &id);
    assert!(denial.fact("left_out").is_some_and(|left| left.parse::<usize>().unwrap() > 2_900), "{denial:?}");
    assert!(denial.size() < 8 * 1024, "{} bytes of trailers", denial.size());
}
