//! Ports of a guest that its machine opens to everybody, on a real node.

use super::guests::Network;
use super::support::{text, wait};
use serde_json::Value;
use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};

#[test]
fn published_ports_lead_to_the_guest_and_one_that_is_taken_is_said() {
    let root = tempfile::tempdir().unwrap();
    let network = Network::start(root.path(), &["alpha", "bravo"]);
    let api = network.homes[0].api();
    let host: SocketAddr = api.trim_start_matches("http://").parse().unwrap();
    let taken = TcpListener::bind((host.ip(), 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let key = network.root.join("id.pub");
    let create = format!(
        "vm create web --image micro --ssh-key {} --memory 64M --disk 16M --publish 22 --publish 80:{port} --wait",
        key.display()
    );
    network.signed(&network.key(), &create);
    let vm = network.vm("web");
    let [ssh, web] = vm["published"].as_array().unwrap().as_slice() else {
        panic!("{vm}");
    };
    assert_eq!(web["problem"]["code"], "host_port_taken", "{web}");
    assert_eq!(vm["phase"], "running", "it does not need its ports");

    let mut stream = TcpStream::connect(ssh["address"].as_str().unwrap()).unwrap();
    let mut greeting = [0; 15];
    stream.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"SSH-2.0-script\r");
    let shown = network.run(&network.key(), "vm show web");
    let shown = text(&shown.stdout);
    let address = ssh["address"].as_str().unwrap();
    assert!(
        shown.contains(&format!("22 at {address}, 80 nowhere")),
        "{shown}"
    );

    drop(taken);
    let open = wait("the port to be free", || {
        let vm = network.vm("web");
        let address = vm["published"][1]["address"].clone();
        (address != Value::Null).then_some(address)
    });
    assert_eq!(open, format!("{}:{port}", host.ip()));
    let refused = network.run(
        &network.key(),
        "vm create two --image micro --ssh-key x --publish 0",
    );
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
}
