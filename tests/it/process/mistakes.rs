//! Mistakes in the configuration through the real program. The table of all keys is among the unit tests of `config`.

use std::fs;

use token_vault_tests::Launch;
use token_vault_tests::prelude::*;

const SECRET: &str = "hunter2hunter2hunter2";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_swallowed_is_told_at_the_start_and_no_secret_is_repeated() {
    let world = World::builder(Backend::Sqlite).prepare().await;
    let file = world.folder().join("token-vault.toml");
    let text = format!(
        "[server.tls]\ncert_file = '{SECRET}'\nkey_file = \"-----BEGIN PRIVATE KEY-----\\n{SECRET}\"\n\
         [keys]\nmaster_key_file = 'tvk1:2026:{SECRET}/x='\nbreak_glass_sealing_key_file = 'c/{SECRET}'\n\
         [keys.transit]\naddress = 'https://bao'\ntoken_file = 'hvs.{SECRET}'\n\
         [auth]\nbootstrap_key_file = 'tva_abc_{SECRET}'\n\
         [providers.meta]\napp_id = '1'\napp_secret_files = ['{SECRET}/x', '{SECRET}']\nrequired_scopes = 'ads_read'\n\
         [expiry]\nthresholds = '7d'\n[jobs]\nrotation = '0 0 0 30 2 *'\n"
    );
    fs::write(&file, text).unwrap();
    for level in ["warning", "inof"] {
        let launch = Launch::new(["serve", "--config"]).arg(&file).arg("--data-dir").arg(world.data());
        let refused = launch.env("TOKEN_VAULT__LOG__LEVEL", level).run();
        assert_eq!(refused.code, Some(2), "{refused:?}");
        for (key, rule) in [
            ("server.tls.cert_file", "must be the path of a file"),
            ("server.tls.key_file", "must be the path of a file"),
            ("keys.master_key_file", "must be the path of a file"),
            ("keys.break_glass_sealing_key_file", "names a file below "),
            ("keys.transit.token_file", "must be the path of a file"),
            ("auth.bootstrap_key_file", "must be the path of a file"),
            ("providers.meta.app_secret_files", "[0] names a file below "),
            ("providers.meta.app_secret_files", "[1] must be the path of a file"),
            ("providers.meta.required_scopes", "must be a list in brackets: a list of names of permissions"),
            ("expiry.thresholds", "must be a list in brackets: 1 to 10 different lengths of time"),
            ("jobs.rotation", "is never due"),
            ("log.level", "must be a level (error, warn, info, debug, trace)"),
        ] {
            let told = |line: &str| line.contains(&format!("- {key} (")) && line.contains(rule);
            assert!(refused.stderr.lines().any(told), "{key}: {rule} is missing in {}", refused.stderr);
        }
        assert!(!refused.stderr.contains(SECRET), "a secret is repeated: {}", refused.stderr);
    }
    assert!(!world.data().exists(), "nothing was made");
}

/// Files that are opened after the configuration was read: a name that may be one, and is a secret.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_may_be_a_path_is_not_repeated_by_who_opens_the_file() {
    let world = World::builder(Backend::Sqlite).prepare().await;
    let secret = format!("{SECRET}/aXMgYS/x=");
    for keys in [
        &["SERVER__TLS__CERT_FILE", "SERVER__TLS__KEY_FILE"][..],
        &["KEYS__MASTER_KEY_FILE"],
        &["AUTH__BOOTSTRAP_KEY_FILE"],
        &["AUTH__OIDC__CA_FILE"],
    ] {
        let oidc = [
            ("ISSUER", "https://issuer.example"),
            ("AUDIENCE", "vault"),
            ("ROLES", "[{value=\"a\",role=\"viewer\"}]"),
            ("ALL_WORKSPACES", "true"),
        ];
        let oidc = oidc.iter().filter(|_| keys[0].contains("OIDC"));
        let launch = oidc.fold(world.launch(), |launch, (key, value)| {
            launch.env(&format!("TOKEN_VAULT__AUTH__OIDC__{key}"), *value)
        });
        let launch = keys
            .iter()
            .fold(launch, |launch, key| launch.env(&format!("TOKEN_VAULT__{key}"), secret.as_str()));
        let refused = launch.serve(world.folder(), "refused").expect_err("there is no such file");
        assert!(refused.code == Some(1) || refused.code == Some(2), "{keys:?}: {refused:?}");
        let shown = format!("{}{}", refused.stdout, refused.stderr);
        assert!(!shown.contains(SECRET), "{keys:?}: a secret is repeated: {shown}");
        let key = keys.last().unwrap().rsplit("__").next().unwrap().to_lowercase();
        let named = shown.contains(&key) || shown.contains(&key.replace('_', " "));
        assert!(named, "{keys:?}: no key is named: {shown}");
    }
}
