//! A provider that serves another version of its API than the configured one.

use token_vault_proto::v1::Severity;
use token_vault_proto::v1::provider_status::Circuit;
use token_vault_tests::prelude::*;

async fn provider(world: &World) -> pb::ProviderStatus {
    let status = world.admin().get_vault_status(pb::GetVaultStatusRequest {}).await.unwrap();
    status.providers.into_iter().next().expect("the provider is configured")
}

on_both_databases! {
    with |builder| builder.config("providers.meta.api_version", "v3.0");

    async fn another_version_than_the_configured_one_is_a_problem_of_the_provider(world: World) {
        assert_eq!(provider(&world).await.problems, [], "no reply has told a version yet");
        world.connector().await.connect(ACME, &world.person("ana").long_lived_token()).await;
        let shown = provider(&world).await;
        // The oldest version that the sandbox has.
        assert_eq!((shown.api_version.as_str(), shown.served_api_version.as_str()), ("v3.0", "v21.0"));
        let [problem] = &shown.problems[..] else { panic!("{shown:?}") };
        assert_eq!((problem.reason(), problem.severity()), (Reason::ProviderMisconfigured, Severity::Warning));
        assert_eq!((&*problem.metadata["problem"], &*problem.metadata["served_api_version"]), ("API_VERSION", "v21.0"));
        let remedy = problem.remedy.as_ref().expect("somebody can mend it");
        assert_eq!(remedy.fixer(), pb::Fixer::Operator);
        assert!(remedy.action.contains("providers.meta.api_version"), "{remedy:?}");
        assert!(problem.since.is_some() && shown.circuit() == Circuit::Closed, "calls go on: {shown:?}");
        assert_eq!(world.logs().matches("another API version").count(), 1, "once, with what to do");

        world.stop();
        let mended = world.launch().env("TOKEN_VAULT__PROVIDERS__META__API_VERSION", "v26.0");
        world.try_start_as(&mended).expect("it starts again");
        world.connector().await.connect(ACME, &world.person("ben").long_lived_token()).await;
        let shown = provider(&world).await;
        assert!(shown.served_api_version.is_empty() && shown.problems.is_empty(), "{shown:?}");
    }
}
