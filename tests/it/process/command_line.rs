//! The command line: where a command looks for the vault, and mistakes that it must not make.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use token_vault_tests::prelude::*;
use token_vault_tests::{Ended, Launch, eventually, token_vault};

use token_vault_tests::certificates::{Authority, Secured, replace};

const LIMIT: Duration = Duration::from_secs(30);

/// An address of this machine at which nothing listens.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_endpoint_follows_from_the_configuration_and_an_explicit_one_wins() {
    let world = World::start(Backend::Sqlite).await;
    let here = world.process(|process| process.grpc()).to_string();
    let probes = world.process(|process| process.admin()).to_string();
    let (nowhere, no_probes) = (free_address(), free_address());
    let configured = |address: &str| {
        let file = world.folder().join(format!("{}.toml", address.replace(':', "-")));
        let data = world.data().display().to_string();
        let admin = if address == here { &probes } else { &no_probes };
        let text = format!("data_dir = {data:?}\n[server]\nlisten = {address:?}\nadmin_listen = {admin:?}\n");
        fs::write(&file, text).unwrap();
        file
    };
    let run =
        |words: &[&str], file: &Path| Launch::new(words.iter().copied()).arg("--config").arg(file).run();

    let well = run(&["healthcheck"], &configured(&here));
    assert_eq!((well.code, well.stdout.trim()), (Some(0), "SERVING"), "{well:?}");
    let keys = run(&["api-key", "list"], &configured(&here));
    assert_eq!(keys.code, Some(0), "the key is found in the data folder: {keys:?}");
    let gone = run(&["healthcheck"], &configured(&nowhere));
    assert_eq!(gone.code, Some(1), "another vault than the configured one must not answer: {gone:?}");
    for word in [&format!("http://{no_probes}"), "refused", "serve", "--endpoint"] {
        assert!(gone.stderr.contains(word), "{word} is missing: {}", gone.stderr);
    }
    let explicit = run(&["healthcheck", "--endpoint", &format!("http://{here}")], &configured(&nowhere));
    assert_eq!(explicit.code, Some(0), "{explicit:?}");
    let port_unknown = |name: &str| Launch::new(["healthcheck"]).env(name, "127.0.0.1:0");
    let admin = "TOKEN_VAULT__SERVER__ADMIN_LISTEN";
    let by_variable = Launch::new(["healthcheck"]).env(admin, probes.as_str()).run();
    assert_eq!(by_variable.code, Some(0), "{by_variable:?}");
    let by_grpc = port_unknown(admin).env("TOKEN_VAULT__SERVER__LISTEN", here.as_str()).run();
    assert_eq!(by_grpc.code, Some(0), "{by_grpc:?}");
    let unknown = port_unknown(admin).env("TOKEN_VAULT__SERVER__LISTEN", "127.0.0.1:0").run();
    assert!(unknown.code == Some(2) && unknown.stderr.contains("--endpoint"), "{unknown:?}");
}

#[test]
fn a_flag_that_a_command_does_not_use_is_refused() {
    for line in [
        "healthcheck --listen 127.0.0.1:9999",
        "api-key list --listen 127.0.0.1:9999",
        "jobs --database-url sqlite:x",
        "demo --data-dir x",
        "demo --config x",
    ] {
        let refused = Launch::new(line.split(' ')).run();
        assert!(refused.code == Some(2) && refused.stderr.contains("--"), "{line}: {refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_follows_from_the_configuration_and_a_wrong_scheme_is_named_in_plain_words() {
    let servers = Authority::new("servers");
    let secured = Secured::start(Backend::Sqlite, &servers.server(), None).await;
    replace(&secured.file("roots.pem"), &servers.pem());
    let roots = secured.file("roots.pem").display().to_string();
    let address = secured.world.process(|process| process.grpc()).to_string();
    let launch = |words: &[&str]| {
        secured
            .launch
            .clone()
            .instead(words.iter().copied())
            .env("TOKEN_VAULT__SERVER__LISTEN", address.as_str())
    };

    let keys = launch(&["api-key", "list", "--ca-file", &roots]).run();
    assert_eq!(keys.code, Some(0), "https, and the certificate's own name: {keys:?}");
    let untrusted = launch(&["api-key", "list"]).run();
    assert!(untrusted.code == Some(1) && untrusted.stderr.contains("--ca-file"), "{untrusted:?}");

    let plain = format!("http://{address}");
    let contradiction = launch(&["api-key", "list", "--endpoint", &plain]).run();
    assert!(contradiction.code == Some(2) && contradiction.stderr.contains("https://"), "{contradiction:?}");
    let key_file = secured.world.data().join("bootstrap-admin.key").display().to_string();
    for words in [
        &["api-key", "list", "--key-file", &key_file][..],
        &["jobs", "--key-file", &key_file],
        &["healthcheck"],
    ] {
        let plain = Launch::new(words.iter().copied()).arg("--endpoint").arg(&plain).run();
        assert!(plain.code == Some(2) && plain.stderr.contains("https://"), "{words:?}: {plain:?}");
    }

    let open = World::start(Backend::Sqlite).await;
    let secure = open.endpoint().replace("http://", "https://");
    for words in [&["healthcheck"][..], &["jobs", "--key-file", &key_file]] {
        let wrong = Launch::new(words.iter().copied()).arg("--endpoint").arg(&secure).run();
        assert!(wrong.code == Some(2) && wrong.stderr.contains("does not speak TLS"), "{words:?}: {wrong:?}");
    }
}

#[test]
fn no_key_goes_in_the_clear_to_a_port_that_speaks_tls() {
    const ALERT: &[u8] = &[0x15, 3, 3, 0, 2, 2, 22];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    // A server with TLS behaves like this: it sends an alert, and reads the rest of the input to its end.
    let heard = std::thread::spawn(move || {
        let mut heard = Vec::new();
        listener.set_nonblocking(false).unwrap();
        for socket in listener.incoming().take(2) {
            let mut socket: TcpStream = socket.unwrap();
            let _ = socket.write_all(ALERT);
            let _ = socket.read_to_end(&mut heard);
        }
        heard
    });
    for words in [["api-key", "list"], ["jobs", "list"]] {
        let ended = Launch::new(words)
            .arg("--endpoint")
            .arg(&endpoint)
            .env("TOKEN_VAULT_API_KEY", "tva_secret")
            .run();
        assert!(ended.code == Some(2) && ended.stderr.contains("speaks TLS"), "{ended:?}");
    }
    let heard = String::from_utf8_lossy(&heard.join().unwrap()).into_owned();
    assert!(heard.contains("PRI * HTTP/2.0") && !heard.contains("tva_secret"), "{heard}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mistake_is_told_in_the_words_of_the_command_line() {
    let world = World::start(Backend::Sqlite).await;
    let run = |words: &[&str]| -> Ended {
        world.launch().instead(words.iter().copied()).env("TOKEN_VAULT_ENDPOINT", world.endpoint()).run()
    };
    let file = world.launch().instead(["jobs", "list"]).env("TOKEN_VAULT_ENDPOINT", world.endpoint());
    let file = file.env("TOKEN_VAULT_API_KEY", "./ops.apikey").run();
    assert!(file.code != Some(0) && file.stderr.contains("name a file by --key-file"), "{file:?}");
    let key =
        run(&["api-key", "create", "--principal", "p", "--role", "viewer", "--workspace", "not a name"]);
    assert_eq!(key.code, Some(1), "{key:?}");
    assert!(key.stderr.contains("--workspace") && !key.stderr.contains("workspace_ids"), "{}", key.stderr);
    let watch = run(&["watch", "--workspace", "not a name"]);
    assert!(watch.stderr.contains("--workspace") && !watch.stderr.contains("workspace_ids"), "{watch:?}");
}

/// A demo in its own folder, while its vault runs.
struct Demo {
    process: Child,
    folder: tempfile::TempDir,
}

impl Demo {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let process = Command::new(token_vault())
            .args(["demo", "--listen", "127.0.0.1:0", "--sandbox-listen", "127.0.0.1:0"])
            .args(["--portal-listen", "127.0.0.1:0"])
            .env_clear()
            .env("TMPDIR", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let demo = Self { process, folder };
        eventually("the vault of the demo runs", LIMIT, || {
            demo.files().iter().any(|file| file.ends_with("bootstrap-admin.key"))
        });
        demo
    }

    fn files(&self) -> Vec<std::path::PathBuf> {
        token_vault_tests::files_below(self.folder.path())
    }

    /// Whether any process has the folder among its arguments, as the vault has.
    fn vault_runs(&self) -> bool {
        let folder = self.folder.path().display().to_string();
        let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        processes.map(|process| fs::read(process.path().join("cmdline")).unwrap_or_default()).any(
            |arguments| {
                let arguments = String::from_utf8_lossy(&arguments).into_owned();
                arguments.contains("demo-vault") && arguments.contains(&folder)
            },
        )
    }
}

#[test]
fn the_demo_leaves_nothing_behind_however_it_ends() {
    for signal in [Signal::HUP, Signal::TERM, Signal::INT, Signal::KILL] {
        let mut demo = Demo::start();
        assert!(demo.vault_runs(), "{signal:?}");
        kill_process(Pid::from_child(&demo.process), signal).unwrap();
        demo.process.wait().unwrap();
        eventually("the vault has ended", LIMIT, || !demo.vault_runs());
        eventually("its folder is gone", LIMIT, || {
            fs::read_dir(demo.folder.path()).unwrap().next().is_none()
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_admin_key_is_revoked_only_by_a_word_more() {
    let world = World::start(Backend::Sqlite).await;
    let run = |words: &[&str]| -> Ended {
        world.launch().instead(words.iter().copied()).env("TOKEN_VAULT_ENDPOINT", world.endpoint()).run()
    };
    let admins = |role: &str| {
        let certificate =
            format!("[{{san=\"ops.example\",principal=\"ops\",role=\"{role}\",workspaces=\"all\"}}]");
        move |launch: Launch| launch.env("TOKEN_VAULT__AUTH__CERTIFICATES", certificate)
    };
    let bootstrap = world.bootstrap_key().split('_').nth(1).unwrap().to_owned();
    let output = world.folder().join("ops.apikey").display().to_string();
    for (words, role) in [(["--principal", "p"], "viewer"), (["--principal", "q"], "connector")] {
        let create = [&["api-key", "create", "--role", role, "--all-workspaces"][..], &words].concat();
        assert_eq!(run(&create).code, Some(0));
    }

    let refused = run(&["api-key", "revoke", &bootstrap]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    for word in ["last admin key", "--lock-out", "api-key create", "--role admin"] {
        assert!(refused.stderr.contains(word), "{word} is missing: {}", refused.stderr);
    }
    let viewers = admins("viewer")(world.launch().instead(["api-key", "revoke", &bootstrap]));
    assert_eq!(viewers.env("TOKEN_VAULT_ENDPOINT", world.endpoint()).run().code, Some(2));
    assert_eq!(run(&["api-key", "list"]).code, Some(0), "nothing was revoked");

    let create = [
        "api-key",
        "create",
        "--principal",
        "ops",
        "--role",
        "admin",
        "--all-workspaces",
        "--output",
        &output,
    ];
    assert_eq!(run(&create).code, Some(0));
    assert_eq!(run(&["api-key", "revoke", &bootstrap]).code, Some(0), "there is another one now");
    let last = fs::read_to_string(&output).unwrap().split('_').nth(1).unwrap().to_owned();
    let refused = run(&["api-key", "revoke", &last, "--key-file", &output]);
    assert!(refused.code == Some(2) && refused.stderr.contains("--lock-out"), "{refused:?}");
    let certified =
        admins("admin")(world.launch().instead(["api-key", "revoke", &last, "--key-file", &output]));
    assert_eq!(
        certified.env("TOKEN_VAULT_ENDPOINT", world.endpoint()).run().code,
        Some(0),
        "a certificate opens too"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_goes_to_a_new_file_that_only_its_owner_may_read() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::start(Backend::Sqlite).await;
    let run = |words: &[&str]| -> Ended {
        world.launch().instead(words.iter().copied()).env("TOKEN_VAULT_ENDPOINT", world.endpoint()).run()
    };
    let path = |name: &str| world.folder().join(name).display().to_string();
    let create = |file: &str, workspace: &str| {
        run(&[
            "api-key",
            "create",
            "--principal",
            "p",
            "--role",
            "viewer",
            "--workspace",
            workspace,
            "--output",
            file,
        ])
    };
    let (first, second) = (path("first.key"), path("second.key"));
    let made = create(&first, ACME);
    assert_eq!((made.code, made.stdout.as_str()), (Some(0), ""), "{made:?}");
    let key = fs::read_to_string(&first).unwrap();
    assert!(!made.stderr.contains(key.trim()));
    assert_eq!(fs::metadata(&first).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(world.caller_with(key.trim(), "").list().await.is_ok());

    let again = create(&first, ACME);
    assert!(again.code == Some(2) && again.stderr.contains("never overwritten"), "{again:?}");
    assert_eq!(fs::read_to_string(&first).unwrap(), key, "a file that exists is not touched");
    assert_eq!(create(&second, "not a name").code, Some(1));
    assert!(!Path::new(&second).exists(), "where no key was made there is no file");
    let key_id = key.split('_').nth(1).unwrap();
    let rotated = run(&["api-key", "rotate", key_id, "--output", &second]);
    assert_eq!((rotated.code, rotated.stdout.as_str()), (Some(0), ""), "{rotated:?}");
    assert!(world.caller_with(fs::read_to_string(&second).unwrap().trim(), "").list().await.is_ok());
}
