//! What an authorization is bound to: workspace, session, time, and a state that nobody can make.

use super::*;

on_both_databases! {
    with |builder| builder.moving_time();

    async fn nobody_completes_what_is_not_his_and_who_tries_spoils_nothing(world: World) {
        let (ana, connector) = (world.person("ana"), world.connector().await);
        let callback = consented(&world, &connector, new(), &ana, Decision::Allow).await;
        let state = param(&callback, "state").expect("a state");
        let swapped = |with: &str| callback.replace(&state, with);
        let mut changed: Vec<String> = (0..state.len())
            .step_by(9)
            .map(|at| {
                let other = if state.as_bytes()[at] == b'A' { "B" } else { "A" };
                swapped(&format!("{}{other}{}", &state[..at], &state[at + 1..]))
            })
            .collect();
        changed.extend(["", "A", &"A".repeat(64), &format!("{state}A"), "%00"].map(swapped));
        changed.extend(["code=AQDx".into(), "nothing".into(), "state=".into()]);
        for callback in &changed {
            is_over(&complete(&connector, callback).await.expect_err(callback));
        }
        let good = pb::CompleteAuthorizationRequest {
            workspace_id: ACME.into(),
            callback_query: callback.clone(),
            session_binding: SESSION.into(),
        };
        for request in [
            pb::CompleteAuthorizationRequest { workspace_id: "beta".into(), ..good.clone() },
            pb::CompleteAuthorizationRequest { session_binding: "another browser".into(), ..good.clone() },
        ] {
            is_over(&connector.complete_authorization(request).await.expect_err("of another"));
        }
        // A tenant does not learn that the workspace exists.
        let stranger = world.caller(Role::Connector, &["beta"]).await;
        let no = stranger.complete_authorization(good).await.expect_err("of another tenant");
        no.is(Code::NotFound, Reason::WorkspaceNotFound);
        assert_eq!(codes(&world), 0, "the code went nowhere");
        complete(&connector, &callback).await.expect("the right session completes it");
    }

    async fn who_can_write_to_the_database_binds_it_to_nothing_else(world: World) {
        let (ana, connector) = (world.person("ana"), world.connector().await);
        let victim = connector.connect("beta", &world.person("bob").long_lived_token()).await;
        let uuid = victim.replace('-', "");
        let connection = match world.database.backend() {
            Backend::Sqlite => format!("x'{uuid}'"),
            Backend::Postgres => format!("'{victim}'"),
        };
        for change in [
            "workspace_id = 'beta'".to_owned(),
            format!("connection_id = {connection}"),
            "redirect_uri = 'https://evil.example/'".to_owned(),
            "options = 7".to_owned(),
            "expires_at = expires_at + 1".to_owned(),
        ] {
            let callback = consented(&world, &connector, new(), &ana, Decision::Allow).await;
            world.database.execute(format!("UPDATE authorizations SET {change}")).await;
            is_over(&complete(&connector, &callback).await.expect_err(&change));
            world.database.execute("DELETE FROM authorizations").await;
        }
        assert_eq!(codes(&world), 0, "the code went nowhere");
        // Repeating a request makes no state for what the row says now.
        let own = pb::BeginAuthorizationRequest { workspace_id: "gamma".into(), ..new() };
        for change in [
            "workspace_id = 'beta'".to_owned(),
            format!("connection_id = {connection}"),
            "redirect_uri = 'https://evil.example/'".to_owned(),
            "options = 7".to_owned(),
            "expires_at = expires_at + 1000000000".to_owned(),
            match world.database.backend() {
                Backend::Sqlite => "session_binding = x'00'".to_owned(),
                Backend::Postgres => "session_binding = '\\x00'".to_owned(),
            },
        ] {
            let own = pb::BeginAuthorizationRequest { request_id: request_id(), ..own.clone() };
            connector.begin_authorization(own.clone()).await.expect("it begins");
            world.database.execute(format!("UPDATE authorizations SET {change}")).await;
            is_over(&connector.begin_authorization(own).await.expect_err(&change));
            world.database.execute("DELETE FROM authorizations").await;
        }
    }

    async fn it_ends_after_ten_minutes_and_its_answer_is_kept_for_a_day(world: World) {
        let (ana, connector) = (world.person("ana"), world.connector().await);
        let late = consented(&world, &connector, new(), &ana, Decision::Allow).await;
        let callback = consented(&world, &connector, new(), &ana, Decision::Allow).await;
        let id = complete(&connector, &callback).await.expect("it is stored").token.unwrap().connection_id;
        world.advance(Duration::from_secs(11 * 60)).await;
        is_over(&complete(&connector, &late).await.expect_err("too late"));
        let again = complete(&connector, &callback).await.expect("the back button does no harm");
        assert_eq!((again.outcome(), again.token.unwrap().connection_id), (Outcome::Created, id));
        world.advance(Duration::from_secs(25 * 3_600)).await;
        world.admin().run("housekeeping").await;
        is_over(&complete(&connector, &callback).await.expect_err("forgotten"));
        assert_eq!(world.database.rows("authorizations").await.len(), 0);
    }

    async fn a_shredded_workspace_has_no_authorizations(world: World) {
        let (ana, connector) = (world.person("ana"), world.connector().await);
        let callback = consented(&world, &connector, new(), &ana, Decision::Allow).await;
        let shred = pb::ShredWorkspaceRequest {
            workspace_id: ACME.into(),
            confirm_workspace_id: ACME.into(),
            ..Default::default()
        };
        world.admin().shred_workspace(shred).await.expect("it is shredded");
        is_over(&complete(&connector, &callback).await.expect_err("it is gone"));
        let no = connector.begin_authorization(new()).await.expect_err("it is gone");
        no.is(Code::FailedPrecondition, Reason::WorkspaceShredded);
        assert_eq!((codes(&world), world.database.rows("authorizations").await.len()), (0, 0));
    }
}
