//! The tunnel between two endpoints on loopback, a guest that is a TCP server, and people who should
//! get nothing.

use std::sync::{Arc, Mutex};

use dagger_client::{
    keys::SecretKey,
    token::{self, Restriction, Right, VmScope},
};
use dagger_vmm::{InstanceId, VmmError};
use iroh::{Endpoint, EndpointAddr, endpoint::presets, protocol::Router};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::{
    frame::{Answer, Request},
    open::Ways,
    *,
};

const CHAIN: [u8; 32] = [9; 32];
const NOW_MS: u64 = 1_000_000_000_000;
const VM: u64 = 7;
const LOGS: Want = Want::Logs {
    follow: true,
    tail_lines: Some(3),
};

#[derive(Clone)]
struct TestGuests {
    hosted: Arc<Mutex<Option<Hosted>>>,
    /// Who was drawn to probe it.
    drawn: Arc<Mutex<Option<[u8; 32]>>>,
    guest_port: u16,
}

impl Guests for TestGuests {
    fn hosted(&self, vm: u64) -> Option<Hosted> {
        self.hosted
            .lock()
            .unwrap()
            .clone()
            .filter(|hosted| hosted.instance.vm == vm)
    }
    fn probed(&self, vm: u64, asker: &[u8; 32]) -> Option<InstanceId> {
        let hosted = self.hosted(vm)?;
        let drawn = self.drawn.lock().unwrap();
        (drawn.as_ref() == Some(asker)).then_some(hosted.instance)
    }

    fn chain(&self) -> [u8; 32] {
        CHAIN
    }
    fn now_ms(&self) -> u64 {
        NOW_MS
    }
    async fn connect(&self, id: InstanceId, want: Want) -> Result<Box<dyn Duplex>, VmmError> {
        let unreachable = |reason: String| VmmError::Dial {
            id,
            port: want.port().unwrap_or(0),
            reason,
        };
        if want == Want::Port(9) {
            return Err(unreachable("nobody listens".into()));
        }
        let stream = TcpStream::connect(("127.0.0.1", self.guest_port)).await;
        Ok(Box::new(
            stream.map_err(|error| unreachable(error.to_string()))?,
        ))
    }
}

/// A guest that answers what it read once the asker has ended its direction.
async fn guest() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.write_all(b"SSH-2.0-test\r\n").await.unwrap();
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.unwrap();
                all.reverse();
                stream.write_all(&all).await.unwrap();
            });
        }
    });
    port
}

async fn endpoint() -> Endpoint {
    let builder = Endpoint::builder(presets::Minimal).clear_ip_transports();
    builder
        .bind_addr("127.0.0.1:0")
        .unwrap()
        .bind()
        .await
        .unwrap()
}

struct World {
    owner: SecretKey,
    guests: TestGuests,
    asker: Endpoint,
    ways: Ways,
    machine: EndpointAddr,
    router: Router,
}

impl World {
    async fn new() -> World {
        let owner = SecretKey::from_bytes([1; 32]);
        let instance = InstanceId {
            vm: VM,
            lease_epoch: 3,
        };
        let hosted = Hosted {
            account_key: owner.public(),
            instance,
            running: true,
        };
        let guests = TestGuests {
            hosted: Arc::new(Mutex::new(Some(hosted))),
            drawn: Arc::default(),
            guest_port: guest().await,
        };
        let endpoint_of_machine = endpoint().await;
        let machine = EndpointAddr::new(endpoint_of_machine.id())
            .with_ip_addr(endpoint_of_machine.bound_sockets()[0]);
        let router = Router::builder(endpoint_of_machine)
            .accept(ALPN, TunnelProtocol::new(guests.clone()))
            .spawn();
        World {
            owner,
            guests,
            asker: endpoint().await,
            ways: Ways::default(),
            machine,
            router,
        }
    }

    fn token(&self, rights: &[Right]) -> String {
        token::issue(
            &self.owner,
            VmScope {
                chain: CHAIN,
                vm: VM,
            },
            rights,
            NOW_MS + 60_000,
        )
        .unwrap()
    }

    async fn ask(&self, want: Want, token: String) -> Result<Box<dyn Duplex>, TunnelError> {
        self.ways
            .ask(
                &self.asker,
                self.machine.clone(),
                &Request {
                    vm: VM,
                    want,
                    token,
                },
            )
            .await
    }

    fn change(&self, change: impl FnOnce(&mut Hosted)) {
        change(self.guests.hosted.lock().unwrap().as_mut().unwrap());
    }
}

#[tokio::test]
async fn bytes_flow_both_ways_and_each_direction_ends_by_itself() {
    let world = World::new().await;
    let token = world.token(&[Right::Tunnel]);
    // Several ways over one connection, one of them large.
    for size in [0usize, 1, 3_000_000] {
        let mut stream = world.ask(Want::Port(22), token.clone()).await.unwrap();
        let mut banner = [0; 14];
        stream.read_exact(&mut banner).await.unwrap();
        assert_eq!(&banner, b"SSH-2.0-test\r\n");
        let sent: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        stream.write_all(&sent).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await.unwrap();
        received.reverse();
        assert!(received == sent, "{size} bytes came back changed");
    }
}

#[tokio::test]
async fn strangers_get_one_word_whatever_the_reason() {
    let world = World::new().await;
    let scope = VmScope {
        chain: CHAIN,
        vm: VM,
    };
    let good = world.token(&[Right::Tunnel]);
    let stranger = SecretKey::from_bytes([2; 32]);
    let issue = |key: &SecretKey, scope, rights: &[Right], until_ms| {
        token::issue(key, scope, rights, until_ms).unwrap()
    };
    let later = NOW_MS + 60_000;
    let restrict = |restriction: Restriction| token::attenuate(&good, &restriction).unwrap();
    let bad = [
        (
            "a stranger's",
            issue(&stranger, scope, &[Right::Tunnel], later),
        ),
        (
            "expired",
            issue(&world.owner, scope, &[Right::Tunnel], NOW_MS - 1_000),
        ),
        (
            "another VM's",
            issue(
                &world.owner,
                VmScope {
                    vm: VM + 1,
                    ..scope
                },
                &[Right::Tunnel],
                later,
            ),
        ),
        (
            "another network's",
            issue(
                &world.owner,
                VmScope {
                    chain: [8; 32],
                    ..scope
                },
                &[Right::Tunnel],
                later,
            ),
        ),
        (
            "for the logs only",
            issue(&world.owner, scope, &[Right::Logs], later),
        ),
        (
            "narrowed to another port",
            restrict(Restriction {
                ports: Some(vec![80]),
                ..Restriction::default()
            }),
        ),
        (
            "narrowed to another right",
            restrict(Restriction {
                rights: Some(vec![Right::Console]),
                ..Restriction::default()
            }),
        ),
        (
            "narrowed to the past",
            restrict(Restriction {
                expires_at_ms: Some(NOW_MS - 1_000),
                ..Restriction::default()
            }),
        ),
        ("garbage", "garbage".into()),
        ("empty", String::new()),
    ];
    for (what, token) in &bad {
        assert_eq!(
            world.ask(Want::Port(22), token.clone()).await.err(),
            Some(TunnelError::Refused),
            "{what}"
        );
    }
    // A stranger cannot tell a VM that is off from one that is not there.
    world.change(|hosted| hosted.running = false);
    assert_eq!(
        world.ask(Want::Port(22), bad[0].1.clone()).await.err(),
        Some(TunnelError::Refused)
    );
    assert_eq!(
        world.ask(Want::Port(22), good.clone()).await.err(),
        Some(TunnelError::NotRunning)
    );
    *world.guests.hosted.lock().unwrap() = None;
    assert_eq!(
        world.ask(Want::Port(22), bad[0].1.clone()).await.err(),
        Some(TunnelError::Refused)
    );
    // Nor does the owner's token open what is not here; nor one signed by the key that stands in.
    assert_eq!(
        world.ask(Want::Port(22), good).await.err(),
        Some(TunnelError::Refused)
    );
    let nobody = issue(
        &SecretKey::from_bytes([0; 32]),
        scope,
        &[Right::Tunnel],
        later,
    );
    assert_eq!(
        world.ask(Want::Port(22), nobody).await.err(),
        Some(TunnelError::Refused)
    );
}

#[tokio::test]
async fn each_want_takes_its_own_right() {
    let world = World::new().await;
    for (want, right) in [
        (Want::Port(22), Right::Tunnel),
        (Want::Console, Right::Console),
        (LOGS, Right::Logs),
    ] {
        for granted in [Right::Tunnel, Right::Console, Right::Logs] {
            let answer = world.ask(want, world.token(&[granted])).await;
            assert_eq!(
                answer.err(),
                (granted != right).then_some(TunnelError::Refused),
                "{want:?} with {granted:?}"
            );
        }
    }
    let narrowed = Restriction {
        ports: Some(vec![22]),
        ..Restriction::default()
    };
    let narrowed = token::attenuate(&world.token(&[Right::Tunnel]), &narrowed).unwrap();
    assert!(world.ask(Want::Port(22), narrowed.clone()).await.is_ok());
    assert_eq!(
        world.ask(Want::Port(23), narrowed).await.err(),
        Some(TunnelError::Refused)
    );
    // The log outlives the guest.
    world.change(|hosted| hosted.running = false);
    assert!(world.ask(LOGS, world.token(&[Right::Logs])).await.is_ok());
}

#[tokio::test]
async fn a_probe_is_for_who_was_drawn_and_reads_one_line() {
    let world = World::new().await;
    // Nobody was drawn: neither a stranger nor the owner probes.
    for token in [String::new(), world.token(&[Right::Tunnel])] {
        let refused = world.ask(Want::Probe, token).await.err();
        assert_eq!(refused, Some(TunnelError::Refused));
    }
    *world.guests.drawn.lock().unwrap() = Some([3; 32]);
    let another = world.ask(Want::Probe, String::new()).await.err();
    assert_eq!(another, Some(TunnelError::Refused));

    *world.guests.drawn.lock().unwrap() = Some(*world.asker.id().as_bytes());
    let mut stream = world.ask(Want::Probe, String::new()).await.unwrap();
    // Nobody reads it; by now the machine may have ended its part.
    let _ = stream.write_all(b"whoami\n").await;
    let mut seen = Vec::new();
    stream.read_to_end(&mut seen).await.unwrap();
    assert_eq!(seen, b"SSH-2.0-test\r\n", "its greeting and no more");
    // To be drawn opens nothing else.
    for want in [Want::Port(22), Want::Console, LOGS] {
        let refused = world.ask(want, String::new()).await.err();
        assert_eq!(refused, Some(TunnelError::Refused), "{want:?}");
    }
}

#[tokio::test]
async fn a_guest_that_does_not_greet_is_unreachable() {
    let mut world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.guests.guest_port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        // Its server is gone: it ends what it takes. Then one that never ends its line.
        drop(listener.accept().await.unwrap());
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&[b'x'; 4096]).await.ok();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.ok();
    });
    let judged = tokio::sync::Semaphore::new(1);
    let asker = [4; 32];
    *world.guests.drawn.lock().unwrap() = Some(asker);
    let request = Request {
        vm: VM,
        want: Want::Probe,
        token: String::new(),
    };
    for _ in 0..2 {
        let answer = super::serve::judge(&world.guests, &judged, &request, asker).await;
        assert_eq!(answer.err(), Some(Answer::Unreachable));
    }
}

#[tokio::test]
async fn a_guest_or_machine_that_does_not_answer_has_its_own_code() {
    let world = World::new().await;
    let token = world.token(&[Right::Tunnel]);
    assert_eq!(
        world
            .ask(Want::Port(9), token.clone())
            .await
            .err()
            .map(|error| error.code()),
        Some("guest_unreachable")
    );
    assert!(world.ask(Want::Port(22), token.clone()).await.is_ok());
    world.router.shutdown().await.unwrap();
    let error = world.ask(Want::Port(22), token).await.err();
    assert_eq!(error.map(|error| error.code()), Some("machine_unreachable"));
}

#[tokio::test]
async fn a_fenced_lease_epoch_is_cut_off() {
    let world = World::new().await;
    let mut stream = world
        .ask(Want::Port(22), world.token(&[Right::Tunnel]))
        .await
        .unwrap();
    let mut banner = [0; 14];
    stream.read_exact(&mut banner).await.unwrap();
    world.change(|hosted| hosted.instance.lease_epoch = 4);
    // The asker never ends its direction: only the cut ends this read.
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(
        std::time::Duration::from_secs(60),
        stream.read_to_end(&mut rest),
    )
    .await;
    ended.expect("the way was cut").ok();
    assert!(rest.is_empty());
}

#[tokio::test]
async fn a_request_is_bounded_and_garbage_ends_it() {
    let mut wire = Vec::new();
    let request = Request {
        vm: 1,
        want: Want::Port(22),
        token: "t".repeat(9_000),
    };
    assert!(request.write(&mut wire).await.is_err());
    let mut hostile: &[u8] = &[0xff, 0xff, 0, 0];
    assert!(Request::read(&mut hostile).await.is_err());
    let mut short: &[u8] = &[4, 0, 1, 2];
    assert!(Request::read(&mut short).await.is_err());
    let request = Request {
        vm: 1,
        want: LOGS,
        token: "t".into(),
    };
    request.write(&mut wire).await.unwrap();
    assert_eq!(Request::read(&mut wire.as_slice()).await.unwrap(), request);
    wire.push(0);
    wire[0] += 1;
    assert!(
        Request::read(&mut wire.as_slice()).await.is_err(),
        "trailing bytes pass"
    );
    assert!(Answer::read(&mut [9u8].as_slice()).await.is_err());
}
