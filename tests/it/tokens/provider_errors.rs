//! Every error in the provider's own table: whether it is about the token, about our setup, or about neither.

use std::time::Duration;

use token_vault_proto::v1::check::Result as Checked;
use token_vault_proto::v1::report_token_error_response::{Advice, Verdict};
use token_vault_proto::v1::token::Status;
use token_vault_tests::prelude::*;

use super::provider_trouble::{furnished, refused};

fn graph_error(http: u16, code: i64, subcode: Option<u32>, message: Option<&str>) -> FaultKind {
    FaultKind::GraphError {
        http,
        code,
        subcode,
        transient: None,
        message: message.map(str::to_owned),
        kind: None,
    }
}

fn body(code: i64, subcode: Option<u32>, message: &str) -> String {
    let subcode = subcode.map_or(String::new(), |subcode| format!(",\"error_subcode\":{subcode}"));
    format!(
        "{{\"error\":{{\"message\":\"{message}\",\"type\":\"OAuthException\",\"code\":{code}{subcode}}}}}"
    )
}

/// Rows of the reference's table of codes that say nothing about the token itself: code, sub-code, text, and the
/// verdict and advice for a report of it.
const NOT_THE_TOKEN: &[(i64, Option<u32>, &str, Verdict, Advice)] = {
    use Advice as A;
    use Verdict as V;
    &[
        (1, None, "An unknown error occurred", V::Transient, A::RetryAfter),
        (2, None, "Service temporarily unavailable", V::Transient, A::RetryAfter),
        (960, None, "Batch timed out", V::Transient, A::RetryAfter),
        (3, None, "capability", V::OurMisconfiguration, A::RetryAfter),
        (4, None, "limit", V::Throttled, A::RetryAfter),
        (4, Some(1_504_022), "limit", V::Throttled, A::RetryAfter),
        (17, Some(2_446_079), "limit", V::Throttled, A::RetryAfter),
        (17, Some(1_885_172), "limit", V::Throttled, A::RetryAfter),
        (32, None, "limit", V::Throttled, A::RetryAfter),
        (341, None, "limit", V::Throttled, A::RetryAfter),
        (613, None, "limit", V::Throttled, A::RetryAfter),
        (613, Some(1_487_742), "limit", V::Throttled, A::RetryAfter),
        (613, Some(1_996), "limit", V::Throttled, A::RetryAfter),
        (613, Some(5_044_001), "limit", V::Throttled, A::RetryAfter),
        (80_000, None, "limit", V::Throttled, A::RetryAfter),
        (80_001, None, "limit", V::Throttled, A::RetryAfter),
        (80_002, None, "limit", V::Throttled, A::RetryAfter),
        (80_003, Some(2_446_079), "limit", V::Throttled, A::RetryAfter),
        (80_004, Some(2_446_079), "limit", V::Throttled, A::RetryAfter),
        (80_005, None, "limit", V::Throttled, A::RetryAfter),
        (80_006, None, "limit", V::Throttled, A::RetryAfter),
        (80_007, None, "limit", V::Throttled, A::RetryAfter),
        (80_008, None, "limit", V::Throttled, A::RetryAfter),
        (80_009, None, "limit", V::Throttled, A::RetryAfter),
        (80_014, None, "limit", V::Throttled, A::RetryAfter),
        (10, None, "permission", V::Permission, A::RetryAfter),
        (200, None, "permission", V::Permission, A::RetryAfter),
        (200, Some(1_870_047), "permission", V::Permission, A::RetryAfter),
        (294, None, "permission", V::Permission, A::RetryAfter),
        (299, None, "permission", V::Permission, A::RetryAfter),
        (100, Some(33), "Unsupported get request", V::Permission, A::SkipAdAccount),
        (100, None, "Invalid parameter", V::OurMisconfiguration, A::FixRequest),
        (100, None, "Invalid appsecret_proof provided", V::OurMisconfiguration, A::RetryAfter),
        (101, None, "app id", V::OurMisconfiguration, A::RetryAfter),
        (104, None, "signature", V::OurMisconfiguration, A::FixRequest),
        (191, None, "redirect", V::OurMisconfiguration, A::RetryAfter),
        (270, None, "access level", V::OurMisconfiguration, A::RetryAfter),
        (506, None, "duplicate", V::OurMisconfiguration, A::FixRequest),
        (2500, None, "path", V::OurMisconfiguration, A::FixRequest),
        (2635, None, "deprecated version", V::OurMisconfiguration, A::RetryAfter),
        (3018, None, "start date", V::OurMisconfiguration, A::FixRequest),
        (3962, None, "system user", V::OurMisconfiguration, A::RetryAfter),
        (1_487_809, None, "rule", V::OurMisconfiguration, A::FixRequest),
        (3979, None, "report", V::OurMisconfiguration, A::FixRequest),
        (424_242, None, "unheard of", V::OurMisconfiguration, A::FixRequest),
        // Class A: the person is blocked. The token may be valid, so the vault asks the provider.
        (368, Some(1_390_008), "abuse", V::StillValid, A::RetryAfter),
    ]
};

/// Rows of the reference's table of dead tokens: the sub-code of 190, and the reason that people see.
const DEAD: &[(u32, pb::RefusalReason)] = &[
    (452, pb::RefusalReason::Unknown),
    (456, pb::RefusalReason::Malformed),
    (457, pb::RefusalReason::Malformed),
    (458, pb::RefusalReason::AppRemoved),
    (459, pb::RefusalReason::Checkpoint),
    (460, pb::RefusalReason::PasswordChanged),
    (461, pb::RefusalReason::Unknown),
    (462, pb::RefusalReason::Unknown),
    (463, pb::RefusalReason::Expired),
    (464, pb::RefusalReason::UnconfirmedAccount),
    (465, pb::RefusalReason::Unknown),
    (466, pb::RefusalReason::RevokedAtProvider),
    (467, pb::RefusalReason::LoggedOut),
    (468, pb::RefusalReason::UnusedTooLong),
    (490, pb::RefusalReason::Checkpoint),
    (492, pb::RefusalReason::RoleLost),
    (493, pb::RefusalReason::DataAccessLapsed),
];

on_both_databases! {
    with |builder| builder.moving_time();

    async fn reported_errors_that_are_not_the_tokens_fault_leave_it_usable(world: World) {
        let (id, secret, _) = furnished(&world).await;
        let ingestion = world.ingestion().await;
        for (code, subcode, message, verdict, advice) in NOT_THE_TOKEN {
            for http in [400, 403] {
                let report = ingestion.report(&id, 1, http, &body(*code, *subcode, message)).await.unwrap();
                let judged = (report.verdict(), report.advice());
                assert_eq!(judged, (*verdict, *advice), "{code}/{subcode:?} {message}");
                let waits = report.retry_after.is_some_and(|wait| wait.seconds > 0);
                assert_eq!(waits, *advice == Advice::RetryAfter, "{code}/{subcode:?}");
                assert_eq!(report.token.unwrap().status(), Status::Active);
            }
        }
        // An unreadable reply says nothing about the token, whatever its status.
        for (http, text) in [(500, "<html>"), (400, "<html>"), (502, ""), (429, "slow down"), (200, "false")]
        {
            let report = ingestion.report(&id, 1, http, text).await.unwrap();
            assert_eq!(report.verdict(), Verdict::Transient, "HTTP {http} {text}");
        }
        let transient = r#"{"error":{"message":"x","code":424242,"is_transient":true}}"#;
        assert_eq!(ingestion.report(&id, 1, 400, transient).await.unwrap().verdict(), Verdict::Transient);
        let one_account = pb::ReportTokenErrorRequest {
            connection_id: id.clone(),
            token_version: Some(1),
            code: "200".into(),
            ad_account_id: Some("act_17".into()),
            ..Default::default()
        };
        let report = ingestion.report_token_error(one_account).await.unwrap();
        assert_eq!((report.verdict(), report.advice()), (Verdict::Permission, Advice::SkipAdAccount));
        assert_eq!(ingestion.secret(&id).await, secret);
    }

    async fn who_reports_a_token_over_and_over_does_not_spend_the_providers_calls(world: World) {
        let ana = world.person("ana");
        let (id, _, _) = furnished(&world).await;
        let (one, other) = (world.ingestion().await, world.admin());
        let asked = || world.sandbox.count(Endpoint::DebugToken);
        let before = asked();
        let slow = FaultKind::StallFirstByte(Duration::from_millis(500));
        world.sandbox.fault(Fault::on(Endpoint::DebugToken).with(slow));
        let reports = (0..20).map(|n| {
            let (caller, id) = (if n % 2 == 0 { one.clone() } else { other.clone() }, id.clone());
            // Each refusal is different, because a caller may report whatever it likes.
            tokio::spawn(async move { caller.report(&id, 1, 400, &body(190, Some(460 + n), "x")).await })
        });
        for report in reports.collect::<Vec<_>>() {
            let report = report.await.unwrap().unwrap();
            assert_eq!((report.verdict(), report.advice()), (Verdict::StillValid, Advice::RetryAfter));
            assert!(report.retry_after.is_some_and(|after| after.seconds <= 30), "{:?}", report.retry_after);
        }
        assert_eq!(asked() - before, 1, "all of them have the answer of one question");
        // Within the retry delay the verdict stays the same. After it, the vault asks the provider again.
        ana.changes_password();
        world.advance(Duration::from_secs(11)).await;
        let report = one.report(&id, 1, 400, &body(190, Some(460), "x")).await.unwrap();
        assert_eq!(report.verdict(), Verdict::Invalidated);
    }

    async fn every_kind_of_death_is_confirmed_and_named(world: World) {
        let ana = world.person("ana");
        let (id, _, _) = furnished(&world).await;
        let ingestion = world.ingestion().await;
        for (subcode, reason) in DEAD {
            let seen = body(190, Some(*subcode), "x");
            let report = ingestion.report(&id, 1, 400, &seen).await.unwrap();
            assert_eq!(report.verdict(), Verdict::StillValid, "190/{subcode} of a token that works");
            ana.falls_into(*subcode);
            world.advance(Duration::from_secs(11)).await;
            let report = ingestion.report(&id, 1, 400, &seen).await.unwrap();
            assert_eq!(
                (report.verdict(), report.advice()),
                (Verdict::Invalidated, Advice::Pause),
                "190/{subcode}"
            );
            let token = report.token.unwrap();
            assert_eq!((token.status(), token.invalid_reason()), (Status::Invalid, *reason), "190/{subcode}");
            assert_eq!(token.provider_code, format!("190/{subcode}"));
            ana.heals();
            let healed = ingestion.validate(&id).await.unwrap().token.unwrap();
            assert_eq!(healed.status(), Status::Active, "190/{subcode} healed");
        }
        // Codes with the same meaning, and a body without a sub-code: the verdict holds, and the provider gives the
        // reason.
        ana.falls_into(460);
        for code in [0, 102, 190, 452, 459, 415] {
            let report = ingestion.report(&id, 1, 401, &body(code, None, "x")).await.unwrap();
            assert_eq!(report.verdict(), Verdict::Invalidated, "{code}");
            ana.heals();
            ingestion.validate(&id).await.unwrap();
            ana.falls_into(460);
        }
    }

    async fn a_death_that_nobody_can_confirm_now_is_not_believed_yet(world: World) {
        let (id, secret, _) = furnished(&world).await;
        world.sandbox.fault(Fault::on(Endpoint::DebugToken).always().with(FaultKind::error(503, 2)));
        let report = world.ingestion().await.report(&id, 1, 400, &body(190, Some(460), "x")).await.unwrap();
        assert_eq!((report.verdict(), report.advice()), (Verdict::Unconfirmed, Advice::RetryAfter));
        assert_eq!(world.ingestion().await.secret(&id).await, secret);
    }

    async fn errors_during_intake_have_the_code_that_tells_what_to_do(world: World) {
        let held = furnished(&world).await;
        for (code, subcode, message, verdict, _) in NOT_THE_TOKEN {
            let kind = graph_error(400, *code, *subcode, Some(message));
            let case = format!("{code}/{subcode:?} {message} at the exchange");
            let no = refused(&world, &held, Fault::on(Endpoint::OauthAccessToken).always().with(kind), &case)
                .await;
            match verdict {
                Verdict::Transient => {
                    no.is(Code::Unavailable, Reason::ProviderUnavailable).has_retry().says("provider", "meta")
                }
                Verdict::Throttled => no
                    .is(Code::ResourceExhausted, Reason::ProviderThrottled)
                    .has_retry()
                    .says("provider", "meta"),
                Verdict::OurMisconfiguration => {
                    no.is(Code::FailedPrecondition, Reason::ProviderMisconfigured).says("provider", "meta")
                }
                Verdict::Permission => {
                    no.is(Code::InvalidArgument, Reason::ProviderRefusedToken).says("refusal", "ROLE_LOST")
                }
                _ => no
                    .is(Code::InvalidArgument, Reason::ProviderRefusedToken)
                    .says("refusal", "POLICY_BLOCKED"),
            };
        }
        for (subcode, reason) in DEAD {
            let kind = graph_error(400, 190, Some(*subcode), None);
            let case = format!("190/{subcode} at the exchange");
            let no = refused(&world, &held, Fault::on(Endpoint::OauthAccessToken).always().with(kind), &case)
                .await;
            let name = reason.as_str_name().trim_start_matches("REFUSAL_REASON_");
            no.is(Code::InvalidArgument, Reason::ProviderRefusedToken)
                .says("refusal", name)
                .says("provider_code", format!("190/{subcode}"));
        }
    }

    async fn our_own_mistakes_at_the_provider_alarm_the_operator_and_condemn_no_token(world: World) {
        let held = furnished(&world).await;
        let exchange = |kind| Fault::on(Endpoint::OauthAccessToken).always().with(kind);
        let cases = [
            (exchange(graph_error(400, 1, None, Some("Error validating client secret."))), "APP_SECRET"),
            (exchange(graph_error(400, 101, None, Some("Error validating application."))), "APP_ID"),
            (
                Fault::on(Endpoint::DebugToken).always().with(graph_error(
                    400,
                    190,
                    None,
                    Some("Invalid OAuth access token signature."),
                )),
                "APP_SECRET",
            ),
            (exchange(FaultKind::error(400, 2635)), "API_VERSION"),
        ];
        for (fault, problem) in cases {
            let no = refused(&world, &held, fault, problem).await;
            no.is(Code::FailedPrecondition, Reason::ProviderMisconfigured)
                .says("problem", problem)
                .says("fixer", "OPERATOR");
        }
        let app = world.sandbox.app();
        world.sandbox.roll_app_secret(&app.id, &"9".repeat(32));
        let seen = world.ingestion().await.validate(&held.0).await.unwrap();
        assert_eq!((seen.overall(), seen.token.unwrap().status()), (Checked::Unknown, Status::Active));
        let report = world.ingestion().await.report(&held.0, 1, 400, &body(190, None, "x")).await.unwrap();
        assert_eq!(report.verdict(), Verdict::Unconfirmed);
        assert_eq!(world.ingestion().await.secret(&held.0).await, held.1);
    }
}
