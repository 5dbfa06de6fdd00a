//! The consent page as a browser without JavaScript uses it.

use std::collections::HashMap;

use token_vault_sandbox::{AdAccountSpec, Sandbox};

use crate::client::{REDIRECT, Reply, SECRET, debug, get, http, read, sandbox};
use crate::dialog::{dialog, pairs, redeem};

type Attributes = HashMap<String, String>;

/// A page that is shown. It knows as much of HTML as the sandbox writes.
struct Page {
    text: String,
    sandbox: Sandbox,
}

impl Page {
    async fn open(sandbox: &Sandbox, url: &str) -> Self {
        let reply = read(http().get(url).send().await.unwrap()).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert!(reply.header("content-type").unwrap().starts_with("text/html"));
        Self { text: reply.text, sandbox: sandbox.clone() }
    }

    /// The form with this id: its own attributes, and its text.
    fn form(&self, id: &str) -> (Attributes, &str) {
        let forms = self.text.split("<form ").skip(1);
        let of = |form: &&str| attributes(form).get("id").is_some_and(|own| own == id);
        let form = forms.into_iter().find(of);
        assert!(form.is_some(), "no form {id}: {}", self.text);
        let form = form.unwrap();
        (attributes(form), form.split("</form>").next().unwrap())
    }

    /// What a form sends: its hidden and text fields, and the ticked boxes except these ids.
    fn fields(&self, form: &str, unticked: &[&str], button: &str) -> Vec<(String, String)> {
        let (_, text) = self.form(form);
        let own = |tag: &str| {
            let start = format!("<{tag} ");
            text.split(start.as_str()).skip(1).map(attributes).collect::<Vec<_>>()
        };
        let inputs = own("input").into_iter().filter(|input| {
            let boxed = input.get("type").is_some_and(|kind| kind == "checkbox");
            let on = input.contains_key("checked") && !input.contains_key("disabled");
            !boxed || on && !unticked.contains(&input["id"].as_str())
        });
        let pressed = own("button").into_iter().find(|one| one["id"] == button);
        assert!(pressed.is_some(), "no button {button}: {text}");
        let named = inputs.chain(pressed).filter(|field| field.contains_key("name"));
        named.map(|field| (field["name"].clone(), field.get("value").cloned().unwrap_or_default())).collect()
    }

    async fn press(&self, form: &str, unticked: &[&str], button: &str) -> Reply {
        let fields = self.fields(form, unticked, button);
        self.submit(form, &fields).await
    }

    async fn submit(&self, form: &str, fields: &[(String, String)]) -> Reply {
        let (own, _) = self.form(form);
        let url = format!("{}{}", self.sandbox.url(), own["action"]);
        let request = if own["method"] == "get" {
            http().get(url).query(fields)
        } else {
            http().post(url).form(fields)
        };
        read(request.send().await.unwrap()).await
    }

    /// The second page, as this person.
    async fn consent(sandbox: &Sandbox, extra: &str, name: &str) -> Self {
        Self::open(sandbox, &dialog(sandbox, &format!("{extra}&sandbox_person={name}"))).await
    }
}

/// The attributes of the tag that `text` is the rest of.
fn attributes(text: &str) -> Attributes {
    let (mut rest, mut found) = (text, Attributes::new());
    loop {
        rest = rest.trim_start();
        let end = rest.find(['=', ' ', '>']).unwrap();
        let (name, after) = rest.split_at(end);
        if name.is_empty() {
            return found;
        }
        if let Some(quoted) = after.strip_prefix("=\"") {
            let (value, after) = quoted.split_once('"').unwrap();
            found.insert(name.to_owned(), unescape(value));
            rest = after;
        } else {
            found.insert(name.to_owned(), String::new());
            rest = after;
        }
    }
}

fn unescape(text: &str) -> String {
    let plain = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#39;", "'");
    plain.replace("&amp;", "&")
}

#[tokio::test]
async fn a_person_is_chosen_or_typed_and_then_grants_a_part() {
    let sandbox = sandbox().await;
    sandbox.user("bob").renamed("Bob O'Neil");
    let ana = sandbox.user("ana").with_ad_accounts(3);
    let ids = ana.ad_account_ids();
    let first = Page::open(&sandbox, &dialog(&sandbox, "&return_scopes=true")).await;
    assert!(first.text.contains(">Bob O&#39;Neil</button>") && !first.text.contains("sandbox_grant"));
    // The persons stand in the order of their names.
    let reply = first.press("known-people", &[], "person-1").await;
    assert!(reply.text.contains("<strong id=\"you\">ana</strong>"), "{}", reply.text);
    let second = Page { text: reply.text, sandbox: sandbox.clone() };
    let box_of_second = format!("account-{}", ids[1]);
    let reply = second.press("consent", &["scope-ads_management", &box_of_second], "continue").await;
    let location = reply.header("location").unwrap();
    assert!(reply.status == 302 && location.starts_with(REDIRECT) && location.ends_with("#_=_"));
    let back = pairs(location);
    assert_eq!((back["state"].as_str(), back["granted_scopes"].as_str()), ("xyz", "ads_read"));
    assert_eq!(back["denied_scopes"], "ads_management");
    let token = redeem(&sandbox, &back["code"], REDIRECT).await.token();
    let granular = debug(&sandbox, &token).await["granular_scopes"].clone();
    assert_eq!(granular, serde_json::json!([{ "scope": "ads_read", "target_ids": [ids[0], ids[2]] }]));

    // At the next visit the page shows what was decided.
    let again = Page::consent(&sandbox, "", "ana").await;
    let fields = again.fields("consent", &[], "continue");
    let picked: Vec<&str> =
        fields.iter().filter(|(name, _)| name == "sandbox_account").map(|(_, id)| id.as_str()).collect();
    assert_eq!(picked, [ids[0].as_str(), ids[2].as_str()]);
    assert!(again.text.contains("id=\"scope-ads_management\" disabled>") && again.text.contains("rerequest"));
    let asked = Page::consent(&sandbox, "&auth_type=rerequest", "ana").await;
    assert!(asked.text.contains("id=\"scope-ads_management\" checked>"));

    let typed = first.fields("somebody-else", &[], "person-go").into_iter();
    let typed: Vec<_> = typed
        .map(
            |(name, value)| if name == "sandbox_person" { (name, " eve ".to_owned()) } else { (name, value) },
        )
        .collect();
    let reply = first.submit("somebody-else", &typed).await;
    assert!(reply.text.contains("<strong id=\"you\">eve</strong>"), "{}", reply.text);
    let own = &sandbox.user("eve").ad_account_ids()[0];
    assert!(reply.text.contains(&format!("id=\"account-{own}\"")), "the person is made before the choice");
}

#[tokio::test]
async fn everything_stays_everything_and_nothing_is_nothing() {
    let sandbox = sandbox().await;
    let ana = sandbox.user("ana").with_ad_accounts(2);
    let redeemed = async |unticked: &[&str]| {
        let page = Page::consent(&sandbox, "&auth_type=rerequest", "ana").await;
        let reply = page.press("consent", unticked, "continue").await;
        let token =
            redeem(&sandbox, &pairs(reply.header("location").unwrap())["code"], REDIRECT).await.token();
        let listed = get(&sandbox, "/me/adaccounts", &[("access_token", &token)]).await;
        (listed.json["data"].as_array().map(Vec::len), debug(&sandbox, &token).await["scopes"].clone())
    };
    assert_eq!(redeemed(&[]).await.0, Some(2));
    ana.ad_account(AdAccountSpec::default());
    let ids: Vec<String> = ana.ad_account_ids().iter().map(|id| format!("account-{id}")).collect();
    let unticked: Vec<&str> = ids.iter().map(String::as_str).collect();
    assert_eq!(redeemed(&unticked).await.0, Some(0));
    let none = redeemed(&["scope-ads_read", "scope-ads_management"]).await;
    assert_eq!(none, (None, serde_json::json!(["public_profile"])));
}

#[tokio::test]
async fn every_documented_failure_has_a_button() {
    let sandbox = sandbox().await;
    for (button, error, message) in [
        ("cancel", Some("access_denied"), None),
        ("fail-deny", Some("access_denied"), None),
        ("fail-deny_older", Some("access_denied"), None),
        ("fail-role_missing", Some("access_denied"), None),
        ("fail-misconfigured", None, None),
        ("fail-nothing", None, None),
        ("fail-expired_code", None, Some("This authorization code has expired.")),
        ("fail-used_code", None, Some("This authorization code has been used.")),
        ("fail-malformed_code", None, Some("Invalid verification code format.")),
        ("fail-foreign_code", None, Some("Error validating verification code.")),
    ] {
        let page = Page::consent(&sandbox, "", "ana").await;
        let reply = page.press("consent", &["scope-ads_management"], button).await;
        let back = pairs(reply.header("location").unwrap());
        assert_eq!(back["state"], "xyz", "{button}");
        assert_eq!(back.get("error").map(String::as_str), error, "{button}");
        assert_eq!(back.contains_key("error_code"), error.is_some() || button == "fail-misconfigured");
        assert_eq!(back.contains_key("code"), message.is_some(), "{button}");
        if let Some(message) = message {
            let refused = redeem(&sandbox, &back["code"], REDIRECT).await;
            assert!(refused.status == 400 && refused.message().starts_with(message), "{}", refused.text);
        }
    }
    let page = Page::consent(&sandbox, "", "ana").await;
    let ways = page.text.matches("id=\"fail-").count();
    assert_eq!(ways, 10, "nine buttons and the summary");
    // With a flawed code, too, the ticks are what the person granted.
    assert!(page.text.contains("id=\"scope-ads_management\" disabled>"));
}

#[tokio::test]
async fn what_comes_from_outside_is_text_and_never_markup() {
    let sandbox = sandbox().await;
    let evil = "\"'><script>alert(1)</script>&amp;";
    let encoded: String = url::form_urlencoded::byte_serialize(evil.as_bytes()).collect();
    sandbox.change_app(crate::client::APP, |app| evil.clone_into(&mut app.name));
    sandbox.user("ana").renamed(evil).ad_account(AdAccountSpec {
        id: Some(evil.to_owned()),
        name: evil.to_owned(),
        ..AdAccountSpec::default()
    });
    sandbox.user(evil);
    let extra = format!("&{encoded}={encoded}&scope={encoded}");
    let base = dialog(&sandbox, &extra).replace("state=xyz", &format!("state={encoded}"));
    let base = base.replace("&scope=ads_read,ads_management", "");
    for url in
        [base.clone(), format!("{base}&sandbox_person={encoded}"), format!("{base}&sandbox_person=ana")]
    {
        let page = Page::open(&sandbox, &url).await;
        assert!(!page.text.contains("<script") && !page.text.contains("\"'>"), "{}", page.text);
    }
    let page = Page::open(&sandbox, &format!("{base}&sandbox_person=ana")).await;
    let reply = page.press("consent", &[], "continue").await;
    assert_eq!(pairs(reply.header("location").unwrap())["state"], evil, "it comes back as it went out");
    let bad = format!("{base}&sandbox_user=ana&sandbox_decision={encoded}");
    let reply = read(http().get(&bad).send().await.unwrap()).await;
    assert!(reply.status == 400 && !reply.text.contains("<script"), "{}", reply.text);
    assert!(!page.text.contains(SECRET));
}

#[tokio::test]
async fn every_field_has_a_label_and_every_id_is_unique() {
    let sandbox = sandbox().await;
    sandbox.user("ana").with_ad_accounts(2);
    for page in [Page::open(&sandbox, &dialog(&sandbox, "")).await, Page::consent(&sandbox, "", "ana").await]
    {
        let mut ids: Vec<&str> =
            page.text.split(" id=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        ids.sort_unstable();
        let all = ids.len();
        ids.dedup();
        assert_eq!(ids.len(), all, "{ids:?}");
        for input in page.text.split("<input ").skip(1).map(attributes) {
            let hidden = input.get("type").is_some_and(|kind| kind == "hidden");
            assert!(hidden || page.text.contains(&format!("<label for=\"{}\"", input["id"])), "{input:?}");
        }
        assert!(page.text.contains("<html lang=\"en\">") && page.text.matches("<h1>").count() == 1);
    }
}
