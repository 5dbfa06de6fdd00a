//! How the process protects its secrets from other processes, core files and arguments, and what it does when the disk
//! below its database is full.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use token_vault_tests::certificates::{Authority, replace};
use token_vault_tests::prelude::*;
use token_vault_tests::{Launch, SmallDisk, eventually_async, master_key_line, token_vault};

const MASTER: &str = "TOKEN_VAULT_MASTER_KEY";
/// The id of the user `nobody`, which is the same on every Linux.
const NOBODY: u32 = 65_534;

/// Ends its process when it is dropped.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command that runs without privileges: as nobody if the tests run as root, otherwise as the same user.
fn unprivileged(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().current_dir("/").stdin(Stdio::null());
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

/// The content of a file as that user can read it, or the error message.
fn seen(file: &str) -> Result<Vec<u8>, String> {
    let done = unprivileged(Path::new("/bin/cat")).arg(file).output().expect("cat runs");
    if done.status.success() {
        Ok(done.stdout)
    } else {
        Err(String::from_utf8_lossy(&done.stderr).into_owned())
    }
}

#[test]
fn another_process_of_the_same_user_reads_neither_memory_nor_environment() {
    let folder = tempfile::Builder::new().prefix("token-vault-test-").tempdir().unwrap();
    let program = folder.path().join("token-vault");
    fs::copy(token_vault(), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    if rustix::process::geteuid().is_root() {
        chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let line = master_key_line("from-environment");
    let secret = line.rsplit(':').next().unwrap().as_bytes();

    // Other processes can read a dumpable process. This proves that the check below can fail at all.
    let mut open = unprivileged(Path::new("/bin/sleep"));
    let open = Ending(open.arg("600").env(MASTER, &line).spawn().unwrap());
    let environment = format!("/proc/{}/environ", open.0.id());
    // Before its exec, the child is still a copy of this test.
    token_vault_tests::eventually("sleep shows its environment", Duration::from_secs(60), || {
        seen(&environment).is_ok_and(|shown| shown.windows(secret.len()).any(|part| part == secret))
    });
    assert!(seen(&format!("/proc/{}/maps", open.0.id())).is_ok());

    let mut vault = unprivileged(&program);
    vault.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(folder.path().join("data"));
    vault.env("TOKEN_VAULT__SERVER__ADMIN_LISTEN", "127.0.0.1:0").env(MASTER, &line);
    let mut vault = Ending(vault.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut ready = String::new();
    BufReader::new(vault.0.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    assert!(ready.starts_with("token-vault ready"), "{ready:?}");
    let id = vault.0.id();
    for name in ["environ", "mem", "maps"] {
        let why = seen(&format!("/proc/{id}/{name}")).expect_err(name);
        assert!(why.contains("Permission denied"), "{name}: {why}");
    }
    // It is harmless to read a file that everybody may read.
    let arguments = seen(&format!("/proc/{id}/cmdline")).unwrap();
    assert!(!arguments.windows(secret.len()).any(|part| part == secret));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_no_core_file_and_what_is_written_is_the_owners() {
    let world = World::start(Backend::Sqlite).await;
    let process = format!("/proc/{}", world.process(|process| process.id()));
    let limits = fs::read_to_string(format!("{process}/limits")).unwrap();
    let core =
        limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit of core files");
    let numbers: Vec<_> = core.split_whitespace().filter(|word| word.parse::<u64>().is_ok()).collect();
    assert_eq!(numbers, ["0", "0"], "{core}");
    let status = fs::read_to_string(format!("{process}/status")).unwrap();
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:")).expect("a umask");
    assert_eq!(umask.trim(), "0077");
    assert!(!world.logs().contains("the system"), "the vault complains of a system that gave it all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_in_an_argument_is_refused_and_not_repeated() {
    let world = World::builder(Backend::Postgres).prepare().await;
    for command in ["serve", "migrate"] {
        let launch = world.launch().instead([command]).arg("--database-url").arg(world.database.url());
        let ended = launch.run();
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains("TOKEN_VAULT__STORAGE__URL"), "{}", ended.stderr);
        assert_eq!(world.secrets().search("stderr", ended.stderr.as_bytes()), []);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_file_that_others_may_read_is_refused_and_one_of_a_group_is_not() {
    let world = World::builder(Backend::Sqlite).prepare().await;
    let file = |name: &str, text: &str| {
        let file = world.folder().join(name);
        replace(&file, text);
        file
    };
    let key = {
        // This is a well-formed key of another vault.
        let other = World::start(Backend::Sqlite).await;
        other.bootstrap_key()
    };
    let halves = ["sealing.key", "opening.key"].map(|name| world.folder().join(name).display().to_string());
    let [sealing, opening] = &halves;
    let words = ["keys", "break-glass", "generate", "--sealing-key", sealing, "--opening-key", opening];
    assert_eq!(Launch::new(words).run().code, Some(0));
    let pair = Authority::new("servers").server();
    let certificate = file("vault.crt", &pair.certificate);
    // The variable that names each file. What stands in the default places has none.
    let files = [
        ("TOKEN_VAULT__AUTH__BOOTSTRAP_KEY_FILE", file("first.key", &key)),
        ("TOKEN_VAULT__KEYS__MASTER_KEY_FILE", file("wide.key", &master_key_line("wide"))),
        ("TOKEN_VAULT__KEYS__BREAK_GLASS_SEALING_KEY_FILE", sealing.into()),
        ("TOKEN_VAULT__SERVER__TLS__KEY_FILE", file("vault.key", &pair.key)),
        ("", world.folder().join("app.secret")),
    ];
    let certificate = certificate.display().to_string();
    let mut launch = world.launch().env("TOKEN_VAULT__SERVER__TLS__CERT_FILE", certificate);
    for (name, file) in &files {
        if !name.is_empty() {
            launch = launch.env(name, file.display().to_string());
        }
    }
    let chmod = |file: &Path, mode| fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
    for (name, file) in &files {
        for mode in [0o644, 0o604, 0o666] {
            chmod(file, mode);
            let refused = world.try_start_as(&launch).expect_err(name);
            for word in [&file.display().to_string(), "others may read it", "chmod 600", "0440"] {
                assert!(
                    refused.stderr.contains(word),
                    "{name} {mode:o}: {word} is missing: {}",
                    refused.stderr
                );
            }
            chmod(file, 0o640);
        }
    }
    world.try_start_as(&launch).expect("the group may read them");
    let log = world.process(|process| process.log());
    assert!(!log.contains("chmod"), "advice that nobody needs: {log}");
    world.stop();
    // Commands have the same rule for the keys that they read.
    let key_file = world.folder().join("first.key");
    for (mode, good) in [(0o644, false), (0o640, true)] {
        chmod(&key_file, mode);
        let words = ["api-key", "list", "--endpoint", "https://127.0.0.1:1", "--key-file"];
        let ended = Launch::new(words).arg(&key_file).run();
        assert_eq!(ended.stderr.contains("others may read it"), !good, "{mode:o}: {ended:?}");
    }
}

/// Stores tokens until the vault refuses several in a row. Returns the connections that it acknowledged.
async fn store_until_refused(world: &World, name: &str) -> Vec<String> {
    let admin = world.admin();
    let mut stored = Vec::new();
    for number in 0..2_000 {
        let token = world.person(&format!("{name}{number}")).long_lived_token();
        match admin.store(ACME, &token).await {
            Ok(result) => stored.push(result.token.expect("a token").connection_id),
            Err(refusal) => {
                refusal.is(Code::Unavailable, Reason::StorageUnavailable).has_retry();
                return stored;
            }
        }
    }
    panic!("the disk is never full");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_below_the_database_refuses_changes_loses_nothing_and_is_over_by_itself() {
    const NAME: &str = "a_full_disk_below_the_database_refuses_changes_loses_nothing_and_is_over_by_itself";
    if SmallDisk::rerun(module_path!(), NAME) {
        return;
    }
    let world = World::builder(Backend::Sqlite).prepare().await;
    let disk = SmallDisk::at(&world.data(), 4 * 1_024);
    // The audit log is on another disk, because another test covers a full disk below the log.
    let log = world.folder().join("audit.jsonl");
    let launch = world.launch().env("TOKEN_VAULT__AUDIT__FILE", log.display().to_string());
    world.try_start_as(&launch).expect("there is room");
    let admin = world.admin();
    let first = admin.connect(ACME, &world.person("ana").long_lived_token()).await;
    disk.fill();
    let mut kept = store_until_refused(&world, "late").await;
    kept.push(first.clone());
    // Reads still work, and a second change is refused like the first.
    admin.fetch(&first).await.expect("what is stored is handed out");
    admin.get(&first).await.expect("metadata too");
    let no = admin.store(ACME, &world.person("more").long_lived_token()).await.unwrap_err();
    no.is(Code::Unavailable, Reason::StorageUnavailable);
    assert!(world.process(|process| process.ended()).is_none(), "the vault has ended");

    disk.free();
    let after = eventually_async("changes work again", Duration::from_secs(60), async || {
        admin.store(ACME, &world.person("after").long_lived_token()).await.ok()
    })
    .await;
    kept.push(after.token.expect("a token").connection_id);
    world.kill();
    world.try_start_as(&launch).expect("it starts again");
    let admin = world.admin();
    for connection in &kept {
        admin.fetch(connection).await.expect("acknowledged and lost");
    }
    let integrity = world.database.texts("PRAGMA integrity_check").await;
    assert_eq!(integrity, ["ok"]);
    world.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_on_the_size_of_files_is_a_full_disk_and_not_the_end() {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let world = World::start(Backend::Sqlite).await;
    let admin = world.admin();
    let id = admin.connect(ACME, &world.person("ana").long_lived_token()).await;
    let pid = Pid::from_raw(i32::try_from(world.process(|process| process.id())).unwrap());
    let limit =
        |current| prlimit(pid, Resource::Fsize, Rlimit { current, maximum: None }).expect("it is ours");
    limit(Some(0));
    // No file can grow, including the log and the audit log.
    for number in 0..3 {
        let no =
            admin.store(ACME, &world.person(&format!("late{number}")).long_lived_token()).await.unwrap_err();
        assert_eq!(no.code(), Code::Unavailable, "{no:?}");
    }
    assert!(world.process(|process| process.ended()).is_none(), "the vault has ended");
    limit(None);
    eventually_async("changes work again", Duration::from_secs(60), async || {
        admin.store(ACME, &world.person("after").long_lived_token()).await.ok()
    })
    .await;
    eventually_async("secrets are handed out", Duration::from_secs(60), async || admin.fetch(&id).await.ok())
        .await;
}
