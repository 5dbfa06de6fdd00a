//! Every way a token ends, as `docs/deaths.md` tells it: each row of its tables happens in the sandbox, and is met first by
//! each of the calls that can meet it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use token_vault_proto::v1::check::Result as Checked;
use token_vault_proto::v1::report_token_error_response::Verdict;
use token_vault_sandbox::AppBlock;
use token_vault_tests::eventually_async;
use token_vault_tests::prelude::*;

const LIMIT: Duration = Duration::from_secs(60);

/// The rows of a table below a heading, without the heads of its columns.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/deaths.md");
    let text = fs::read_to_string(file).expect("the document is there");
    let section =
        text.split("\n## ").find(|section| section.starts_with(heading)).expect("the section is there");
    let lines = section.lines().filter(|line| line.starts_with("| ")).skip(2);
    let rows: Vec<Vec<String>> = lines
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect();
    assert!(!rows.is_empty(), "{heading} has no rows");
    rows
}

/// A row about a token.
struct Way {
    what: String,
    how: String,
    reply: String,
    status: String,
    event: String,
    severity: String,
    fetch: String,
    refusal: String,
    fixer: String,
    sentence: String,
    met_by: Vec<String>,
}

impl Way {
    fn read(row: Vec<String>) -> Self {
        let [what, how, reply, status, event, severity, fetch, refusal, fixer, sentence, met_by]: [String;
            11] = row.try_into().expect("eleven columns");
        let met_by = met_by.split(", ").map(str::to_owned).collect();
        Self { what, how, reply, status, event, severity, fetch, refusal, fixer, sentence, met_by }
    }

    fn happens_to(&self, world: &World, name: &str) {
        let person = world.sandbox.user(name);
        match self.how.split(' ').collect::<Vec<_>>()[..] {
            ["falls", "into", subcode] => person.falls_into(subcode.parse().expect("a sub-code")),
            ["declines", scope] => drop(person.declines([scope])),
            ["keeps", count, "ad", "accounts"] => {
                let ids = person.ad_account_ids();
                person.ticks(ids.iter().take(count.parse().expect("a number")));
            }
            ["61", "days", "pass"] => {}
            ["data", "access", "lapses"] => person.data_access_lapses(),
            _ => panic!("{}: the sandbox can't do {:?}", self.what, self.how),
        }
    }

    fn body(&self) -> String {
        let (code, subcode) = self.reply.split_once('/').expect("code and sub-code");
        format!(
            r#"{{"error":{{"message":"x","type":"OAuthException","code":{code},"error_subcode":{subcode}}}}}"#
        )
    }

    /// What the feed, the token and FetchAccessToken say of a connection afterwards.
    async fn is_told(&self, admin: &Caller, id: &str, case: &str) {
        let filter = pb::EventFilter { connection_ids: vec![id.into()], ..Default::default() };
        let event = eventually_async(&format!("{case}: {} is announced", self.event), LIMIT, async || {
            let request = pb::ListExpiryEventsRequest { filter: Some(filter.clone()), ..Default::default() };
            let events = admin.list_expiry_events(request).await.expect("events are listed").events;
            events.into_iter().find(|event| name(event.kind().as_str_name(), "KIND_") == self.event)
        })
        .await;
        let remedy = event.remedy.clone().expect("what to do");
        let told = [
            name(event.status().as_str_name(), "STATUS_"),
            name(event.severity().as_str_name(), "SEVERITY_"),
            refusal(event.reason()),
            name(remedy.fixer().as_str_name(), "FIXER_"),
        ];
        let expected = [&self.status, &self.severity, &self.refusal, &self.fixer];
        assert_eq!(told.each_ref(), expected, "{case}");
        assert!(is_as_written(&remedy.message, &self.sentence), "{case}: {}", remedy.message);
        let token = admin.get(id).await.expect("it is there");
        assert_eq!(name(token.status().as_str_name(), "STATUS_"), self.status, "{case}");
        let fetched = match admin.fetch(id).await {
            Ok(_) => "OK".to_owned(),
            Err(no) => {
                assert_eq!(no.code(), Code::FailedPrecondition, "{case}: {no:?}");
                if self.fetch == "TOKEN_INVALID" {
                    no.says("refusal", &self.refusal).says("fixer", &self.fixer);
                }
                no.reason().to_owned()
            }
        };
        assert_eq!((fetched.as_str(), event.usable), (self.fetch.as_str(), self.fetch == "OK"), "{case}");
    }
}

/// Whether a sentence is as the document has it, where `…` stands for anything.
fn is_as_written(told: &str, written: &str) -> bool {
    let mut rest = told;
    let mut parts = written.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(after) = rest.strip_prefix(first) else { return false };
    rest = after;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty()
}

fn name(value: &str, prefix: &str) -> String {
    value.strip_prefix(prefix).unwrap_or(value).to_owned()
}

fn refusal(reason: pb::RefusalReason) -> String {
    match reason {
        pb::RefusalReason::Unspecified => "-".to_owned(),
        reason => name(reason.as_str_name(), "REFUSAL_REASON_"),
    }
}

on_both_databases! {
    with |builder| builder.moving_time();

    async fn each_end_of_a_token_is_told_alike_whoever_meets_it_first(world: World) {
        let admin = world.admin();
        for (number, way) in rows("The token").into_iter().map(Way::read).enumerate() {
            for (at, rpc) in way.met_by.iter().enumerate() {
                let who = format!("person {number} {at}");
                let case = format!("{} ({}), met by {rpc}", way.what, way.how);
                let person = world.sandbox.user(&who).grants(SCOPES).with_ad_accounts(3);
                let token = person.long_lived_token();
                let id = admin.connect(ACME, &token).await;
                way.happens_to(&world, &who);
                // The vault asks about one token at most once in ten seconds.
                world.advance(Duration::from_secs(11)).await;
                match rpc.as_str() {
                    "report" => {
                        let report = admin.report(&id, 1, 400, &way.body()).await.expect(&case);
                        assert_eq!(report.verdict(), Verdict::Invalidated, "{case}");
                    }
                    "validate" => {
                        let found = admin.validate(&id).await.expect(&case);
                        let bad = [Checked::Fail, Checked::Warn].contains(&found.overall());
                        assert!(bad, "{case}: {:?}", found.overall());
                    }
                    "exchange" => {
                        let no = admin.exchange(&id).await.expect_err(&case);
                        assert_eq!(no.code(), Code::FailedPrecondition, "{case}: {no:?}");
                    }
                    "job" => {
                        admin.run("meta-token-expiry").await;
                    }
                    "paste" => {
                        let no = admin.store(ACME, &token).await.expect_err(&case);
                        no.is(Code::InvalidArgument, Reason::ProviderRefusedToken)
                            .says("refusal", &way.refusal)
                            .says("provider_code", &way.reply);
                        world.advance(Duration::from_secs(11)).await;
                        admin.validate(&id).await.expect(&case);
                    }
                    "time" => world.advance(Duration::from_secs(61 * 86_400)).await,
                    other => panic!("{case}: {other} is no call that this test knows"),
                }
                way.is_told(&admin, &id, &case).await;
            }
            // More deaths at once would be held back as an outage of the app.
            world.advance(Duration::from_secs(11 * 60)).await;
        }
    }

    async fn what_is_wrong_with_the_app_condemns_no_token_whoever_meets_it_first(world: World) {
        let admin = world.admin();
        let app = world.sandbox.app().id;
        for row in rows("The app") {
            let [what, how, problem, fixer, met_by]: [String; 5] = row.try_into().expect("five columns");
            for rpc in met_by.split(", ") {
                let case = format!("{what}, met by {rpc}");
                let secret = world.sandbox.app().secrets[0].clone();
                let token = world.person(&case).long_lived_token();
                let id = admin.connect(ACME, &token).await;
                match how.as_str() {
                    "rolls the secret" => world.sandbox.roll_app_secret(&app, &"9".repeat(32)),
                    "blocks the app" => world.sandbox.block_app(&app, AppBlock::Blocked),
                    other => panic!("{what}: the sandbox can't do {other}"),
                }
                world.advance(Duration::from_secs(11)).await;
                let denied = |no: Denial| {
                    no.is(Code::FailedPrecondition, Reason::ProviderMisconfigured)
                        .says("problem", &problem)
                        .says("fixer", &fixer);
                };
                match rpc {
                    "validate" => assert_eq!(admin.validate(&id).await.expect(&case).overall(), Checked::Unknown),
                    "exchange" => denied(admin.exchange(&id).await.expect_err(&case)),
                    "job" => drop(admin.run("meta-token-expiry").await),
                    "paste" => denied(admin.store(ACME, &token).await.expect_err(&case)),
                    other => panic!("{case}: {other} is no call that this test knows"),
                }
                let kept = admin.get(&id).await.expect("it is there");
                assert_eq!((kept.status(), kept.usable), (pb::token::Status::Active, true), "{case}");
                admin.fetch(&id).await.expect("the vault goes on");
                world.sandbox.block_app(&app, None);
                world.sandbox.roll_app_secret(&app, &secret);
                admin.run("meta-token-expiry").await;
                world.advance(Duration::from_secs(11 * 60)).await;
            }
        }
    }
}
