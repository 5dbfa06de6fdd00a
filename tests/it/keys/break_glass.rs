//! Recovery with the break-glass key after the master key is lost.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use token_vault_tests::certificates::replace;
use token_vault_tests::prelude::*;
use token_vault_tests::{Launch, eventually_async, master_key_line};

const MASTER: &str = "TOKEN_VAULT_MASTER_KEY";
const SEALING: &str = "TOKEN_VAULT__KEYS__BREAK_GLASS_SEALING_KEY_FILE";

/// Makes a key pair. Returns the files of the sealing key and of the opening key.
fn pair(world: &World, name: &str) -> (PathBuf, PathBuf) {
    let [sealing, opening] =
        ["sealing", "opening"].map(|half| world.folder().join(format!("{name}-{half}.key")));
    let generate = || {
        let launch = Launch::new(["keys", "break-glass", "generate", "--opening-key"]).arg(&opening);
        launch.arg("--sealing-key").arg(&sealing).run()
    };
    let made = generate();
    assert_eq!(made.code, Some(0), "{made:?}");
    for file in [&sealing, &opening] {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        let key = fs::read_to_string(file).unwrap();
        world.know("break-glass key", key.trim().rsplit(':').next().unwrap());
        assert!(!made.stdout.contains(key.trim()) && !made.stderr.contains(key.trim()));
    }
    assert_eq!(generate().code, Some(1), "a key is never written over");
    (sealing, opening)
}

on_both_databases! {
    async fn with_the_break_glass_key_every_secret_is_read_again_after_the_master_key_is_lost(world: World) {
        // Keys that are older than the break-glass key get their second wrap from the back-fill.
        let admin = world.admin();
        let ana = admin.connect(ACME, &world.person("ana").long_lived_token()).await;
        let mut secrets = vec![(ana.clone(), admin.secret(&ana).await)];
        world.stop();
        let (sealing, opening) = pair(&world, "own");
        let (_, stranger) = pair(&world, "strange");
        let launch = world.launch().env(SEALING, sealing.display().to_string());
        world.try_start_as(&launch).unwrap();
        let admin = world.admin();
        let bob = admin.connect("globex", &world.person("bob").long_lived_token()).await;
        secrets.push((bob.clone(), admin.secret(&bob).await));
        eventually_async("the back-fill", Duration::from_secs(60), async || {
            let left = "SELECT (SELECT count(*) FROM workspace_keys WHERE break_glass IS NULL)
                             + (SELECT count(*) FROM vault_keys WHERE break_glass IS NULL)";
            (world.database.count(left).await == 0).then_some(())
        }).await;
        let run = admin.runs("break-glass").await.remove(0);
        assert_eq!(run.failed, 0, "{run:?}");
        // After a rotation, the second wrap still works.
        admin.rotate_key(pb::RotateKeyRequest {
            key: Some(pb::rotate_key_request::Key::WorkspaceId(ACME.into())),
            ..Default::default()
        }).await.unwrap();
        eventually_async("the rotation ends", Duration::from_secs(60), async || {
            admin.runs("data-key-rotation").await.into_iter().find(|run| run.ended_at.is_some())
        }).await;
        world.stop();

        // The master key is lost.
        let file = world.data().join("master.key");
        let _ = fs::remove_file(&file);
        let lost = launch.clone().env(MASTER, "");
        let ended = world.try_start_as(&lost).unwrap_err();
        assert!(ended.stderr.contains("master key"), "{}", ended.stderr);
        let recover = |opening: &Path, key: &str| {
            lost.clone().env(MASTER, key).instead(["keys", "recover", "--opening-key"]).arg_after(3, opening).run()
        };
        let new = master_key_line("k-new");
        world.know("master key", new.rsplit(':').next().unwrap());
        let before = world.database.rows("workspace_keys").await;
        let wrong = recover(&stranger, &new);
        assert_eq!(wrong.code, Some(1), "{wrong:?}");
        assert!(wrong.stderr.contains("nothing was changed"), "{}", wrong.stderr);
        assert_eq!(world.database.rows("workspace_keys").await, before);
        let recovered = recover(&opening, &new);
        assert_eq!(recovered.code, Some(0), "{recovered:?}");
        assert!(recovered.stdout.contains("wrapped 7 keys by master key k-new"), "{recovered:?}");

        world.try_start_as(&launch.clone().env(MASTER, &new)).unwrap();
        let admin = world.admin();
        for (id, secret) in &secrets {
            assert_eq!(admin.secret(id).await, *secret);
        }
        admin.connect("initech", &world.person("eve").long_lived_token()).await;
        let status = admin.get_vault_status(Default::default()).await.unwrap();
        assert_eq!(status.master_keys[0].key_id, "k-new");
        // The audit log has a record of its use.
        eventually_async("the recovery is recorded", Duration::from_secs(60), async || {
            let text = fs::read_to_string(world.data().join("audit.jsonl")).unwrap();
            text.lines().any(|line| {
                line.contains(r#""principal":"system:break-glass""#) && line.contains("master_key:k-new")
            }).then_some(())
        }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealing_key_that_is_none_is_a_mistake_of_configuration() {
    let world = World::builder(Backend::Sqlite).prepare().await;
    let file = world.folder().join("nonsense.key");
    replace(&file, "nonsense");
    let ended = world.try_start_as(&world.launch().env(SEALING, file.display().to_string())).unwrap_err();
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("keys.break_glass_sealing_key_file"), "{}", ended.stderr);
}
