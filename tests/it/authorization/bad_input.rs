//! Each field, and each way in which it can be wrong.

use super::*;

type Change = fn(&mut pb::BeginAuthorizationRequest);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_bad_field_is_named_with_its_rule() {
    let world = World::builder(Backend::Sqlite).start().await;
    let connector = world.connector().await;
    let table: [(&str, Change); 23] = [
        ("workspace_id", |request| request.workspace_id.clear()),
        ("workspace_id", |request| request.workspace_id = "a b".into()),
        ("provider", |request| request.provider.clear()),
        ("redirect_uri", |request| request.redirect_uri.clear()),
        ("redirect_uri", |request| request.redirect_uri = "/callback".into()),
        ("redirect_uri", |request| request.redirect_uri = "http://app.example/".into()),
        ("redirect_uri", |request| request.redirect_uri = "https://ana:secret@app.example/".into()),
        ("redirect_uri", |request| request.redirect_uri = "https://app.example/#here".into()),
        ("redirect_uri", |request| request.redirect_uri.push('\0')),
        ("redirect_uri", |request| request.redirect_uri = "https://app.ex\tample/".into()),
        ("redirect_uri", |request| request.redirect_uri = "https://app.example/ä".into()),
        ("redirect_uri", |request| request.redirect_uri = "https://app.example/?state=1".into()),
        ("redirect_uri", |request| request.redirect_uri = "https://app.example/?a=b&%63ode=1".into()),
        ("redirect_uri", |request| request.redirect_uri = "javascript:alert(1)".into()),
        ("redirect_uri", |request| {
            request.redirect_uri = format!("https://app.example/{}", "a".repeat(2_048))
        }),
        ("connection_id", |request| request.connection_id = Some("17".into())),
        ("extra_scopes", |request| request.extra_scopes = vec!["a".into(); 51]),
        ("extra_scopes[1]", |request| request.extra_scopes = vec!["a".into(), "a,b".into()]),
        ("extra_scopes[0]", |request| request.extra_scopes = vec![String::new()]),
        ("session_binding", |request| request.session_binding.clear()),
        ("session_binding", |request| request.session_binding = "a".repeat(257)),
        ("session_binding", |request| request.session_binding = "a\nb".into()),
        ("request_id", |request| request.request_id = "\u{7}".into()),
    ];
    for (field, change) in table {
        let mut request = new();
        change(&mut request);
        let no = connector.begin_authorization(request).await.expect_err(field);
        no.is(Code::InvalidArgument, Reason::FieldInvalid).field(field);
    }
    let unknown = pb::BeginAuthorizationRequest { provider: "myspace".into(), ..new() };
    connector
        .begin_authorization(unknown)
        .await
        .unwrap_err()
        .is(Code::InvalidArgument, Reason::ProviderUnknown);
    let nowhere = reconnect("0193e4a0-0000-7000-8000-000000000001");
    connector.begin_authorization(nowhere).await.unwrap_err().is(Code::NotFound, Reason::ConnectionNotFound);
    let elsewhere = connector.connect("beta", &world.person("bob").long_lived_token()).await;
    let elsewhere = connector.begin_authorization(reconnect(&elsewhere)).await.unwrap_err();
    elsewhere.is(Code::NotFound, Reason::ConnectionNotFound);

    let good = pb::CompleteAuthorizationRequest {
        workspace_id: ACME.into(),
        callback_query: "code=a&state=b".into(),
        session_binding: SESSION.into(),
    };
    for (field, request) in [
        ("workspace_id", pb::CompleteAuthorizationRequest { workspace_id: String::new(), ..good.clone() }),
        (
            "callback_query",
            pb::CompleteAuthorizationRequest { callback_query: String::new(), ..good.clone() },
        ),
        (
            "callback_query",
            pb::CompleteAuthorizationRequest { callback_query: "a".repeat(8_193), ..good.clone() },
        ),
        (
            "callback_query",
            pb::CompleteAuthorizationRequest {
                callback_query: "code=a&code=b&state=c".into(),
                ..good.clone()
            },
        ),
        (
            "session_binding",
            pb::CompleteAuthorizationRequest { session_binding: String::new(), ..good.clone() },
        ),
    ] {
        let no = connector.complete_authorization(request).await.expect_err(field);
        no.is(Code::InvalidArgument, Reason::FieldInvalid).field(field);
    }
    assert_eq!(world.database.rows("authorizations").await.len(), 0, "nothing was begun");
}
