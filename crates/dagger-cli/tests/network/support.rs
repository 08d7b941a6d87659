//! Networks of real processes for the tests: the `dagger` command as a user has it, each node a child
//! that ends with the test. What a test expects does not stand here.

#[path = "../../../dagger-node/tests/support/addresses.rs"]
mod addresses;

use addresses::free_address;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Far beyond what any wait needs on a loaded machine: a test that reaches it has failed.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// The command under test, cut off from the caller's own configuration.
pub fn dagger() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dagger"));
    for name in [
        "DAGGER_API",
        "DAGGER_KEY",
        "DAGGER_CONFIG_DIR",
        "DAGGER_DEV_DATA",
        "RUST_LOG",
    ] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// Runs the command to its end.
pub fn run(arguments: &[&str]) -> Output {
    dagger().args(arguments).output().expect("dagger starts")
}

/// Runs the command and reads the JSON that it prints; it must succeed.
pub fn json(arguments: &[&str]) -> Value {
    let output = run(&[&["--output", "json"], arguments].concat());
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        text(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("one JSON document")
}

/// The code in the error that a failed command prints with `--output json`.
pub fn refused(arguments: &[&str]) -> String {
    let output = run(&[&["--output", "json"], arguments].concat());
    assert!(
        !output.status.success(),
        "{arguments:?} succeeded: {}",
        text(&output.stdout)
    );
    code(&text(&output.stderr))
}

/// The code in the last line of `errors` that holds the JSON of an error.
pub fn code(errors: &str) -> String {
    let lines = errors.lines().rev();
    let mut documents = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let code = documents.find_map(|document| Some(document["error"]["code"].as_str()?.to_owned()));
    code.unwrap_or_else(|| panic!("no error with a code in: {errors}"))
}

/// Bytes as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Polls until `probe` returns something.
pub fn wait<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A data directory made by `dagger node init`, and where its node listens.
pub struct Home {
    pub data: PathBuf,
    /// Where its API is to listen (TCP), and its node (UDP).
    pub address: SocketAddr,
}

impl Home {
    /// Keys and a founder's card; no genesis yet.
    pub fn with_keys(data: PathBuf, name: &str) -> Self {
        let address = free_address();
        let home = Self { data, address };
        home.init(name, None);
        home
    }

    /// `dagger node init`, with the genesis file once there is one.
    pub fn init(&self, name: &str, genesis: Option<&Path>) {
        let (api, udp) = (self.api(), self.address.to_string());
        let api = api.trim_start_matches("http://").to_owned();
        let data = self.data.to_str().unwrap();
        let mut arguments = vec!["node", "init", "--data", data, "--name", name];
        arguments.extend(["--address", &udp, "--listen", &udp, "--api-listen", &api]);
        arguments.extend(["--durability", "os"]);
        if let Some(genesis) = genesis {
            arguments.extend(["--genesis", genesis.to_str().unwrap()]);
        }
        json(&arguments);
    }

    /// The URL of its API.
    pub fn api(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Starts its node.
    pub fn start(&self) -> Node {
        Node::start(&self.data, None)
    }

    /// Starts its node with another search path for programs.
    pub fn start_with_path(&self, path: &str) -> Node {
        Node::start(&self.data, Some(path))
    }

    /// Starts its node, which must refuse; returns the code.
    pub fn start_refused(&self) -> String {
        let mut node = self.start();
        let deadline = Instant::now() + PATIENCE;
        while node.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the node runs: {}", node.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(!node.child.wait().unwrap().success(), "{}", node.log());
        code(&node.log())
    }

    /// What the node says of itself, if it answers.
    pub fn status(&self) -> Option<Value> {
        let output = run(&["--output", "json", "--api", &self.api(), "node", "status"]);
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Waits until the node commits.
    pub fn ready(&self) -> Value {
        wait("a ready node", || {
            self.status().filter(|status| status["state"] == "ready")
        })
    }
}

/// A running `dagger node run`, killed when dropped.
pub struct Node {
    pub child: Child,
    log: tempfile::NamedTempFile,
}

impl Node {
    fn start(data: &Path, path: Option<&str>) -> Self {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut command = dagger();
        if let Some(path) = path {
            command.env("PATH", path);
        }
        let child = command
            .args(["--output", "json", "node", "run", "--data"])
            .arg(data)
            .stdout(Stdio::null())
            .stderr(log.reopen().unwrap())
            .spawn()
            .expect("dagger starts");
        Self { child, log }
    }

    /// What it has printed.
    pub fn log(&self) -> String {
        text(&std::fs::read(self.log.path()).unwrap_or_default())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- a node's log\n{}", self.log());
        }
    }
}

/// Homes of a new network under `root`, one for each name, ready to start.
pub fn found(root: &Path, names: &[&str]) -> Vec<Home> {
    let homes: Vec<Home> = names
        .iter()
        .map(|name| Home::with_keys(root.join(name), name))
        .collect();
    let genesis = root.join("genesis.json");
    let cards: Vec<String> = homes
        .iter()
        .map(|home| home.data.join("card.json").display().to_string())
        .collect();
    let mut arguments = vec!["genesis", "create", "--network", "test"];
    arguments.extend(["--out", genesis.to_str().unwrap()]);
    arguments.extend(cards.iter().map(String::as_str));
    json(&arguments);
    for (home, name) in homes.iter().zip(names) {
        home.init(name, Some(&genesis));
    }
    homes
}

/// Every file of a directory with its bytes, to see that a refusal has touched nothing.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.is_file() {
                found.push((path.clone(), std::fs::read(path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// The files that a node which refuses to start leaves as they are: all but the lock, which names who tried last.
pub fn untouched(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = contents(dir);
    files.retain(|(path, _)| !path.ends_with("lock"));
    files
}

/// A copy of a home as a careless backup makes it: the same keys and log, other ports.
pub fn twin_of(home: &Home, data: PathBuf) -> Home {
    let address = free_address();
    for (file, bytes) in contents(&home.data) {
        let copy = data.join(file.strip_prefix(&home.data).unwrap());
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        std::fs::write(&copy, bytes).unwrap();
        let mode = std::fs::metadata(&file).unwrap().permissions();
        std::fs::set_permissions(&copy, mode).unwrap();
    }
    let config = data.join("node.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace(&home.address.to_string(), &address.to_string());
    std::fs::write(config, text).unwrap();
    Home { data, address }
}
