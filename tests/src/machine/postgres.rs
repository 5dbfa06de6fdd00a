//! A temporary PostgreSQL cluster. It is removed when the tests end, however they end.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use rustix::process::{Pid, Signal, kill_process};

const USER: &str = "vault";
/// How many ports are tried for a new cluster.
const PORTS: usize = 5;

/// A running cluster. It ends when its owner drops it, or when the test process ends.
#[derive(Debug)]
pub struct Cluster {
    bin: PathBuf,
    dir: PathBuf,
    port: u16,
    password: String,
    owner: Option<(u32, u32)>,
    /// The process that stops the cluster and deletes the folder once its stdin closes, which happens even at SIGKILL.
    _watchdog: Child,
}

/// The cluster that all tests of this process share. Each test gets its own database in it.
pub fn shared_cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    // SCRAM computes 4096 rounds of HMAC per connection. In an unoptimised build that takes half a second, and a vault
    // opens a dozen connections, so it was most of a test's time. Clusters that belong to one test use SCRAM.
    CLUSTER.get_or_init(|| Cluster::start_with("password"))
}

impl Cluster {
    pub fn start() -> Self {
        Self::start_with("scram-sha-256")
    }

    /// `method` is how clients authenticate, as `pg_hba.conf` names it. Stored passwords are always hashed.
    fn start_with(method: &str) -> Self {
        let bin = find_binaries();
        let owner = unprivileged();
        let dir = tempfile::Builder::new().prefix("token-vault-pg-").tempdir().expect("a temp folder").keep();
        let password = format!("pw{}", uuid::Uuid::new_v4().simple());
        let password_file = dir.join("password");
        fs::write(&password_file, &password).expect("the password file can be written");
        fs::set_permissions(&password_file, fs::Permissions::from_mode(0o644)).expect("a mode can be set");
        if let Some((uid, gid)) = owner {
            chown(&dir, Some(uid), Some(gid)).expect("root may give a folder away");
        }
        let mut cluster =
            Self { _watchdog: watchdog(&bin, &dir, owner), bin, port: free_port(), password, owner, dir };
        let (data, user) = (cluster.data(), format!("--username={USER}"));
        let password_file = format!("--pwfile={}", password_file.display());
        let auth = format!("--auth={method}");
        let options = [auth.as_str(), "--encoding=UTF8", "--no-locale", "--no-sync", "--no-instructions"];
        let mut initdb = cluster.command("initdb");
        initdb.arg("-D").arg(&data).args([user.as_str(), &password_file]).args(options);
        run(initdb, "initdb");
        // A port that was free a moment ago may be taken by now.
        let tries = (0..PORTS).find_map(|_| {
            cluster.port = free_port();
            cluster.try_up().ok()
        });
        if tries.is_none() {
            cluster.up();
        }
        cluster
    }

    /// Starts the cluster, also after a stop. The port stays the same.
    pub fn up(&mut self) {
        self.try_up().unwrap_or_else(|why| panic!("{why}"));
    }

    fn try_up(&self) -> Result<(), String> {
        let settings = [
            format!("port={}", self.port),
            "listen_addresses=127.0.0.1".into(),
            format!("unix_socket_directories={}", self.dir.display()),
            "max_connections=500".into(),
            "log_line_prefix=%d ".into(),
            "lc_messages=C".into(),
        ];
        let settings: Vec<_> = settings.iter().map(|setting| format!("-c '{setting}'")).collect();
        let mut start = self.command("pg_ctl");
        start.arg("-D").arg(self.data()).args(["-w", "-t", "60", "-l"]).arg(self.log());
        start.args(["-o", &settings.join(" "), "start"]);
        try_run(start, "pg_ctl start")
    }

    /// Stops the cluster at once, like a crash.
    pub fn down(&self) {
        let mut stop = self.command("pg_ctl");
        stop.arg("-D").arg(self.data()).args(["-w", "-m", "immediate", "stop"]);
        run(stop, "pg_ctl stop");
    }

    /// Stops all of its processes by SIGSTOP, until the result is dropped: connections stay open, and nothing replies.
    pub fn freeze(&self) -> Frozen {
        let file = fs::read_to_string(self.data().join("postmaster.pid")).expect("it runs");
        let first: i32 = file.lines().next().and_then(|line| line.parse().ok()).expect("a process id");
        let mut frozen = Frozen(Vec::new());
        frozen.stop(first);
        for entry in fs::read_dir("/proc").expect("Linux has it").flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            // The name, in parentheses, may hold spaces; then come the state and the parent.
            let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
            if parent.and_then(|parent| parent.parse().ok()) == Some(first) {
                frozen.stop(id);
            }
        }
        frozen
    }

    /// Ends every connection, and refuses new ones until [`Self::admit`].
    pub fn refuse(&mut self) {
        let rules = self.data().join("pg_hba.conf");
        let kept = fs::read_to_string(&rules).expect("it has rules");
        fs::write(rules.with_extension("kept"), kept).expect("a file can be written");
        fs::write(&rules, "host all all 127.0.0.1/32 reject\nlocal all all trust\n")
            .expect("rules can be written");
        self.down();
        self.up();
    }

    /// Accepts connections again.
    pub fn admit(&self) {
        let rules = self.data().join("pg_hba.conf");
        let kept = fs::read_to_string(rules.with_extension("kept")).expect("it refuses connections");
        fs::write(&rules, kept).expect("rules can be written");
        let mut reload = self.command("pg_ctl");
        reload.arg("-D").arg(self.data()).arg("reload");
        run(reload, "pg_ctl reload");
    }

    /// The URL `postgres://…` of one of its databases.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    pub fn password(&self) -> &str {
        &self.password
    }

    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// A command for one of the server's own programs, run as the server's owner.
    pub(crate) fn command(&self, program: &str) -> Command {
        command(&self.bin, program, self.owner)
    }
}

/// The stopped processes of a cluster. They go on when this is dropped.
#[derive(Debug)]
pub struct Frozen(Vec<Pid>);

impl Frozen {
    fn stop(&mut self, id: i32) {
        if let Some(id) = Pid::from_raw(id)
            && kill_process(id, Signal::STOP).is_ok()
        {
            self.0.push(id);
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for id in &self.0 {
            let _ = kill_process(*id, Signal::CONT);
        }
    }
}

fn command(bin: &Path, program: &str, owner: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(bin.join(program));
    command.stdin(Stdio::null()).current_dir("/").env("LC_ALL", "C");
    // PostgreSQL refuses to run as root.
    if let Some((uid, gid)) = owner {
        command.gid(gid).uid(uid);
    }
    command
}

fn run(command: Command, what: &str) {
    try_run(command, what).unwrap_or_else(|why| panic!("{why}"));
}

fn try_run(mut command: Command, what: &str) -> Result<(), String> {
    // The output goes to a file, because a server that keeps a pipe open would never let it end.
    let file = tempfile::NamedTempFile::new().expect("a temp file");
    let output = || file.reopen().expect("a temp file opens again");
    let status = command.stdout(output()).stderr(output()).status();
    let well = status.as_ref().is_ok_and(std::process::ExitStatus::success);
    let said = || format!("{what}: {status:?}\n{}", fs::read_to_string(file.path()).unwrap_or_default());
    if well { Ok(()) } else { Err(said()) }
}

fn watchdog(bin: &Path, dir: &Path, owner: Option<(u32, u32)>) -> Child {
    let script =
        "cat >/dev/null; \"$1/pg_ctl\" -D \"$2/data\" -m immediate stop >/dev/null 2>&1; rm -rf \"$2\"";
    let mut shell = command(Path::new("/bin"), "sh", owner);
    shell.args(["-c", script, "sh"]).arg(bin).arg(dir).stdin(Stdio::piped());
    // It gets its own process group: an interrupt from the terminal ends the tests, and this process afterwards.
    shell.process_group(0).stdout(Stdio::null()).stderr(Stdio::null());
    shell.spawn().expect("/bin/sh runs")
}

fn find_binaries() -> PathBuf {
    let mut places: Vec<PathBuf> = std::env::var_os("PATH").iter().flat_map(std::env::split_paths).collect();
    if let Ok(versions) = fs::read_dir("/usr/lib/postgresql") {
        let mut versions: Vec<_> = versions.flatten().map(|version| version.path()).collect();
        versions.sort_by_key(|path| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()));
        places.extend(versions.into_iter().rev().map(|version| version.join("bin")));
    }
    // A link in PATH leads to the folder with the server's other programs.
    let initdb = places.iter().find_map(|place| fs::canonicalize(place.join("initdb")).ok());
    let bin = initdb.as_deref().and_then(Path::parent).filter(|bin| bin.join("pg_ctl").is_file());
    bin.expect("these tests need PostgreSQL's initdb and pg_ctl: apt-get install postgresql").to_path_buf()
}

/// The user and group to run PostgreSQL as when the tests run as root.
fn unprivileged() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("a machine has users");
    let find = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut numbers = line.split(':').skip(2);
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    };
    Some(find("postgres").or_else(|| find("nobody")).expect("a user named postgres or nobody"))
}

fn free_port() -> u16 {
    let listener: io::Result<_> = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    listener.expect("loopback has a free port").port()
}
