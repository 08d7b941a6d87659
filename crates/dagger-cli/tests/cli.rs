//! The command as its user meets it: help, errors, exit status. No network; where a node has to
//! answer, a listener answers one prepared text for each path.

mod fake;

use fake::{FakeNode, dagger, stderr, stdout};

#[test]
fn help_is_reviewed() {
    let commands: &[&[&str]] = &[
        &[],
        &["vm"],
        &["vm", "create"],
        &["vm", "ssh"],
        &["vm", "logs"],
        &["vm", "console"],
        &["vm", "resize"],
        &["image", "add"],
        &["node"],
        &["dev"],
        &["dev", "up"],
    ];
    for command in commands {
        let output = dagger().args(*command).arg("--help").output().unwrap();
        assert!(output.status.success());
        insta::assert_snapshot!(
            ["help", &command.join("_")].join("_").trim_end_matches('_'),
            stdout(&output)
        );
    }
}

#[test]
fn wrong_usage_is_status_2() {
    for wrong in [
        &["vm", "explode"][..],
        &["vm", "create"],
        &["--output", "xml", "vm", "list"],
        &["image", "add", "x", "--kernel", "/k", "--disk", "/d"],
        &["image", "add", "x"],
        &["account", "new", "Not-A-Label"],
        &["--api", "https://example", "node", "status"],
        &["vm", "list"],
    ] {
        let output = dagger().args(wrong).output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(2),
            "{wrong:?}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn without_a_node_it_says_where_to_name_one() {
    let output = dagger().args(["node", "status"]).output().unwrap();
    insta::assert_snapshot!(stderr(&output), @r"
    error: no node to talk to [E_USAGE]
      next: name one with --api URL, DAGGER_API or `api` in client.toml; `dagger dev up` starts a network on this machine
    ");
}

#[test]
fn nobody_there_is_status_4() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let api = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let output = dagger()
        .args(["--api", &api, "operator", "list"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(
        stderr(&output).contains("[E_UNREACHABLE]"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_second_node_is_asked_when_the_first_does_not_answer() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let node = FakeNode::start(&[("GET /v1/operators", 200, "[]")]);
    let output = dagger()
        .args(["--api", &dead, "--api", &node.api, "operator", "list"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stdout(&output), "no operators\n");
}

#[test]
fn a_refusal_is_status_3_and_keeps_its_code() {
    let refusal =
        r#"{"error":{"code":"unknown_image","text":"There is no such image; publish it first."}}"#;
    let node = FakeNode::start(&[("GET /v1/images/demo/none", 404, refusal)]);
    let output = dagger()
        .args(["--api", &node.api, "image", "show", "demo/none"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    insta::assert_snapshot!(stderr(&output), @"error: There is no such image; publish it first. [unknown_image]");
    let output = dagger()
        .args([
            "--api",
            &node.api,
            "--output",
            "json",
            "image",
            "show",
            "demo/none",
        ])
        .output()
        .unwrap();
    let error: serde_json::Value = serde_json::from_str(&stderr(&output)).unwrap();
    assert_eq!(error["error"]["code"], "unknown_image");
}

#[test]
fn a_node_of_another_network_is_refused() {
    let node = FakeNode::start(&[]);
    let directory = tempfile::tempdir().unwrap();
    let config = format!(
        "api = [\"{}\"]\nchain_id = \"{}\"\n",
        node.api,
        "ff".repeat(32)
    );
    std::fs::write(directory.path().join("client.toml"), config).unwrap();
    let output = dagger()
        .env("DAGGER_CONFIG_DIR", directory.path())
        .args(["node", "status"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(
        stderr(&output).contains("[E_WRONG_NETWORK]"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_new_account_has_a_key_file_and_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let run = |output: &str| {
        dagger()
            .env("DAGGER_CONFIG_DIR", directory.path())
            .args(["account", "new", "demo", "--output", output])
            .output()
            .unwrap()
    };
    let first = run("json");
    let made: serde_json::Value = serde_json::from_str(&stdout(&first)).unwrap();
    assert_eq!(made["public_key"].as_str().unwrap().len(), 64);
    let config = std::fs::read_to_string(directory.path().join("client.toml")).unwrap();
    assert!(config.contains("keys/demo.json"), "{config}");
    let second = run("table");
    assert_eq!(second.status.code(), Some(1));
    assert!(
        stderr(&second).contains("[E_KEY_EXISTS]"),
        "{}",
        stderr(&second)
    );
}

#[test]
fn a_private_ssh_key_never_leaves() {
    let directory = tempfile::tempdir().unwrap();
    let made = dagger()
        .env("DAGGER_CONFIG_DIR", directory.path())
        .args(["account", "new", "demo", "--output", "json"])
        .output()
        .unwrap();
    let made: serde_json::Value = serde_json::from_str(&stdout(&made)).unwrap();
    let accounts = format!(
        r#"[{{"id":0,"name":"demo","key":{},"sponsor":"alpha","vms":0,"images":0}}]"#,
        made["public_key"]
    );
    let image = format!(
        r#"{{"id":0,"name":"demo/micro","digest":"{}","arch":"x86_64","boot":"direct","size_bytes":1,"retired":false,"private":false,"shared_with":[],"replicas":[],"manifest":{{}}}}"#,
        "ab".repeat(32)
    );
    let node = FakeNode::start(&[
        ("GET /v1/accounts", 200, &accounts),
        ("GET /v1/images/demo/micro", 200, &image),
    ]);
    let key = directory.path().join("id_ed25519");
    std::fs::write(&key, "-----BEGIN OPENSSH PRIVATE KEY-----\n").unwrap();
    let output = dagger()
        .env("DAGGER_CONFIG_DIR", directory.path())
        .args([
            "--api",
            &node.api,
            "vm",
            "create",
            "web",
            "--image",
            "micro",
            "--ssh-key",
        ])
        .arg(&key)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("is a private key"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn founders_make_a_genesis_file_from_cards() {
    let directory = tempfile::tempdir().unwrap();
    let mut cards = Vec::new();
    for name in ["alpha", "bravo", "charlie", "delta"] {
        let data = directory.path().join(name);
        let output = dagger()
            .args(["node", "init", "--name", name, "--data"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(
            stdout(&output).contains("next: give the card"),
            "{}",
            stdout(&output)
        );
        cards.push(data.join("card.json"));
    }
    let genesis = directory.path().join("genesis.json");
    let create = || {
        dagger()
            .args(["genesis", "create", "--network", "test", "--out"])
            .arg(&genesis)
            .args(&cards)
            .output()
            .unwrap()
    };
    let output = create();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("alpha, bravo, charlie, delta"));
    assert!(stderr(&create()).contains("[E_FILE_EXISTS]"));
    let data = directory.path().join("alpha");
    let output = dagger()
        .args(["node", "init", "--name", "alpha", "--data"])
        .arg(&data)
        .arg("--genesis")
        .arg(&genesis)
        .output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(data.join("node.toml").exists());
}

#[test]
fn completions_are_printed() {
    for shell in ["bash", "zsh", "fish"] {
        let output = dagger().args(["completions", shell]).output().unwrap();
        assert!(output.status.success() && stdout(&output).contains("dagger"));
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let node = FakeNode::start(&[("GET /v1/operators", 200, "[]")]);
    let script = format!(
        "'{}' --api {} operator list | true",
        env!("CARGO_BIN_EXE_dagger"),
        node.api
    );
    let output = std::process::Command::new("sh")
        .args(["-c", &script])
        .output()
        .unwrap();
    assert_eq!(stderr(&output), "");
}

#[test]
fn dev_leaves_what_is_not_its_own() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("thesis.tex"), "x").unwrap();
    for command in ["clean", "up"] {
        let output = dagger()
            .args(["dev", command, "--data"])
            .arg(directory.path())
            .output()
            .unwrap();
        assert_eq!(
            output.status.code(),
            Some(2),
            "{command}: {}",
            stderr(&output)
        );
    }
    assert!(directory.path().join("thesis.tex").exists());
}

/// What a node says of the VM `demo/web`.
fn web(phase: &str) -> String {
    serde_json::json!({
        "id": 3, "name": "web", "account": "demo", "image": "demo/debian", "image_digest": "22".repeat(32),
        "resources": {"vcpus": 1, "memory_mib": 256, "disk_mib": 1024}, "failover": "recreate", "on_isolation": "stop",
        "restart": "never", "restarts": 0, "labels": {}, "phase": phase, "phase_since_ms": 1000, "reason": {"code": "ok", "text": "as asked"},
        "machine": "m-1", "operator": "alpha", "lease_epoch": 2, "created_ms": 500, "created_commit": 1, "history": []
    })
    .to_string()
}

#[test]
fn logs_are_the_guests_bytes_and_nothing_else() {
    let node = FakeNode::start(&[
        ("GET /v1/vms/demo/web", 200, &web("stopped")),
        (
            "GET /v1/vms/demo/web/logs?follow=false&tail=2",
            200,
            "one\r\nlogin: ",
        ),
    ]);
    let arguments = ["--api", &node.api, "vm", "logs", "demo/web", "--tail", "2"];
    let output = dagger()
        .args(arguments)
        .env("DAGGER_TOKEN", "t")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(output.stdout, b"one\r\nlogin: ");
}

#[test]
fn a_console_that_does_not_open_leaves_the_terminal_alone() {
    let refusal = r#"{"error":{"code":"vm_not_running","text":"the VM is not running now"}}"#;
    let node = FakeNode::start(&[
        ("GET /v1/vms/demo/web", 200, &web("stopped")),
        ("GET /v1/vms/demo/web/console", 409, refusal),
    ]);
    let output = dagger()
        .args(["--api", &node.api, "vm", "console", "demo/web"])
        .env("DAGGER_TOKEN", "t")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    insta::assert_snapshot!(stderr(&output), @"error: the VM is not running now [vm_not_running]");
}

#[test]
fn a_resize_of_nothing_is_wrong_usage() {
    let output = dagger().args(["vm", "resize", "web"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
