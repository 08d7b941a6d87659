//! Published ports by way of the agent: real listeners, real connections, guests that are sockets of the test.

use std::{net::SocketAddr, time::Duration};

use dagger_ledger::{Duty, Phase, Publish};
use dagger_vmm::{InstanceId, StopMode, Vmm as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::agent_world::World;

/// Something that listens in every guest and greets; its port.
async fn guest(world: &World) -> u16 {
    let guest = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let inside = guest.local_addr().unwrap();
    *world.host.0.guest.lock().unwrap() = Some(inside);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = guest.accept().await {
            // It hangs up when the other side does.
            tokio::spawn(async move {
                let _ = stream.write_all(b"guest").await;
                let _ = stream.read_u8().await;
            });
        }
    });
    inside.port()
}

/// A port that something else on this host listens at, not one of those that the system gives to any program that asks.
async fn taken() -> (TcpListener, u16) {
    let first = 10_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    for port in first..first + 1_000 {
        if let Ok(taken) = TcpListener::bind(("127.0.0.1", port)).await {
            return (taken, port);
        }
    }
    panic!("a thousand ports are taken");
}

fn place(world: &World, vm: u64, ports: &[(u16, Option<u16>)]) {
    world.control.place(vm, 1, 1);
    let publish = ports.iter().map(|(guest_port, host_port)| Publish {
        guest_port: *guest_port,
        host_port: *host_port,
    });
    world.control.change(|vms| {
        vms.get_mut(&vm).unwrap().publish = publish.collect();
    });
}

/// What the ledger was told of each port of a VM: an address, or a code.
fn said(world: &World, vm: u64) -> Vec<String> {
    let vms = world.control.0.vms.lock().unwrap();
    let published = vms[&vm].desired.published.iter();
    let said = published.map(|port| match (&port.address, &port.problem) {
        (Some(address), None) => address.clone(),
        (None, Some(problem)) => problem.code.clone(),
        other => panic!("neither open nor not: {other:?}"),
    });
    said.collect()
}

/// Connects, and says whether a guest greets.
async fn greeted(address: SocketAddr) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let mut heard = [0; 5];
    let heard = stream.read_exact(&mut heard).await.map(|_| heard);
    (heard.ok()? == *b"guest").then_some(stream)
}

async fn until_closed(world: &World, address: SocketAddr) {
    let closed = async || TcpStream::connect(address).await.is_err();
    world.until("closed", closed).await;
}

/// Waits for the other side to hang up.
async fn hung_up(mut stream: TcpStream) {
    let end = timeout(Duration::from_secs(60), stream.read_u8()).await;
    assert!(end.expect("it hangs up").is_err());
}

#[tokio::test]
async fn published_ports_are_open_while_their_vm_runs() {
    let mut world = World::new().await;
    let inside = guest(&world).await;
    let (other, wanted) = taken().await;
    let ports = [(inside, None), (1, Some(wanted)), (2, Some(80))];
    place(&world, 1, &ports);
    world.start();
    world.until_phase(1, Some(Phase::Running)).await;
    let first = said(&world, 1);
    assert_eq!(first[1..], ["host_port_taken", "host_port_not_offered"]);
    let chosen: SocketAddr = first[0].parse().unwrap();
    assert!(greeted(chosen).await.is_some());

    // The next daemon finds the VM running, and opens the same port.
    world.kill().await;
    world.start();
    let again = async || greeted(chosen).await.is_some();
    world.until("open again", again).await;
    // A port that was taken is opened once it is free.
    drop(other);
    let address = format!("127.0.0.1:{wanted}");
    let opened = async || said(&world, 1)[1] == address;
    world.until("said to be open", opened).await;
    assert_eq!(said(&world, 1)[0], chosen.to_string());

    // What does not run has no port, and nobody stays connected.
    let held = greeted(chosen).await.unwrap();
    world.control.set(1, Phase::Stopping, Duty::Stop);
    world.until_phase(1, Some(Phase::Stopped)).await;
    until_closed(&world, chosen).await;
    hung_up(held).await;
}

#[tokio::test]
async fn of_two_vms_that_want_one_port_the_first_has_it_until_it_goes() {
    let mut world = World::new().await;
    let inside = guest(&world).await;
    let (other, wanted) = taken().await;
    drop(other);
    place(&world, 2, &[(inside, Some(wanted))]);
    world.start();
    world.until_phase(2, Some(Phase::Running)).await;
    place(&world, 1, &[(inside, Some(wanted))]);
    world.until_phase(1, Some(Phase::Running)).await;
    let address = format!("127.0.0.1:{wanted}");
    assert_eq!(said(&world, 1), ["host_port_taken"]);
    assert_eq!(said(&world, 2)[0], address);

    world.kill().await;
    world.start();
    let outside: SocketAddr = address.parse().unwrap();
    let open = async || greeted(outside).await.is_some();
    world.until("open again", open).await;
    assert_eq!(said(&world, 1), ["host_port_taken"]);
    assert_eq!(said(&world, 2)[0], address);

    world.control.set(2, Phase::Deleting, Duty::Release);
    let opened = async || said(&world, 1)[0] == address;
    world.until("open for the other", opened).await;
    world.until("connects", open).await;
}

#[tokio::test]
async fn ports_end_with_the_lease_epoch_and_with_what_a_watchdog_stops() {
    let mut world = World::new().await;
    let inside = guest(&world).await;
    place(&world, 1, &[(inside, None)]);
    world.start();
    world.until_phase(1, Some(Phase::Running)).await;
    let before: SocketAddr = said(&world, 1)[0].parse().unwrap();
    let held = greeted(before).await.unwrap();
    // Somebody else's now.
    world.control.change(|vms| vms.remove(&1));
    until_closed(&world, before).await;
    hung_up(held).await;

    world.control.place(1, 3, 3);
    let publish = Publish {
        guest_port: inside,
        host_port: None,
    };
    world
        .control
        .change(|vms| vms.get_mut(&1).unwrap().publish = vec![publish]);
    world.until_phase(1, Some(Phase::Running)).await;
    let after: SocketAddr = said(&world, 1)[0].parse().unwrap();
    let held = greeted(after).await.unwrap();
    // Cut off from the ledger, it keeps its port as long as its watchdog lets it run.
    world.control.lease_for(0);
    assert!(greeted(after).await.is_some());
    let instance = InstanceId {
        vm: 1,
        lease_epoch: 3,
    };
    let stopped = world.host.stop(instance, StopMode::Kill).await;
    stopped.unwrap();
    until_closed(&world, after).await;
    hung_up(held).await;
}

#[tokio::test]
async fn more_connections_than_a_guest_may_have_are_hung_up_on() {
    let mut world = World::new().await;
    let inside = guest(&world).await;
    world.offer.vm_connections_max = 2;
    place(&world, 1, &[(inside, None)]);
    world.start();
    world.until_phase(1, Some(Phase::Running)).await;
    let address: SocketAddr = said(&world, 1)[0].parse().unwrap();
    let first = greeted(address).await.unwrap();
    let _second = greeted(address).await.unwrap();
    assert!(greeted(address).await.is_none());
    drop(first);
    let free = async || greeted(address).await.is_some();
    world.until("a place is free", free).await;
}

#[tokio::test]
async fn ports_are_those_that_the_operator_offers() {
    let mut world = World::new().await;
    let inside = guest(&world).await;
    // Below those that the system gives out by itself.
    let offered = 21_000..=21_511;
    world.offer.ports = Some(offered.clone());
    world.offer.shown = [192, 0, 2, 1].into();
    place(&world, 1, &[(inside, None), (1, Some(20_999))]);
    world.start();
    world.until_phase(1, Some(Phase::Running)).await;
    let first = said(&world, 1);
    assert_eq!(first[1], "host_port_not_offered");
    let chosen: SocketAddr = first[0].parse().unwrap();
    assert_eq!(chosen.ip(), world.offer.shown);
    assert!(offered.contains(&chosen.port()), "{chosen}");
    assert!(
        greeted(([127, 0, 0, 1], chosen.port()).into())
            .await
            .is_some()
    );

    world.kill().await;
    world.offer.ports = None;
    world.start();
    let refused = async || said(&world, 1)[0] == "host_port_not_offered";
    world.until("none is offered", refused).await;
    assert_eq!(world.control.phase(1), Some(Phase::Running));
}
